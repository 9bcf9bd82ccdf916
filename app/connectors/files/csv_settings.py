"""Settings for files of cells, which every type that reads text files has among its own.

What is not set is found by looking at the file (see `csv_dialect`).
"""

from __future__ import annotations

from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

from app.connectors.contract.config import InvalidField

SkipLines = Annotated[
    Annotated[int, Meta(ge=0, le=10_000)] | None,
    Meta(description="For CSV and TSV: lines before the header. Unset: a title above the header is found."),
]
Comment = Annotated[
    Annotated[str, Meta(max_length=8)] | None,
    Meta(
        description="For CSV and TSV: what lines begin with that are no data, such as `#`; empty: none are. Unset: "
        "those above the header that begin with `#`."
    ),
]
Delimiter = Annotated[
    Annotated[str, Meta(min_length=1, max_length=1, pattern='^[^"\\r\\n]$')] | None,
    Meta(description="For CSV and TSV: what stands between cells. Unset: found among comma, semicolon, tab and bar."),
]
Quote = Annotated[
    Annotated[str, Meta(max_length=1, pattern=r"^[^\r\n]?\Z")] | None,
    Meta(
        description="For CSV and TSV: what stands around cells; empty: nothing does. Unset: the double quote, where it "
        "is closed again."
    ),
]
Header = Annotated[
    bool, Meta(description="For CSV and TSV: whether the first line has the names. If not: `column_1` and on.")
]


class CsvSettings(msgspec.Struct, frozen=True):
    skip_lines: int | None = None
    comment: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    header: bool = True


ALL_FOUND: Final = CsvSettings()


class HasCsvSettings(Protocol):
    @property
    def skip_lines(self) -> int | None: ...
    @property
    def comment(self) -> str | None: ...
    @property
    def delimiter(self) -> str | None: ...
    @property
    def quote(self) -> str | None: ...
    @property
    def header(self) -> bool: ...


def csv_settings(config: HasCsvSettings) -> CsvSettings:
    return CsvSettings(config.skip_lines, config.comment, config.delimiter, config.quote, config.header)


def refuse_bad_csv_settings(config: HasCsvSettings) -> None:
    """Raises `InvalidField` for settings that mean the same character."""
    if config.quote and config.quote == config.delimiter:
        raise InvalidField(("quote",), "quote and delimiter are the same character.")
    if config.comment and config.delimiter and config.comment.startswith(config.delimiter):
        raise InvalidField(("comment",), "comment starts as the delimiter does.")
