"""The rooms of `app/connectors`: who may import whom, without a circle; and the modules that types name as strings."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from app.connectors import registry
from tests.core.imports import ROOT, imports_of, name_of

ROOMS = {
    "contract": {"contract"},
    "values": {"values", "contract"},
    "network": {"network", "contract"},
    "files": {"files", "values", "network", "contract"},
    "types": {"types", "files", "values", "network", "contract"},
    "registry": {"contract"},
    "processes": {"processes", "contract", "registry"},
}
READS_ANOTHER_TYPE = {("delta_lake", "s3")}
"""A Delta table lies in an object store, and S3 is the one that is proven."""


def modules() -> list[str]:
    """All of connectors' modules; the empty package is nobody's room."""
    return [name for path in sorted((ROOT / "connectors").rglob("*.py")) if room(name := name_of(path)) != "__init__"]


def path_of(module: str) -> Path:
    return (ROOT.parent / Path(*module.split("."))).with_suffix(".py")


def imported_modules(module: str) -> Iterator[str]:
    """Modules of connectors, not the names in them, wherever the import stands; those for type checkers, too."""
    for name in imports_of(path_of(module)):
        if name.startswith("app.connectors."):
            yield name if path_of(name).exists() else name.rpartition(".")[0]


def room(module: str) -> str:
    return module.split(".")[2]


def type_of(module: str) -> str:
    return module.split(".")[3]


def pairs() -> list[tuple[str, str]]:
    return [(module, imported) for module in modules() for imported in imported_modules(module)]


def breaches(rooms: dict[str, set[str]]) -> list[str]:
    return [f"{one} imports {other}" for one, other in pairs() if room(other) not in rooms[room(one)]]


def test_every_file_is_in_a_room() -> None:
    assert {room(module) for module in modules()} == set(ROOMS)


def test_rooms_import_downwards_only() -> None:
    assert breaches(ROOMS) == []


def test_a_breach_would_be_found() -> None:
    assert breaches(ROOMS | {"types": {"types"}})


def test_no_type_imports_a_type_but_by_name() -> None:
    crossings = {
        (type_of(one), type_of(other))
        for one, other in pairs()
        if room(one) == room(other) == "types" and type_of(one) != type_of(other)
    }
    assert crossings == READS_ANOTHER_TYPE


def test_no_import_goes_in_a_circle() -> None:
    """By files, lazy imports and those for type checkers included: what needs its caller is not a part of its own."""
    imported = {module: {name for name in imported_modules(module) if name != module} for module in modules()}
    while leaves := [module for module, names in imported.items() if not names & imported.keys()]:
        for module in leaves:
            del imported[module]
    assert imported == {}


@pytest.mark.parametrize("connector", registry.all(), ids=lambda connector: connector.type)
def test_each_module_to_be_warmed_exists(connector: registry.AnyConnector) -> None:
    """The child imports them under `suppress`, so that a name that has moved would be slow without a word."""
    assert [name for name in connector.warm_modules if not _exists(name)] == []


def _exists(name: str) -> bool:
    try:
        # A module that warns of its names stands in for itself once it is imported, and has no spec (cryptography 50).
        return name in sys.modules or find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_a_module_that_has_moved_would_be_found() -> None:
    assert not _exists("app.connectors.http")
    assert not _exists("no_such_driver.connection")


def test_strings_that_name_modules_of_connectors_name_existing_ones() -> None:
    strings = {
        node.value
        for module in modules()
        for node in ast.walk(ast.parse(path_of(module).read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("app.connectors.")
    }
    assert strings
    assert [name for name in strings if not _exists(name)] == []
