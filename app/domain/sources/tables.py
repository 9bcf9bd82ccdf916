"""A preview in other forms than JSON."""

import csv
import io
import re
from typing import Any

import msgspec

from app.connectors.base import PreviewResult

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
