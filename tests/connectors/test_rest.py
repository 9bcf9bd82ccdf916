"""REST beyond the contract: pages of every kind, every way of signing in, documents, and servers that ask for patience."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import msgspec
import pytest

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps
from app.connectors.network.http import Response
from app.connectors.types.rest.connector import Rest, RestConfig, RestSecrets
from app.connectors.types.rest.pages import Paging, next_link, read_rows
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY
from tests.connectors.servers.starting import scripted_server

pytestmark = pytest.mark.anyio

TOKEN = f"{CANARY}-rest"
OAUTH2 = {"auth": "oauth2_client_credentials", "client_id": "client"}


def rest(port: int, path: str, policy: EgressPolicy, secrets: dict[str, str] | None = None, **more: Any) -> Rest:
    values = {"base_url": f"http://localhost:{port}", "auth": "bearer", "resources": [{"name": "x", "path": path}]}
    config = msgspec.convert({**values, **more}, RestConfig)
    return Rest(config, msgspec.convert(secrets or {"token": TOKEN}, RestSecrets), policy)


async def preview(connector: Rest, **more: Any) -> PreviewResult:
    return await connector.preview(PreviewRequest(path=("x",), **more))


async def discovered(connector: Rest) -> list[DiscoveredObject]:
    return [item async for batch in connector.discover() for item in batch]


async def failed_with(connector: Rest) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        await preview(connector)
    assert CANARY not in caught.value.message
    return caught.value


# Pages ----------------------------------------------------------------------------------------------------------------

PAGES: list[tuple[str, dict[str, Any]]] = [
    ("pages", {"pagination": "page", "page_size_parameter": "size"}),
    ("pages?from=0", {"pagination": "page", "first_page": 0, "page_size_parameter": "size", "page_size": 7}),
    ("offsets", {"pagination": "offset", "page_size_parameter": "limit", "page_size": 10}),
    ("cursors", {"pagination": "cursor", "page_parameter": "after", "next_pointer": "/meta/next"}),
    ("urls", {"pagination": "cursor", "next_pointer": "/next"}),
    ("links", {"pagination": "link_header"}),
]


@pytest.mark.parametrize(("path", "settings"), PAGES)
async def test_a_preview_goes_from_page_to_page(
    shop_api: int, loopback: EgressPolicy, path: str, settings: dict[str, Any]
) -> None:
    connector = rest(shop_api, path, loopback, **settings)
    shown = await preview(connector, limit=1000)
    assert shown.rows == [[number, number / 2] for number in range(25)]
    assert not shown.truncated


@pytest.mark.parametrize(("path", "settings"), PAGES)
@pytest.mark.parametrize(("limit", "is_truncated"), [(0, True), (1, True), (10, True), (24, True), (25, False)])
async def test_a_preview_says_whether_there_are_more_pages(
    shop_api: int, loopback: EgressPolicy, path: str, settings: dict[str, Any], limit: int, is_truncated: bool
) -> None:
    shown = await preview(rest(shop_api, path, loopback, **settings), limit=limit)
    assert [row[0] for row in shown.rows] == list(range(limit))
    assert shown.truncated is is_truncated


@pytest.mark.parametrize(("path", "settings"), PAGES)
async def test_discovery_looks_at_the_first_page(
    shop_api: int, loopback: EgressPolicy, path: str, settings: dict[str, Any]
) -> None:
    (found,) = await discovered(rest(shop_api, path, loopback, **settings))
    assert [(field.name, field.type) for field in found.fields] == [("n", "integer"), ("half", "number")]


async def test_a_check_asks_for_the_first_page(shop_api: int, loopback: EgressPolicy) -> None:
    """The server answers 500 where the parameter is missing."""
    steps = Steps()
    await rest(shop_api, "pages", loopback, pagination="page").check(steps)
    assert [step.status for step in steps.result(0).steps] == ["passed", "passed", "skipped", "passed", "passed"]


@pytest.mark.parametrize(
    "settings",
    [{"pagination": "page", "page_parameter": "p"}, {"pagination": "offset"}],
)
async def test_a_server_that_does_not_know_the_parameter_is_read_once(
    shop_api: int, loopback: EgressPolicy, settings: dict[str, Any]
) -> None:
    shown = await preview(rest(shop_api, "links", loopback, **settings))
    assert len(shown.rows) == 10
    assert not shown.truncated


async def test_pages_without_an_end_end(shop_api: int, loopback: EgressPolicy) -> None:
    shown = await preview(rest(shop_api, "endless", loopback, pagination="link_header"), limit=1000)
    assert [row[0] for row in shown.rows] == list(range(50))
    assert shown.truncated


async def test_pages_in_a_circle_end(shop_api: int, loopback: EgressPolicy) -> None:
    shown = await preview(rest(shop_api, "circular", loopback, pagination="link_header"))
    assert shown.rows == [[1]]


@pytest.mark.parametrize(
    "target",
    ["http://169.254.169.254/latest", "http://127.0.0.1:1/x", "//elsewhere.invalid/", "http://[", "http://u@x/"],
)
async def test_a_next_page_elsewhere_is_left_alone(shop_api: int, loopback: EgressPolicy, target: str) -> None:
    """The rows of the first page are shown, and that there are more."""
    connector = rest(shop_api, f"urls?to={target}", loopback, pagination="cursor", next_pointer="/next")
    if target == "http://[":
        assert (await failed_with(connector)).code == "response_invalid"
        return
    shown = await preview(connector)
    assert len(shown.rows) == 10
    assert shown.truncated


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<https://a/b?c=1,2>; rel="next"', "https://a/b?c=1,2"),
        ('</1>; rel="prev", </3>; rel="next"', "/3"),
        ('</3>; title="x; rel=next"; rel="last next"', "/3"),
        ("</3>;rel=next", "/3"),
        ("</3>; REL=NEXT", "/3"),
        ('</3>; rel="nextish"', None),
        ("/3; rel=next", None),
        ("", None),
        ("<" * 5000, None),
        ("<a>" + ";a=b" * 5000, None),
    ],
)
def test_links_of_a_header(header: str, target: str | None) -> None:
    assert next_link(header) == target


FIRST = "https://a.example/v1/orders?size=10"


async def second_url(following: str | int) -> str:
    """Where the hub goes after a first page that says this."""
    asked: list[str] = []

    async def fetch(url: str) -> Response:
        asked.append(url)
        rows = [] if len(asked) > 1 else [{"n": 1}]
        return Response(200, {}, msgspec.json.encode({"items": rows, "next": following}), url)

    paging = Paging(
        mode="cursor", position_parameter="cursor", first_page=1, size_parameter="size", next_pointer="/next"
    )
    await read_rows(fetch, FIRST, None, paging, size=10, wanted=2)
    return asked[1]


@pytest.mark.parametrize("cursor", ["/9j/4AAQSkZJRgABAQ==", "eyJpZCI6MTB9", "a?b", 7])
async def test_a_cursor_is_sent_back_whatever_it_starts_with(cursor: str | int) -> None:
    assert parse_qs(urlsplit(await second_url(cursor)).query) == {"size": ["10"], "cursor": [str(cursor)]}


@pytest.mark.parametrize("target", ["/v1/pages/2", "/next?start=10", "?start=10", "https://a.example/v1/x"])
async def test_a_cursor_may_be_the_next_url(target: str) -> None:
    assert await second_url(target) == urljoin(FIRST, target)


def test_a_cursor_needs_its_pointer() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"base_url": "http://a", "pagination": "cursor"}, RestConfig)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path == ("next_pointer",)


# Signing in -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth", "secrets"),
    [
        ({"auth": "none"}, {"token": TOKEN}),
        ({"auth": "basic", "username": "reader"}, {"password": TOKEN}),
        ({"auth": "bearer"}, {"token": TOKEN}),
        ({"auth": "api_key_header", "api_key_name": "X-Shop-Key"}, {"api_key": TOKEN}),
        ({"auth": "api_key_query", "api_key_name": "key"}, {"api_key": TOKEN}),
    ],
)
async def test_each_way_of_signing_in(
    shop_api: int, loopback: EgressPolicy, auth: dict[str, Any], secrets: dict[str, str]
) -> None:
    shown = await preview(rest(shop_api, "unsigned", loopback, secrets, **auth))
    assert shown.rows == [[auth["auth"] != "none"]]
    wrong = dict.fromkeys(secrets, "wrong")
    assert (await preview(rest(shop_api, "unsigned", loopback, wrong, **auth))).rows == [[False]]


@pytest.mark.parametrize(
    "settings",
    [
        {"token_url": "/token"},
        {"token_url": "/body-token", "client_auth": "body", "audience": "shop", "scope": "read"},
    ],
)
async def test_oauth2_takes_its_token_from_another_origin(
    shop_api: int, loopback: EgressPolicy, settings: dict[str, Any]
) -> None:
    settings = {**OAUTH2, **settings, "token_url": f"http://127.0.0.1:{shop_api}{settings['token_url']}"}
    connector = rest(shop_api, "orders", loopback, {"client_secret": TOKEN}, **settings)
    await connector.check(Steps())
    assert len((await preview(connector)).rows) == 2
    wrong = rest(shop_api, "orders", loopback, {"client_secret": f"wrong-{CANARY}"}, **settings)
    assert (await failed_with(wrong)).code == "authentication_failed"


async def test_a_token_that_expires_on_the_way_is_exchanged(shop_api: int, loopback: EgressPolicy) -> None:
    """Each token is good for two requests; there are three pages, and two more after them."""
    settings = {**OAUTH2, "token_url": f"http://localhost:{shop_api}/short-token", "pagination": "link_header"}
    connector = rest(shop_api, "links", loopback, {"client_secret": TOKEN}, **settings)
    assert len((await preview(connector)).rows) == 25


async def test_a_token_that_is_never_good_is_asked_for_once(shop_api: int, loopback: EgressPolicy) -> None:
    asked: list[bytes] = []

    def give_token(connection: Any) -> None:
        asked.append(connection.recv(65_536))
        body = b'{"access_token": "nobody-knows"}'
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)

    with scripted_server(give_token) as port:
        settings = {**OAUTH2, "token_url": f"http://localhost:{port}/token"}
        connector = rest(shop_api, "links", loopback, {"client_secret": TOKEN}, **settings)
        assert (await failed_with(connector)).code == "authentication_failed"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("token_url", "code"),
    [
        ("http://169.254.169.254/token", "egress_refused"),
        ("http://nowhere.invalid/token", "name_not_resolved"),
        ("/nowhere", "not_found"),
        ("/other-token", "response_invalid"),
        ("/moved-token?to=http://127.0.0.1:1/token", "response_invalid"),
    ],
)
async def test_a_token_server_that_is_of_no_use_fails_the_authentication(
    shop_api: int, loopback: EgressPolicy, token_url: str, code: str
) -> None:
    """A form with a secret in it is not sent on to where a redirect leads."""
    url = token_url if token_url.startswith("http") else f"http://localhost:{shop_api}{token_url}"
    connector = rest(shop_api, "orders", loopback, {"client_secret": TOKEN}, **OAUTH2, token_url=url)
    steps = Steps()
    with pytest.raises(ConnectorError):
        await connector.check(steps)
    assert [(step.name, step.code) for step in steps.done if step.status == "failed"] == [("authenticate", code)]


async def test_a_token_stays_at_its_origin(shop_api: int, loopback: EgressPolicy) -> None:
    heard: list[bytes] = []

    def listen(connection: Any) -> None:
        heard.append(connection.recv(65_536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")

    with scripted_server(listen) as port:
        settings = {**OAUTH2, "token_url": f"http://localhost:{shop_api}/token"}
        path = f"redirect?to=http://127.0.0.1:{port}/orders"
        assert (await preview(rest(shop_api, path, loopback, {"client_secret": TOKEN}, **settings))).rows == []
    (request,) = heard
    assert b"token-of-the-client" not in request
    assert CANARY.encode() not in request


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"auth": "basic", "username": "a:b"}, "username"),
        ({"auth": "oauth2_client_credentials", "client_id": "c"}, "token_url"),
        ({"auth": "oauth2_client_credentials", "token_url": "http://a/t"}, "client_id"),
        ({**OAUTH2, "token_url": "http://user@a/t"}, "token_url"),
        ({"auth": "api_key_header", "api_key_name": "Host"}, "api_key_name"),
        ({"auth": "api_key_header", "api_key_name": "X Y"}, "api_key_name"),
        ({"headers": {"Content-Type": "x"}}, "headers"),
        ({"openapi_url": "http://a@b/"}, "openapi_url"),
    ],
)
def test_a_wrong_field_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"base_url": "http://a", **values}, RestConfig)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path[0] == field


@pytest.mark.found("A5")
@pytest.mark.parametrize(
    "path",
    [
        *("../other", "/a/../../other", "//../other", "/..", "a/..?b=1", "..#a"),
        *("/%2e%2e/other", "/.%2E/other", "/a%2f..%2fother", "/%252e%252e/other", "\\..\\other", "/..;a=1/other"),
    ],
)
def test_no_path_leads_above_base_url(path: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="below base_url"):
        msgspec.convert({"base_url": "http://a/x", "resources": [{"name": "x", "path": path}]}, RestConfig)


@pytest.mark.parametrize("path", ["/a..b", "/a?since=../x", "/...", "/a/./b", "/%2e", "/v1/50%25"])
def test_dots_of_other_kinds_are_taken(path: str) -> None:
    config = msgspec.convert({"base_url": "http://a/x", "resources": [{"name": "x", "path": path}]}, RestConfig)
    assert config.resources[0].path == path


def test_a_certificate_and_its_key_are_given_together() -> None:
    config = RestConfig("http://a", client_certificate="-----BEGIN CERTIFICATE-----")
    with pytest.raises(InvalidField) as caught:
        Rest.validate(config, RestSecrets())
    assert caught.value.path == ("secrets", "client_key")


# Documents ------------------------------------------------------------------------------------------------------------


async def test_a_base_url_with_a_path_is_what_everything_is_below(shop_api: int, loopback: EgressPolicy) -> None:
    settings: dict[str, Any] = {"base_url": f"http://localhost:{shop_api}/base/v1/", "pagination": "page"}
    assert len((await preview(rest(shop_api, "/pages", loopback, **settings))).rows) == 25
    settings["resources"] = [{"name": "x", "path": "//169.254.169.254/pages"}]
    assert (await failed_with(rest(shop_api, "", loopback, **settings))).code == "not_found"


async def test_a_swagger_document_with_a_base_path_is_understood(shop_api: int, loopback: EgressPolicy) -> None:
    settings: dict[str, Any] = {"openapi_url": "swagger.json", "pagination": "page", "resources": []}
    connector = rest(shop_api, "", loopback, **settings)
    (found,) = await discovered(connector)
    assert found.path == ("deep",)
    facts = [(field.name, field.type, field.native_type, field.is_nullable) for field in found.fields]
    assert facts == [("n", "integer", "integer", False), ("half", "number", "number(double)", True)]
    shown = await connector.preview(PreviewRequest(path=("deep",)))
    assert len(shown.rows) == 25


async def test_a_list_that_cannot_be_read_beside_others_has_no_fields(shop_api: int, loopback: EgressPolicy) -> None:
    paths = {
        "good": "pages?page=1",
        "gone": "nowhere",
        "secret": "forbidden",
        "out of order": "broken",
        "deep": "nested",
    }
    resources = [{"name": name, "path": path} for name, path in paths.items()]
    found = {item.path: item.fields for item in await discovered(rest(shop_api, "", loopback, resources=resources))}
    assert {path: bool(fields) for path, fields in found.items()} == {(name,): name == "good" for name in paths}


@pytest.mark.parametrize(("most", "is_complete"), [(1, False), (2, True)])
async def test_a_discovery_says_whether_it_has_every_list(
    shop_api: int, loopback: EgressPolicy, monkeypatch: pytest.MonkeyPatch, most: int, is_complete: bool
) -> None:
    monkeypatch.setattr("app.connectors.types.rest.connector._MAX_RESOURCES", most)
    resources = [{"name": "x", "path": "pages"}, {"name": "y", "path": "offsets"}]
    source = rest(shop_api, "", loopback, resources=resources)
    assert len(await discovered(source)) == most
    assert (source.stopped_because is None) is is_complete


async def test_a_list_that_cannot_be_read_alone_is_the_failure(shop_api: int, loopback: EgressPolicy) -> None:
    with pytest.raises(ConnectorError) as caught:
        await discovered(rest(shop_api, "nowhere", loopback))
    assert caught.value.code == "not_found"


def test_an_answer_may_start_with_a_byte_order_mark() -> None:
    assert Response(200, {}, b'\xef\xbb\xbf[{"a": 1}]', FIRST).json() == [{"a": 1}]


# Patience -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_asks_for_patience_is_rate_limited(
    shop_api: int, loopback: EgressPolicy, status: int
) -> None:
    error = await failed_with(rest(shop_api, f"limited?status={status}", loopback))
    assert error.code == "rate_limited"
    assert error.can_retry
    assert "30 s" in error.message
