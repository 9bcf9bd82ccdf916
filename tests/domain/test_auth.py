"""Signing in and out: AN1 to AN5, and what api.md promises of `/auth`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import event

from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub
from tests.domain.conftest import WEAK, Records, new_user, open_session

pytestmark = pytest.mark.anyio

LOGIN = "/api/v1/auth/login"


async def attempt(hub: Hub, email: str, password: str = PASSWORD, **more: Any) -> httpx.Response:
    return await hub.client().post(LOGIN, json={"email": email, "password": password, **more})


# --- login ---


async def test_a_login_answers_a_pair_of_tokens(hub: Hub, records: Records) -> None:
    answer = await attempt(hub, await new_user(hub, records))
    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_in"}
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("bearer", 900)
    assert answer.headers["cache-control"] == "no-store"
    me = await hub.client(answer.json()["access_token"]).get("/api/v1/auth/me")
    assert me.status_code == 200


async def test_me_says_who_and_what_one_may(hub: Hub) -> None:
    me = (await hub.admin.get("/api/v1/auth/me")).json()
    assert set(me) == {"user", "service_account", "roles", "permissions", "tenant"}
    assert me["service_account"] is None
    assert me["user"]["email"] == ADMIN_EMAIL
    assert {role["name"] for role in me["roles"]} == {"admin", "public"}
    assert {"users:write", "roles:write"} <= set(me["permissions"])
    assert me["tenant"]["slug"] == "default"
    assert "password" not in str(me).replace("has_password", "")


async def test_every_login_has_one_audit_row(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    good, bad = await attempt(hub, email), await attempt(hub, email, "wrong")
    for answer, outcome in ((good, "success"), (bad, "failure")):
        (row,) = await records.audit(answer)
        assert (row["action"], row["outcome"], row["actor_name"]) == ("auth.login", outcome, email)


async def test_a_login_for_nobody_is_on_record_too(hub: Hub, records: Records) -> None:
    (row,) = await records.audit(await attempt(hub, "nobody.at.all@example.org"))
    assert (row["outcome"], row["actor_id"], row["actor_name"]) == ("failure", None, None)


# --- AN4: five ways to fail are one ---

FAILURES: dict[str, dict[str, Any]] = {
    "wrong": {},
    "disabled": {"is_active": False},
    "locked": {"failed_logins": 10, "locked_until": "later"},
    "without a password": {"password_hash": None},
}


@asynccontextmanager
async def counted(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, list[str]]]:
    """The password checks and statements that happen inside the block."""
    seen: dict[str, list[str]] = {"verified": [], "statements": []}
    real = hub.parts.passwords._fits

    def fits(password_hash: str, password: str) -> bool:
        seen["verified"].append(password_hash.split("$")[1] if password_hash else "")
        return real(password_hash, password)

    def note(*arguments: Any) -> None:
        seen["statements"].append(arguments[2].split()[0])

    monkeypatch.setattr(hub.parts.passwords, "_fits", fits)
    event.listen(hub.parts.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(hub.parts.engine.sync_engine, "before_cursor_execute", note)
        monkeypatch.undo()


async def failure(hub: Hub, email: str, password: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    async with counted(hub, monkeypatch) as work:
        answer = await attempt(hub, email, password)
    body = {name: value for name, value in answer.json().items() if name != "request_id"}
    counts = {"x-request-id", "ratelimit"}  # the other one, of the attempts from this address
    headers = {name: value for name, value in answer.headers.items() if name not in counts}
    return answer.status_code, body, headers, work


async def test_all_failures_to_log_in_are_alike_in_answer_and_work(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = await failure(hub, "unknown@example.org", PASSWORD, monkeypatch)
    assert unknown[0] == 401
    assert unknown[2]["www-authenticate"] == "Bearer"
    assert unknown[3]["verified"] == ["argon2id"]
    for name, columns in FAILURES.items():
        email = await new_user(hub, records, **{key: value for key, value in columns.items() if value != "later"})
        if "locked_until" in columns:
            await records.run("UPDATE users SET locked_until = now() + interval '9 minutes' WHERE email = $1", email)
        tried = "wrong" if name == "wrong" else PASSWORD
        assert await failure(hub, email, tried, monkeypatch) == unknown, name


async def test_an_address_of_two_tenants_fails_as_one_of_nobody_does(
    two_tenants: tuple[Hub, Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AN4, with the right password of both of them."""
    hub, _ = two_tenants
    email = f"{uuid4().hex}@example.org"
    for one in two_tenants:
        await one.new_user(email=email, password=PASSWORD)
    unknown = await failure(hub, "unknown@example.org", PASSWORD, monkeypatch)
    assert await failure(hub, email, PASSWORD, monkeypatch) == unknown
    assert await failure(hub, email, "wrong", monkeypatch) == unknown


@pytest.mark.found("A6")
@pytest.mark.fault("RL4")
async def test_a_login_that_would_wait_too_long_is_told_so_at_once_whoever_it_names(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AN4 holds for the flood too: it must not tell who exists."""
    known = await new_user(hub, records)
    monkeypatch.setattr(hub.parts.passwords, "_under_way", 100_000)
    answers = [
        await hub.client().post(LOGIN, json={"email": email, "password": password})
        for email, password in ((known, PASSWORD), (known, "wrong"), ("nobody@example.org", PASSWORD), ("", ""))
    ]
    assert {answer.status_code for answer in answers} == {429}
    assert {answer.json()["code"] for answer in answers} == {"login_busy"}
    assert len({answer.headers["retry-after"] for answer in answers}) == 1
    assert await records.one("SELECT failed_logins FROM users WHERE email = $1", known) == 0


@pytest.mark.parametrize(
    "email", ["", "@", "a" * 320, "a@b", "ada@example.org\r\nX-Evil: 1", "%00", "' OR 1=1 --", "ﷺ" * 100]
)
async def test_what_is_no_address_fails_like_an_unknown_one(hub: Hub, records: Records, email: str) -> None:
    answer = await attempt(hub, email)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")
    assert "x-evil" not in answer.headers
    assert len(await records.audit(answer)) == 1


@pytest.mark.parametrize("tenant", ["nowhere", "", "DEFAULT", "default'--"])
async def test_a_tenant_of_nobody_fails_like_an_unknown_user(hub: Hub, tenant: str) -> None:
    answer = await attempt(hub, ADMIN_EMAIL, tenant=tenant)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")


async def test_a_failed_login_is_on_record_with_the_tenant_it_was_for(hub: Hub, records: Records) -> None:
    slug = f"tenant-{uuid4().hex}"
    tenant_id = uuid4()
    await records.run(
        "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, $2, 'x', true, now(), now())",
        tenant_id,
        slug,
    )
    answer = await attempt(hub, "somebody@example.org", tenant=slug)
    assert answer.status_code == 401
    assert [row["tenant_id"] for row in await records.audit(answer)] == [tenant_id]


async def test_the_tenant_may_be_named(hub: Hub) -> None:
    assert (await attempt(hub, ADMIN_EMAIL, tenant="default")).status_code == 200


# --- AN2: the lock ---


async def test_ten_failures_in_a_row_lock_the_account_and_nobody_elses(hub: Hub, records: Records) -> None:
    email, neighbour = await new_user(hub, records), await new_user(hub, records)
    for _ in range(10):
        assert (await attempt(hub, email, "wrong")).status_code == 401
    assert (await attempt(hub, email)).status_code == 401
    assert (await attempt(hub, neighbour)).status_code == 200
    left = await records.one("SELECT extract(epoch FROM locked_until - now()) FROM users WHERE email = $1", email)
    assert 0 < left <= 15 * 60


async def test_nine_failures_and_a_success_begin_the_count_anew(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records, failed_logins=9)
    assert (await attempt(hub, email)).status_code == 200
    assert (await attempt(hub, email, "wrong")).status_code == 401
    assert await records.one("SELECT failed_logins FROM users WHERE email = $1", email) == 1
    assert (await attempt(hub, email)).status_code == 200


async def test_a_lock_that_ran_out_gives_ten_new_tries(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records, failed_logins=10)
    await records.run("UPDATE users SET locked_until = now() - interval '1 second' WHERE email = $1", email)
    assert (await attempt(hub, email, "wrong")).status_code == 401
    assert await records.one("SELECT failed_logins FROM users WHERE email = $1", email) == 1
    assert (await attempt(hub, email)).status_code == 200


async def test_guesses_while_locked_do_not_prolong_the_lock(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records, failed_logins=10)
    await records.run("UPDATE users SET locked_until = now() + interval '1 minute' WHERE email = $1", email)
    before = await records.one("SELECT locked_until FROM users WHERE email = $1", email)
    await attempt(hub, email, "wrong")
    assert await records.one("SELECT locked_until FROM users WHERE email = $1", email) == before


async def test_parallel_guesses_get_no_more_than_ten_tries(hub: Hub, other_worker: Hub, records: Records) -> None:
    """The right password is among the last of 40 guesses, sent at once to two workers: it may only pass before ten failures."""
    email = await new_user(hub, records)
    guesses = [attempt(hub if n % 2 else other_worker, email, f"guess {n}") for n in range(40)]
    assert {answer.status_code for answer in await asyncio.gather(*guesses)} == {401}
    assert await records.one("SELECT failed_logins FROM users WHERE email = $1", email) == 10
    assert (await attempt(other_worker, email)).status_code == 401


async def test_a_new_password_ends_the_lock(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records, failed_logins=10)
    await records.run("UPDATE users SET locked_until = now() + interval '1 minute' WHERE email = $1", email)
    user_id = await records.one("SELECT id FROM users WHERE email = $1", email)
    await hub.admin.patch(f"/api/v1/users/{user_id}", json={"password": "another phrase about lanterns"})
    assert (await attempt(hub, email, "another phrase about lanterns")).status_code == 200


# --- AN5 ---


async def test_a_weaker_hash_is_replaced_at_the_next_login(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    await attempt(hub, email, "wrong")
    assert "m=1024" in await records.one("SELECT password_hash FROM users WHERE email = $1", email)
    assert (await attempt(hub, email)).status_code == 200
    stronger = await records.one("SELECT password_hash FROM users WHERE email = $1", email)
    assert stronger.startswith("$argon2id$")
    assert not hub.parts.passwords.needs_rehash(stronger)
    assert (await attempt(hub, email)).status_code == 200
    assert await records.one("SELECT password_hash FROM users WHERE email = $1", email) == stronger


async def test_parallel_logins_all_succeed_while_the_hash_is_replaced(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    answers = await asyncio.gather(*(attempt(hub, email) for _ in range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6


# --- AN3: one person, one identity ---

SPELLINGS = [
    "Zoe.Weber@Example.ORG",
    " zoe.weber@example.org ",
    "ｚｏｅ.ｗｅｂｅｒ@ｅｘａｍｐｌｅ.ｏｒｇ",
    "zoe.weber＠example.org",
    "𝓏𝑜𝑒.weber@example.org",
    "zoe.weber@ｅxample。org",
    "zoe.weber\ufe0f@example.org",
    "zo\u034fe.weber@example.org",
    "zoe.w\u00adeber@example.org",
    "zoe\u200b.weber@example.org",
    "zoe.weber\u3164@example.org",
    "zo\u180be.weber@example.org",
]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=ascii)
async def test_a_spelling_of_an_address_never_makes_a_second_identity(hub: Hub, spelling: str) -> None:
    await hub.admin.post("/api/v1/users", json={"email": "zoe.weber@example.org"})
    answer = await hub.admin.post("/api/v1/users", json={"email": spelling})
    assert answer.status_code in (400, 409), answer.text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("straße@example.org", "STRASSE@example.org"),
        ("σίσυφος@example.org", "ΣΊΣΥΦΟΣ@example.org"),
        ("caf\u00e9@example.org", "cafe\u0301@example.org"),
        ("ﬁnn@example.org", "finn@example.org"),
        ("kelvin\u212a@example.org", "kelvink@example.org"),
        ("ﬀ@bücher.example", "FF@xn--bcher-kva.example"),
    ],
)
async def test_unicode_variants_are_one_identity(hub: Hub, one: str, other: str) -> None:
    assert (await hub.admin.post("/api/v1/users", json={"email": one})).status_code == 201
    answer = await hub.admin.post("/api/v1/users", json={"email": other})
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")


async def test_one_logs_in_with_any_spelling(hub: Hub, records: Records) -> None:
    made = await hub.admin.post("/api/v1/users", json={"email": "Jörg@Bücher.example"})
    await records.run("UPDATE users SET password_hash = $1 WHERE id = $2::uuid", WEAK.hash(PASSWORD), made.json()["id"])
    for spelling in (
        "jörg@bücher.example",
        "JO\u0308RG@BÜCHER.EXAMPLE",
        "jörg@xn--bcher-kva.example",
        " Jörg@XN--BCHER-KVA.example",
    ):
        assert (await attempt(hub, spelling)).status_code == 200, spelling


async def test_an_address_cannot_be_changed_into_a_variant_of_anothers(hub: Hub) -> None:
    await hub.admin.post("/api/v1/users", json={"email": "first@example.org"})
    second = await hub.admin.post("/api/v1/users", json={"email": "second@example.org"})
    answer = await hub.admin.patch(f"/api/v1/users/{second.json()['id']}", json={"email": "ＦＩＲＳＴ@example.org"})
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")


async def test_parallel_registrations_make_one_user(hub: Hub, records: Records) -> None:
    bodies = [{"email": f"{name}@example.org", "password": PASSWORD} for name in ("Twin", "twin", "TWIN", "ｔｗｉｎ")]
    answers = await asyncio.gather(*(hub.client().post("/api/v1/auth/register", json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert await records.one("SELECT count(*) FROM users WHERE email_key = 'twin@example.org'") == 1


# --- register ---


async def test_registering_makes_a_user_who_holds_public_and_no_more(hub: Hub, records: Records) -> None:
    body = {"email": "new.here@example.org", "password": PASSWORD, "first_name": " Grace ", "last_name": "Hopper"}
    answer = await hub.client().post("/api/v1/auth/register", json=body)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/users/{answer.json()['id']}"
    assert [role["name"] for role in answer.json()["roles"]] == ["public"]
    assert answer.json()["first_name"] == "Grace"
    (row,) = await records.audit(answer)
    assert row["action"] == "user.create"
    assert "password" not in row["after"]
    me = await (await hub.sign_in("new.here@example.org")).get("/api/v1/auth/me")
    assert me.json()["permissions"] == []


@pytest.mark.parametrize("extra", ["is_active", "roles", "tenant_id", "is_admin", "permissions", "id", "password_hash"])
async def test_nobody_registers_with_more_than_a_name(hub: Hub, extra: str) -> None:
    body = {"email": "mass@example.org", "password": PASSWORD, extra: True}
    answer = await hub.client().post("/api/v1/auth/register", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, extra)


@pytest.mark.parametrize(
    "password", ["short", "passwordpassword", "mass.example.org", "x" * 1025, "", None, 123456789012345]
)
async def test_weak_passwords_are_refused_by_name(hub: Hub, records: Records, password: Any) -> None:
    before = await records.mark()
    answer = await hub.client().post("/api/v1/auth/register", json={"email": "mass@example.org", "password": password})
    assert answer.status_code == 400
    assert {fault["path"] for fault in answer.json()["errors"]} == {"password"}
    assert await records.mark() == before
    assert not password or str(password) not in answer.text


@pytest.mark.parametrize(
    "email",
    [
        "nobody",
        "a@",
        "@b.org",
        "a b@c.org",
        "a@b",
        '"q"@b.org',
        "a@[127.0.0.1]",
        "a@b.org\n.evil.org",
        "a@b..org",
        "a" * 250 + "@b.org",
        "a@-b.org",
        "a,b@c.org",
        "\u202eada@b.org",
    ],
)
async def test_what_is_no_address_registers_nobody(hub: Hub, email: str) -> None:
    answer = await hub.client().post("/api/v1/auth/register", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 400
    assert {fault["path"] for fault in answer.json()["errors"]} == {"email"}


# --- logout, sessions ---


async def test_logging_out_ends_this_session_only(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    one, two = await open_session(hub, records, email), await open_session(hub, records, email)
    answer = await one.post("/api/v1/auth/logout")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await one.get("/api/v1/auth/me")).status_code == 401
    assert (await two.get("/api/v1/auth/me")).status_code == 200
    assert [row["action"] for row in await records.audit(answer)] == ["auth.logout"]


async def test_logging_out_everywhere_ends_all_sessions(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    one, two = await open_session(hub, records, email), await open_session(hub, records, email)
    assert (await one.post("/api/v1/auth/logout", json={"scope": "all"})).status_code == 204
    assert {(await client.get("/api/v1/auth/me")).status_code for client in (one, two)} == {401}


@pytest.mark.parametrize("body", [{"scope": "others"}, {"scope": None}, {"scop": "all"}, [], "all"])
async def test_logging_out_takes_no_other_body(hub: Hub, body: Any) -> None:
    assert (await hub.admin.post("/api/v1/auth/logout", json=body)).status_code == 400
    assert (await hub.admin.get("/api/v1/auth/me")).status_code == 200


async def test_sessions_are_ones_own(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    here, there = await open_session(hub, records, email), await open_session(hub, records, email)
    listed = (await here.get("/api/v1/auth/sessions?count=exact")).json()
    assert (len(listed["items"]), listed["total"]) == (2, 2)
    assert [session["is_current"] for session in listed["items"]].count(True) == 1
    assert listed["items"][0]["device"].startswith("python-httpx")
    elsewhere = next(session["id"] for session in listed["items"] if not session["is_current"])
    ended = await here.delete(f"/api/v1/auth/sessions/{elsewhere}")
    assert ended.status_code == 204
    assert [row["action"] for row in await records.audit(ended)] == ["session.revoke"]
    assert (await there.get("/api/v1/auth/me")).status_code == 401
    assert (await here.delete(f"/api/v1/auth/sessions/{elsewhere}")).status_code == 404


async def test_a_session_of_somebody_else_is_not_there(hub: Hub, records: Records) -> None:
    """AZ2, AZ3: like a random id, and nothing happens to it."""
    mine, theirs = [await open_session(hub, records, await new_user(hub, records)) for _ in range(2)]
    their_id = (await theirs.get("/api/v1/auth/sessions")).json()["items"][0]["id"]
    answers = [await client.delete(f"/api/v1/auth/sessions/{their_id}") for client in (mine, hub.admin)]
    unknown = await mine.delete(f"/api/v1/auth/sessions/{uuid4()}")
    assert [answer.status_code for answer in (*answers, unknown)] == [404, 404, 404]
    assert answers[0].json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert (await theirs.get("/api/v1/auth/me")).status_code == 200


async def test_a_user_agent_of_any_size_is_kept_short(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    header = {"User-Agent": b"\xff\xfe" + b"x" * 5000}
    answer = await hub.client().post(LOGIN, json={"email": email, "password": PASSWORD}, headers=header)  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert await records.one("SELECT max(length(device)) FROM sessions") == 300


# --- change password ---

NEW = "another phrase about lanterns"


async def test_changing_ones_password_ends_the_other_sessions(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    here, there = await open_session(hub, records, email), await open_session(hub, records, email)
    answer = await here.post("/api/v1/auth/change-password", json={"current_password": PASSWORD, "new_password": NEW})
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await here.get("/api/v1/auth/me")).status_code == 200
    assert (await there.get("/api/v1/auth/me")).status_code == 401
    assert ((await attempt(hub, email)).status_code, (await attempt(hub, email, NEW)).status_code) == (401, 200)
    (row,) = await records.audit(answer)
    assert (row["action"], row["outcome"]) == ("auth.change_password", "success")
    assert NEW not in str(row)
    assert PASSWORD not in str(row)


async def test_changing_ones_password_shows_in_the_version(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    client = await open_session(hub, records, email)
    before = (await client.get("/api/v1/auth/me")).json()["user"]["version"]
    await client.post("/api/v1/auth/change-password", json={"current_password": PASSWORD, "new_password": NEW})
    assert (await client.get("/api/v1/auth/me")).json()["user"]["version"] == before + 1


async def test_a_wrong_current_password_counts_towards_the_lock(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records, failed_logins=8)
    client = await open_session(hub, records, email)
    await records.run("UPDATE users SET failed_logins = 8 WHERE email = $1", email)
    for _ in range(2):
        answer = await client.post("/api/v1/auth/change-password", json={"current_password": "x", "new_password": NEW})
        assert (answer.status_code, answer.json()["code"]) == (400, "wrong_password")
        rows = await records.audit(answer)
        assert [row["outcome"] for row in rows if row["action"] == "auth.change_password"] == ["failure"]
    right = await client.post("/api/v1/auth/change-password", json={"current_password": PASSWORD, "new_password": NEW})
    assert right.status_code == 400
    assert (await attempt(hub, email)).status_code == 401


async def test_a_weak_new_password_changes_nothing(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    here, there = await open_session(hub, records, email), await open_session(hub, records, email)
    before = await records.mark()
    body = {"current_password": PASSWORD, "new_password": email + email}
    answer = await here.post("/api/v1/auth/change-password", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "new_password")
    assert await records.mark() == before
    assert (await there.get("/api/v1/auth/me")).status_code == 200


async def test_who_has_no_password_cannot_change_it(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    client = await open_session(hub, records, email)
    await records.run("UPDATE users SET password_hash = NULL WHERE email = $1", email)
    answer = await client.post("/api/v1/auth/change-password", json={"current_password": "", "new_password": NEW})
    assert (answer.status_code, answer.json()["code"]) == (400, "wrong_password")


# --- introspection (RFC 7662) ---

FORM = "application/x-www-form-urlencoded"


async def introspected(hub: Hub, token: str) -> dict[str, Any]:
    answer = await hub.admin.post("/api/v1/auth/introspect", data={"token": token})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_live_token_is_active_and_says_whose_it_is(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    pair = (await attempt(hub, email)).json()
    found = await introspected(hub, pair["access_token"])
    assert (found["active"], found["username"], found["token_type"]) == (True, email, "Bearer")
    assert {"sub", "sid", "tid", "jti", "iat", "exp", "iss", "aud", "scope", "client_id", "permissions"} <= set(found)


async def test_an_ended_session_is_inactive_and_nothing_else(hub: Hub, records: Records) -> None:
    pair = (await attempt(hub, await new_user(hub, records))).json()
    await hub.client(pair["access_token"]).post("/api/v1/auth/logout")
    for token in (pair["access_token"], pair["refresh_token"], "x", "é", "a.b.c", pair["access_token"] + "=", "\x00"):
        assert await introspected(hub, token) == {"active": False}


async def test_introspection_asks_for_a_token_of_ones_own(hub: Hub) -> None:
    answer = await hub.client().post("/api/v1/auth/introspect", data={"token": "x"})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    "body", ["", "token=", "tokn=x", "token=a&token=b", "token_type_hint=access_token", "token=" + "x" * 9000]
)
async def test_a_form_without_one_token_is_refused(hub: Hub, body: str) -> None:
    answer = await hub.admin.post("/api/v1/auth/introspect", content=body, headers={"Content-Type": FORM})
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"
    (fault,) = answer.json()["errors"]
    assert (fault["path"], fault["code"]) == ("token", "invalid" if body.startswith("token=") else "required")


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/plain", "multipart/form-data; boundary=x", "", "application/x-www-form-urlencodedd"],
)
async def test_introspection_takes_forms_only(hub: Hub, content_type: str) -> None:
    answer = await hub.admin.post("/api/v1/auth/introspect", content=b"token=x", headers={"Content-Type": content_type})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "body",
    [b"token=%", b"token=%zz", b"token=%ff", b"token=%00", b"token=\xff\xfe", b"token=a;b", b"token=a&x=%ed%a0%80"],
)
async def test_odd_forms_are_answered(hub: Hub, body: bytes) -> None:
    answer = await hub.admin.post(
        "/api/v1/auth/introspect", content=body, headers={"Content-Type": f"{FORM}; charset=utf-8"}
    )
    assert answer.status_code in (200, 400)


async def test_the_keys_are_published(hub: Hub) -> None:
    answer = await hub.client().get("/.well-known/jwks.json")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=300")
    assert {"kty", "kid", "alg", "use"} <= set(answer.json()["keys"][0])


async def test_closed_registration_is_a_403(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    closed = msgspec.structs.replace(hub.parts.settings, registration="closed")
    monkeypatch.setattr(hub.parts, "settings", closed)
    answer = await hub.client().post("/api/v1/auth/register", json={"email": "late@example.org", "password": PASSWORD})
    assert (answer.status_code, answer.json()["code"]) == (403, "registration_closed")
