"""Lists that come in pages: by number, by offset, by a cursor in the answer, or by a link in its header."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, Literal
from urllib.parse import urljoin, urlsplit

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.network.http import Response, origin_of
from app.connectors.network.http_auth import refuse_unless_ok, refuse_unless_signed_in, with_query
from app.connectors.values.json_rows import at_pointer, leads_somewhere, rows_in
from app.connectors.values.json_text import decode_json

PaginationMode = Literal["none", "page", "offset", "cursor", "link_header"]
Fetch = Callable[[str], Awaitable[Response]]

_WITHOUT_CONTENT: Final = frozenset({204, 205})
_ENDS: Final = frozenset({"", 0, "0", -1, "-1"})
MAX_PAGES: Final = 50
MAX_BYTES: Final = 16 * 1024 * 1024
"""Of all pages of one list together."""


class Paging(msgspec.Struct, frozen=True, kw_only=True):
    mode: PaginationMode
    position_parameter: str
    """Carries the number of the page, the rows to skip, or the cursor."""
    first_page: int
    size_parameter: str | None
    next_pointer: str | None
    """For `cursor`: where the next one is in the answer."""


class Rows(msgspec.Struct, frozen=True):
    rows: list[dict[str, Any]]
    in_first_page: int
    """How many of them came with the first answer."""
    has_more: bool


class _Page(msgspec.Struct, frozen=True):
    rows: list[dict[str, Any]]
    response: Response
    following: str | None
    """Where the next page is, if there may be one."""


async def read_rows(fetch: Fetch, url: str, pointer: str | None, paging: Paging, *, size: int, wanted: int) -> Rows:
    """Asks for pages of `size` rows until `wanted` are there, the list or the caps of this module end."""
    rows: list[dict[str, object]] = []
    in_first_page, read_bytes, read_pages, has_more = 0, 0, 0, False
    async for page in _pages(fetch, _first(url, paging, size), pointer, paging):
        rows += page.rows
        read_pages, read_bytes = read_pages + 1, read_bytes + len(page.response.body)
        in_first_page = in_first_page or len(rows)
        has_more = page.following is not None
        if len(rows) >= wanted or read_pages == MAX_PAGES or read_bytes >= MAX_BYTES:
            break
    else:
        has_more = has_more and paging.mode in {"cursor", "link_header"}
    return Rows(rows, in_first_page, has_more)


async def first_page(fetch: Fetch, url: str, paging: Paging, size: int) -> Response:
    """The first answer as it is, whatever its status."""
    return await fetch(_first(url, paging, size))


def _first(url: str, paging: Paging, size: int) -> str:
    query = {paging.size_parameter: str(size)} if paging.size_parameter else {}
    if paging.mode in {"page", "offset"}:
        query[paging.position_parameter] = str(paging.first_page if paging.mode == "page" else 0)
    return with_query(url, query)


async def _pages(fetch: Fetch, first: str, pointer: str | None, paging: Paging) -> AsyncIterator[_Page]:
    """Ends where a page is empty, shorter than one before it, or the same again: not every server says which is the
    last, and some do not know the parameter at all. A page behind the last one may be a 404."""
    seen, longest, skipped, bodies = {first}, 0, 0, set[bytes]()
    url: str | None = first
    while url is not None:
        response = await fetch(url)
        if response.status in {400, 404, 416} and bodies and paging.mode in {"page", "offset"}:
            return
        rows, answer = content_of(response, pointer)
        if not bodies:
            refuse_nothing_at(pointer, response)
        if (digest := hashlib.sha256(response.body).digest()) in bodies:
            return
        bodies.add(digest)
        skipped += len(rows)
        is_last = paging.mode in {"page", "offset"} and (not rows or len(rows) < longest)
        longest = max(longest, len(rows))
        url = None if is_last else _following(first, paging, len(seen), skipped, response, answer)
        yield _Page(rows, response, url)
        if url is None or url in seen or not _is_followed(first, url):
            return
        seen.add(url)


def content_of(response: Response, pointer: str | None) -> tuple[list[dict[str, object]], object]:
    refuse_unless_signed_in(response)
    refuse_unless_ok(response)
    if response.status in _WITHOUT_CONTENT:
        return [], None
    answer = response.json(decode_json)
    return rows_in(answer, pointer), answer


class NothingThere(ConnectorError):
    """There is not even an empty list where the rows should be, or something else."""

    def __init__(self, pointer: str | None, found: str = "nothing") -> None:
        super().__init__("response_invalid", f"There is {found} at {pointer} in the answer, where its rows should be.")


def refuse_nothing_at(pointer: str | None, response: Response) -> None:
    """Raises `NothingThere`."""
    if response.status in _WITHOUT_CONTENT or not pointer:
        return
    answer = response.json(decode_json)
    if not leads_somewhere(answer, pointer):
        raise NothingThere(pointer)
    found = at_pointer(answer, pointer)
    if found is not None and not isinstance(found, list | dict):
        raise NothingThere(pointer, _KINDS.get(type(found), "a number"))


_KINDS: Final[dict[type, str]] = {str: "a text", bool: "a truth value", dict: "an object", list: "a list"}


class NextPointer(msgspec.Struct, frozen=True):
    """What a first answer says of the pointer to the next page."""

    leads_somewhere: bool
    """Were it to null."""
    more: str | None
    """Where the answer says by itself, in other words, that there is more."""


def judged_next_pointer(response: Response, paging: Paging, rows: Sequence[Any]) -> NextPointer:
    """Raises `invalid_configuration` for what no server means as a cursor."""
    if response.status in _WITHOUT_CONTENT or not paging.next_pointer:
        return NextPointer(True, None)
    answer = response.json(decode_json)
    if leads_somewhere(answer, paging.next_pointer):
        cursor_at(answer, paging)
        return NextPointer(True, None)
    if next_link(response.headers.get("link", "")):
        return NextPointer(False, "its Link header")
    return NextPointer(False, _says_more(answer, len(rows)))


def cursor_at(answer: Any, paging: Paging) -> str | int | None:
    """None at the end of a list. Raises `invalid_configuration` for what is no cursor."""
    cursor = at_pointer(answer, paging.next_pointer or "")
    if cursor is None or cursor is False:
        return None
    if cursor is True or not isinstance(cursor, str | int):
        what = _KINDS.get(type(cursor), "a number with a point")
        message = f"There is {what} at {paging.next_pointer} (next_pointer), which is no cursor and no URL."
        raise ConnectorError("invalid_configuration", message)
    return None if cursor in _ENDS else cursor


_OF_MORE: Final = re.compile(
    r"(?:^|[^A-Za-z])(?:next|more|cursor|following|continu|after|page_?[Tt]oken)"
    "|Next|More|Cursor|Following|Continu|After|PageToken"
)
_OF_ALL: Final = re.compile(r"(?:^|[^A-Za-z])(?:total|count)|Total|Count")


def _says_more(answer: Any, rows: int, place: str = "", depth: int = 3) -> str | None:
    """Where an answer has a cursor, or a count of more than it holds, by its name; lists are its rows."""
    if not isinstance(answer, dict) or not depth:
        return None
    for name, value in answer.items():
        here = f"{place}/{name}"
        is_cursor = isinstance(value, str | int) and value not in _ENDS and value is not False
        if is_cursor and (_OF_MORE.search(name) or (isinstance(value, int) and _OF_ALL.search(name) and value > rows)):
            return here
        if found := _says_more(value, rows, here, depth - 1):
            return found
    return None


def _following(first: str, paging: Paging, page: int, skipped: int, response: Response, answer: object) -> str | None:
    """`page` counts from 1 for the second page."""
    if paging.mode == "page":
        return with_query(first, {paging.position_parameter: str(paging.first_page + page)})
    if paging.mode == "offset":
        return with_query(first, {paging.position_parameter: str(skipped)})
    if paging.mode == "link_header":
        target = next_link(response.headers.get("link", ""))
        return _joined(response.url, target) if target else None
    if paging.mode == "cursor":
        return _at_cursor(first, paging, response, cursor_at(answer, paging))
    return None


def _at_cursor(first: str, paging: Paging, response: Response, cursor: str | int | None) -> str | None:
    """A cursor is a URL, or a value to be sent back; some servers end with one that begins again."""
    if isinstance(cursor, str) and _is_url(first, cursor):
        return _joined(response.url, cursor)
    return None if cursor is None else with_query(first, {paging.position_parameter: str(cursor)})


def _is_url(first: str, cursor: str) -> bool:
    """A value in base64 may start with a slash as well; it has no query, and does not start as the list's path does."""
    if cursor.startswith("/"):
        return "?" in cursor or cursor.split("/")[1] == urlsplit(first).path.split("/")[1]
    return cursor.startswith(("http://", "https://", "?"))


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError:
        raise ConnectorError("response_invalid", "The server's link to the next page is no URL.") from None


def _is_followed(first: str, url: str) -> bool:
    """A next page at another origin is left alone: the list then has more than is shown."""
    try:
        return origin_of(url) == origin_of(first)
    except ValueError:
        return False


_LINK: Final = re.compile(r'<([^<>]{0,4096})>((?:\s*;\s*[A-Za-z*-]{1,32}\s*=\s*(?:"[^"]{0,1024}"|[^\s",;]{0,1024}))*)')
_REL: Final = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s",;]*))', re.I)


def next_link(header: str) -> str | None:
    """The target with the relation `next`, RFC 8288 section 3."""
    for target, parameters in _LINK.findall(header[:16_384]):
        relation = _REL.search(parameters)
        if relation and "next" in (relation[1] or relation[2] or "").lower().split():
            return str(target)
    return None
