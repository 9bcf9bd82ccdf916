"""Lists that are no `Listing`: of what lives in memory by its name, and of rows that a statement of their own finds."""

from collections.abc import Callable, Mapping
from types import GenericAlias
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from app.core import base64url
from app.core.lists.listing import Page, invalid_cursor, mark_of
from app.core.lists.parameters import (
    COMMON_PARAMETERS,
    DEFAULT_LIMIT,
    PLAIN,
    STRING,
    Parsed,
    parse_parameters,
    parsed_as,
    refuse_faulty_parameters,
)

T = TypeVar("T")


def page_of_names(items: Mapping[str, T], query_string: bytes) -> Page[T]:
    """A page of something that lives in memory, keyed by name: the parameters and cursors of every list.

    Raises BadRequest like a Listing.
    """
    given, faults = parsed_as(parse_parameters(query_string), _BY_NAME)
    refuse_faulty_parameters(faults)
    wanted = given.get("q", "").casefold()
    is_descending = given.get("sort") == "-name"
    names = sorted((name for name in items if wanted in name.casefold()), reverse=is_descending)
    mark = mark_of("names", given.get("sort", "name"), {"q": wanted})
    start = _position_after(names, mark, given["cursor"], is_descending=is_descending) if "cursor" in given else 0
    shown = names[start : start + given.get("limit", DEFAULT_LIMIT)]
    more = start + len(shown) < len(names)
    cursor = base64url.encode(mark + shown[-1].encode()) if more else None
    return Page(
        items=[items[name] for name in shown], next_cursor=cursor, total=len(names) if "count" in given else None
    )


class KeyedQuery(Struct, frozen=True):
    """Of a list whose rows are found by a statement of its own, in the one order of their keys."""

    limit: int
    after: Any
    """The key of the last row of the page before; None for the first page."""
    count: bool
    given: Parsed
    """The list's own parameters."""
    mark: bytes

    def cursor_after(self, key: object) -> str:
        return base64url.encode(msgspec.msgpack.encode((self.mark, key)))


def parse_keyed(
    query_string: bytes, *, name: str, key: object, own: Mapping[str, Callable[[str], object]]
) -> KeyedQuery:
    """`name` tells the list's cursors from those of others, `key` is the type of its keys, and `own` are the parameters
    that only it has. Raises BadRequest like a Listing."""
    given = parse_parameters(query_string)
    known = {**PLAIN, **own, "cursor": _name_cursor}
    values, faults = parsed_as(given, known)
    refuse_faulty_parameters(faults)
    mark = mark_of(name, "", {each: given[each] for each in own if each in given})
    after = _key_in(values["cursor"], mark, key) if "cursor" in values else None
    return KeyedQuery(
        limit=values.get("limit", DEFAULT_LIMIT),
        after=after,
        count="count" in values,
        given={each: values[each] for each in own if each in values},
        mark=mark,
    )


def _key_in(packed: bytes, mark: bytes, key: object) -> object:
    try:
        found, after = msgspec.msgpack.decode(packed, type=GenericAlias(tuple, (bytes, key)))
    except msgspec.MsgspecError:
        raise invalid_cursor() from None
    if found != mark:
        raise invalid_cursor()
    return after


def _position_after(names: list[str], mark: bytes, cursor: bytes, *, is_descending: bool) -> int:
    """Behind the last name of the page before, which may be gone by now."""
    if not cursor.startswith(mark):
        raise invalid_cursor()
    last = cursor.removeprefix(mark).decode(errors="replace")
    return sum(name >= last if is_descending else name <= last for name in names)


def _by_name(text: str) -> str:
    if text not in ("name", "-name"):
        raise ValueError("must be `name` or `-name`")
    return text


def _name_cursor(text: str) -> bytes:
    try:
        return base64url.decode(text, strictly=True)
    except ValueError:
        raise ValueError("must be the next_cursor of the page before") from None


_BY_NAME: dict[str, Callable[[str], object]] = PLAIN | {"sort": _by_name, "cursor": _name_cursor, "q": str}

IN_MEMORY_PARAMETERS: dict[str, dict[str, object]] = COMMON_PARAMETERS | {
    "sort": {"type": "string", "enum": ["name", "-name"], "default": "name"},
    "q": STRING | {"description": "Text that the name holds."},
}
