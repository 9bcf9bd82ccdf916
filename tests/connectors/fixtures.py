"""The connector tests' servers as fixtures; each starts once per run, when it is first asked for, and ends with it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest

from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy
from tests.connectors.contract import Ports, Start
from tests.connectors.servers import certificates
from tests.connectors.servers.certificates import Authority
from tests.connectors.servers.starting import say_nothing, scripted_server, speak_ssh, tls_front
from tests.connectors.types import postgresql, rest, s3


@pytest.fixture(scope="session")
def start() -> Iterator[Start]:
    started: dict[tuple[Any, ...], Any] = {}
    with ExitStack() as stack:

        def start(server: Callable[..., AbstractContextManager[Any]], *args: Any) -> Any:
            key = (server, *args)
            if key not in started:
                started[key] = stack.enter_context(server(*args))
            return started[key]

        yield start


@pytest.fixture(scope="session")
def loopback() -> EgressPolicy:
    return EgressPolicy(loopback_allowed=True)


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[ConnectorSandbox]:
    """The template that its processes are forked from imports for half a second: one for the tests of a file."""
    sandbox = ConnectorSandbox()
    yield sandbox
    await sandbox.close()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return certificates.authority()


@pytest.fixture(scope="session")
def filled_postgres(start: Start) -> postgresql.PostgresServer:
    return start(postgresql.filled_postgres)


@pytest.fixture(scope="session")
def tls_postgres(start: Start, filled_postgres: postgresql.PostgresServer) -> int:
    return start(postgresql.tls_postgres, filled_postgres.port)


@pytest.fixture(scope="session")
def shop_api(start: Start) -> int:
    return start(rest.shop_api)


@pytest.fixture(scope="session")
def tls_shop_api(start: Start, shop_api: int) -> int:
    return start(tls_front, shop_api)


@pytest.fixture(scope="session")
def object_store(start: Start) -> s3.ObjectStore:
    return start(s3.object_store)


@pytest.fixture(scope="session")
def silent_port(start: Start) -> int:
    return start(scripted_server, say_nothing)


@pytest.fixture(scope="session")
def ssh_port(start: Start) -> int:
    return start(scripted_server, speak_ssh)


@pytest.fixture(scope="session")
def closed_port() -> Iterator[int]:
    """Bound and never listened on, so that no server takes it while the tests run."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def ports(closed_port: int, silent_port: int, ssh_port: int) -> Ports:
    return Ports(closed_port, silent_port, ssh_port)
