"""What a file is by its first bytes, for the message to somebody who took it for another kind."""

from __future__ import annotations

import codecs
from typing import Final

_BEGINNINGS: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"SQLite format 3\x00", "a SQLite database: that is a source of the type sqlite"),
    (8, b"DUCK", "a DuckDB database: that is a source of the type duckdb"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"ARROW1\x00\x00", "an Arrow file"),
    (0, b"Obj\x01", "an Avro file"),
    (0, b"ORC", "an ORC file"),
    (0, b"PGDMP", "a dump of PostgreSQL, which pg_restore reads"),
    (0, b"-- PostgreSQL database", "a dump of PostgreSQL, which psql reads"),
    (0, b"-- MySQL dump", "a dump of MySQL"),
    (0, b"-- MariaDB dump", "a dump of MariaDB"),
    (0, b"PK\x03\x04", "a ZIP archive, as those of Excel are"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"%PDF-", "a PDF"),
    (4, b"Standard Jet DB", "a database of Microsoft Access"),
    (4, b"Standard ACE DB", "a database of Microsoft Access"),
)


_LEAST_TEXT: Final = 4
"""Bytes: fewer may be anything."""


def kind_of_file(beginning: bytes) -> str | None:
    """As it stands in a sentence: `it is ...`; None for what is not known here."""
    known = (name for at, magic, name in _BEGINNINGS if beginning[at:].startswith(magic))
    return next(known, "a text, such as CSV, JSON or SQL" if _is_text(beginning) else None)


def _is_text(beginning: bytes) -> bool:
    """In UTF-8; the last character may be cut off."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return len(text) >= _LEAST_TEXT and all(character.isprintable() or character in "\t\r\n" for character in text)
