"""What a source holds: objects with their fields, the names that lead to them, and samples of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

PortableType = Literal[
    "boolean",
    "integer",
    "number",
    "decimal",
    "string",
    "binary",
    "date",
    "time",
    "timestamp",
    "timestamp_tz",
    "interval",
    "uuid",
    "json",
    "array",
    "object",
    "geometry",
    "unknown",
]
"""The vocabulary of field types. `number` is a binary floating point number, `decimal` an exact one; `timestamp` has no
zone, `timestamp_tz` has. What a source calls the type stays beside it as `native_type`."""


class DiscoveredField(Struct, frozen=True):
    name: str
    type: PortableType
    native_type: str
    is_nullable: bool
    position: int
    """Counted from 1."""


class DiscoveredObject(Struct, frozen=True):
    name: str
    path: tuple[str, ...]
    """Names from the outside in; the last one is `name`. The path, not the qualified name, identifies an object."""
    qualified_name: str
    """`qualify(path)`."""
    kind: str
    fields: tuple[DiscoveredField, ...]
    notes: tuple[str, ...] = ()
    """What the reader should know: why there are no fields, what was guessed. Sentences, fit for everybody who may see
    the source."""

    @classmethod
    def at(
        cls, path: Sequence[str], kind: str, fields: Sequence[DiscoveredField], notes: Sequence[str] = ()
    ) -> DiscoveredObject:
        return cls(path[-1], tuple(path), qualify(path), kind, tuple(fields), tuple(notes))


class PreviewRequest(Struct, frozen=True, kw_only=True):
    path: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    limit: Annotated[int, Meta(ge=0, le=1000)] = 100
    max_bytes: Annotated[int, Meta(ge=1024, le=16 * 1024 * 1024)] = 1024 * 1024
    """Of names, types and values together, as they are sent; columns and rows stop before it is passed."""
    max_value_bytes: Annotated[int, Meta(ge=64, le=1024 * 1024)] = 65_536
    """Of one value; what is longer is cut and makes the preview `truncated`."""


class PreviewColumn(Struct, frozen=True):
    name: str
    type: Annotated[PortableType, Meta(title="PortableType")]


class PreviewResult(Struct, frozen=True):
    """A sample of the rows of an object."""

    columns: tuple[PreviewColumn, ...]
    rows: list[list[Annotated[Any, Meta(description="A value in the JSON form of its column's type, or null.")]]]
    truncated: bool
    """More rows or columns exist, or a value was cut."""
    duration_ms: float
    notes: tuple[str, ...] = ()
    """What the reader should know of how this was read: what was guessed, what could not be read as it is."""


# Qualified names ------------------------------------------------------------------------------------------------------


def qualify(path: Sequence[str]) -> str:
    """One text for a path, unique and reversible: names are joined by dots, and one that is empty or holds a dot or a
    double quote is put in double quotes, its own doubled."""
    return ".".join(_quote(name) for name in path)


def unqualify(qualified_name: str) -> tuple[str, ...]:
    """The path of a qualified name. Raises `ValueError` if a quote is left open or stands in the middle of a name."""
    names: list[str] = []
    rest = qualified_name
    while True:
        name, rest = _take_name(rest)
        names.append(name)
        if not rest:
            return tuple(names)
        if not rest.startswith("."):
            raise ValueError("A quoted name is followed by a dot or nothing.")
        rest = rest[1:]


def _quote(name: str) -> str:
    if name and "." not in name and '"' not in name:
        return name
    return '"' + name.replace('"', '""') + '"'


def _take_name(text: str) -> tuple[str, str]:
    if not text.startswith('"'):
        name, dot, rest = text.partition(".")
        if '"' in name:
            raise ValueError("A double quote stands at the start of a name only.")
        return name, dot + rest
    end = 1
    while (end := text.find('"', end)) != -1:
        if text[end : end + 2] != '""':
            return text[1:end].replace('""', '"'), text[end + 1 :]
        end += 2
    raise ValueError("A quoted name has no end.")
