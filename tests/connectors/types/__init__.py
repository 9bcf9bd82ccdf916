"""One module per type: `kind(start, ports)` says what is expected of it, beside the server that it is proven against.

A module with `NEEDS_SERVICES = True` runs a server that Debian or npm brings (`just services`). A plain `pytest` leaves it
out, and for the sake of time most of the others, too: `just test-connectors` runs them all.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import pytest

KINDS: dict[str, ModuleType] = {
    module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)
}


IN_EVERY_RUN = frozenset({"postgresql", "rest", "s3", "simulated", "sqlite"})


def all_kinds() -> list[Any]:
    """The names of all modules as parameters, each with its markers."""
    return [pytest.param(name, marks=_marks(name)) for name in sorted(KINDS)]


def _marks(name: str) -> list[pytest.MarkDecorator]:
    needs_services = getattr(KINDS[name], "NEEDS_SERVICES", False)
    services = [pytest.mark.services] if needs_services else []
    return services if name in IN_EVERY_RUN else [*services, pytest.mark.types]
