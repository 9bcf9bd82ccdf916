"""Finds every connector type of a package. Importing the types imports no driver."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any, Final

from app.connectors.contract.base import Connector

PACKAGES: Final = ("app.connectors.types",)

AnyConnector = type[Connector[Any, Any]]


class UnknownConnectorType(LookupError):
    """No connector has this type."""


@cache
def find(packages: tuple[str, ...] = PACKAGES) -> dict[str, AnyConnector]:
    """Type name to class, sorted by type name. Raises `ValueError` if two classes claim one name."""
    found: dict[str, AnyConnector] = {}
    for connector in _connectors(packages):
        if found.setdefault(connector.type, connector) is not connector:
            raise ValueError(f"{connector.__qualname__} claims the type {connector.type!r}, which another class has.")
    return dict(sorted(found.items()))


@cache
def one(type_name: str, packages: tuple[str, ...]) -> AnyConnector | None:
    """The class of a type, for a process that needs no other: the file or folder of its name alone is imported, where
    there is one.
    """
    for package in packages:
        spec = find_spec(f"{package}.{type_name}") if type_name.isidentifier() else None
        if spec is not None:
            for connector in _connectors_of(spec.name, is_folder=spec.submodule_search_locations is not None):
                if connector.type == type_name:
                    return connector
    return find(packages).get(type_name)


def _connectors(packages: Iterable[str]) -> Iterable[AnyConnector]:
    for package in packages:
        for module in iter_modules(import_module(package).__path__, f"{package}."):
            yield from _connectors_of(module.name, is_folder=module.ispkg)


def _connectors_of(name: str, *, is_folder: bool) -> Iterable[AnyConnector]:
    """Those that a file defines, or the `connector.py` of a folder: its other files are parts that only it imports."""
    module = f"{name}.connector" if is_folder else name
    for member in vars(import_module(module)).values():
        if _is_connector(member) and member.__module__ == module:
            yield member


def _is_connector(member: object) -> bool:
    return inspect.isclass(member) and issubclass(member, Connector) and not inspect.isabstract(member)


def get(type_name: str) -> AnyConnector:
    """Raises `UnknownConnectorType`."""
    try:
        return find()[type_name]
    except KeyError:
        raise UnknownConnectorType(type_name) from None


def all() -> tuple[AnyConnector, ...]:
    """Every type, sorted by its name."""
    return tuple(find().values())


def is_driver_available(connector: AnyConnector) -> bool:
    """Looks for the driver without importing it."""
    if connector.driver is None:
        return True
    try:
        return find_spec(connector.driver) is not None
    except ModuleNotFoundError:
        return False
