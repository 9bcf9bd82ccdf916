"""Rows in text files of which only a part is read: CSV, TSV, JSON and NDJSON, each also with gzip around it.

Files that are called JSON and hold one value in each line, or one behind the other, as many tools write them, are read
as NDJSON. What is no object is the only column of its row, `value`.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.files.csv_rows import rows_of_cells
from app.connectors.files.csv_settings import ALL_FOUND, CsvSettings
from app.connectors.files.sample import SAMPLE_BYTES, Sample
from app.connectors.files.table import MAX_ROWS, NO_ROWS, Format, Table, format_of
from app.connectors.files.text import GZIP, MAX_TEXT_BYTES, decoded, inflated
from app.connectors.values.json_rows import fields_of, rows_in
from app.connectors.values.json_text import decode_json
from app.connectors.values.values import json_safe

MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""Of a JSON document, which cannot be read in part."""
_STEPS: Final = (SAMPLE_BYTES, 1024 * 1024, 4 * 1024 * 1024, MAX_TEXT_BYTES)
_UNNAMED_GZIP: Final = "The file is compressed with gzip, though its name does not say so."
_UNREAD: Final = f"Records are so long that what stands behind the first {MAX_TEXT_BYTES // 1024**2} MiB was not read."


def bytes_needed(name: str, size: int, known: int = 0) -> int:
    """How much of a file of this size is to be read after so many bytes were not enough, which is `known` itself where
    no more is; Parquet files are read by `read_file` only. Of a JSON file above the cap the beginning tells whether it
    is one document."""
    if not known and format_of(name)[0] == "json" and size <= MAX_DOCUMENT_BYTES:
        return size
    return min(size, next((step for step in _STEPS if step > known), known))


def read(name: str, beginning: bytes, *, is_whole: bool, settings: CsvSettings = ALL_FOUND) -> Table:
    """The rows of a file's beginning. Raises `unsupported` for other formats, `response_invalid` for damaged files,
    `response_too_large` for a JSON document of which this is a part only."""
    form, is_compressed = format_of(name)
    if form is None or form == "parquet":
        raise ConnectorError("unsupported", NO_ROWS)
    notes: list[str] = []
    if not is_compressed and beginning.startswith(GZIP):
        is_compressed = True
        notes.append(_UNNAMED_GZIP)
    reached_the_end = len(beginning) >= MAX_TEXT_BYTES
    if is_compressed and beginning:
        beginning, is_whole = inflated(beginning, is_whole=is_whole)
        reached_the_end = len(beginning) >= MAX_TEXT_BYTES
    text = decoded(beginning, is_whole=is_whole, in_json=form in {"json", "ndjson"})
    table = _of_text(form, text.text, settings, is_whole=is_whole)
    if table.is_short and reached_the_end:
        table = msgspec.structs.replace(table, is_short=False)
        notes.append(_UNREAD)
    return msgspec.structs.replace(table, notes=(*notes, *text.notes, *table.notes))


def _of_text(form: Format, text: str, settings: CsvSettings, *, is_whole: bool) -> Table:
    if form == "json":
        return _of_json(text, is_whole)
    if form == "ndjson":
        return _of_lines(text, is_whole)
    return rows_of_cells(text, "\t" if form == "tsv" else ",", settings, is_whole=is_whole)


# JSON -----------------------------------------------------------------------------------------------------------------


def _of_json(text: str, is_whole: bool) -> Table:
    if not text.strip() and is_whole:
        return Table((), [], True)
    is_document = is_whole and len(text) <= MAX_DOCUMENT_BYTES
    if is_document:
        try:
            value = decode_json(text)
            return _of_values([None] if value is None else rows_in(value, None), is_whole)
        except (msgspec.DecodeError, RecursionError):
            pass
    if _has_lines(text):
        return _of_lines(text, is_whole)
    if values := _one_behind_the_other(text, is_whole):
        return _of_values(values, is_whole)
    if is_document:
        raise ConnectorError("response_invalid", "The file is not JSON.")
    raise ConnectorError("response_too_large", "The JSON document is too large to be read; NDJSON has no such limit.")


def _has_lines(text: str) -> bool:
    """Whether the first line is a value by itself."""
    first, end, _ = text.lstrip().partition("\n")
    try:
        decode_json(first)
    except (msgspec.DecodeError, RecursionError):
        return False
    return bool(end)


def _one_behind_the_other(text: str, is_whole: bool) -> list[object]:
    """Documents of several lines each, or without an end of a line between; none where there are less than two."""
    ends, place = list[int](), 0
    scanner = json.JSONDecoder(parse_float=str, parse_int=str)
    try:
        while (place := _behind_blanks(text, place)) < len(text) and len(ends) < MAX_ROWS:
            _, place = scanner.raw_decode(text, place)
            ends.append(place)
    except (ValueError, RecursionError):
        if is_whole:
            return []
    if len(ends) < 2:
        return []
    return [decode_json(text[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def _behind_blanks(text: str, place: int) -> int:
    while text[place : place + 1] in {" ", "\t", "\r", "\n"}:
        place += 1
    return place


def _of_lines(text: str, is_whole: bool) -> Table:
    lines = [line for line in text.split("\n") if line.strip()]
    sample = Sample()
    for line in lines[:MAX_ROWS]:
        sample.add(len(line))
    if not is_whole and not text.endswith("\n"):
        lines = lines[:-1]
    try:
        values = [decode_json(line) for line in lines[:MAX_ROWS]]
    except (msgspec.DecodeError, RecursionError):
        raise ConnectorError("response_invalid", "The file has a line that is not JSON.") from None
    table = _of_values(values, is_whole)
    return msgspec.structs.replace(table, is_short=not is_whole and len(lines) < MAX_ROWS and sample.is_short)


def _of_values(values: list[Any], is_whole: bool) -> Table:
    objects = [value if isinstance(value, dict) else {"value": value} for value in values]
    fields = fields_of(objects)
    rows = [[json_safe(item.get(field.name)) for field in fields] for item in objects[:MAX_ROWS]]
    return Table(fields, rows, is_whole and len(rows) == len(objects) and len(rows) < MAX_ROWS)
