"""Tokens and sessions over HTTP: ST3 to ST9. The tokens themselves: tests/core/test_security.py."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import jwt
import msgspec
import pytest

from app.core.notifications import PROOF_VALID_S
from app.core.security import Claims
from app.domain.auth.sessions import refresh_token_of
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records, new_user, open_pair

pytestmark = pytest.mark.anyio

ME = "/api/v1/auth/me"
LOGIN = "/api/v1/auth/login"
REFRESH = "/api/v1/auth/refresh"


async def pair_of(hub: Hub, records: Records) -> dict[str, Any]:
    email = await new_user(hub, records)
    return await open_pair(hub, records, email)


async def refreshed(hub: Hub, token: str) -> httpx.Response:
    return await hub.client().post(REFRESH, json={"refresh_token": token})


def claims_of(access_token: str) -> Claims:
    return msgspec.convert(jwt.decode(access_token, options={"verify_signature": False}), Claims)


async def status_of(hub: Hub, access_token: str) -> int:
    return (await hub.client(access_token).get(ME)).status_code


async def within_a_second(check: Callable[[], Awaitable[bool]]) -> bool:
    deadline = time.monotonic() + 1
    while not (holds := await check()) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return holds


# --- ST4: where a token may stand ---


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Basic {token}")],
        [("Authorization", "{token}")],
        [("Authorization", "Bearer {token} ")],
        [("Authorization", "Bearer  {token}")],
        [("Authorization", "Bearer {token}, Bearer {token}")],
        [("Authorization", "Bearer {token}; a=b")],
        [("Authorization", 'Bearer "{token}"')],
        [("Proxy-Authorization", "Bearer {token}")],
        [("X-Authorization", "Bearer {token}")],
        [("X-Access-Token", "{token}")],
        [("Cookie", "access_token={token}; token={token}; Authorization=Bearer {token}")],
        [("X-Original-Authorization", "Bearer {token}"), ("X-Forwarded-User", "admin@example.org")],
    ],
    ids=str,
)
async def test_a_token_stands_in_one_place_only(hub: Hub, headers: list[tuple[str, str]]) -> None:
    token = hub.admin.headers["authorization"].removeprefix("Bearer ")
    given = [(name, value.format(token=token)) for name, value in headers]
    answer = await hub.client().get(ME, headers=given)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert set(answer.json()) == {"detail", "code", "request_id"}


async def test_two_tokens_are_refused(hub: Hub) -> None:
    token = hub.admin.headers["authorization"]
    answer = await hub.client().get(ME, headers=[("Authorization", token), ("Authorization", token)])
    assert answer.status_code in (400, 401)


@pytest.mark.parametrize("query", ["access_token={token}", "token={token}", "authorization=Bearer%20{token}"])
async def test_a_token_in_the_address_is_no_token(hub: Hub, query: str) -> None:
    token = hub.admin.headers["authorization"].removeprefix("Bearer ")
    assert (await hub.client().get(f"{ME}?{query.format(token=token)}")).status_code == 401


async def test_a_token_in_a_form_is_no_token(hub: Hub) -> None:
    token = hub.admin.headers["authorization"].removeprefix("Bearer ")
    answer = await hub.client().post("/api/v1/auth/introspect", data={"access_token": token, "token": token})
    assert answer.status_code == 401


# --- ST3: kinds of tokens ---


async def test_no_kind_of_token_is_taken_for_another(hub: Hub, records: Records) -> None:
    pair = await pair_of(hub, records)
    assert await status_of(hub, pair["refresh_token"]) == 401
    assert (await refreshed(hub, pair["access_token"])).status_code == 401
    assert await status_of(hub, str(claims_of(pair["access_token"]).sid)) == 401
    assert await status_of(hub, pair["access_token"]) == 200


# --- ST5 ---


async def test_another_spelling_of_an_ended_token_is_ended(hub: Hub, records: Records) -> None:
    token = (await pair_of(hub, records))["access_token"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]
    await hub.client(token).post("/api/v1/auth/logout")
    assert {await status_of(hub, token), await status_of(hub, twin)} == {401}


async def test_a_token_that_names_anothers_session_is_refused(hub: Hub, records: Records) -> None:
    one, two = [claims_of((await pair_of(hub, records))["access_token"]) for _ in range(2)]
    issue = hub.parts.tokens.issue
    for made in (
        issue(subject=one.sub, session=two.sid, tenant=one.tid),
        issue(subject=one.sub, session=uuid4(), tenant=one.tid),
        issue(subject=uuid4(), session=one.sid, tenant=one.tid),
        issue(subject=one.sub, session=one.sid, tenant=UUID(int=1)),
    ):
        assert await status_of(hub, made) == 401
        assert await status_of(hub, made) == 401, "nor at the second try, when something may be in memory"


# --- ST7: refreshing ---


async def test_refreshing_rotates(hub: Hub, records: Records) -> None:
    first = await pair_of(hub, records)
    answer = await refreshed(hub, first["refresh_token"])
    second = answer.json()
    assert set(second) == set(first)
    assert second["refresh_token"] != first["refresh_token"]
    assert claims_of(second["access_token"]).sid == claims_of(first["access_token"]).sid
    assert await status_of(hub, second["access_token"]) == 200
    assert [row["action"] for row in await records.audit(answer)] == ["auth.refresh"]


async def test_within_ten_seconds_a_refresh_is_repeated_with_the_same_successor(hub: Hub, records: Records) -> None:
    first = await pair_of(hub, records)
    one, two = await refreshed(hub, first["refresh_token"]), await refreshed(hub, first["refresh_token"])
    assert one.json()["refresh_token"] == two.json()["refresh_token"]


async def test_parallel_refreshes_on_two_workers_have_one_successor(
    hub: Hub, other_worker: Hub, records: Records
) -> None:
    first = await pair_of(hub, records)
    workers = [hub, other_worker] * 5
    answers = await asyncio.gather(*(refreshed(worker, first["refresh_token"]) for worker in workers))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert (await refreshed(hub, answers[0].json()["refresh_token"])).status_code == 200


async def test_a_token_used_again_after_the_grace_ends_the_session(
    hub: Hub, other_worker: Hub, records: Records
) -> None:
    first = await pair_of(hub, records)
    second = (await refreshed(hub, first["refresh_token"])).json()
    await records.run("UPDATE sessions SET rotated_at = rotated_at - interval '11 seconds'")
    again = await refreshed(hub, first["refresh_token"])
    assert (again.status_code, again.json()["code"]) == (401, "invalid_refresh_token")
    assert [(row["action"], row["outcome"]) for row in await records.audit(again)] == [
        ("auth.refresh_reused", "refused")
    ]
    assert (await refreshed(hub, second["refresh_token"])).status_code == 401
    assert await status_of(hub, second["access_token"]) == 401

    async def is_dead() -> bool:
        return await status_of(other_worker, second["access_token"]) == 401

    assert await within_a_second(is_dead)


async def test_the_log_names_whose_session_was_refreshed(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    pair = await open_pair(hub, records, email)
    answer = await refreshed(hub, pair["refresh_token"])
    await records.run("UPDATE sessions SET rotated_at = rotated_at - interval '11 seconds'")
    again = await refreshed(hub, pair["refresh_token"])
    assert [row["actor_name"] for one in (answer, again) for row in await records.audit(one)] == [email, email]


async def test_the_grace_is_for_the_last_token_only(hub: Hub, records: Records) -> None:
    """Who holds the token before the last one did not merely lose an answer."""
    first = await pair_of(hub, records)
    second = (await refreshed(hub, first["refresh_token"])).json()
    third = (await refreshed(hub, second["refresh_token"])).json()
    assert (await refreshed(hub, first["refresh_token"])).status_code == 401
    assert (await refreshed(hub, third["refresh_token"])).status_code == 401


async def test_reuse_leaves_other_sessions_of_the_user_alone(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    stolen, other = await open_pair(hub, records, email), await open_pair(hub, records, email)
    second = (await refreshed(hub, stolen["refresh_token"])).json()
    await refreshed(hub, second["refresh_token"])
    await refreshed(hub, stolen["refresh_token"])
    assert (await refreshed(hub, other["refresh_token"])).status_code == 200


async def test_a_token_of_a_generation_to_come_cannot_be_made(hub: Hub, records: Records) -> None:
    """Even with the server's key at hand it ends the session: it was never given out."""
    first = await pair_of(hub, records)
    session_id = claims_of(first["access_token"]).sid
    early = refresh_token_of(hub.parts.key_ring, hub.parts.key_ring.current_id, session_id, 7)
    assert (await refreshed(hub, early)).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1],
        lambda token: token + "=",
        lambda token: token.upper(),
        lambda token: token.replace("_1_", "_2_"),
        lambda token: token.replace("_1_", "_01_"),
        lambda token: token.replace("_1_", "_١_"),
        lambda token: token.replace("_1_", "_-1_"),
        lambda token: token.replace("_1_", "_" + "9" * 100 + "_"),
        lambda token: token.replace("dfr_", "dfh_"),
        lambda token: token.replace("dfr_", "dfr__"),
        lambda token: token[:4] + "g" * 32 + token[36:],
        lambda token: token[:4] + token[4:12] + "-" + token[13:],
        lambda token: f" {token}",
        lambda token: f"{token}\n",
        lambda token: "é" * 50,
        lambda token: "_" * 3,
        lambda token: "dfr_" + "0" * 32 + "_1_" + "A" * 43,
    ],
)
async def test_a_refresh_token_that_was_changed_is_refused(hub: Hub, records: Records, change: Any) -> None:
    pair = await pair_of(hub, records)
    answer = await refreshed(hub, change(pair["refresh_token"]))
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_refresh_token")
    assert (await refreshed(hub, pair["refresh_token"])).status_code == 200


@pytest.mark.parametrize(
    "body", [{}, {"refresh_token": ""}, {"refresh_token": None}, {"refresh_token": "x" * 4097}, {"token": "x"}]
)
async def test_a_refresh_without_a_token_is_a_bad_request(hub: Hub, body: Any) -> None:
    assert (await hub.client().post(REFRESH, json=body)).status_code == 400


# --- ST8: lifetimes ---


@pytest.mark.parametrize("column", ["idle_expires_at", "expires_at"])
async def test_a_session_ends_by_itself(hub: Hub, records: Records, column: str) -> None:
    pair = await pair_of(hub, records)
    session_id = claims_of(pair["access_token"]).sid
    await records.run(f"UPDATE sessions SET {column} = now() - interval '1 second' WHERE id = $1", session_id)
    hub.parts.principals.drop("session", session_id)
    assert await status_of(hub, pair["access_token"]) == 401
    assert (await refreshed(hub, pair["refresh_token"])).status_code == 401


async def test_a_session_in_memory_ends_by_itself_too(hub: Hub, records: Records) -> None:
    pair = await pair_of(hub, records)
    session_id = claims_of(pair["access_token"]).sid
    await records.run(
        "UPDATE sessions SET idle_expires_at = now() + interval '700 milliseconds' WHERE id = $1", session_id
    )
    assert await status_of(hub, pair["access_token"]) == 200
    await asyncio.sleep(0.8)
    assert await status_of(hub, pair["access_token"]) == 401


async def test_refreshing_prolongs_the_idle_time_but_never_the_absolute_one(hub: Hub, records: Records) -> None:
    pair = await pair_of(hub, records)
    session_id = claims_of(pair["access_token"]).sid
    await records.run(
        "UPDATE sessions SET expires_at = now() + interval '90 seconds', idle_expires_at = now() + interval '60 seconds' WHERE id = $1",
        session_id,
    )
    answer = (await refreshed(hub, pair["refresh_token"])).json()
    assert 60 < answer["refresh_expires_in"] <= 90


async def test_an_expired_session_is_not_listed(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    old, new = await open_pair(hub, records, email), await open_pair(hub, records, email)
    await records.run("UPDATE sessions SET idle_expires_at = now() WHERE id = $1", claims_of(old["access_token"]).sid)
    listed = await hub.client(new["access_token"]).get("/api/v1/auth/sessions")
    assert len(listed.json()["items"]) == 1


async def test_a_deactivated_user_cannot_refresh(hub: Hub, records: Records) -> None:
    pair = await pair_of(hub, records)
    user_id = claims_of(pair["access_token"]).sub
    assert (await hub.admin.patch(f"/api/v1/users/{user_id}", json={"is_active": False})).status_code == 200
    assert (await refreshed(hub, pair["refresh_token"])).status_code == 401
    await hub.admin.patch(f"/api/v1/users/{user_id}", json={"is_active": True})
    assert (await refreshed(hub, pair["refresh_token"])).status_code == 401, "sessions that ended stay ended"


# --- ST6: on every worker within a second ---


async def logout(hub: Hub, token: str, user_id: UUID) -> None:
    await hub.client(token).post("/api/v1/auth/logout")


async def logout_everywhere(hub: Hub, token: str, user_id: UUID) -> None:
    await hub.client(token).post("/api/v1/auth/logout", json={"scope": "all"})


async def deactivate(hub: Hub, token: str, user_id: UUID) -> None:
    await hub.admin.patch(f"/api/v1/users/{user_id}", json={"is_active": False})


async def delete(hub: Hub, token: str, user_id: UUID) -> None:
    await hub.admin.delete(f"/api/v1/users/{user_id}")


async def set_password(hub: Hub, token: str, user_id: UUID) -> None:
    await hub.admin.patch(f"/api/v1/users/{user_id}", json={"password": "another phrase about lanterns"})


async def take_password(hub: Hub, token: str, user_id: UUID) -> None:
    await hub.admin.patch(f"/api/v1/users/{user_id}", json={"password": None})


@pytest.mark.parametrize("end", [logout, logout_everywhere, deactivate, delete, set_password, take_password])
async def test_what_ends_a_session_on_one_worker_ends_it_on_the_other(
    hub: Hub, other_worker: Hub, records: Records, end: Callable[[Hub, str, UUID], Awaitable[None]]
) -> None:
    token = (await pair_of(hub, records))["access_token"]
    assert {await status_of(hub, token), await status_of(other_worker, token)} == {200}
    await end(hub, token, claims_of(token).sub)
    assert await status_of(hub, token) == 401, "at once on the worker that did it"

    async def is_dead() -> bool:
        return await status_of(other_worker, token) == 401

    assert await within_a_second(is_dead)


@pytest.mark.parametrize("way", ["unassign", "empty", "delete"])
async def test_a_role_that_is_gone_is_gone_on_the_other_worker(
    hub: Hub, other_worker: Hub, records: Records, way: str
) -> None:
    token = (await pair_of(hub, records))["access_token"]
    user_id = claims_of(token).sub
    role = await hub.new_role(permissions=["roles:read"])
    await hub.admin.put(f"/api/v1/users/{user_id}/roles/{role['id']}")

    async def may_read() -> bool:
        return (await other_worker.client(token).get("/api/v1/roles")).status_code == 200

    assert await within_a_second(may_read)
    if way == "unassign":
        await hub.admin.delete(f"/api/v1/users/{user_id}/roles/{role['id']}")
    elif way == "empty":
        await hub.admin.patch(f"/api/v1/roles/{role['id']}", json={"permissions": []})
    else:
        await hub.admin.delete(f"/api/v1/roles/{role['id']}")

    async def may_not() -> bool:
        return not await may_read()

    assert await within_a_second(may_not)
    me = (await other_worker.client(token).get(ME)).json()
    assert me["permissions"] == []
    assert (role["name"] in str(me)) == (way == "empty")


async def test_a_new_name_shows_on_the_other_worker(hub: Hub, other_worker: Hub, records: Records) -> None:
    token = (await pair_of(hub, records))["access_token"]
    assert await status_of(other_worker, token) == 200
    await hub.admin.patch(f"/api/v1/users/{claims_of(token).sub}", json={"first_name": "Renamed"})

    async def is_renamed() -> bool:
        return bool((await other_worker.client(token).get(ME)).json()["user"]["first_name"] == "Renamed")

    assert await within_a_second(is_renamed)


async def test_a_tenant_that_is_closed_lets_nobody_in(hub: Hub, records: Records) -> None:
    tenant_id = uuid4()
    await records.run(
        "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, $2, 'T', true, now(), now())",
        tenant_id,
        tenant_id.hex,
    )
    email = await new_user(hub, records)
    await records.run("UPDATE users SET tenant_id = $1 WHERE email = $2", tenant_id, email)
    body = {"email": email, "password": PASSWORD, "tenant": tenant_id.hex}
    wrong = await hub.client().post(LOGIN, json=body | {"password": "wrong"})
    right = await hub.client().post(LOGIN, json=body)
    again = await refreshed(hub, right.json()["refresh_token"])
    for answer in (wrong, right, again):
        assert [row["tenant_id"] for row in await records.audit(answer)] == [tenant_id], (
            "AZ4: on the tenant's own record"
        )
    pair = again.json()
    assert await status_of(hub, pair["access_token"]) == 200
    await records.run("UPDATE tenants SET is_active = false WHERE id = $1", tenant_id)
    hub.parts.principals.drop("tenant", tenant_id)
    assert await status_of(hub, pair["access_token"]) == 401
    assert (await refreshed(hub, pair["refresh_token"])).status_code == 401
    assert (await hub.client().post(LOGIN, json=body)).status_code == 401


# --- ST6: failing closed ---


async def kill_listeners(hub: Hub) -> int:
    """The application role may end its own backends."""
    async with hub.parts.reads.connection(None, None) as connection:
        killed = await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'hub listener' AND datname = current_database()"
        )
    return len(killed)


async def test_a_worker_that_cannot_hear_trusts_nothing_in_memory(
    hub: Hub, other_worker: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await pair_of(hub, records))["access_token"]
    assert await status_of(other_worker, token) == 200
    real = asyncpg.connect

    async def refuse_listeners(*arguments: Any, **options: Any) -> Any:
        if options.get("server_settings", {}).get("application_name") == "hub listener":
            raise ConnectionRefusedError
        return await real(*arguments, **options)

    monkeypatch.setattr(asyncpg, "connect", refuse_listeners)
    assert await kill_listeners(hub) >= 2
    await records.run(
        "UPDATE sessions SET revoked_at = now() WHERE id = $1", claims_of(token).sid
    )  # and no notification
    await asyncio.sleep(PROOF_VALID_S + 0.15)
    assert not other_worker.parts.principals._listener.is_proven_alive
    assert await status_of(other_worker, token) == 401
    monkeypatch.undo()


async def test_a_worker_that_hears_again_forgets_what_it_may_have_missed(
    hub: Hub, other_worker: Hub, records: Records
) -> None:
    token = (await pair_of(hub, records))["access_token"]

    async def hears() -> bool:
        return other_worker.parts.principals._listener.is_proven_alive

    for _ in range(3):
        await within_a_second(hears)
    assert await hears()
    assert await status_of(other_worker, token) == 200
    await kill_listeners(hub)
    await records.run("UPDATE sessions SET revoked_at = now() WHERE id = $1", claims_of(token).sid)

    async def is_dead() -> bool:
        return await status_of(other_worker, token) == 401

    assert await within_a_second(is_dead)
    for _ in range(3):
        await within_a_second(hears)
    assert await hears(), "and it serves from memory again"


async def test_a_load_begun_before_a_revocation_is_not_kept(
    hub: Hub, other_worker: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row was read while it was live; the notification comes while the answer is still on its way."""
    pair = await pair_of(hub, records)
    claims = claims_of(pair["access_token"])
    principals = other_worker.parts.principals
    has_read, may_go_on = asyncio.Event(), asyncio.Event()
    real = principals._load

    async def slow(given: Claims) -> Any:
        loaded = await real(given)
        has_read.set()
        await may_go_on.wait()
        return loaded

    monkeypatch.setattr(principals, "_load", slow)
    loading = asyncio.create_task(principals.of(claims))
    await has_read.wait()
    mark = principals._mark(claims.sid)
    await hub.client(pair["access_token"]).post("/api/v1/auth/logout")

    async def has_heard() -> bool:
        return mark.has_changed

    assert await within_a_second(has_heard)
    may_go_on.set()
    await loading
    monkeypatch.undo()
    assert claims.sid not in principals._kept
    assert await status_of(other_worker, pair["access_token"]) == 401


@pytest.mark.parametrize("payload", ["", "session:", "session:nonsense", "nonsense", "tenant:1"])
async def test_a_notification_that_cannot_be_read_makes_all_be_forgotten(
    hub: Hub, records: Records, payload: str
) -> None:
    token = (await pair_of(hub, records))["access_token"]
    assert await status_of(hub, token) == 200
    session_id = claims_of(token).sid

    async def is_kept() -> bool:
        await status_of(hub, token)
        return session_id in hub.parts.principals._kept

    for _ in range(3):
        await within_a_second(is_kept)
    assert session_id in hub.parts.principals._kept
    await records.run("SELECT pg_notify('hub_principals', $1)", payload)

    async def is_forgotten() -> bool:
        return session_id not in hub.parts.principals._kept

    assert await within_a_second(is_forgotten)


# --- ST9: no way around the guard ---


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "GET", "TRACE", "PROPFIND", "get", "CONNECT"])
async def test_no_method_goes_around_the_guard(hub: Hub, method: str) -> None:
    answer = await hub.client().request(method, "/api/v1/users")
    assert answer.status_code in ((204,) if method == "OPTIONS" else (401, 405))
    assert "example.org" not in answer.text
    assert "etag" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/users/",
        "//api/v1/users",
        "/api/v1//users",
        "/api/v1/./users",
        "/api/v1/health/../users",
        "/api/v1/users%2f",
        "/api/v1/%75sers",
        "/API/V1/USERS",
        "/api/v1/users;x=1",
        "/api/v1/users%00",
        "/api/v1/users%0a",
        "/health/live/../../api/v1/users",
        "/api/v1/users.json",
        "/api/v1/users?x",
        "/.well-known/../api/v1/users",
        "/api/v1/users/%2e%2e/users",
        "/docs/../api/v1/users",
        "/openapi.json/../api/v1/users",
        "/api/v1/auth/login/../../users",
        "/api/v2/users",
    ],
)
async def test_no_look_alike_path_goes_around_the_guard(hub: Hub, path: str) -> None:
    request = httpx.Request("GET", "http://hub.test")
    request.url = httpx.URL("http://hub.test").copy_with(raw_path=path.encode())
    answer = await hub.client().send(request)
    assert answer.status_code in (400, 401, 404, 405), answer.text


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix"])
async def test_no_header_changes_what_is_asked_for(hub: Hub, header: str) -> None:
    answer = await hub.client().get("/api/v1/users", headers={header: "/health/live"})
    assert answer.status_code == 401
    answer = await hub.client().post("/api/v1/auth/login", headers={header: "GET"}, json={})
    assert answer.status_code == 400
