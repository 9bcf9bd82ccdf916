"""What a file holds once it is read, and which format its name promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final, Literal

import msgspec

from app.connectors.contract.objects import DiscoveredField

Format = Literal["csv", "tsv", "json", "ndjson", "parquet"]
ReadRange = Callable[[int, int], Awaitable[bytes]]
"""The bytes of a file from an offset up to another one."""
Choose = Callable[[Sequence[DiscoveredField]], Sequence[DiscoveredField]]
"""Told all columns of a file, it tells which of them are wanted, and in what order."""

_FORMATS: Final[dict[str, Format]] = {
    "csv": "csv",
    "tsv": "tsv",
    "tab": "tsv",
    "json": "json",
    "ndjson": "ndjson",
    "jsonl": "ndjson",
    "parquet": "parquet",
    "pqt": "parquet",
    "parq": "parquet",
}


NO_ROWS: Final = "Files of this format are not looked into."
MAX_ROWS: Final = 1001
"""Of one file: as many as can be asked for, and one more to know of the rest."""


class Table(msgspec.Struct, frozen=True):
    fields: tuple[DiscoveredField, ...]
    rows: list[list[Any]]
    """JSON-safe values, in the order of the fields."""
    is_whole: bool
    """Whether these are all rows of the file."""
    notes: tuple[str, ...] = ()
    """Of how it was read: what was guessed, what could not be shown as it is."""
    is_short: bool = False
    """Whether long records took most of what was read, so that more should be."""

    def of(self, wanted: Sequence[DiscoveredField]) -> Table:
        """Of its columns these."""
        places = {field.position: place for place, field in enumerate(self.fields)}
        chosen = [places[field.position] for field in wanted]
        rows = [[row[place] for place in chosen] for row in self.rows]
        return msgspec.structs.replace(self, fields=tuple(wanted), rows=rows)


def every_column(fields: Sequence[DiscoveredField]) -> Sequence[DiscoveredField]:
    return fields


def those_named(names: Collection[str]) -> Choose:
    """In the file's order; names that no column has are passed over."""
    return lambda fields: [field for field in fields if field.name in names]


def format_of(name: str) -> tuple[Format | None, bool]:
    """The format that a file name promises, and whether it is compressed with gzip."""
    stem, is_compressed = (name[:-3], True) if name.lower().endswith(".gz") else (name, False)
    form = _FORMATS.get(stem.rpartition(".")[2].lower() if "." in stem else "")
    return (None if form == "parquet" and is_compressed else form), is_compressed
