"""Answers over HTTP that are not as one would have them: no row is lost without a sign, none comes twice, and a
server's own words are passed on."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Step, Steps
from app.connectors.network.http import Response, retry_after_s
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.graphql.connector import Graphql, GraphqlConfig, GraphqlSecrets
from app.connectors.types.rest.connector import Rest, RestConfig, RestSecrets
from app.core.egress import EgressPolicy
from app.domain.source_work.failures import as_error

pytestmark = [pytest.mark.anyio, pytest.mark.found("D15")]

Answer = tuple[int, dict[str, str], bytes]
Answerer = Callable[[dict[str, str], dict[str, Any]], Answer]
"""By the query's parameters and the body, if that is JSON."""


def as_json(content: Any, status: int = 200, **headers: str) -> Answer:
    return status, {"content-type": "application/json", **headers}, json.dumps(content).encode()


@contextmanager
def answering(answer: Answerer) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            length = int(self.headers.get("content-length", 0))
            status, headers, body = answer(asked, json.loads(self.rfile.read(length)) if length else {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def rest(port: int, policy: EgressPolicy, items_pointer: str | None = None, **more: Any) -> Rest:
    resource = {"name": "x", "path": "x", **({"items_pointer": items_pointer} if items_pointer else {})}
    values = {"base_url": f"http://localhost:{port}", "resources": [resource], **more}
    return Rest(msgspec.convert(values, RestConfig), RestSecrets(), policy)


async def shown(connector: Rest | Graphql, **more: Any) -> PreviewResult:
    return await connector.preview(PreviewRequest(path=("x",), **more))


async def checked(connector: Rest) -> Step | None:
    """The failed step."""
    steps = Steps()
    try:
        await connector.check(steps)
    except ConnectorError:
        return next(step for step in steps.done if step.status == "failed")
    return None


# Cursors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [0, "0", -1, "-1", "", None, False])
async def test_a_cursor_that_begins_again_is_the_end(end: Any, loopback: EgressPolicy) -> None:
    def answer(asked: dict[str, str], _: Any) -> Answer:
        if asked.get("cursor") == "b":
            return as_json({"items": [{"n": 2}], "next": end})
        return as_json({"items": [{"n": 1}], "next": "b"})

    with answering(answer) as port:
        found = await shown(rest(port, loopback, pagination="cursor", next_pointer="/next"))
    assert (found.rows, found.truncated) == ([[1], [2]], False)


async def test_a_server_that_goes_round_shows_each_row_once(loopback: EgressPolicy) -> None:
    pages = {"": ([1], "b"), "b": ([2], "c"), "c": ([3], "start"), "start": ([1], "b")}

    def answer(asked: dict[str, str], _: Any) -> Answer:
        rows, following = pages[asked.get("cursor", "")]
        return as_json({"items": [{"n": n} for n in rows], "next": following})

    with answering(answer) as port:
        found = await shown(rest(port, loopback, pagination="cursor", next_pointer="/next"))
    assert found.rows == [[1], [2], [3]]


# Pointers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pointer", ["/rows", "/data/rows", "/data/0", "/items/1/x", "/a~1b"])
async def test_a_pointer_to_nothing_fails_the_test_and_the_preview(pointer: str, loopback: EgressPolicy) -> None:
    with answering(lambda *_: as_json({"items": [{"n": 1}], "data": {}})) as port:
        failed = await checked(rest(port, loopback, pointer))
        assert failed is not None
        assert (failed.name, failed.code) == ("list", "invalid_configuration")
        assert pointer in failed.message
        assert "items_pointer of x" in failed.message
        with pytest.raises(ConnectorError, match="items_pointer of x"):
            await shown(rest(port, loopback, pointer))


@pytest.mark.parametrize("nothing", [None, []])
async def test_a_pointer_to_an_empty_list_is_no_mistake(nothing: Any, loopback: EgressPolicy) -> None:
    with answering(lambda *_: as_json({"data": {"rows": nothing}})) as port:
        assert await checked(rest(port, loopback, "/data/rows")) is None
        assert (await shown(rest(port, loopback, "/data/rows"))).rows == []


async def test_pointers_of_further_resources_are_judged_too(loopback: EgressPolicy) -> None:
    resources = [{"name": "x", "path": "x"}, {"name": "y", "path": "y", "items_pointer": "/nowhere"}]
    with answering(lambda *_: as_json([{"n": 1}])) as port:
        failed = await checked(rest(port, loopback, resources=resources))
    assert failed is not None
    assert "items_pointer of y" in failed.message


async def test_a_next_pointer_to_nothing_fails_the_test_where_there_is_a_next_page(loopback: EgressPolicy) -> None:
    def answer(asked: dict[str, str], _: Any) -> Answer:
        return as_json({"items": [{"n": 1}, {"n": 2}][: int(asked.get("size", 9))], "following": "b"})

    paging = {"pagination": "cursor", "page_size_parameter": "size"}
    with answering(answer) as port:
        failed = await checked(rest(port, loopback, **paging, next_pointer="/next"))
        assert failed is not None
        assert (failed.code, "next_pointer" in failed.message) == ("invalid_configuration", True)
        assert await checked(rest(port, loopback, **paging, next_pointer="/following")) is None


@pytest.mark.parametrize(
    ("value", "kind"), [("x", "a text"), (5, "a number"), (1.5, "a number"), (True, "a truth value")]
)
@pytest.mark.parametrize("mode", ["none", "page", "offset", "cursor", "link_header"])
async def test_an_items_pointer_to_something_else_fails_the_test_in_every_mode(
    mode: str, value: Any, kind: str, loopback: EgressPolicy
) -> None:
    paging = {"pagination": mode, **({"next_pointer": "/next"} if mode == "cursor" else {})}
    with answering(lambda *_: as_json({"data": {"rows": value, "items": {"n": 1}}, "next": None})) as port:
        failed = await checked(rest(port, loopback, "/data/rows", **paging))
        assert failed is not None
        assert (failed.name, failed.code) == ("list", "invalid_configuration")
        assert f"There is {kind} at /data/rows" in failed.message
        with pytest.raises(ConnectorError, match="items_pointer of x"):
            await shown(rest(port, loopback, "/data/rows", **paging))
        assert (await shown(rest(port, loopback, "/data/items", **paging), limit=1)).rows == [[1]]


CURSORS = {"pagination": "cursor", "next_pointer": "/meta/next"}


@pytest.mark.parametrize("wrong", [{"href": "/x?page=2"}, ["b"], True, 1.5, {}])
async def test_a_next_pointer_to_what_is_no_cursor_fails_the_test_and_the_preview(
    wrong: Any, loopback: EgressPolicy
) -> None:
    with answering(lambda *_: as_json({"items": [{"n": 1}], "meta": {"next": wrong}})) as port:
        failed = await checked(rest(port, loopback, **CURSORS))
        assert failed is not None
        assert (failed.name, failed.code) == ("list", "invalid_configuration")
        assert "/meta/next (next_pointer), which is no cursor" in failed.message
        with pytest.raises(ConnectorError, match="next_pointer"):
            await shown(rest(port, loopback, **CURSORS))


@pytest.mark.parametrize(
    "beside",
    [
        *({"following": "b"}, {"meta": {"next_cursor": "b"}}, {"has_more": True}, {"nextPageToken": "b"}),
        *({"links": {"next": "/x?page=2"}}, {"total": 57}, {"paging": {"cursors": {"after": "b"}}}),
    ],
)
async def test_a_next_pointer_past_what_says_that_there_is_more_fails_the_test(
    beside: dict[str, Any], loopback: EgressPolicy
) -> None:
    """Without a parameter for the size of a page, too."""
    with answering(lambda *_: as_json({"items": [{"n": 1}, {"n": 2}], **beside})) as port:
        failed = await checked(rest(port, loopback, **CURSORS))
    assert failed is not None
    assert (failed.name, failed.code) == ("list", "invalid_configuration")
    assert "says that there is more" in failed.message


async def test_a_link_header_says_that_there_is_more_too(loopback: EgressPolicy) -> None:
    with answering(lambda *_: as_json([{"n": 1}], link='</x?page=2>; rel="next"')) as port:
        failed = await checked(rest(port, loopback, **CURSORS))
    assert failed is not None
    assert "its Link header" in failed.message


@pytest.mark.parametrize(
    "answer",
    [
        {"items": [{"n": 1}], "meta": {"next": None}, "total": 5},
        {"items": [{"n": 1}], "meta": {"next": "b"}},
        {"items": [], "next": "b"},
        {"items": [{"n": 1, "next": "b"}], "total": 1, "has_more": False, "cursor": None, "token": ""},
        {"items": [{"n": 1}], "account": 57, "token": "x", "hereafter": "x", "page": 1, "discount_code": 7},
    ],
)
async def test_a_next_pointer_to_a_cursor_or_past_the_last_page_is_no_mistake(
    answer: Any, loopback: EgressPolicy
) -> None:
    with answering(lambda *_: as_json(answer)) as port:
        assert await checked(rest(port, loopback, **CURSORS)) is None


@pytest.mark.parametrize("mode", ["none", "page", "offset", "cursor", "link_header"])
async def test_a_next_pointer_that_may_be_right_is_told_of_in_every_mode(mode: str, loopback: EgressPolicy) -> None:
    steps = Steps()
    with answering(lambda *_: as_json({"items": [{"n": 1}]})) as port:
        await rest(port, loopback, **{**CURSORS, "pagination": mode}).check(steps)
    listed = steps.done[-1]
    assert (listed.name, listed.status) == ("list", "passed")
    assert listed.message.startswith("1 resources are known. There is nothing at /meta/next (next_pointer)")


async def test_next_pointers_of_further_resources_are_judged_too(loopback: EgressPolicy) -> None:
    resources = [{"name": "x", "path": "x"}, {"name": "y", "path": "y"}]
    asked: list[str] = []

    def answer(*_: Any) -> Answer:
        asked.append("")
        return as_json({"items": [{"n": 1}], "meta": {"next": "b" if len(asked) < 2 else ["b"]}})

    with answering(answer) as port:
        failed = await checked(rest(port, loopback, resources=resources, openapi_url=None, **CURSORS))
    assert failed is not None
    assert "no cursor" in failed.message


# Bodies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 205])
async def test_no_content_is_no_rows(status: int, loopback: EgressPolicy) -> None:
    with answering(lambda *_: (status, {}, b"")) as port:
        assert await checked(rest(port, loopback)) is None
        assert (await shown(rest(port, loopback))).rows == []


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("application/json; charset=ISO-8859-1", "latin-1"),
        ('application/json;charset="windows-1252"', "cp1252"),
        ("application/json; charset=UTF-16", "utf-16"),
        ("application/json; charset=utf-16le", "utf-16-le"),
        ("application/json; charset=shift_jis", "shift_jis"),
        ("application/json; charset=ISO-8859-1", "utf-8"),
        ("application/json; charset=no-such-thing", "utf-8"),
        ("application/json", "utf-8-sig"),
    ],
)
async def test_json_is_read_as_it_is_declared(declared: str, encoding: str, loopback: EgressPolicy) -> None:
    text = "李" if encoding == "shift_jis" else "Zoë"
    body = json.dumps([{"name": text}], ensure_ascii=False).encode(encoding)
    with answering(lambda *_: (200, {"content-type": declared}, body)) as port:
        assert (await shown(rest(port, loopback))).rows == [[text]]


def test_what_is_declared_wrongly_is_no_json() -> None:
    for charset in ("hex", "zlib", "undefined", "utf-8", "ascii"):
        with pytest.raises(ConnectorError, match="not JSON"):
            Response(200, {"content-type": f"application/json; charset={charset}"}, b'["\xe9"]', "http://x").json()


# Patience ------------------------------------------------------------------------------------------------------------


def test_seconds_and_dates_are_understood() -> None:
    soon = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=90), usegmt=True)
    assert retry_after_s({"retry-after": "3600"}) == 3600
    assert retry_after_s({"retry-after": " 0 "}) == 0
    assert 80 < (retry_after_s({"retry-after": soon}) or 0) <= 90
    assert retry_after_s({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}) == 0
    assert retry_after_s({"retry-after": "9999999"}) == retry_after_s({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"})
    for nonsense in ("", "-1", "soon", "1.5", "1" * 99, "٣"):
        assert retry_after_s({"retry-after": nonsense}) is None


@pytest.mark.parametrize("status", [429, 503])
async def test_what_a_server_asks_for_is_passed_on(
    status: int, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """Out of the process that asked, and into the answer of the API."""
    with answering(lambda *_: as_json({}, status, **{"retry-after": "3600"})) as port:
        config = {"base_url": f"http://localhost:{port}", "resources": [{"name": "x", "path": "x"}]}
        with pytest.raises(ConnectorError) as caught:
            await sandbox.preview("rest", config, {}, loopback, PreviewRequest(path=("x",)))
    assert (caught.value.code, caught.value.retry_after_s) == ("rate_limited", 3600)
    assert as_error(caught.value).headers == {"Retry-After": "3600"}
    assert as_error(ConnectorError("timeout", "x")).headers == {"Retry-After": "5"}


# GraphQL -------------------------------------------------------------------------------------------------------------

SCHEMA = """
type Item { n: Int }
type Edge { node: Item }
type PageInfo { hasNextPage: Boolean!, endCursor: String }
type Connection { edges: [Edge], pageInfo: PageInfo! }
type Query { x%s: %s }
"""


def graphql(kind: str, data: Any, errors: list[Any] | None = None) -> Answerer:
    from graphql import build_schema, introspection_from_schema

    arguments = "(first: Int, after: String)" if kind == "Connection" else ""
    schema = introspection_from_schema(build_schema(SCHEMA % (arguments, kind)))

    def answer(_: Any, body: dict[str, Any]) -> Answer:
        if "__schema" in body.get("query", ""):
            return as_json({"data": schema})
        return as_json({"data": {"x": data}, **({"errors": errors} if errors else {})})

    return answer


def source(port: int, policy: EgressPolicy) -> Graphql:
    return Graphql(GraphqlConfig(url=f"http://localhost:{port}/"), GraphqlSecrets(), policy)


LAST = {"hasNextPage": False, "endCursor": None}


@pytest.mark.parametrize(
    ("kind", "data", "rows"),
    [
        ("[Item]", [{"n": 1}, None, {"n": 3}], [[1], [None], [3]]),
        ("[Int]", [1, None, 3], [[1], [None], [3]]),
        ("Connection", {"edges": [{"node": {"n": 1}}, None, {"node": None}], "pageInfo": LAST}, [[1], [None], [None]]),
        ("Connection", {"edges": None, "pageInfo": LAST}, []),
        ("Connection", None, []),
        ("Item", None, []),
    ],
)
async def test_a_null_is_shown_where_a_row_should_be(
    kind: str, data: Any, rows: list[Any], loopback: EgressPolicy
) -> None:
    with answering(graphql(kind, data)) as port:
        found = await shown(source(port, loopback))
    assert found.rows == rows
    assert bool(found.notes) == ([None] in rows and kind != "[Int]")


async def test_errors_beside_data_are_told(loopback: EgressPolicy) -> None:
    secret = "the server's own words"
    with answering(graphql("[Item]", [{"n": None}], [{"message": secret, "path": ["x", 0, "n"]}])) as port:
        found = await shown(source(port, loopback))
    assert found.rows == [[None]]
    (note,) = found.notes
    assert "errors" in note
    assert secret not in note


async def test_a_next_page_without_a_cursor_is_still_more(loopback: EgressPolicy) -> None:
    data = {"edges": [{"node": {"n": 1}}], "pageInfo": {"hasNextPage": True, "endCursor": None}}
    with answering(graphql("Connection", data)) as port:
        found = await shown(source(port, loopback))
    assert (found.rows, found.truncated) == ([[1]], True)


async def test_a_list_that_cannot_be_read_beside_others_says_why(loopback: EgressPolicy) -> None:
    resources = [{"name": "x", "path": "x"}, {"name": "y", "path": "y", "items_pointer": "/nowhere"}]
    with answering(lambda *_: as_json([{"n": 1}])) as port:
        connector = rest(port, loopback, resources=resources)
        found: list[DiscoveredObject] = [item async for batch in connector.discover() for item in batch]
    assert [(item.name, len(item.fields), len(item.notes)) for item in found] == [("x", 1, 0), ("y", 0, 1)]
