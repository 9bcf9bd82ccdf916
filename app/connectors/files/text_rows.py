"""Rows in text files of which only a part is read: CSV, TSV, JSON and NDJSON, each also with gzip around it.

Types of CSV columns are guessed from the beginning, the same one for discovery and preview, so that both agree. Files
that are called JSON and hold one object in each line, as many tools write them, are read as NDJSON.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredField, PortableType
from app.connectors.files.table import Table, format_of
from app.connectors.files.text import decoded, inflated
from app.connectors.values.json_rows import fields_of, rows_in
from app.connectors.values.json_text import decode_json
from app.connectors.values.values import json_safe

SAMPLE_BYTES: Final = 256 * 1024
MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""Of a JSON document, which cannot be read in part."""
_MAX_ROWS: Final = 1001


def bytes_needed(name: str, size: int) -> int:
    """How much of a file of this size has to be read; Parquet files are read by `read_file` only. Of a JSON file above
    the cap the beginning tells whether it is one document."""
    form, _ = format_of(name)
    return size if form == "json" and size <= MAX_DOCUMENT_BYTES else min(size, SAMPLE_BYTES)


def read(name: str, beginning: bytes, *, is_whole: bool) -> Table:
    """The rows of a file's beginning. Raises `unsupported` for other formats, `response_invalid` for damaged files,
    `response_too_large` for a JSON document of which this is a part only."""
    form, is_compressed = format_of(name)
    if form is None or form == "parquet":
        raise ConnectorError("unsupported", "Files of this format have no preview.")
    if is_compressed and beginning:
        beginning, is_whole = inflated(beginning, is_whole=is_whole)
    text = decoded(beginning)
    if form == "json":
        return _of_json(text, is_whole)
    if form == "ndjson":
        return _of_lines(text, is_whole)
    return _of_cells(text, "\t" if form == "tsv" else _delimiter(text), is_whole)


# JSON -----------------------------------------------------------------------------------------------------------------


def _of_json(text: str, is_whole: bool) -> Table:
    if not text.strip() and is_whole:
        return Table((), [], True)
    if is_whole:
        try:
            return _of_objects(rows_in(decode_json(text), None), is_whole)
        except (msgspec.DecodeError, RecursionError):
            pass
    if _has_lines(text):
        return _of_lines(text, is_whole)
    if is_whole:
        raise ConnectorError("response_invalid", "The file is not JSON.")
    raise ConnectorError("response_too_large", "The JSON document is too large to be read; NDJSON has no such limit.")


def _has_lines(text: str) -> bool:
    """Whether the first line is an object by itself."""
    first, end, _ = text.lstrip().partition("\n")
    try:
        return bool(end) and isinstance(decode_json(first), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def _of_lines(text: str, is_whole: bool) -> Table:
    lines = [line for line in text.split("\n") if line.strip()]
    if not is_whole and not text.endswith("\n"):
        lines = lines[:-1]
    try:
        values = [decode_json(line) for line in lines[:_MAX_ROWS]]
    except (msgspec.DecodeError, RecursionError):
        raise ConnectorError("response_invalid", "The file has a line that is not JSON.") from None
    return _of_objects([value if isinstance(value, dict) else {"value": value} for value in values], is_whole)


def _of_objects(objects: list[dict[str, Any]], is_whole: bool) -> Table:
    fields = fields_of(objects)
    rows = [[json_safe(item.get(field.name)) for field in fields] for item in objects[:_MAX_ROWS]]
    return Table(fields, rows, is_whole and len(rows) == len(objects) and len(rows) < _MAX_ROWS)


# CSV ------------------------------------------------------------------------------------------------------------------


def _delimiter(text: str) -> str:
    """The one that the header has most of, outside of quotes."""
    header = _QUOTED.sub("", text[:_MAX_HEADER].lstrip("\r\n")).replace("\r", "\n").partition("\n")[0]
    return max(",;\t|", key=header.count)


def _of_cells(text: str, delimiter: str, is_whole: bool) -> Table:
    """The first line has the names. An empty cell is null. Cells beyond the names have columns of their own, as those
    without a name have. Where the file goes on, the last line is not trusted to be a whole one: a line end may be part
    of a cell."""
    csv.field_size_limit(SAMPLE_BYTES * 16)
    lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if line]
    if not is_whole:
        lines = lines[:-1]
    if not lines:
        return Table((), [], is_whole)
    cells = lines[1 : _MAX_ROWS + 1]
    names = _unique([*lines[0], *[""] * _beyond(len(lines[0]), cells)])
    columns = [[line[place] if place < len(line) else "" for line in cells] for place in range(len(names))]
    types = [_guess(column) for column in columns]
    fields = tuple(
        DiscoveredField(name, guessed, "text", "" in column or not column, position)
        for position, (name, guessed, column) in enumerate(zip(names, types, columns, strict=True), 1)
    )
    values = [[_value(cell, guessed) for cell in column] for guessed, column in zip(types, columns, strict=True)]
    rows = [list(row) for row in zip(*values, strict=True)]
    return Table(fields, rows, is_whole and len(lines) - 1 <= _MAX_ROWS)


def _beyond(columns: int, cells: Sequence[Sequence[str]]) -> int:
    """How many columns more the cells fill: a delimiter at the end of a line fills none. Raises `response_invalid`."""
    longest = max((len(line) for line in cells), default=0)
    while longest > columns and not any(line[longest - 1 : longest] not in ([], [""]) for line in cells):
        longest -= 1
    beyond = max(longest - columns, 0)
    if beyond > _MAX_BEYOND:
        raise ConnectorError("response_invalid", f"A line has {beyond:,} cells more than the first one has names.")
    return beyond


def _unique(names: Sequence[str]) -> list[str]:
    """Names of columns; an empty or repeated one gets its position behind it."""
    seen: set[str] = set()
    unique = []
    for position, name in enumerate(names, 1):
        fresh = name if name and name not in seen else f"{name or 'column'}_{position}"
        while fresh in seen:
            fresh += "_"
        seen.add(fresh)
        unique.append(fresh)
    return unique


_MAX_HEADER: Final = 65_536
_MAX_BEYOND: Final = 100
"""Cells of a line beyond the names; more of them are no table."""
_QUOTED: Final = re.compile('"[^"]*"')
_LOCAL: Final = r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2}(?:\.[0-9]{1,9})?)?"
_ZONE: Final = r" ?(?:Z|z|UTC|([+-][0-9]{2})(?::?([0-9]{2}))?)"
"""As PostgreSQL (`+02`), BigQuery (`UTC`) and others write it."""
_MOMENT: Final = re.compile(f"{_LOCAL}({_ZONE})?")
_GUESSES: Final[tuple[tuple[PortableType, re.Pattern[str]], ...]] = (
    ("boolean", re.compile(r"true|false|TRUE|FALSE|True|False")),
    ("integer", re.compile(r"-?(?:0|[1-9][0-9]*)")),
    ("decimal", re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")),
    ("number", re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")),
    ("date", re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")),
    ("timestamp", re.compile(_LOCAL)),
    ("timestamp_tz", re.compile(_LOCAL + _ZONE)),
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


def _moment(cell: str) -> str:
    """As RFC 3339 has it."""
    found = _MOMENT.fullmatch(cell)
    assert found is not None  # That is how the type was guessed.
    date, time, seconds, zone, hours, minutes = found.groups()
    offset = f"{hours}:{minutes or '00'}" if hours else "Z"
    return f"{date}T{time}{seconds or ':00'}{offset if zone else ''}".replace("+00:00", "Z")


_READERS: Final[dict[PortableType, Callable[[str], Any]]] = {
    "boolean": lambda cell: cell.lower() == "true",
    "integer": lambda cell: json_safe(int(cell)),
    "number": lambda cell: json_safe(float(cell)),
    "timestamp": _moment,
    "timestamp_tz": _moment,
}
