"""One module per type: `kind(start, ports)` says what is expected of it, beside the server that it is proven against.

A module with `NEEDS_SERVICES = True` runs a server that Debian or npm brings (`just services`); a plain `pytest` leaves
it out.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

KINDS: dict[str, ModuleType] = {
    module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)
}


def needs_services(name: str) -> bool:
    return bool(getattr(KINDS[name], "NEEDS_SERVICES", False))
