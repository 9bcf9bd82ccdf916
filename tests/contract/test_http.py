"""HTTP as every client may expect it: api.md `Everywhere`, HD1, HD2, HD3, RL1, RL2, IN4, ST9."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from app.asgi import framed
from app.core.deadlines import Deadlines
from app.domain import requests
from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub
from tests.contract.conftest import Exchange

pytestmark = pytest.mark.anyio

ROLES = "/api/v1/roles"
NOWHERE = "01a2fb1e-9d9b-4bff-818e-c396c366e4f9"
"""An id that nothing has. Fixed, as it is part of names of tests."""
JSON = (b"content-type", b"application/json")


def assert_error(answer: httpx.Response, status: int, code: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) - {"errors"} == {"detail", "code", "request_id"}
    assert isinstance(body["detail"], str)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert code is None or body["code"] == code


# --- methods and paths ---


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", ROLES, {"GET", "HEAD", "POST", "OPTIONS"}),
        ("DELETE", ROLES, {"GET", "HEAD", "POST", "OPTIONS"}),
        ("POST", f"{ROLES}/{NOWHERE}", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
        ("GET", "/api/v1/auth/login", {"POST", "OPTIONS"}),
        ("HEAD", "/api/v1/auth/login", {"POST", "OPTIONS"}),
        ("BREW", "/health/live", {"GET", "HEAD", "OPTIONS"}),
        ("TRACE", "/health/live", {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_a_method_that_is_not_taken_is_a_405_that_says_which_are(
    hub: Hub, method: str, path: str, allow: set[str]
) -> None:
    answer = await hub.admin.request(method, path)
    assert answer.status_code == 405
    assert {name.strip() for name in answer.headers["allow"].split(",")} | {"OPTIONS"} == allow
    if method != "HEAD":
        assert_error(answer, 405, "method_not_allowed")


@pytest.mark.parametrize(
    "path",
    [
        ROLES,
        f"{ROLES}/00000000-0000-7000-8000-000000000101",
        "/api/v1/auth/me",
        "/health/live",
        "/health/ready",
        "/metrics",
    ],
)
async def test_head_answers_what_get_does_without_a_body(hub: Hub, path: str) -> None:
    get, head = await hub.admin.get(path), await hub.admin.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    without = {"x-request-id"} | ({"content-length"} if path == "/metrics" else set())
    assert {k: v for k, v in head.headers.items() if k not in without} == {
        k: v for k, v in get.headers.items() if k not in without
    }


async def test_options_says_what_a_path_takes_and_no_more(hub: Hub) -> None:
    answer = await hub.client().options(ROLES)
    assert (answer.status_code, answer.content) == (204, b"")
    assert {"GET", "POST"} <= {name.strip() for name in answer.headers["allow"].split(",")}
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v2/roles",
        "/nothing",
        "/api/v1/rolesx",
        f"{ROLES}/not-a-uuid",
        f"{ROLES}/{'0' * 5000}",
        f"{ROLES}/1",
        f"{ROLES}/{NOWHERE}x",
        f"{ROLES}/%00",
        f"{ROLES}/..%2f..%2fetc%2fpasswd",
        f"{ROLES}/%ff%fe",
        f"{ROLES}/{NOWHERE}/nothing",
        "/favicon.ico",
        f"{ROLES}/%F0%9F%98%80",
        f"{ROLES}/%0d%0aX-Evil:%201",
        "/health",
        "/.well-known/",
        "/api/v1/users/me",
        f"{ROLES}/{NOWHERE}",
    ],
)
async def test_what_is_not_there_is_a_404_of_one_shape(hub: Hub, path: str) -> None:
    answer = await hub.admin.get(path)
    assert_error(answer, 404, "not_found")
    assert "x-evil" not in answer.headers


async def test_a_path_with_bytes_that_are_no_text_is_answered(exchange: Exchange) -> None:
    answer = await exchange("GET", "/api/v1/roles/\udcff\udcfe")
    assert answer.status == 404


@pytest.mark.parametrize(
    "path", ["/health/live?x=1", f"{ROLES}/00000000-0000-7000-8000-000000000101?fields=name", "/api/v1/auth/me?x"]
)
async def test_a_call_without_parameters_takes_none(hub: Hub, path: str) -> None:
    assert_error(await hub.admin.get(path), 400, "invalid_parameter")


# --- request ids ---


@pytest.mark.parametrize("given", ["abc", "a" * 64, "A-b_c.1", NOWHERE])
async def test_a_sane_request_id_is_taken(hub: Hub, given: str) -> None:
    answer = await hub.client().get("/nothing", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == given


@pytest.mark.parametrize(
    "given", [b"", b"a" * 65, b"a b", b"a\tb", b"<script>", b"\xff", b"a\r\nX-Evil: 1", b'a"b', b"a,b"]
)
async def test_any_other_request_id_is_replaced(exchange: Exchange, given: bytes) -> None:
    answer = await exchange("GET", "/nothing", headers=[(b"x-request-id", given)])
    made = answer.header(b"x-request-id")
    assert made is not None
    assert made != given
    assert made.isalnum()


# --- headers that every answer carries ---


@pytest.mark.parametrize("path", ["/health/live", "/nothing", ROLES, "/api/v1/auth/me", "/metrics", "/openapi.json"])
async def test_every_answer_is_guarded(hub: Hub, path: str) -> None:
    for client in (hub.admin, hub.client()):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "no-store" in headers["cache-control"] or not path.startswith("/api")
        assert "Accept" in headers["vary"]
        assert not any(character.isdigit() for character in headers.get("server", ""))
        assert "x-powered-by" not in headers
        for name, count in {name: headers.get_list(name) for name in headers}.items():
            assert len(count) == 1, name


async def test_no_cookie_is_ever_set(hub: Hub) -> None:
    answer = await hub.client().post("/api/v1/auth/login", json={"email": ADMIN_EMAIL, "password": PASSWORD})
    assert "set-cookie" not in answer.headers


# --- CORS (HD2) and Host (HD3) ---

ORIGIN = "https://app.example.org"


def variant(hub: Hub, **changes: Any) -> httpx.AsyncClient:
    """A client of the same application under other settings of the frame."""
    frame = framed(hub.app._app, msgspec.structs.replace(hub.settings, **changes))
    transport = httpx.ASGITransport(frame, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://hub.test", headers=hub.admin.headers)


@pytest.mark.parametrize("origin", [ORIGIN, "null", "http://hub.test"])
async def test_without_a_list_no_origin_is_let_in(hub: Hub, origin: str) -> None:
    preflight = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization",
    }
    for answer in (
        await hub.admin.get(ROLES, headers={"Origin": origin}),
        await hub.client().options(ROLES, headers=preflight),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_listed_origin_is_let_in_by_name(hub: Hub) -> None:
    client = variant(hub, cors_origins=(ORIGIN,))
    answer = await client.get(ROLES, headers={"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in answer.headers
    assert "ETag" in answer.headers["access-control-expose-headers"]
    assert {"Accept", "Origin"} <= {name.strip() for name in answer.headers["vary"].split(",")}
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "PATCH"}
    answer = await client.options(f"{ROLES}/{uuid4()}", headers=preflight)
    assert answer.status_code == 204
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert "If-Match" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        f"{ORIGIN}.evil.example",
        "https://APP.example.org",
        f"{ORIGIN}:444",
        "http://app.example.org",
        f"{ORIGIN}/",
        "",
    ],
)
async def test_an_origin_that_is_not_listed_gets_nothing(hub: Hub, origin: str) -> None:
    client = variant(hub, cors_origins=(ORIGIN,))
    preflight = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    for answer in (await client.get(ROLES, headers={"Origin": origin}), await client.options(ROLES, headers=preflight)):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "Origin" in answer.headers["vary"]


async def test_an_error_can_be_read_by_a_listed_origin(hub: Hub) -> None:
    answer = await variant(hub, cors_origins=(ORIGIN,)).get("/nothing", headers={"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN


NOBODYS_HOSTS = [
    *(".example.net", "..example.net", "a..example.net", ".a.example.net", "*.example.net", "a b.example.net"),
    *("evil.example/.example.net", "evil.example#.example.net", "a@b.example.net", "evil.example:80.example.net"),
    *(
        "ä.example.net".encode().decode("latin-1"),
        "a\\.example.net",
        "a.example.net.",
        "hub.example.org:\u00b2",
        ".example.net:80",
    ),
]


@pytest.mark.parametrize(
    "host", ["hub.example.org", "HUB.example.org", "hub.example.org:8443", "a.b.example.net", "[::1]:80", "[::1]"]
)
async def test_listed_hosts_are_answered(hub: Hub, host: str) -> None:
    client = variant(hub, allowed_hosts=("Hub.example.org", "*.example.net", "[::1]"))
    assert (await client.get("/health/live", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "hub.example.org.evil.example",
        "xhub.example.org",
        "example.net",
        "evilexample.net",
        "hub.example.org@evil.example",
        "",
        "hub.example.org:80:80",
        "hub.example.org:x",
        *(pytest.param(host, marks=pytest.mark.found("A10")) for host in NOBODYS_HOSTS),
    ],
)
async def test_other_hosts_are_not(hub: Hub, host: str) -> None:
    client = variant(hub, allowed_hosts=("hub.example.org", "*.example.net"))
    assert_error(await client.get("/health/live", headers={b"Host": host.encode("latin-1")}), 400, "unknown_host")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "10.1.2.3", "[fd00::7]:8000"])
async def test_a_probe_by_address_is_answered_and_nothing_else_is(hub: Hub, host: str) -> None:
    client = variant(hub, allowed_hosts=("hub.example.org",))
    for path in ("/health/live", "/health/ready"):
        assert (await client.get(path, headers={"Host": host})).status_code == 200
    for path in ("/metrics", "/openapi.json", "/api/v1/roles", "/health/liver"):
        assert_error(await client.get(path, headers={"Host": host}), 400, "unknown_host")


@pytest.mark.parametrize(
    "name", ["host", "authorization", "content-type", "content-length", "if-match", "idempotency-key"]
)
async def test_a_header_that_decides_something_comes_once(exchange: Exchange, name: str) -> None:
    headers = [(name.encode(), b"a"), (name.encode(), b"b")]
    answer = await exchange("GET", "/health/live", headers=headers)
    assert answer.status == (401 if name == "authorization" else 400)
    assert msgspec.json.decode(answer.body)["code"] == "repeated_header"
    assert (b"www-authenticate" in dict(answer.headers)) == (name == "authorization")


# --- MessagePack ---


@pytest.mark.parametrize("name", ["application/msgpack", "application/x-msgpack", "application/vnd.msgpack"])
async def test_messagepack_goes_in_and_comes_out(hub: Hub, name: str) -> None:
    body = msgspec.msgpack.encode({"name": uuid4().hex, "permissions": ["roles:read"]})
    made = await hub.admin.post(ROLES, content=body, headers={"Content-Type": name, "Accept": name})
    assert (made.status_code, made.headers["content-type"]) == (201, "application/msgpack")
    as_json = (await hub.admin.get(made.headers["location"])).json()
    assert msgspec.msgpack.decode(made.content) == as_json


async def test_messagepack_says_what_json_says(hub: Hub) -> None:
    """Of each list, and of what is on it: stored documents and moments included."""
    source = {
        "name": uuid4().hex,
        "type": "rest",
        "config": {"base_url": "https://a.example"},
        "secrets": {"token": "t"},
    }
    made = await hub.admin.post("/api/v1/data-sources", json=source)
    assert made.status_code == 201, made.text
    lists = [f"/api/v1/{name}" for name in ("data-sources", "roles", "users", "audit-events", "auth/sessions")]
    for path in (made.headers["location"], *lists):
        as_json = (await hub.admin.get(path)).json()
        packed = await hub.admin.get(path, headers={"Accept": "application/msgpack"})
        assert msgspec.msgpack.decode(packed.content) == as_json, path


@pytest.mark.parametrize(
    ("accept", "is_msgpack"),
    [
        ("application/msgpack, application/json", True),
        ("application/json, application/msgpack", False),
        ("application/json, text/csv, application/vnd.msgpack", False),
        ("application/json;q=0.4, application/x-msgpack;q=0.5, application/msgpack;q=0.1", True),
        ("application/json, application/msgpack;q=0.5", False),
        ("application/msgpack;q=0", False),
        ("*/*", False),
        ("text/html", False),
        ("APPLICATION/MSGPACK", True),
        ("application/msgpack;q=x", False),
        ("application/msgpack;q=0.1", True),
        ("application/json;q=0.2,application/msgpack;q=0.9", True),
        ("msgpack", False),
        ("application/msgpackx", False),
        ("", False),
        ("application/msgpack;q=nan", False),
        (",;,;q=1", False),
    ],
)
async def test_the_form_of_the_answer_is_negotiated(hub: Hub, accept: str, is_msgpack: bool) -> None:
    for path in (ROLES, "/api/v1/auth/me", "/nothing"):
        answer = await hub.admin.get(path, headers={"Accept": accept})
        assert (answer.headers["content-type"] == "application/msgpack") is is_msgpack


async def test_errors_come_in_messagepack_too(hub: Hub) -> None:
    answer = await hub.admin.post(ROLES, json={}, headers={"Accept": "application/msgpack"})
    assert msgspec.msgpack.decode(answer.content)["errors"][0]["path"] == "name"


# --- bodies: limits and time (RL1, RL2) ---


@pytest.mark.fault("RL1")
async def test_a_body_over_the_limit_is_refused_unread(hub: Hub, exchange: Exchange) -> None:
    token = hub.admin.headers["authorization"].encode()
    headers = [JSON, (b"authorization", token), (b"content-length", str(hub.settings.max_body_bytes + 1).encode())]
    answer = await exchange("POST", ROLES, headers=headers)
    assert (answer.status, answer.bodies_read) == (413, 0)
    assert msgspec.json.decode(answer.body)["code"] == "too_large"


@pytest.mark.fault("RL1")
async def test_a_body_without_a_length_is_cut_at_the_limit(hub: Hub, exchange: Exchange) -> None:
    async def endless() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 65536, "more_body": True}

    for path, headers in (
        (ROLES, [(b"authorization", hub.admin.headers["authorization"].encode())]),
        ("/api/v1/auth/login", []),
    ):
        answer = await exchange("POST", path, headers=[JSON, *headers], body=endless)
        assert answer.status == 413
        assert answer.bodies_read <= hub.settings.max_body_bytes // 65536 + 2


async def test_a_body_at_the_limit_is_read(hub: Hub) -> None:
    body = msgspec.json.encode({"name": "x", "description": ""})
    padded = body + b" " * (hub.settings.max_body_bytes - len(body))
    answer = await hub.admin.post(ROLES, content=padded, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    await hub.admin.delete(answer.headers["location"])


async def test_who_may_not_call_has_no_body_read(exchange: Exchange) -> None:
    answer = await exchange("POST", ROLES, headers=[JSON, (b"content-length", b"500000")])
    assert (answer.status, answer.bodies_read) == (401, 0)


@pytest.mark.parametrize(
    "length", [b"abc", b"-1", b"1e3", b"0x10", b"", b"5,5", b"99999999999999999999999999", "٥".encode()]
)
async def test_a_length_that_is_none_is_refused(exchange: Exchange, length: bytes) -> None:
    answer = await exchange("POST", "/api/v1/auth/login", headers=[JSON, (b"content-length", length)], body=b"{}")
    assert answer.status in (400, 413)


@pytest.mark.fault("RL2")
async def test_a_body_that_does_not_come_ends_the_request(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_BODY_DEADLINES", Deadlines(0.05))

    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    answer = await exchange("POST", "/api/v1/auth/login", headers=[JSON, (b"content-length", b"10")], body=never)
    assert answer.status in (400, 408)
    assert msgspec.json.decode(answer.body)["code"] == "body_timeout"


@pytest.mark.fault("RL2")
async def test_a_body_that_trickles_in_ends_the_request(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_BODY_DEADLINES", Deadlines(0.1))

    async def trickle() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    answer = await exchange("POST", "/api/v1/auth/login", headers=[JSON], body=trickle)
    assert msgspec.json.decode(answer.body)["code"] == "body_timeout"


async def test_a_client_that_leaves_within_its_body_does_no_harm(exchange: Exchange) -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    answer = await exchange("POST", "/api/v1/auth/login", headers=[JSON, (b"content-length", b"10")], body=gone)
    assert answer.status < 500


async def test_every_request_has_a_deadline(hub: Hub) -> None:
    client = variant(hub, request_timeout_s=0.05)
    async with AsyncExitStack() as held:
        for _ in range(hub.settings.pool_size):
            await held.enter_async_context(hub.parts.reads.connection(None, None))
        answer = await client.get(ROLES)
    assert_error(answer, 503, "deadline_exceeded")
    assert answer.headers["retry-after"].isdigit()
    assert (await hub.admin.get(ROLES)).status_code == 200


# --- health ---


async def test_health_needs_nobody(hub: Hub) -> None:
    assert (await hub.client().get("/health/live")).json()["status"] == "ok"
    assert (await hub.client().get("/health/ready")).json()["status"] == "ok"


async def test_metrics_name_routes_and_never_ids(hub: Hub) -> None:
    unknown = str(uuid4())
    await hub.admin.get(f"{ROLES}/{unknown}")
    await hub.admin.get(f"/{unknown}")
    text = (await hub.admin.get("/metrics")).text
    assert unknown not in text
    assert 'route="unmatched"' in text
