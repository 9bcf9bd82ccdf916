"""A preview in other forms than JSON."""

from __future__ import annotations

import csv
import io
import re
from base64 import b64decode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from app.connectors.contract.objects import PortableType, PreviewResult
from app.core.errors import BadRequest

if TYPE_CHECKING:
    from arro3.core import Array, DataType

FORMULA = re.compile(r"[=+@\t\r\uff1d\uff0b\uff20\uff0d-]")
"""What spreadsheets take for the beginning of a formula (OWASP, CSV Injection), full-width forms included."""
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def as_csv(preview: PreviewResult) -> bytes:
    """RFC 4180 with a header line. Nulls are empty, nested values JSON.

    CSV is for spreadsheets: a text that begins like a formula gets an apostrophe before it. JSON has it as it is.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_cell(column.name) for column in preview.columns])
    writer.writerows([_cell(value) for value in row] for row in preview.rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list | bool):
        return msgspec.json.encode(value).decode()
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return "'" + value
    return value


def as_arrow(preview: PreviewResult) -> bytes:
    """An Arrow IPC stream of one batch. Nested values are JSON texts, and so is every value of a column in which one
    does not fit the Arrow type of the others, such as an infinite time. Raises BadRequest where Arrow is not installed.
    """
    try:
        from arro3.core import RecordBatch
        from arro3.io import write_ipc_stream
    except ModuleNotFoundError:
        raise BadRequest(code="arrow_unavailable") from None
    values = list(zip(*preview.rows, strict=True)) if preview.rows else [()] * len(preview.columns)
    arrays = [_array(column.type, cells) for column, cells in zip(preview.columns, values, strict=True)]
    batch = RecordBatch.from_arrays(arrays, names=[column.name for column in preview.columns])
    stream = io.BytesIO()
    write_ipc_stream(batch, stream)
    return stream.getvalue()


def _array(portable: PortableType, cells: Sequence[Any]) -> Array:
    from arro3.core import Array, DataType

    if portable == "boolean" and all(cell is None or isinstance(cell, bool) for cell in cells):
        return Array(list(cells), type=DataType.bool())
    if portable == "binary" and all(cell is None or isinstance(cell, str) for cell in cells):
        return Array([None if cell is None else b64decode(cell) for cell in cells], type=DataType.binary())
    texts = Array([_text(cell) for cell in cells], type=DataType.utf8())
    wanted = _arrow_type(portable, cells)
    if wanted is None:
        return texts
    cast = texts.cast(wanted)  # what does not fit becomes null
    return cast if cast.null_count == texts.null_count else texts


def _arrow_type(portable: PortableType, cells: Sequence[Any]) -> DataType | None:
    """None for what is text in Arrow, too."""
    from arro3.core import DataType

    match portable:
        case "integer":
            return DataType.int64()
        case "number":
            return DataType.float64()
        case "decimal":
            return DataType.decimal128(38, max((len(str(cell).partition(".")[2]) for cell in cells), default=0))
        case "date":
            return DataType.date32()
        case "timestamp":
            return DataType.timestamp("us")
        case "timestamp_tz":
            return DataType.timestamp("us", tz="UTC")
    return None


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()
