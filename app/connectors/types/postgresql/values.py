"""What PostgreSQL's texts stand for: plain values as the server writes them, and what is nested as its JSON.

JSON has one form for numbers and none for bytes, so that a nested value is read beside the types of what is in it:
bytes are base64, and decimals keep their digits, however deep in composites and arrays they lie.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from app.connectors.contract.objects import DiscoveredField, PortableType
from app.connectors.types.postgresql.texts import ServerTexts
from app.connectors.values.json_text import Digits, decode_digits, exact_number, read_json
from app.connectors.values.values import Row, json_safe

if TYPE_CHECKING:
    import asyncpg

_MAX_DEPTH: Final = 32


class Shape(Struct):
    """A type, and what it is made of."""

    name: str
    """Of the type itself; of what it is based on for a domain."""
    item: Shape | None = None
    """Of an array."""
    members: Mapping[str, Shape] = {}
    """Of a composite."""


UNKNOWN: Final = Shape("")

_COLUMNS: Final = """
SELECT a.atttypid::int8 FROM pg_catalog.pg_attribute a
WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped"""

# Every type that the columns are made of, once: items of arrays, bases of domains, members of composites.
_TYPES: Final = f"""
WITH RECURSIVE used (oid) AS (
    SELECT atttypid FROM ({_COLUMNS}) c
    UNION
    SELECT inner_type.oid::int8 FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.oid CROSS JOIN LATERAL (
        SELECT t.typelem AS oid WHERE t.typcategory = 'A' AND t.typelem <> 0
        UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT m.atttypid FROM pg_catalog.pg_attribute m
            WHERE t.typtype = 'c' AND m.attrelid = t.typrelid AND m.attnum > 0 AND NOT m.attisdropped
    ) inner_type
)
SELECT t.oid::int8, «t.typname»,
    CASE WHEN t.typtype = 'd' THEN 'domain' WHEN t.typtype = 'c' THEN 'composite'
        WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN 'array' ELSE 'plain' END,
    CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END::int8,
    m.names, m.types
FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.oid
LEFT JOIN LATERAL (
    SELECT array_agg(«m.attname») AS names, array_agg(m.atttypid::text) AS types
    FROM pg_catalog.pg_attribute m
    WHERE t.typtype = 'c' AND m.attrelid = t.typrelid AND m.attnum > 0 AND NOT m.attisdropped
) m ON true"""  # noqa: S608 - no value of anybody is in it


async def shapes_of(
    connection: asyncpg.Connection, relation: int, columns: Sequence[DiscoveredField], texts: ServerTexts
) -> list[Shape]:
    """Of the columns of a relation, in their order. Where none is nested, nothing is asked."""
    if not any(column.type in {"array", "object"} for column in columns):
        return [UNKNOWN] * len(columns)
    types = {row[0]: _read_type(row, texts) for row in await connection.fetch(texts.asked(_TYPES), relation)}
    oids = [row[0] for row in await connection.fetch(f"{_COLUMNS} ORDER BY a.attnum", relation)]
    return [_shape(oids[column.position - 1], types) for column in columns]


def _read_type(row: Row, texts: ServerTexts) -> Row:
    oid, name, kind, inner, members, member_types = row
    return oid, texts.name(name), kind, inner, [texts.name(member) for member in members or ()], member_types


def _shape(oid: int, types: Mapping[int, Row], depth: int = 0) -> Shape:
    """A composite may hold arrays of itself, so that a shape has an end where values have none."""
    if oid not in types or depth > _MAX_DEPTH:
        return UNKNOWN
    _, name, kind, inner, names, member_types = types[oid]
    if kind == "domain":
        return _shape(inner, types, depth + 1)
    if kind == "array":
        return Shape(name, item=_shape(inner, types, depth + 1))
    if kind == "composite":
        members = zip(names or (), member_types or (), strict=True)
        return Shape(name, members={member: _shape(int(type_), types, depth + 1) for member, type_ in members})
    return Shape(name)


def value_of(column: DiscoveredField, shape: Shape, text: str | None, max_bytes: int) -> object:
    """A column's text as the JSON-safe value that it stands for. What was cut off is no JSON any more, and stays
    text."""
    if text is None:
        return None
    if column.type not in {"json", "array", "object"}:
        reader = _READERS.get(column.type)
        return reader(text) if reader else text
    if len(text) > max_bytes:
        return text
    try:
        return read_json(text) if column.type == "json" else _shown(decode_digits(text), shape)
    except (msgspec.DecodeError, RecursionError):
        return text


def _shown(value: Any, shape: Shape) -> object:
    if value is None:
        return None
    if shape.item is not None:
        return _items(value, shape.item)
    if shape.members and isinstance(value, dict):
        return {name: _shown(item, shape.members.get(name, UNKNOWN)) for name, item in value.items()}
    if isinstance(value, str) and not isinstance(value, Digits):
        reader = _NESTED_TEXTS.get(shape.name)
        return reader(value) if reader else value
    if shape.name == "numeric" and isinstance(value, Digits | int):
        return str(value)
    return json_safe(_exact(value))


def _items(value: object, item: Shape) -> object:
    """Of an array, which may be one of arrays: the type does not say how many dimensions it has."""
    return [_items(one, item) for one in value] if isinstance(value, list) else _shown(value, item)


def _exact(value: object) -> object:
    """With the floating point numbers that a JSON reader expects, where those say what is written."""
    if isinstance(value, Digits):
        return exact_number(value)
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    return [_exact(item) for item in value] if isinstance(value, list) else value


def _bytes(text: str) -> str:
    return base64.b64encode(bytes.fromhex(text.removeprefix("\\x"))).decode("ascii")


def _timestamp(text: str) -> str:
    """`infinity` and years before our era have no form in RFC 3339 and stay as they are."""
    if not text[:1].isdigit() or text.endswith("BC"):
        return text
    for utc in ("+00:00", "+00"):
        if text.endswith(utc):
            return text.removesuffix(utc).replace(" ", "T") + "Z"
    return text.replace(" ", "T")


def _time(text: str) -> str:
    return text + ":00" if text[-3:-2] in {"+", "-"} else text


def _vector(text: str) -> object:
    """Of pgvector, which is no array to the server."""
    return read_json(text)


_READERS: Final[dict[PortableType, Callable[[str], object]]] = {
    "boolean": lambda text: text.startswith("t"),
    "integer": lambda text: json_safe(int(text)),
    "number": lambda text: json_safe(float(text)),
    "binary": _bytes,
    "timestamp": _timestamp,
    "timestamp_tz": _timestamp,
    "time": _time,
}
_NESTED_TEXTS: Final[dict[str, Callable[[str], object]]] = {
    "bytea": _bytes,
    "timestamp": _timestamp,
    "timestamptz": _timestamp,
    "timetz": _time,
    "vector": _vector,
    "halfvec": _vector,
}
