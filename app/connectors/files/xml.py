"""XML of somebody else: answers of object stores and of WebDAV servers, read without what makes XML dangerous.

A document type declaration, which is what entities need, ends the reading. That is seen piece by piece, because expat
reads a piece to its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final
from xml.parsers import expat

Opened = Callable[[str, Mapping[str, str]], None]
"""Called with an element's name and attributes."""
Closed = Callable[[str, str], None]
"""Called with an element's name and its text behind the last element in it."""

_PIECE: Final = 65_536
_NO_XML: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|&#(?:x0*([01]?[0-9A-Fa-f])|0*([12]?[0-9]|3[01]));"
)
_STAND_INS: Final = {0xF000 + (code & 0xFF): code for code in (*range(32), 0xFFFE, 0xFFFF)}
"""Private characters for those that XML has no place for, and that some servers write into it nevertheless."""


def read_xml(body: bytes, opened: Opened, closed: Closed) -> None:
    """Tells of each element of a document as it comes; names are `namespace name`. Raises `ValueError` for what is no
    XML, and lets pass what `opened` and `closed` raise."""
    _Reader(opened, closed, None, {}).feed(body)


def read_lax_xml(body: bytes, opened: Opened, closed: Closed) -> None:
    """The same for UTF-8 that may hold control characters, as they are or as references."""
    text, odd = _NO_XML.subn(_stand_in, body.decode("utf-8"))
    _Reader(opened, closed, "utf-8", _STAND_INS if odd else {}).feed(text.encode())


def local_name(name: str) -> str:
    """Without its namespace."""
    return name.rpartition(" ")[2]


class _Reader:
    def __init__(self, opened: Opened, closed: Closed, encoding: str | None, stand_ins: Mapping[int, int]) -> None:
        """Without an `encoding` the document says which one it has."""
        self._opened = opened
        self._closed = closed
        self._stand_ins = stand_ins
        self._text: list[str] = []
        parser = expat.ParserCreate(encoding, " ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = _refuse
        self._parser = parser

    def feed(self, body: bytes) -> None:
        try:
            for start in range(0, len(body), _PIECE):
                self._parser.Parse(body[start : start + _PIECE], False)
            self._parser.Parse(b"", True)
        except expat.ExpatError:
            raise ValueError("no XML") from None

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._text.clear()
        self._opened(name, attributes)

    def _end(self, name: str) -> None:
        text = "".join(self._text).translate(self._stand_ins)
        self._text.clear()
        self._closed(name, text)


def _refuse(*_: object) -> None:
    raise ValueError("a document type declaration")


def _stand_in(found: re.Match[str]) -> str:
    hexadecimal, decimal = found.groups()
    code = int(hexadecimal, 16) if hexadecimal else int(decimal) if decimal else ord(found[0])
    return chr(0xF000 + (code & 0xFF))
