"""Texts of databases in which not every byte is a character of UTF-8.

A server converts what it sends to UTF-8, and fails the whole statement where it cannot: for any byte beyond ASCII that
is no UTF-8 in a database of the encoding SQL_ASCII, which promises nothing (PostgreSQL documentation, "Character Set
Support"), and for the few bytes that stand for nothing in a one-byte encoding. The texts of such a database are asked
for as their bytes, in hexadecimal digits, and made texts here. In a template, `«…»` stands around what is asked for.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from app.connectors.values.bad_bytes import as_bad_bytes, bad_bytes_shown
from app.connectors.values.values import Row

if TYPE_CHECKING:
    import asyncpg

_ASKED: Final = re.compile("«([^»]+)»")
_SURROGATE: Final = re.compile("[\udc80-\udcff]")
_CODECS: Final = {
    "SQL_ASCII": "utf-8",
    **{f"WIN{number}": f"cp{number}" for number in (866, 874, *range(1250, 1259))},
    **{f"LATIN{number}": f"latin{number}" for number in range(1, 11)},
    **{f"ISO_8859_{number}": f"iso8859_{number}" for number in range(5, 9)},
    "KOI8R": "koi8_r",
    "KOI8U": "koi8_u",
}
"""Python's names of the encodings of databases that are read here. All others are converted by the server."""
_CURSOR: Final = "hub_rows"


class ServerTexts(Struct, frozen=True):
    """How the texts of one database are asked for and read."""

    codec: str | None
    """None where the server converts them."""

    @classmethod
    def of(cls, connection: asyncpg.Connection) -> ServerTexts:
        return cls(_CODECS.get(str(getattr(connection.get_settings(), "server_encoding", "")).upper()))

    def asked(self, template: str) -> str:
        return _ASKED.sub(r"(\1)::text" if self.codec is None else _in_digits(r"(\1)::text"), template)

    def content(self, answer: str, longest: int | None = None) -> str:
        """A text that was asked for, with each byte that is no character as `surrogateescape` has it. What is more than
        `longest` bytes was cut off, perhaps inside a character."""
        if self.codec is None:
            return answer
        content = bytes.fromhex(answer)
        if longest is not None and len(content) > longest and self.codec == "utf-8":
            content = _whole_characters(content)
        return content.decode(self.codec, "surrogateescape")

    def is_cut(self, answer: str, longest: int) -> bool:
        return self.codec is not None and len(answer) > 2 * longest

    def name(self, answer: str) -> str:
        """As it is shown."""
        return bad_bytes_shown(self.content(answer))

    def named(self, shown: str) -> list[str]:
        """What a name that is shown so may be at the server, as `asked` compares it."""
        if self.codec is None:
            return [shown]
        found = []
        for name in (shown, as_bad_bytes(shown)):
            try:
                found.append(name.encode(self.codec, "surrogateescape").hex())
            except UnicodeEncodeError:
                continue
        return found

    async def rows(self, connection: asyncpg.Connection, query: str, at_once: int) -> AsyncGenerator[Row, None]:
        """Of a query whose names may hold bytes that no client can write: the server makes the statement out of their
        digits. Inside a transaction."""
        if self.codec is None or not _SURROGATE.search(query):
            async for row in connection.cursor(query, prefetch=at_once):
                yield row
            return
        digits = query.encode(self.codec, "surrogateescape").hex()
        statement = f"convert_from(decode('{digits}', 'hex'), 'SQL_ASCII')"
        await connection.execute(
            f"DO $do$ DECLARE rows refcursor := '{_CURSOR}'; BEGIN OPEN rows FOR EXECUTE {statement}; END $do$"
        )
        while some := await connection.fetch(f"FETCH {at_once} FROM {_CURSOR}"):
            for row in some:
                yield row


def _in_digits(expression: str) -> str:
    """A conversion to SQL_ASCII is none, from any encoding."""
    return f"pg_catalog.encode(pg_catalog.convert_to({expression}, 'SQL_ASCII'), 'hex')"


def _whole_characters(content: bytes) -> bytes:
    """Without the first bytes of a character at the end, at most three (RFC 3629 section 3)."""
    for back in range(1, 4):
        byte = content[-back]
        if byte >= 0xC0:
            return content[:-back]
        if byte < 0x80:
            break
    return content
