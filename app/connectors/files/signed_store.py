"""A bucket whose requests are signed one by one and whose answers are XML: what S3 and Azure Blob Storage do alike.

Keys are taken as they come: `a//b`, `x/../y`, `/leading` and those with control characters are keys like all others.
They go out as they were signed, over `HttpClient`, at pinned addresses.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit
from xml.parsers import expat

from app.connectors.contract.failures import ConnectorError
from app.connectors.files.object_store import PAGE, FoundKey, ObjectStore, most_bytes, part_of, patiently
from app.connectors.network.http import MAX_BODY_BYTES, HttpClient, Response, origin_of


class SignedStore(ABC):
    """A `Store`. A type adds where its keys lie, how a request is signed and how keys are listed."""

    def __init__(self, connector: ObjectStore[Any, Any], client: HttpClient) -> None:
        self._connector = connector
        self._client = client
        parts = urlsplit(connector.url)
        self._origin = f"{parts.scheme}://{parts.netloc}"

    @abstractmethod
    def path_of(self, key: str) -> str:
        """As it is sent."""

    @abstractmethod
    def signed(
        self, path: str, query: Mapping[str, str], headers: dict[str, str]
    ) -> tuple[Mapping[str, str], dict[str, str]]:
        """Query and headers of a GET, with whatever says who asks."""

    @abstractmethod
    def listed(self, prefix: str, after: str = "", count: int = PAGE) -> AsyncIterator[list[FoundKey]]:
        """Pages of at most `count` keys that start with the prefix, in their order."""

    def pages(self, folder: str, after: str = "") -> AsyncIterator[list[FoundKey]]:
        return self.listed(f"{folder}/" if folder else "", after)

    async def size(self, key: str) -> int:
        """As the listing has it, where a key is compared and never tidied: a server or a proxy that takes `a//b` for
        `a/b` would tell of a file that the source may not show."""
        async for page in self.listed(key, count=1):
            if page and page[0].key == key:
                return page[0].size
            if page:
                break
        raise ConnectorError("not_found", f"There is no such file in {self._connector.place}.")

    async def read(self, key: str, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        return part_of(await self.get(self.path_of(key), {}, (start, end)), start, end)

    async def get(self, path: str, query: Mapping[str, str], byte_range: tuple[int, int] | None = None) -> Response:
        """Raises what a refusal means."""
        answer = await patiently(lambda: self._ask(path, query, byte_range))
        if answer.status not in {200, 206}:
            code = self._connector.code_in(answer.body.decode("utf-8", "replace"))
            raise self._connector.explain(answer.status, code)
        return answer

    async def _ask(self, path: str, query: Mapping[str, str], byte_range: tuple[int, int] | None) -> Response:
        headers = {"host": _authority(self._origin)}
        if byte_range is not None:
            headers["range"] = f"bytes={byte_range[0]}-{byte_range[1] - 1}"
        query, headers = self.signed(path, query, headers)
        return await self._client.request(
            "GET",
            f"{self._origin}{path}?{urlencode(query, quote_via=quote, safe='')}",
            headers=headers,
            open_headers={"accept-encoding": "identity"},
            max_bytes=most_bytes(byte_range) if byte_range else MAX_BODY_BYTES,
            may_cut=byte_range is not None,
            as_is=True,
        )

    async def listing(self, path: str, query: Mapping[str, str], root: str, item: str) -> Listing:
        """The answer, whose root element is `root` and which holds an element `item` for each key."""
        answer = await self.get(path, query)
        try:
            return Listing(answer.body, root, item)
        except (expat.ExpatError, ValueError):
            raise self.no_listing() from None

    def found(self, key: str, size: str) -> FoundKey:
        """`size` is text of the server's."""
        if not key or not (size.isascii() and size.isdigit() and len(size) < 19):
            raise self.no_listing()
        return FoundKey(key, int(size))

    def no_listing(self) -> ConnectorError:
        host = origin_of(self._origin).host
        return ConnectorError("response_invalid", f"{host} does not answer as an object store does.")


def _authority(url: str) -> str:
    """The `Host` of requests, which is signed: without the port that goes without saying (RFC 9110, section 7.2)."""
    origin = origin_of(url)
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return host if origin.port == (443 if origin.is_encrypted else 80) else f"{host}:{origin.port}"


# XML ------------------------------------------------------------------------------------------------------------------

_PIECE: Final = 65_536
_NO_XML: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|&#(?:x0*([01]?[0-9A-Fa-f])|0*([12]?[0-9]|3[01]));"
)
_STAND_INS: Final = {0xF000 + (code & 0xFF): code for code in (*range(32), 0xFFFE, 0xFFFF)}
"""Private characters for those that XML has no place for, and that some servers write into it nevertheless."""


class Listing:
    """Texts of an XML answer by the names of their elements. Raises `ValueError` or expat's own error for what is none.

    It is XML of somebody else: a document type declaration, which is what entities need, ends the reading. That is seen
    piece by piece, because expat reads a piece to its end."""

    def __init__(self, body: bytes, root: str, item: str) -> None:
        self.told: dict[str, str] = {}
        """Outside of any item."""
        self.items: list[dict[str, str]] = []
        self._root = root
        self._item = item
        self._is_open = False
        self._is_encoded = False
        self._text: list[str] = []
        self._current = self.told
        parser = expat.ParserCreate("utf-8", " ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._refuse
        text, odd = _NO_XML.subn(_stand_in, body.decode("utf-8"))
        self._stand_ins = _STAND_INS if odd else {}
        for start in range(0, len(text), _PIECE):
            parser.Parse(text[start : start + _PIECE], False)
        parser.Parse(b"", True)

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        local = name.rpartition(" ")[2]
        if not self._is_open and local != self._root:
            raise ValueError("another document")
        self._is_open = True
        self._is_encoded = attributes.get("Encoded") == "true"  # Azure's, for names that XML cannot hold.
        self._text.clear()
        if local == self._item:
            self._current = {}

    def _end(self, name: str) -> None:
        local, text = name.rpartition(" ")[2], "".join(self._text).translate(self._stand_ins)
        if local == self._item:
            self.items.append(self._current)
            self._current = self.told
        else:
            self._current[local] = unquote(text) if self._is_encoded else text
        self._is_encoded = False
        self._text.clear()

    def _refuse(self, *_: object) -> None:
        raise ValueError("a document type declaration")


def _stand_in(found: re.Match[str]) -> str:
    hexadecimal, decimal = found.groups()
    code = int(hexadecimal, 16) if hexadecimal else int(decimal) if decimal else ord(found[0])
    return chr(0xF000 + (code & 0xFF))
