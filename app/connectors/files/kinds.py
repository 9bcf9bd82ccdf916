"""What a file is by its first bytes, for the message to somebody who took it for another kind."""

from __future__ import annotations

from typing import Final

_BEGINNINGS: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"SQLite format 3\x00", "a SQLite database: that is a source of the type sqlite"),
    (8, b"DUCK", "a DuckDB database: that is a source of the type duckdb"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"%PDF-", "a PDF"),
    (4, b"Standard Jet DB", "a database of Microsoft Access"),
    (4, b"Standard ACE DB", "a database of Microsoft Access"),
)


def kind_of_file(beginning: bytes) -> str | None:
    """As it stands in a sentence: `it is ...`; None for what is not known here."""
    return next((name for at, magic, name in _BEGINNINGS if beginning[at:].startswith(magic)), None)
