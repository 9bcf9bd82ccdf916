"""The beginning of a text file as text: taken out of gzip, and decoded.

Files say their encoding by a byte order mark, or not at all. What has none is UTF-8, unless every other byte is a zero,
as in UTF-16. Of what is no UTF-8, single bytes among many good characters are bad bytes and shown as `\\xNN`; where the
bad ones are more, it is Windows-1252, which spreadsheets write and which Latin-1 is a part of. A guess is noted.
"""

from __future__ import annotations

import codecs
import re
import zlib
from typing import Final

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.values.bad_bytes import NOT_UTF8, bad_bytes_in, bad_bytes_shown, with_bad_bytes

GZIP: Final = b"\x1f\x8b\x08"
MAX_TEXT_BYTES: Final = 16 * 1024 * 1024
"""That are ever looked at of one file, compressed or not."""

_MARKS: Final = (
    # UTF-32 first: its little-endian mark starts as that of UTF-16 does.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_OTHERS: Final = (
    (b"PK\x03\x04", "a zip archive"),
    (b"PAR1", "a Parquet file"),
    (b"\xd0\xcf\x11\xe0", "a file of an older Excel or Word"),
    (b"%PDF-", "a PDF document"),
    (b"BZh", "compressed with bzip2"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard"),
    (b"\xfd7zXZ\x00", "compressed with xz"),
    (b"SQLite format 3\x00", "a SQLite database"),
)
_CONTROLS: Final = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MAX_CONTROLS: Final = 4
"""More of them, and more than one in a hundred characters, are no slips."""


class Text(msgspec.Struct, frozen=True):
    text: str
    notes: tuple[str, ...] = ()


def inflated(beginning: bytes, *, is_whole: bool, most: int = MAX_TEXT_BYTES) -> tuple[bytes, bool]:
    """What is compressed in a file's beginning, at most so many bytes of it, and whether that is all of the file. A
    gzip file may have several members (RFC 1952, section 2.2); what no member starts with is padding. Raises
    `response_invalid`."""
    content, rest = b"", beginning
    while True:
        inflate = zlib.decompressobj(wbits=31)
        try:
            content += inflate.decompress(rest, most - len(content))
        except zlib.error:
            raise ConnectorError("response_invalid", "The compressed file is damaged.") from None
        if not inflate.eof:
            return content, False
        rest = inflate.unused_data
        if not rest.startswith(GZIP[:2]):
            return content, is_whole
        if len(content) == most:
            return content, False


def decoded(content: bytes, *, is_whole: bool, in_json: bool = False) -> Text:
    """As text; `in_json` where it is to be read as JSON, in which a backslash is written as two. Raises
    `response_invalid` for what is no text at all."""
    for start, what in _OTHERS:
        if content.startswith(start):
            raise ConnectorError("response_invalid", f"The file is no text: it is {what}.")
    for mark, name in _MARKS:
        if content.startswith(mark):
            return _in_units(content[len(mark) :], name, is_whole=is_whole, in_json=in_json)
    if (unmarked := _utf16_without_a_mark(content)) is not None:
        found = _in_units(content, unmarked, is_whole=is_whole, in_json=in_json)
        return Text(found.text, (*found.notes, "The file is in UTF-16, and has no byte order mark that says so."))
    found = _utf8_or_windows(content.removeprefix(codecs.BOM_UTF8), is_whole=is_whole, in_json=in_json)
    if len(_CONTROLS.findall(found.text)) > max(_MAX_CONTROLS, len(found.text) // 100):
        raise ConnectorError("response_invalid", "The file is no text: it is full of control characters.")
    return found


def _in_units(content: bytes, name: str, *, is_whole: bool, in_json: bool) -> Text:
    """Of an encoding in units of two or four bytes. What is none of its characters is shown byte by byte."""
    notes: list[str] = []

    def show(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        notes.append(f"Bytes that are no {name[:6].upper()} are shown as \\xNN.")
        slash = "\\\\" if in_json else "\\"
        return "".join(f"{slash}x{byte:02x}" for byte in error.object[error.start : error.end]), error.end

    codecs.register_error("hub-show-bytes", show)
    text = codecs.getincrementaldecoder(name)("hub-show-bytes").decode(content, final=is_whole)
    return Text(text, tuple(notes[:1]))


def _utf16_without_a_mark(content: bytes) -> str | None:
    """Most characters of a file of cells are ASCII: every other byte is a zero then, and hardly any of the rest."""
    start = content[:4096]
    first, second = start[::2].count(0), start[1::2].count(0)
    few, many = sorted((first, second))
    if many < max(len(start) // 8, 2) or few > many // 20:
        return None
    return "utf-16-be" if first > second else "utf-16-le"


def _utf8_or_windows(content: bytes, *, is_whole: bool, in_json: bool) -> Text:
    text = with_bad_bytes(content, is_whole=is_whole)
    bad = bad_bytes_in(text)
    if not bad:
        return Text(text)
    if sum(map(len, _BEYOND_ASCII.findall(text))) >= bad or (is_whole and _ends_inside_a_character(content, bad)):
        return Text(bad_bytes_shown(text, in_json=in_json), (NOT_UTF8,))
    windows = content.decode("cp1252", "surrogateescape")
    return Text(bad_bytes_shown(windows, in_json=in_json), (_WINDOWS,))


_BEYOND_ASCII: Final = re.compile("[\x80-\ud7ff\ue000-\U0010ffff]+")
_WINDOWS: Final = "The file does not say its encoding and is no UTF-8; it was read as Windows-1252."


def _ends_inside_a_character(content: bytes, bad: int) -> bool:
    """Whether that is all that is wrong. One byte alone may as well be a letter of Windows-1252, and is taken for one
    where it would be a small one."""
    cut = content[-bad:]
    if bad > 3 or any(byte < 0x80 for byte in cut):
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        is_a_beginning = decoder.decode(cut) == ""
    except UnicodeDecodeError:
        return False
    return is_a_beginning and (bad > 1 or cut[0] < 0xE0)
