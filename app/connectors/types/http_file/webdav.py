"""Folders over HTTP: PROPFIND of WebDAV (RFC 4918), folder by folder and never with `Depth: infinity`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.files.datasets import is_data
from app.connectors.files.object_store import FoundKey
from app.connectors.files.xml import read_xml
from app.connectors.network.http import Response, origin_of
from app.connectors.network.http_auth import SignedIn, refuse_unless_ok, refuse_unless_signed_in
from app.connectors.values.bad_bytes import name_shown, name_shown_so

MAX_FOLDER_BYTES: Final = 16 * 1024 * 1024
"""Of the answer for one folder."""
MAX_FOLDERS: Final = 10_000
_QUESTION: Final = (
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/></prop></propfind>'
)


class Entry(msgspec.Struct, frozen=True):
    name: str
    """As `name_shown` shows it: a server may list any bytes."""
    is_folder: bool
    size: int
    """In bytes; 0 where the server does not tell."""


Wanted = Callable[[tuple[str, ...]], bool]
"""Whether a folder, named from the root on, may hold what is looked for."""


def url_below(root: str, key: str) -> str:
    return f"{root.rstrip('/')}/{quote(key)}"


def url_of_found(root: str, key: str) -> str:
    """Of what was listed: `key` is made of names as they are shown."""
    return f"{root.rstrip('/')}/{quote(name_shown_so(key))}"


async def walk(signed: SignedIn, root: str, max_depth: int, is_wanted: Wanted) -> AsyncIterator[list[FoundKey]]:
    """The files of each folder in turn, names in their order, keys from the root on. Folders that are nobody's data
    (see `datasets.is_data`) are left out. Without an end where a server makes up folders; callers stop at
    `MAX_FOLDERS`."""
    open_folders: list[tuple[str, ...]] = [()]
    while open_folders:
        folder = open_folders.pop()
        entries = sorted(await entries_of(signed, root, folder), key=lambda entry: entry.name)
        yield [FoundKey("/".join((*folder, entry.name)), entry.size) for entry in entries if not entry.is_folder]
        below = [(*folder, entry.name) for entry in entries if entry.is_folder] if len(folder) < max_depth else []
        open_folders += [
            deeper for deeper in reversed(below) if is_data("/".join((*deeper, "x.x")), 1) and is_wanted(deeper)
        ]


async def entries_of(signed: SignedIn, root: str, folder: tuple[str, ...] = ()) -> list[Entry]:
    """What lies in a folder. Raises `protocol_mismatch` where WebDAV is not spoken."""
    url = url_of_found(root, "/".join(folder)) if folder else root
    response = await signed.request(
        "PROPFIND",
        url if url.endswith("/") else f"{url}/",
        content=_QUESTION,
        content_type="application/xml; charset=utf-8",
        accept="application/xml",
        depth=1,
        max_bytes=MAX_FOLDER_BYTES,
    )
    refuse_unless_folder(response)
    return _entries(response)


def refuse_unless_folder(response: Response) -> None:
    """501 is what servers say that know no WebDAV at all, and has nothing to do with their health."""
    if response.status not in {400, 405, 415, 501} and response.status != 207:
        refuse_unless_signed_in(response)
        refuse_unless_ok(response)
    if response.status != 207:
        raise ConnectorError("protocol_mismatch", "The server does not speak WebDAV at this URL.")


def _entries(response: Response) -> list[Entry]:
    own_path = _path(response.url)
    found = {}
    for resource in _Multistatus().read(response.body):
        target = urljoin(response.url, resource.href)
        if entry := _entry(resource, target, response.url, own_path):
            found[entry.name] = entry
    return list(found.values())


def _entry(resource: _Resource, target: str, url: str, own_path: str) -> Entry | None:
    """None for the folder itself, and for what a server lists that does not lie in it."""
    try:
        if origin_of(target) != origin_of(url):
            return None
    except ValueError:
        return None
    name = _path(target).removeprefix(own_path).rstrip("/")
    is_elsewhere = not _path(target).startswith(own_path) or "/" in name or name in {"", ".", ".."}
    if is_elsewhere:
        return None
    size = resource.size.strip()
    shown = name_shown(name.encode("utf-8", "surrogateescape"))
    return Entry(shown, resource.is_folder, int(size) if size.isascii() and size.isdigit() and len(size) < 19 else 0)


def _path(url: str) -> str:
    """With a slash at its end, so that no name is taken for the beginning of another."""
    return unquote(urlsplit(url).path, errors="surrogateescape").rstrip("/") + "/"


# XML ------------------------------------------------------------------------------------------------------------------


class _Resource(msgspec.Struct):
    href: str = ""
    is_folder: bool = False
    size: str = ""


class _Multistatus:
    """Properties that a server has not got come with another status, and empty: they change nothing here."""

    def __init__(self) -> None:
        self._found: list[_Resource] = []
        self._current = _Resource()

    def read(self, body: bytes) -> list[_Resource]:
        """Raises `response_invalid`."""
        try:
            read_xml(body, self._start, self._end)
        except ValueError:
            raise ConnectorError("response_invalid", "The server's list of files is no WebDAV answer.") from None
        return self._found

    def _start(self, name: str, attributes: object) -> None:
        if name == "DAV: response":
            self._current = _Resource()
        elif name == "DAV: collection":
            self._current.is_folder = True

    def _end(self, name: str, text: str) -> None:
        if name == "DAV: href" and not self._current.href:
            self._current.href = text.strip()
        elif name == "DAV: getcontentlength":
            self._current.size = self._current.size or text
        elif name == "DAV: response":
            self._found.append(self._current)
