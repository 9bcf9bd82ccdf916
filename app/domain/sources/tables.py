"""A preview in other forms than JSON."""

import csv
import io
from typing import Any

import msgspec

from app.connectors.base import PreviewResult


def as_csv(preview: PreviewResult) -> bytes:
    """RFC 4180 with a header line. Nulls are empty, nested values JSON."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([column.name for column in preview.columns])
    writer.writerows([_cell(value) for value in row] for row in preview.rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list | bool):
        return msgspec.json.encode(value).decode()
    return value
