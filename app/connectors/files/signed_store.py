"""A bucket whose requests are signed one by one and whose answers are XML: what S3 and Azure Blob Storage do alike.

Keys are taken as they come: `a//b`, `x/../y`, `/leading` and those with control characters are keys like all others.
They go out as they were signed, over `HttpClient`, at pinned addresses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from app.connectors.contract.failures import ConnectorError
from app.connectors.files.object_store import PAGE, FoundKey, ObjectStore, most_bytes, part_of, patiently
from app.connectors.files.xml import local_name, read_lax_xml
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
            raise self._connector.explain(answer, code)
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
        except ValueError:
            if f"<{root}".encode() not in answer.body and not answer.body.startswith(b"<?xml"):
                raise self._connector.no_store() from None
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


class Listing:
    """Texts of an XML answer by the names of their elements. Raises `ValueError` for what is none."""

    def __init__(self, body: bytes, root: str, item: str) -> None:
        self.told: dict[str, str] = {}
        """Outside of any item."""
        self.items: list[dict[str, str]] = []
        self._root = root
        self._item = item
        self._is_open = False
        self._is_encoded = False
        self._current = self.told
        read_lax_xml(body, self._start, self._end)

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        local = local_name(name)
        if not self._is_open and local != self._root:
            raise ValueError("another document")
        self._is_open = True
        self._is_encoded = attributes.get("Encoded") == "true"  # Azure's, for names that XML cannot hold.
        if local == self._item:
            self._current = {}

    def _end(self, name: str, text: str) -> None:
        local = local_name(name)
        if local == self._item:
            self.items.append(self._current)
            self._current = self.told
        else:
            self._current[local] = unquote(text) if self._is_encoded else text
        self._is_encoded = False
