"""Bytes that are to be text and are no UTF-8: shown as `\\xNN`, so that nothing is lost, and said to be so."""

from __future__ import annotations

import codecs
import re
from typing import Final

NOT_UTF8: Final = "Bytes that are no UTF-8 are shown as \\xNN."
"""The note beside values that hold some."""

_ESCAPED: Final = re.compile("[\udc80-\udcff]")
"""What Python's `surrogateescape` makes of a byte that is no UTF-8."""

_LIKE_A_BYTE: Final = re.compile(r"\\(?=x(?:[89a-f][0-9a-f]|5c))")
_BYTE: Final = re.compile(r"\\x([89a-f][0-9a-f]|5c)")
_SHOWN: Final = re.compile(r"\\x([89a-f][0-9a-f])")


def with_bad_bytes(content: bytes, *, is_whole: bool = True) -> str:
    """UTF-8, with each other byte in the form of `surrogateescape`. Where the content goes on, the first half of a
    character at its end is left out."""
    return codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(content, final=is_whole)


def bad_bytes_in(text: str) -> int:
    """How many there are in a text of `with_bad_bytes`."""
    return len(_ESCAPED.findall(text))


def bad_bytes_shown(text: str, *, in_json: bool = False) -> str:
    """A text of `with_bad_bytes` that anybody can read; `in_json` where it is JSON and goes on being so."""
    slash = "\\\\" if in_json else "\\"
    return _ESCAPED.sub(lambda found: f"{slash}x{ord(found[0]) - 0xDC00:02x}", text)


def as_bad_bytes(shown: str) -> str:
    """The text of `with_bad_bytes` that is shown so, if no `\\x` in it was one before."""
    return _SHOWN.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), shown)


def name_shown(name: bytes) -> str:
    """A name of something that is found by it, in a form that leads back: a backslash that would be taken for the sign
    of a byte is shown as the byte that it is, `\\x5c`."""
    return bad_bytes_shown(_LIKE_A_BYTE.sub(r"\\x5c", with_bad_bytes(name)))


def name_shown_so(shown: str) -> bytes:
    """The name that `name_shown` shows so."""
    return _BYTE.sub(_byte, shown).encode("utf-8", "surrogateescape")


def _byte(written: re.Match[str]) -> str:
    number = int(written[1], 16)
    return chr(number if number < 0x80 else 0xDC00 + number)


class ByteTexts:
    """Texts of a source that should be UTF-8, and whether one was not."""

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()

    def shown(self, content: bytes, *, in_json: bool = False) -> str:
        try:
            return content.decode()
        except UnicodeDecodeError:
            self.notes = (NOT_UTF8,)
            return bad_bytes_shown(with_bad_bytes(content), in_json=in_json)

    def shown_text(self, text: str, *, in_json: bool = False) -> str:
        """Of a text of `with_bad_bytes`."""
        if text.isascii() or not _ESCAPED.search(text):
            return text
        self.notes = (NOT_UTF8,)
        return bad_bytes_shown(text, in_json=in_json)

    def error_handler(self) -> str:
        """The name of an error handler for codecs that does the same, for drivers that take no more than that."""

        def show(error: UnicodeError) -> tuple[str, int]:
            assert isinstance(error, UnicodeDecodeError)
            self.notes = (NOT_UTF8,)
            return "".join(f"\\x{byte:02x}" for byte in error.object[error.start : error.end]), error.end

        codecs.register_error("hub-shown-bytes", show)
        return "hub-shown-bytes"
