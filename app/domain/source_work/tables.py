"""A preview in other forms than JSON, which say the same."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Final

from app.connectors.contract.objects import PortableType, PreviewResult
from app.core.errors import BadRequest
from app.core.spreadsheets import csv_line, disarmed
from app.domain.source_work.column_texts import column_texts

_MOMENT: Final = re.compile(r"-infinity|[+-][0-9]{4,}-[0-9]{2}-[0-9]{2}(T[0-9:.Z+-]+)?")
_VALUES: Final[dict[PortableType, re.Pattern[str]]] = {
    **dict.fromkeys(("number", "decimal"), re.compile(r"-?Infinity")),
    **dict.fromkeys(("date", "timestamp", "timestamp_tz"), _MOMENT),
    "interval": re.compile(r"-infinity|-?P[-0-9.,YMWDHTS]+"),
    "time": re.compile(r"-[0-9]+:[0-9:.]+"),
}
"""What a column of the type holds by rights and no spreadsheet runs."""


def as_csv(preview: PreviewResult) -> bytes:
    """RFC 4180 with a header line. A null is nothing, an empty text `""`; nested values are JSON.

    CSV is for spreadsheets: a text that begins like a formula gets an apostrophe before it. JSON has it as it is.
    """
    columns = [
        [guarded(column.type, text) for text in column_texts(column.type, cells)]
        for column, cells in zip(preview.columns, _cells(preview), strict=True)
    ]
    text = io.StringIO()
    text.write(csv_line([guarded("string", column.name) for column in preview.columns]))
    text.writelines(map(csv_line, zip(*columns, strict=True)))
    return text.getvalue().encode()


def _cells(preview: PreviewResult) -> list[Sequence[object]]:
    """Column by column."""
    return [[row[place] for row in preview.rows] for place in range(len(preview.columns))]


def guarded(portable: PortableType, text: str | None) -> str | None:
    by_rights = _VALUES.get(portable)
    if text is not None and by_rights is not None and by_rights.fullmatch(text):
        return text
    return disarmed(text)


def as_arrow(preview: PreviewResult) -> bytes:
    """An Arrow IPC stream of one batch; see `arrow_columns`. Raises BadRequest where Arrow is not installed."""
    try:
        from arro3.core import RecordBatch, RecordBatchReader, Schema
        from arro3.io import write_ipc_stream
    except ModuleNotFoundError:
        raise BadRequest(code="arrow_unavailable") from None
    from app.domain.source_work.arrow_columns import arrow_column

    stream = io.BytesIO()
    if not preview.columns:  # A batch without columns has no length.
        write_ipc_stream(RecordBatchReader.from_batches(Schema([]), []), stream)
        return stream.getvalue()
    arrays = [arrow_column(column.type, cells) for column, cells in zip(preview.columns, _cells(preview), strict=True)]
    write_ipc_stream(RecordBatch.from_arrays(arrays, names=[column.name for column in preview.columns]), stream)
    return stream.getvalue()
