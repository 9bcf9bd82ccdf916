"""The beginning of a text file as text: taken out of gzip, and decoded.

Files say their encoding by a byte order mark, or not at all. What has none is UTF-8; what is no UTF-8 is taken for
Windows-1252, which spreadsheets write and which Latin-1 is a part of.
"""

from __future__ import annotations

import codecs
import zlib
from typing import Final

from app.connectors.contract.failures import ConnectorError

MAX_INFLATED_BYTES: Final = 4 * 1024 * 1024
_GZIP: Final = b"\x1f\x8b"
_MARKS: Final = (
    # UTF-32 first: its little-endian mark starts as that of UTF-16 does.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def inflated(beginning: bytes, *, is_whole: bool) -> tuple[bytes, bool]:
    """What is compressed in a file's beginning, at most `MAX_INFLATED_BYTES`, and whether that is all of the file. A
    gzip file may have several members (RFC 1952, section 2.2); what no member starts with is padding. Raises
    `response_invalid`."""
    content, rest = b"", beginning
    while True:
        inflate = zlib.decompressobj(wbits=31)
        try:
            content += inflate.decompress(rest, MAX_INFLATED_BYTES - len(content))
        except zlib.error:
            raise ConnectorError("response_invalid", "The compressed file is damaged.") from None
        if not inflate.eof:
            return content, False
        rest = inflate.unused_data
        if not rest.startswith(_GZIP):
            return content, is_whole
        if len(content) == MAX_INFLATED_BYTES:
            return content, False


def decoded(content: bytes) -> str:
    """A character that is cut at the end is left out."""
    for mark, name in _MARKS:
        if content.startswith(mark):
            return codecs.getincrementaldecoder(name)("replace").decode(content)
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")
