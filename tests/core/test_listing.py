"""Query strings, filters and cursors: MA3 and IN1 where they are read. Lists against a database: tests/core/test_reads.py."""

import base64
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
import pytest

from app.core.errors import BadRequest
from app.core.lists.keyed import page_of_names
from app.core.lists.listing import ListQuery, mark_of
from app.core.lists.parameters import MAX_LIMIT, parse_parameters
from app.domain.roles.repositories import ROLES
from app.domain.users.repositories import USERS


def refusal_of(query: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        USERS.parse(query)
    msgspec.json.encode([caught.value.detail, caught.value.errors])
    return caught.value


def cursor(*parts: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(parts)).rstrip(b"=").decode()


def users_cursor(*parts: Any, sort: str = "created_at") -> str:
    """Made up by somebody who knows how cursors are made."""
    return cursor(mark_of("users", sort, {}), *parts)


def test_a_list_without_parameters_has_its_defaults() -> None:
    assert USERS.parse(b"") == ListQuery(limit=50, sort="created_at")


def test_every_parameter_is_read() -> None:
    query = USERS.parse(b"limit=3&sort=-email&is_active=false&q=a%25b&count=exact&email=%EF%BC%A1DA%40example.org")
    assert (query.limit, query.sort, query.count) == (3, "-email", True)
    assert set(query.filters) == {"is_active", "q", "email"}
    assert (query.filters["is_active"], query.filters["email"]) == (False, "ada@example.org")


@pytest.mark.parametrize(
    "limit", ["0", "201", "-1", "+5", "5.0", "1e1", "٣", "５", "", " 5", "0x10", "9" * 5000, "null", "5%00", "5,6"]
)
def test_a_limit_is_a_whole_number_in_range(limit: str) -> None:
    assert refusal_of(f"limit={quote(limit, safe='%')}".encode()).code == "invalid_parameter"


@pytest.mark.parametrize(
    "sort", ["", "-", "--email", "password_hash", "email,created_at", "email desc", "EMAIL", "-created_at;", "id", "1"]
)
def test_only_listed_sorts_are_taken(sort: str) -> None:
    assert refusal_of(f"sort={quote(sort)}".encode()).errors[0].path == "sort"


def test_all_parameters_at_fault_are_named_at_once() -> None:
    error = refusal_of(b"limit=x&sort=y&count=yes&is_active=1&role_id=5&offset=3&q=")
    assert {fault.path for fault in error.errors} == {"limit", "sort", "count", "is_active", "role_id", "offset", "q"}


@pytest.mark.parametrize(
    "query",
    [
        b"limit=1&limit=1",
        b"limit=1&li%6Dit=1",
        b"q=%00",
        b"q=%ff",
        b"q=%ed%a0%80",
        b"q=%c0%80",
        b"q=\xff",
        b"q=" + b"a" * 1001,
        b"q=" + b"a" * 9000,
        b"&".join(b"p%d=1" % n for n in range(60)),
        b"=1",
        b"%00=1",
        b"limit",
        b"q[]=1",
        b"email=%F0%90",
    ],
)
def test_hostile_query_strings_are_refused(query: bytes) -> None:
    refusal_of(query)


@pytest.mark.parametrize("query", [b"q=a;limit=0", b"q=%F0%9F%98%80", b"q=%25_%5C", b"q='%20OR%201=1--", b"q=a&"])
def test_text_is_only_text(query: bytes) -> None:
    assert list(USERS.parse(query).filters) == ["q"]


def test_a_nameless_query_has_no_parameters() -> None:
    assert parse_parameters(b"") == parse_parameters(b"&&") == {}


MOMENT, ROW_ID = "2025-01-01T00:00:00Z", b"x" * 16
HOSTILE_CURSORS = {
    "empty": "",
    "not base64": "!!!!",
    "not ascii": "ü",
    "other alphabet": "ab+/",
    "not msgpack": "AAAA",
    "cut off": users_cursor(MOMENT, ROW_ID)[:-4],
    "another sort": users_cursor("a", ROW_ID, sort="email"),
    "another direction": users_cursor(MOMENT, ROW_ID, sort="-created_at"),
    "another list": cursor(mark_of("roles", "created_at", {}), MOMENT, ROW_ID),
    "another filter": cursor(mark_of("users", "created_at", {"is_active": True}), MOMENT, ROW_ID),
    "no mark": cursor("created_at", MOMENT, ROW_ID),
    "another type": users_cursor(5, ROW_ID),
    "null": users_cursor(None, ROW_ID),
    "short id": users_cursor(MOMENT, ROW_ID[:-1]),
    "text id": users_cursor(MOMENT, "x" * 16),
    "too many parts": users_cursor(MOMENT, ROW_ID, 1),
    "a map": base64.urlsafe_b64encode(msgspec.msgpack.encode({"a": 1})).decode(),
    "deep": base64.urlsafe_b64encode(b"\x91" * 700).decode(),
    "no date": users_cursor("2025-02-30T00:00:00Z", ROW_ID),
}


def test_a_cursor_is_read_where_it_was_made() -> None:
    found = USERS.parse(f"limit=7&cursor={users_cursor(MOMENT, ROW_ID)}".encode())
    assert found.after == (datetime(2025, 1, 1, tzinfo=UTC), UUID(bytes=ROW_ID))


@pytest.mark.parametrize("given", HOSTILE_CURSORS.values(), ids=HOSTILE_CURSORS)
def test_a_cursor_of_nobody_is_refused(given: str) -> None:
    assert refusal_of(f"cursor={quote(given)}".encode()).code == "invalid_cursor"


@pytest.mark.parametrize("name", ["a\x00b", "a\x00"])
def test_a_cursor_brings_no_nul_into_the_database(name: str) -> None:
    with pytest.raises(BadRequest):
        ROLES.parse(f"sort=name&cursor={cursor(mark_of('roles', 'name', {}), name, ROW_ID)}".encode())


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_cursor_at_the_edge_of_time_is_read_or_refused(moment: str) -> None:
    try:
        found = USERS.parse(f"cursor={users_cursor(moment, ROW_ID)}".encode())
    except BadRequest:
        return
    assert found.after is not None
    assert isinstance(found.after[0], datetime)
    found.after[0].astimezone(None)


# --- lists in memory ---

NAMES = {name: name for name in ("ant", "bee", "cat", "dog")}


def names_of(query: bytes) -> tuple[list[str], str | None]:
    page = page_of_names(NAMES, query)
    return page.items, page.next_cursor


def test_a_list_in_memory_is_paged_like_any_other() -> None:
    first, cursor_ = names_of(b"limit=3")
    rest, end = names_of(f"limit=3&cursor={cursor_}".encode())
    assert (first, rest, end) == (["ant", "bee", "cat"], ["dog"], None)
    assert names_of(b"sort=-name&q=A&limit=1")[0] == ["cat"]


@pytest.mark.parametrize(("sort", "rest"), [("name", ["cat", "dog"]), ("-name", ["bee", "ant"])])
def test_who_deletes_as_they_read_a_list_in_memory_goes_on(sort: str, rest: list[str]) -> None:
    page = page_of_names(NAMES, f"limit=2&sort={sort}".encode())
    left = {name: name for name in NAMES if name not in page.items}
    assert page_of_names(left, f"sort={sort}&cursor={page.next_cursor}".encode()).items == rest


@pytest.mark.parametrize("other", [b"limit=3&sort=-name&", b"limit=3&q=a&"])
def test_a_cursor_of_a_list_in_memory_belongs_to_its_sort_and_search(other: bytes) -> None:
    made = names_of(b"limit=1")[1]
    with pytest.raises(BadRequest):
        page_of_names(NAMES, other + f"cursor={made}".encode())
    assert names_of(f"limit=3&sort=name&cursor={made}".encode())[0] == ["bee", "cat", "dog"]


@pytest.mark.parametrize(
    "query",
    [
        b"cursor=AAAA",
        b"cursor=",
        b"cursor=!!",
        b"cursor=" + base64.urlsafe_b64encode(b"emu"),
        b"cursor=/w==",
        b"sort=id",
        b"sort=",
        b"count=1",
        b"limit=0",
        b"limit=201",
        b"x=1",
        b"q=a&q=b",
    ],
)
def test_a_list_in_memory_refuses_what_others_refuse(query: bytes) -> None:
    with pytest.raises(BadRequest):
        page_of_names(NAMES, query)


def test_a_list_in_memory_counts_what_matches() -> None:
    assert page_of_names(NAMES, b"count=exact&limit=1").total == len(NAMES) < MAX_LIMIT
