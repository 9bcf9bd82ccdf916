"""Rows in files of which only a part is read: CSV, TSV, JSON and NDJSON, each also with gzip around it, and Parquet.

Types of CSV columns are guessed from the beginning, the same one for discovery and preview, so that both agree.
"""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal

import msgspec

from app.connectors.base import DiscoveredField, PortableType
from app.connectors.failures import ConnectorError
from app.connectors.json_rows import fields_of, rows_in
from app.connectors.values import json_safe

Format = Literal["csv", "tsv", "json", "ndjson", "parquet"]
ReadRange = Callable[[int, int], Awaitable[bytes]]
"""The bytes of a file from an offset up to another one."""

SAMPLE_BYTES: Final = 256 * 1024
MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""Of a JSON document, which cannot be read in part."""
_MAX_INFLATED_BYTES: Final = 4 * 1024 * 1024
_MAX_ROWS: Final = 1001
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


class Table(msgspec.Struct, frozen=True):
    fields: tuple[DiscoveredField, ...]
    rows: list[list[Any]]
    """JSON-safe values, in the order of the fields."""
    is_whole: bool
    """Whether these are all rows of the file."""


def format_of(name: str) -> tuple[Format | None, bool]:
    """The format that a file name promises, and whether it is compressed with gzip."""
    stem, is_compressed = (name[:-3], True) if name.lower().endswith(".gz") else (name, False)
    form = _FORMATS.get(stem.rpartition(".")[2].lower() if "." in stem else "")
    return (None if form == "parquet" and is_compressed else form), is_compressed


async def read_file(
    name: str, size: int, read_range: ReadRange, columns: Sequence[str] | None = None, limit: int = 1000
) -> Table:
    """The first rows of a file of this size, of any format; `read_range` is asked for the bytes that are needed.

    `columns` and `limit` save reading where the format allows: a Parquet table has only the columns that were named,
    in the file's order, and only that many rows; with `limit` 0 its fields come from the footer alone. Others have all
    that the beginning of the file holds. Names that no column has are left to the caller. Raises as `read` and
    `bytes_needed` do.
    """
    if format_of(name)[0] == "parquet":
        from app.connectors.parquet_rows import read_parquet

        return await read_parquet(size, read_range, columns, limit)
    needed = bytes_needed(name, size)
    beginning = await read_range(0, needed) if needed else b""
    return read(name, beginning, is_whole=needed >= size)


def bytes_needed(name: str, size: int) -> int:
    """How much of a file of this size has to be read; Parquet files are read by `read_file` only. Raises
    `response_too_large` for a JSON document above the cap."""
    form, _ = format_of(name)
    if form != "json":
        return min(size, SAMPLE_BYTES)
    if size > MAX_DOCUMENT_BYTES:
        raise ConnectorError(
            "response_too_large", "The JSON document is too large to be read; NDJSON has no such limit."
        )
    return size


def read(name: str, beginning: bytes, *, is_whole: bool) -> Table:
    """The rows of a file's beginning. Raises `unsupported` for other formats, `response_invalid` for damaged files."""
    form, is_compressed = format_of(name)
    if form is None or form == "parquet":
        raise ConnectorError("unsupported", "Files of this format have no preview.")
    if is_compressed:
        beginning, is_whole = _inflated(beginning, is_whole)
    if form == "json":
        return _of_objects(_document_rows(beginning), is_whole)
    text = beginning.decode("utf-8-sig", "replace")
    if not is_whole:
        text = text[: text.rfind("\n") + 1]
    if form == "ndjson":
        return _of_objects(_lines(text), is_whole)
    return _of_cells(text, "\t" if form == "tsv" else _delimiter(text), is_whole)


def _inflated(beginning: bytes, is_whole: bool) -> tuple[bytes, bool]:
    inflate = zlib.decompressobj(wbits=31)
    try:
        content = inflate.decompress(beginning, _MAX_INFLATED_BYTES)
    except zlib.error:
        raise ConnectorError("response_invalid", "The compressed file is damaged.") from None
    return content, is_whole and inflate.eof


def _document_rows(content: bytes) -> list[dict[str, Any]]:
    try:
        return rows_in(msgspec.json.decode(content), None)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ConnectorError("response_invalid", "The file is not JSON.") from None


def _lines(text: str) -> list[dict[str, Any]]:
    try:
        values = [msgspec.json.decode(line) for line in text.split("\n")[:_MAX_ROWS] if line.strip()]
    except (msgspec.DecodeError, RecursionError):
        raise ConnectorError("response_invalid", "The file has a line that is not JSON.") from None
    return [value if isinstance(value, dict) else {"value": value} for value in values]


def _of_objects(objects: list[dict[str, Any]], is_whole: bool) -> Table:
    fields = fields_of(objects)
    rows = [[json_safe(item.get(field.name)) for field in fields] for item in objects[:_MAX_ROWS]]
    return Table(fields, rows, is_whole and len(rows) == len(objects) and len(rows) < _MAX_ROWS)


# CSV ------------------------------------------------------------------------------------------------------------------


def _delimiter(text: str) -> str:
    header = text.partition("\n")[0]
    return max(",;\t|", key=header.count)


def _of_cells(text: str, delimiter: str, is_whole: bool) -> Table:
    """The first line has the names. An empty cell is null."""
    csv.field_size_limit(SAMPLE_BYTES * 16)
    lines = [line for line in csv.reader(io.StringIO(text), delimiter=delimiter) if line]
    if not lines:
        return Table((), [], is_whole)
    names, cells = _unique(lines[0]), lines[1 : _MAX_ROWS + 1]
    columns = [[line[place] if place < len(line) else "" for line in cells] for place in range(len(names))]
    types = [_guess(column) for column in columns]
    fields = tuple(
        DiscoveredField(name, guessed, "text", "" in column or not column, position)
        for position, (name, guessed, column) in enumerate(zip(names, types, columns, strict=True), 1)
    )
    values = [[_value(cell, guessed) for cell in column] for guessed, column in zip(types, columns, strict=True)]
    rows = [list(row) for row in zip(*values, strict=True)]
    return Table(fields, rows, is_whole and len(lines) - 1 <= _MAX_ROWS)


def _unique(names: Sequence[str]) -> list[str]:
    """Names of columns; an empty or repeated one gets its position behind it."""
    seen: set[str] = set()
    unique = []
    for position, name in enumerate(names, 1):
        fresh = name if name and name not in seen else f"{name or 'column'}_{position}"
        seen.add(fresh)
        unique.append(fresh)
    return unique


_GUESSES: Final[tuple[tuple[PortableType, re.Pattern[str]], ...]] = (
    ("boolean", re.compile(r"true|false|TRUE|FALSE|True|False")),
    ("integer", re.compile(r"-?(?:0|[1-9][0-9]*)")),
    ("decimal", re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")),
    ("number", re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")),
    ("date", re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")),
    ("timestamp", re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{5,18}")),
    ("timestamp_tz", re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{5,18}(?:Z|[+-][0-9]{2}:?[0-9]{2})")),
)


def _guess(column: Sequence[str]) -> PortableType:
    """The narrowest type that every cell of the column has."""
    filled = [cell for cell in column if cell]
    if not filled:
        return "string"
    for guessed, pattern in _GUESSES:
        if all(pattern.fullmatch(cell) for cell in filled):
            return guessed
    return "string"


def _value(cell: str, guessed: PortableType) -> Any:
    if not cell:
        return None
    reader = _READERS.get(guessed)
    return reader(cell) if reader and len(cell) < 400 else cell


_READERS: Final[dict[PortableType, Callable[[str], Any]]] = {
    "boolean": lambda cell: cell.lower() == "true",
    "integer": lambda cell: json_safe(int(cell)),
    "number": lambda cell: json_safe(float(cell)),
    "timestamp": lambda cell: cell.replace(" ", "T"),
    "timestamp_tz": lambda cell: cell.replace(" ", "T"),
}
