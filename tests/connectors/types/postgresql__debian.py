"""PostgreSQL, on the server of Debian 12."""

from __future__ import annotations

from pathlib import Path

from tests.connectors.contract import Kind, Ports, Start
from tests.connectors.servers.starting import program
from tests.connectors.types.postgresql import filled_postgres, kind_on

NEEDS_SERVICES = True


def kind(start: Start, ports: Ports) -> Kind:
    return kind_on(start, ports, start(filled_postgres, Path(program("postgres")).parent))
