"""A preview in other forms than JSON, which say the same."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Final

from app.connectors.contract.objects import PortableType, PreviewResult
from app.core.errors import BadRequest
from app.domain.source_work.column_texts import column_texts

_FORMULA: Final = re.compile(r"'*[=+@\t\r\uff1d\uff0b\uff20\uff0d-]")
"""What spreadsheets take for the beginning of a formula (OWASP, CSV Injection), full-width forms included; behind
apostrophes, so that taking one away leads back to the text."""
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MOMENT: Final = re.compile(r"-infinity|[+-][0-9]{4,}-[0-9]{2}-[0-9]{2}(T[0-9:.Z+-]+)?")
_VALUES: Final[dict[PortableType, re.Pattern[str]]] = {
    **dict.fromkeys(("number", "decimal"), re.compile(r"-?Infinity")),
    **dict.fromkeys(("date", "timestamp", "timestamp_tz"), _MOMENT),
    "interval": re.compile(r"-infinity|-?P[-0-9.,YMWDHTS]+"),
    "time": re.compile(r"-[0-9]+:[0-9:.]+"),
}
"""What a column of the type holds by rights and no spreadsheet runs."""
_QUOTED: Final = re.compile(r'[",\r\n]')


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
    if text is None or not _FORMULA.match(text) or _NUMBER.fullmatch(text):
        return text
    by_rights = _VALUES.get(portable)
    return text if by_rights is not None and by_rights.fullmatch(text) else "'" + text


def csv_line(texts: Sequence[str | None]) -> str:
    """A line with nothing in it would be none: a null alone is `""`."""
    return (",".join(map(_quoted, texts)) or '""') + "\r\n"


def _quoted(text: str | None) -> str:
    if text is None:
        return ""
    if text and not _QUOTED.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'


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
