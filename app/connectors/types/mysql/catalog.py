"""What a MySQL server has, in one pass over its `information_schema`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Final

import msgspec

from app.connectors.contract.objects import DiscoveredField, DiscoveredObject, PortableType
from app.connectors.values.describing import described_row
from app.connectors.values.values import Row

_KINDS: Final = {"BASE TABLE": "table", "SYSTEM VERSIONED": "table", "VIEW": "view"}

# Each table's own row, then its constraints, then its columns: one sorted union costs the server less than joins, for
# which the catalog of MariaDB has no index.
TABLES: Final = """
SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t, 0 AS part, 0 AS pos, NULL AS name, TABLE_TYPE AS kind, NULL AS type,
    NULL AS native, NULL AS nullable
FROM information_schema.TABLES"""
_CHECKS: Final = """
SELECT CONSTRAINT_SCHEMA, TABLE_NAME, 1, 0, CONSTRAINT_NAME, NULL, NULL, NULL, NULL
FROM information_schema.CHECK_CONSTRAINTS"""
_COLUMNS: Final = """
SELECT TABLE_SCHEMA, TABLE_NAME, 2, ORDINAL_POSITION, COLUMN_NAME, NULL, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE
FROM information_schema.COLUMNS"""
PATH_COLUMNS: Final = ("TABLE_SCHEMA", "TABLE_NAME")

# MariaDB keeps JSON as text with this check, named after its column.
_IS_JSON: Final = "CHECK_CLAUSE = CONCAT('json_valid(`', REPLACE(CONSTRAINT_NAME, '`', '``'), '`)')"

# The checks of MySQL do not say whose they are; it has a JSON type instead.
TELLS_TABLES_OF_CHECKS: Final = """
SELECT COUNT(*) FROM information_schema.COLUMNS
WHERE TABLE_SCHEMA = 'information_schema' AND TABLE_NAME = 'CHECK_CONSTRAINTS' AND COLUMN_NAME = 'TABLE_NAME'"""


def catalog_query(scope: str, *, with_checks: bool) -> str:
    parts = [f"{TABLES} WHERE {scope}", f"{_COLUMNS} WHERE {scope}"]
    if with_checks:
        parts.append(f"{_CHECKS} WHERE {scope.replace('TABLE_SCHEMA', 'CONSTRAINT_SCHEMA')} AND {_IS_JSON}")
    return " UNION ALL ".join(parts) + " ORDER BY s, t, part, pos"


class _Table(msgspec.Struct):
    kind: str
    json_columns: set[str] = msgspec.field(default_factory=set)
    columns: list[tuple[str, str, str, bool]] = msgspec.field(default_factory=list)
    """Name, type, native type, nullable."""


class Catalog:
    """Puts the rows of the catalog query together. Servers may sort `A` and `a` as one name: the rows of such tables
    come mixed, but each part of all of them before the next part."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], _Table] = {}
        self._last_part = "0"

    def add(self, row: Row) -> Iterator[DiscoveredObject]:
        """What is complete by now."""
        schema, name, part, _, item, kind, data_type, native, nullable = row
        if part == "0" != self._last_part:
            yield from self.rest()
        self._last_part = part
        if part == "0":
            if kind in _KINDS:
                self._tables[schema, name] = _Table(_KINDS[kind])
        elif table := self._tables.get((schema, name)):
            if part == "1":
                table.json_columns.add(item)
            else:
                table.columns.append((item, data_type, native, nullable == "YES"))

    def rest(self) -> Iterator[DiscoveredObject]:
        for path, table in self._tables.items():
            yield described_row(path, table.kind, partial(_fields, table))
        self._tables = {}


def _fields(table: _Table) -> list[DiscoveredField]:
    return [
        DiscoveredField(
            name,
            "json" if name in table.json_columns else _portable(data_type, native),
            native[:255],
            is_nullable,
            position,
        )
        for position, (name, data_type, native, is_nullable) in enumerate(table.columns, 1)
    ]


_PORTABLE: Final[dict[str, PortableType]] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "integer", "bigint", "year", "bit"), "integer"),
    **dict.fromkeys(("decimal", "numeric"), "decimal"),
    **dict.fromkeys(("float", "double", "real"), "number"),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), "string"),
    **dict.fromkeys(("enum", "set", "inet4", "inet6", "xmltype"), "string"),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector"), "binary"),
    **dict.fromkeys(("geometry", "point", "linestring", "polygon", "geometrycollection", "geomcollection"), "geometry"),
    **dict.fromkeys(("multipoint", "multilinestring", "multipolygon"), "geometry"),
    "boolean": "boolean",
    "date": "date",
    "time": "time",
    "datetime": "timestamp",
    "timestamp": "timestamp_tz",
    "json": "json",
    "uuid": "uuid",
}


def _portable(data_type: str, native: str) -> PortableType:
    """BOOLEAN is but another word for TINYINT(1), so that is what a boolean is; a value that is neither 0 nor 1 keeps
    its number. A TIME is one of the day, though it may hold longer ones, which keep the server's text."""
    if native in {"tinyint(1)", "bit(1)"}:
        return "boolean"
    return _PORTABLE.get(word(data_type), "unknown")


def word(native: str) -> str:
    """`varchar` of `VARCHAR(40) unsigned`."""
    return re.split(r"[( ]", native.lower(), maxsplit=1)[0]
