"""Malformed input, wherever input comes in: MA1 to MA3, IN1 to IN4. No request of any kind is a 5xx for its content.

What bodies alone may hold: tests/core/test_bodies.py. Here the same kinds of nonsense go through the whole application.
"""

import json
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import msgspec
import pytest

from app.core.logging import RequestLog
from tests.conftest import Hub
from tests.contract.conftest import Exchange

pytestmark = pytest.mark.anyio

ROLES, USERS = "/api/v1/roles", "/api/v1/users"
JSON = {"Content-Type": "application/json"}
BODIES = [
    "/api/v1/auth/login",
    "/api/v1/auth/register",
    "/api/v1/auth/refresh",
    "/api/v1/auth/logout",
    "/api/v1/auth/change-password",
    ROLES,
    USERS,
]

TEXTS = {
    "NUL": "\x00",
    "NUL within": "a\x00b",
    "CR LF": "a\r\nSet-Cookie: x=1",
    "a line separator": "a\u2028b",
    "terminal escapes": "\x1b[2J\x1b]0;x\x07",
    "half a pair": "\ud800",
    "a pair the wrong way": "\udc00\ud800",
    "not a character": "\uffff\ufdd0",
    "the last one": "\U0010ffff",
    "right to left": "\u202eevil",
    "a combining flood": "a" + "\u0301" * 150,
    "an expanding ligature": "\ufdfa" * 100,
    "very long": "x" * 100_000,
    "SQL": "'; DROP TABLE users; --",
    "a format": "%s%n{0}{{}}${jndi:ldap://x}",
    "markup": "<script>alert(1)</script>",
    "a path": "../../etc/passwd",
}


def assert_answered(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        body = msgspec.json.decode(answer.content)
        assert isinstance(body["detail"], str)
        assert body["code"]
        for word in ("SELECT ", "INSERT ", "asyncpg", "Traceback", "sqlalchemy", "line "):
            assert word not in body["detail"]
    for name, value in answer.headers.raw:
        assert b"\r" not in name + value
        assert b"\n" not in name + value


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_any_text_in_any_field_is_stored_or_refused(hub: Hub, text: str) -> None:
    fields = {
        ROLES: ("name", "description", "owner_role_id"),
        USERS: ("email", "first_name", "last_name", "password", "is_active"),
    }
    required = {ROLES: {"name": "r"}, USERS: {"email": "a@example.org"}}
    for path, names in fields.items():
        for name in names:
            body = required[path] | {name: text}
            answers = [await hub.admin.post(path, content=json.dumps(body).encode(), headers=JSON)]
            if not any("\ud800" <= character <= "\udfff" for character in text):
                packed = {"Content-Type": "application/msgpack"}
                answers.append(await hub.admin.post(path, content=msgspec.msgpack.encode(body), headers=packed))
            for answer in answers:
                assert_answered(answer)
                if answer.status_code == 201:
                    shown = (await hub.admin.get(answer.headers["location"])).json()
                    kept = " ".join(text.split()) if name.endswith("name") else text.strip()
                    assert name in ("email", "password") or shown[name].strip() == kept
                    await hub.admin.delete(answer.headers["location"])


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_any_text_as_login_is_refused(hub: Hub, text: str) -> None:
    for fields in ({"email": text}, {"password": text, "tenant": text}):
        body = {"email": "admin@example.org", "password": "wrong"} | fields
        answer = await hub.client().post("/api/v1/auth/login", content=json.dumps(body).encode(), headers=JSON)
        assert_answered(answer)
        assert answer.status_code in (400, 401)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_any_text_in_a_path_is_answered(hub: Hub, text: str) -> None:
    encoded = quote(text[:3000].encode(errors="surrogatepass"), safe="")
    for path in (
        f"/{encoded}",
        f"{ROLES}/{encoded}",
        f"{USERS}/{encoded}/roles/{encoded}",
        f"/api/v1/auth/sessions/{encoded}",
    ):
        assert_answered(await hub.admin.get(path))
        assert_answered(await hub.admin.delete(path))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_any_text_in_a_query_is_answered(hub: Hub, text: str) -> None:
    encoded = quote(text[:900].encode(errors="surrogatepass"), safe="")
    lists = {
        ROLES: ("q", "name", "sort", "cursor", "limit", "owner_role_id", "is_system", "count", encoded),
        USERS: ("q", "email", "role_id", "is_active"),
        "/api/v1/permissions": ("q", "sort", "cursor", "limit"),
        "/api/v1/auth/sessions": ("cursor", "sort"),
    }
    for path, names in lists.items():
        for name in names:
            answer = await hub.admin.get(f"{path}?{name}={encoded}")
            assert_answered(answer)
            assert answer.status_code in (200, 400)


HEADERS = [
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "If-None-Match",
    "If-Match",
    "Idempotency-Key",
    "X-Request-ID",
    "Content-Type",
    "User-Agent",
    "Cookie",
    "Origin",
    "Host",
    "X-Forwarded-For",
    "Forwarded",
    "Range",
    "Expect",
    "Transfer-Encoding",
    "Authorization",
    "Traceparent",
]
HEADER_VALUES = [
    b"",
    b"\xff\xfe",
    b"\x00",
    b"a\r\nX-Evil: 1",
    b"," * 100,
    b'"' * 50,
    b";q=" * 30,
    b"x" * 8000,
    "ü€😀".encode(),
    b"%00",
    b"bytes=0-1",
    b"100-continue",
]


@pytest.mark.parametrize("name", HEADERS)
async def test_any_bytes_in_a_header_are_answered(hub: Hub, exchange: Exchange, name: str) -> None:
    token = hub.admin.headers["authorization"].encode()
    for value in HEADER_VALUES:
        headers = [(name.lower().encode(), value)]
        if name != "Authorization":
            headers.append((b"authorization", token))
        for method, path, body in (
            ("GET", ROLES, b""),
            ("POST", ROLES, b"{}"),
            ("GET", f"{ROLES}/{uuid4()}", b""),
            ("GET", "/api/v1/auth/me", b""),
        ):
            answer = await exchange(method, path, headers=headers, body=body)
            assert answer.status < 500, (value, answer)
            assert not any(b"\n" in part or b"\r" in part for pair in answer.headers for part in pair)
            assert answer.header(b"x-evil") is None


@pytest.mark.parametrize(
    "body", ["[]", '""', "0", "true", "{", "[[[[", '{"a":1,"a":2}', "NaN", '{"": 1}', "\ufeff{}", "'{}'", "{}{}"]
)
async def test_bodies_of_any_shape_are_refused_by_every_call(hub: Hub, body: str) -> None:
    """But for `null` and nothing, which is how one logs out."""
    for path in BODIES:
        answer = await hub.admin.post(path, content=body.encode(), headers=JSON)
        assert_answered(answer)
        assert answer.status_code == 400, path
    assert (await hub.admin.get("/api/v1/auth/me")).status_code == 200


DEEP = {
    "lists": "[" * 50_000 + "]" * 50_000,
    "objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "unfinished": '{"name":' + "[" * 100_000,
    "under a known name": '{"name":' + "[" * 20_000 + "]" * 20_000 + "}",
    "digits": '{"name": 1' + "0" * 100_000 + "}",
    "a small number": '{"name": 1e-' + "9" * 1000 + "}",
    "many keys": "{" + ",".join(f'"k{n}":1' for n in range(20_000)) + "}",
    "many faults": '{"name":"x","permissions":[' + ",".join("1" for _ in range(50_000)) + "]}",
    "a long key": '{"' + "k" * 500_000 + '":1}',
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP)
async def test_heavy_bodies_are_refused(hub: Hub, body: str) -> None:
    answer = await hub.admin.post(ROLES, content=body.encode(), headers=JSON)
    assert_answered(answer)
    assert answer.status_code == 400
    assert len(answer.content) < 50_000, "an answer is not as large as its question"


@pytest.mark.parametrize(
    "value", [5, 1.5, True, None, [], {}, "5", "true", ["a"], {"a": 1}, 2**63, 2**64, -(2**70), 1e308]
)
async def test_a_value_of_another_type_is_named(hub: Hub, value: Any) -> None:
    """MA2."""
    right = {"name": str, "description": (str, type(None)), "permissions": list, "owner_role_id": type(None)}
    for field, types in right.items():
        if isinstance(value, types) and not (field == "permissions" and value == ["a"]):  # type: ignore[arg-type]
            continue
        answer = await hub.admin.post(ROLES, json={"name": "x", field: value})
        assert answer.status_code == 400, (field, value)
        assert {fault["path"].split("[")[0] for fault in answer.json()["errors"]} == {field}


# --- IN3: content types ---


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/json; charset=utf-16",
        "application/octet-stream",
        "*/*",
        "",
    ],
)
async def test_another_content_type_is_a_415(hub: Hub, content_type: str) -> None:
    for path in BODIES:
        answer = await hub.admin.post(path, content=b'{"name": "x"}', headers={"Content-Type": content_type})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type"), path
    answer = await hub.admin.patch(f"{ROLES}/{uuid4()}", content=b"{}", headers={"Content-Type": content_type})
    assert answer.status_code == 415


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip"])
async def test_a_body_in_a_coding_is_a_415(hub: Hub, coding: str) -> None:
    """RFC 9110 section 15.5.16: what is wrong is how the body is packed, not what it says."""
    coded = {"Content-Type": "application/json", "Content-Encoding": coding}
    for path in BODIES:
        assert (await hub.admin.post(path, content=b'{"name": "x"}', headers=coded)).status_code == 415, path


async def test_no_content_type_is_a_415(exchange: Exchange) -> None:
    answer = await exchange("POST", "/api/v1/auth/login", body=b"{}")
    assert answer.status == 415


@pytest.mark.parametrize("content_type", ["application/json", "application/msgpack"])
async def test_a_missing_body_is_a_400(hub: Hub, content_type: str) -> None:
    for path in BODIES:
        if not path.endswith("/logout"):
            answer = await hub.admin.post(path, headers={"Content-Type": content_type})
            assert (answer.status_code, answer.json()["code"]) == (400, "missing_body"), path
            assert "errors" not in answer.json()  # no field is at fault


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}])
async def test_where_a_body_is_needed_its_type_is_needed_too(hub: Hub, headers: dict[str, str]) -> None:
    for path in BODIES:
        if not path.endswith("/logout"):
            assert (await hub.admin.post(path, headers=headers)).status_code == 415, path
    assert (await hub.admin.patch(f"{ROLES}/{uuid4()}", headers=headers)).status_code == 415


# --- MA3: twice ---


@pytest.mark.parametrize("query", ["limit=1&limit=2", "q=a&q=a", "cursor=&cursor=", "q=a&%71=b"])
async def test_a_parameter_that_comes_twice_is_a_400(hub: Hub, query: str) -> None:
    for path in (ROLES, USERS, "/api/v1/permissions"):
        answer = await hub.admin.get(f"{path}?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "repeated_parameter")


# --- IN2: constraint violations ---


async def test_no_answer_shows_sql_or_a_value(hub: Hub) -> None:
    secret_name = f"hush {uuid4().hex}"
    await hub.admin.post(ROLES, json={"name": secret_name})
    answers = [
        await hub.admin.post(ROLES, json={"name": secret_name}),
        await hub.admin.post(USERS, json={"email": "admin@example.org"}),
        await hub.admin.post(ROLES, json={"name": "x", "owner_role_id": str(uuid4())}),
    ]
    for answer in answers:
        assert answer.status_code in (400, 409)
        assert_answered(answer)
        assert secret_name not in answer.text
        assert "admin@example.org" not in answer.text
        assert "_key" not in answer.text


# --- IN4: one line each ---


@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_request_makes_one_log_line_whatever_it_holds(
    exchange: Exchange, hub: Hub, tmp_path: Any, form: Any
) -> None:
    from app.core.exchange import Exchange as HubExchange

    with (tmp_path / "log").open("wb") as stream:
        log = RequestLog(form, "info", stream)
        paths = ["/a\nlevel=error", "/a\r\n{}", "/\x1b[31m", "/\u2028x", "/\udcff\ud800", "/" + "x" * 10_000]
        for path in paths:
            scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "headers": [], "client": None}
            log(HubExchange(scope), 0.001)
        log.flush()
    lines = (tmp_path / "log").read_bytes().split(b"\n")
    assert len(lines) == len(paths) + 1
    assert all(b"\x1b" not in line and b"\r" not in line and len(line) < 2000 for line in lines)
