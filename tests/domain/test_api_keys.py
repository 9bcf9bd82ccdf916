"""API keys: whose they may be, what they open, and when they open nothing any more."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO, StringIO
from typing import Any
from uuid import UUID, uuid4
from zlib import crc32

import asyncpg
import httpx
import pytest
from uuid_utils.compat import uuid7

from app.core.embedded import EmbeddedPostgres
from app.core.errors import Unauthenticated
from app.core.exchange import Exchange
from app.core.logging import JsonFormatter, RequestLog
from app.domain.api_keys import uses
from app.domain.api_keys.keys import ALPHABET, KEY_LENGTH, PATTERN, SECRET_DIGITS, PresentedKey, new_key, prefix_of
from app.domain.upkeep.services import remove_due
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records, new_user, open_session
from tests.domain.sources import registered

pytestmark = pytest.mark.anyio

KEYS = "/api/v1/api-keys"
ACCOUNTS = "/api/v1/service-accounts"
ME = "/api/v1/auth/me"
ROLES = "/api/v1/roles"


async def made(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post(KEYS, json={"name": "a key", **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def user_with_role(hub: Hub, records: Records, *permissions: str) -> tuple[httpx.AsyncClient, str, str]:
    """Somebody signed in who holds one role, their id and the role's."""
    email = await new_user(hub, records)
    role = await hub.new_role(permissions=list(permissions))
    user_id = str(await records.one("SELECT id FROM users WHERE email = $1", email))
    await hub.admin.put(f"/api/v1/users/{user_id}/roles/{role['id']}")
    return await open_session(hub, records, email), user_id, role["id"]


async def status_of(hub: Hub, key: str, path: str = ME) -> int:
    return (await hub.client(key).get(path)).status_code


async def within_a_second(check: Callable[[], Awaitable[bool]]) -> bool:
    deadline = time.monotonic() + 1
    while not (holds := await check()) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return holds


def signed_anew(text: str) -> str:
    """With the checksum that belongs to the rest."""
    number, digits = crc32(text[:-6].encode()), ""
    for _ in range(6):
        number, value = divmod(number, 62)
        digits = ALPHABET[value] + digits
    return text[:-6] + digits


# --- the text of a key ---


def test_a_key_says_its_id_and_bears_a_checksum() -> None:
    key_id = uuid7()
    key = new_key(key_id)
    assert len(key.text) == KEY_LENGTH
    assert key.text.startswith(f"{key.prefix}_")
    assert key.prefix == prefix_of(key_id)
    assert PresentedKey.read(key.text.encode()).checked_id == key_id
    assert signed_anew(key.text) == key.text, "whoever reads the README can check it"
    assert 62**SECRET_DIGITS >= 2**160
    assert new_key(key_id).text != key.text


@pytest.mark.parametrize("key_id", [UUID(int=0), UUID(int=1), UUID(int=2**128 - 1)], ids=str)
def test_every_id_is_read_as_it_was_written(key_id: UUID) -> None:
    assert PresentedKey.read(new_key(key_id).text.encode()).checked_id == key_id


@pytest.mark.parametrize("at", range(4, KEY_LENGTH, 7))
def test_another_letter_anywhere_is_noticed_by_the_checksum(at: int) -> None:
    text = new_key(uuid7()).text
    other = text[:at] + ("a" if text[at] != "a" else "b") + text[at + 1 :]
    with pytest.raises(Unauthenticated):
        PresentedKey.read(other.encode()).checked_id  # noqa: B018


def test_what_is_remembered_of_a_request_shows_no_secret() -> None:
    text = new_key(uuid7()).text
    assert text[30:] not in repr(PresentedKey.read(text.encode()))


def test_a_number_beyond_every_id_is_none() -> None:
    text = signed_anew("dfh_" + "z" * 22 + new_key(uuid7()).text[26:])
    with pytest.raises(Unauthenticated):
        PresentedKey.read(text.encode()).checked_id  # noqa: B018


# --- made, shown, listed, revoked ---


async def test_a_key_is_shown_once(hub: Hub, records: Records) -> None:
    client, user_id, _ = await user_with_role(hub, records, "roles:read")
    answer = await client.post(KEYS, json={"name": "  My   script "})
    key = answer.json()
    text = key.pop("key")
    assert answer.headers["location"] == f"{KEYS}/{key['id']}"
    assert (key["name"], key["owner"]) == ("My script", {"type": "user", "id": user_id})
    assert (key["permissions"], key["last_used_at"], key["version"]) == (None, None, 1)
    assert text.startswith(key["prefix"])
    ends_in = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < ends_in <= timedelta(days=90)
    for shown in (
        (await client.get(answer.headers["location"])).json(),
        (await client.get(KEYS)).json()["items"][0],
        (await client.get(f"{KEYS}?prefix={key['prefix']}")).json()["items"][0],
    ):
        assert shown == key
    assert await status_of(hub, text, ROLES) == 200
    assert (await client.delete(answer.headers["location"])).status_code == 204
    assert (await client.get(answer.headers["location"])).status_code == 404
    assert await status_of(hub, text) == 401


async def test_the_same_request_again_shows_the_same_key_and_makes_no_second(hub: Hub, records: Records) -> None:
    client, _, _ = await user_with_role(hub, records)
    headers, body = {"Idempotency-Key": uuid4().hex}, {"name": "once"}
    first, again = [await client.post(KEYS, json=body, headers=headers) for _ in range(2)]
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert len((await client.get(KEYS)).json()["items"]) == 1


async def test_two_keys_may_have_one_name(hub: Hub, records: Records) -> None:
    client, _, _ = await user_with_role(hub, records)
    assert len({(await made(client, name="nightly"))["prefix"] for _ in range(2)}) == 2


@pytest.mark.parametrize(
    ("body", "path", "code"),
    [
        ({"name": " "}, "name", "blank"),
        ({"name": "a", "key": "dfh_mine"}, "key", "unknown_field"),
        ({"name": "a", "permissions": ["no:such"]}, "permissions[0]", "unknown_permission"),
        ({"name": "a", "owner": {"type": "group", "id": str(uuid4())}}, "owner.type", "not_allowed"),
        ({"name": "a", "owner": {"type": "user", "id": str(uuid4())}}, "owner.id", "unknown_user"),
        (
            {"name": "a", "owner": {"type": "service_account", "id": str(uuid4())}},
            "owner.id",
            "unknown_service_account",
        ),
        ({"name": "a", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at", "too_small"),
        ({"name": "a", "expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at", "too_small"),
        ({"name": "a", "expires_at": "9999-12-31T23:59:59-14:00"}, "expires_at", "too_large"),
    ],
)
async def test_what_is_wrong_with_a_key_is_named(hub: Hub, body: Any, path: str, code: str) -> None:
    answer = await hub.admin.post(KEYS, json=body)
    assert answer.status_code == 400, answer.text
    assert [(fault["path"], fault["code"]) for fault in answer.json()["errors"]] == [(path, code)]


@pytest.mark.parametrize("moment", ["2030-01-01", "2030-01-01T00:00:00", "soon", 5, "2030-13-01T00:00:00Z"])
async def test_what_is_no_moment_is_refused(hub: Hub, moment: Any) -> None:
    answer = await hub.admin.post(KEYS, json={"name": "a", "expires_at": moment})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "expires_at")


@pytest.mark.parametrize(("days", "status"), [(1, 201), (365.9, 201), (366.1, 400), (3000, 400)])
async def test_a_key_lives_for_a_year_at_most(hub: Hub, days: float, status: int) -> None:
    until = datetime.now(UTC) + timedelta(days=days)
    answer = await hub.admin.post(KEYS, json={"name": "a", "expires_at": until.isoformat()})
    assert answer.status_code == status
    if status == 201:
        assert datetime.fromisoformat(answer.json()["expires_at"]) == until


async def test_a_tenant_decides_how_long_its_keys_live(hub: Hub) -> None:
    at = "/api/v1/tenant-settings"
    assert (await hub.admin.patch(at, json={"max_key_days": 30})).status_code == 200
    try:
        ends_in = datetime.fromisoformat((await made(hub.admin))["expires_at"]) - datetime.now(UTC)
        assert timedelta(days=29, hours=23) < ends_in <= timedelta(days=30)
        too_long = (datetime.now(UTC) + timedelta(days=31)).isoformat()
        answer = await hub.admin.post(KEYS, json={"name": "a", "expires_at": too_long})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "too_large")
        await hub.admin.patch(at, json={"max_key_days": 1000})
        await made(hub.admin, expires_at=(datetime.now(UTC) + timedelta(days=999)).isoformat())
    finally:
        await hub.admin.patch(at, json={"max_key_days": None})


# --- what a key opens ---


async def test_a_key_may_do_what_is_named_in_it_and_no_more(hub: Hub, records: Records) -> None:
    client, user_id, _ = await user_with_role(hub, records, "roles:read", "users:read")
    wide, narrow, closed = [
        (await made(client, permissions=names))["key"] for names in (None, ["roles:read", "roles:read"], [])
    ]
    wanted = {wide: (200, 200), narrow: (200, 403), closed: (403, 403)}
    for key, statuses in wanted.items():
        assert (await status_of(hub, key, ROLES), await status_of(hub, key, "/api/v1/users")) == statuses
        me = (await hub.client(key).get(ME)).json()
        assert (me["user"]["id"], me["service_account"]) == (user_id, None)
    assert (await hub.client(narrow).get(ME)).json()["permissions"] == ["roles:read"]


async def test_a_key_may_do_nothing_that_its_owner_may_not_do_any_more(hub: Hub, records: Records) -> None:
    client, _, role_id = await user_with_role(hub, records, "roles:read", "users:read")
    named, wide = (await made(client, permissions=["roles:read"]))["key"], (await made(client))["key"]
    assert {await status_of(hub, key, ROLES) for key in (named, wide)} == {200}
    await hub.admin.patch(f"/api/v1/roles/{role_id}", json={"permissions": ["users:read"]})
    assert {await status_of(hub, key, ROLES) for key in (named, wide)} == {403}
    assert [await status_of(hub, key, "/api/v1/users") for key in (named, wide)] == [403, 200]
    await hub.admin.patch(f"/api/v1/roles/{role_id}", json={"permissions": ["roles:read", "users:read"]})
    assert {await status_of(hub, key, ROLES) for key in (named, wide)} == {200}


async def test_nobody_names_what_they_lack(hub: Hub, records: Records) -> None:
    client, _, _ = await user_with_role(hub, records, "roles:read")
    answer = await client.post(KEYS, json={"name": "a", "permissions": ["roles:read", "roles:write"]})
    assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions")
    (row,) = await records.audit(answer)
    assert (row["outcome"], row["detail"]) == ("refused", "exceeds_own_permissions")


async def test_with_a_narrow_key_nobody_gives_what_it_leaves_out(hub: Hub) -> None:
    """AZ5: its owner holds everything, and the key does not."""
    client = hub.client((await made(hub.admin, permissions=["roles:write", "users:write"]))["key"])
    role, user = await hub.new_role(permissions=["roles:read"]), await hub.new_user()
    for answer in (
        await client.post(ROLES, json={"name": uuid4().hex, "permissions": ["roles:read"]}),
        await client.patch(f"{ROLES}/{role['id']}", json={"permissions": []}),
        await client.put(f"/api/v1/users/{user['id']}/roles/{role['id']}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions")
    assert (await client.post(ROLES, json={"name": uuid4().hex, "permissions": ["roles:write"]})).status_code == 201


async def test_a_key_reaches_no_further_than_its_owner(hub: Hub, records: Records) -> None:
    """Who holds a permission for one source may name it, and the key opens that one source."""
    client, user_id, _ = await user_with_role(hub, records)
    role, sources = await hub.new_role(permissions=["data-sources:read"]), [await registered(hub) for _ in range(2)]
    scope = {"type": "data_source", "id": sources[0]["id"]}
    body = {"subject": {"type": "user", "id": user_id}, "role_id": role["id"], "scope": scope}
    assert (await hub.admin.post("/api/v1/role-assignments", json=body)).status_code == 201
    path = "/api/v1/data-sources/{id}"
    for names, wanted in ((["data-sources:read"], [200, 404]), (None, [200, 404]), ([], [404, 404])):
        key = (await made(client, permissions=names))["key"]
        assert [await status_of(hub, key, path.format(**source)) for source in sources] == wanted
    other = {"type": "user", "id": str(await records.one("SELECT id FROM users WHERE email = $1", "admin@example.org"))}
    for owner in (other, {"type": "user", "id": user_id}):
        refused = await client.post(KEYS, json={"name": "a", "owner": owner, "permissions": ["data-sources:write"]})
        assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions")


async def test_a_key_opens_whatever_an_access_token_opens(hub: Hub, records: Records) -> None:
    key = (await made(hub.admin, permissions=["metrics:read", "roles:read", "data-sources:read"]))["key"]
    client = hub.client(key)
    for path in ("/metrics", ROLES, "/api/v1/data-sources", ME):
        answer = await client.get(path)
        head = await client.head(path)
        assert (answer.status_code, head.status_code, head.content) == (200, 200, b"")
    assert (await client.head("/api/v1/users")).status_code == 403
    assert (await client.request("OPTIONS", "/api/v1/users")).status_code == 204


SESSION_CALLS: list[tuple[str, str, Any]] = [
    ("POST", "/api/v1/auth/logout", None),
    ("POST", "/api/v1/auth/logout", {"scope": "all"}),
    ("GET", "/api/v1/auth/sessions", None),
    ("DELETE", "/api/v1/auth/sessions/01a22f2d-bc41-722e-a567-a6a6ba07d62a", None),
    ("POST", KEYS, {"name": "one that outlives it"}),
    ("POST", "/api/v1/auth/change-password", {"current_password": PASSWORD, "new_password": "a heron waits at dawn"}),
]


@pytest.mark.parametrize(("method", "path", "body"), SESSION_CALLS)
async def test_a_key_has_no_say_about_sessions_passwords_and_new_keys(
    hub: Hub, records: Records, method: str, path: str, body: Any
) -> None:
    client, _, _ = await user_with_role(hub, records)
    key = (await made(client))["key"]
    answer = await hub.client(key).request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "session_required")
    assert (await client.get(ME)).status_code == 200


# --- others' keys ---


async def test_others_keys_are_not_there_but_for_who_may_see_them(hub: Hub, records: Records) -> None:
    owner, owner_id, _ = await user_with_role(hub, records)
    key = await made(owner)
    stranger, reader = (await user_with_role(hub, records))[0], (await user_with_role(hub, records, "api-keys:read"))[0]
    path = f"{KEYS}/{key['id']}"
    for method in ("GET", "HEAD", "DELETE"):
        answer = await stranger.request(method, path)
        nowhere = await stranger.request(method, f"{KEYS}/{uuid4()}")
        assert {answer.status_code, nowhere.status_code} == {404}
        assert [row["outcome"] for each in (answer, nowhere) for row in await records.audit(each)] == ["refused"] * 2
    assert (await stranger.get(KEYS)).json()["items"] == []
    assert (await stranger.get(f"{KEYS}?owner_id={owner_id}")).json()["items"] == []
    assert (await reader.get(path)).status_code == 200
    assert [each["id"] for each in (await reader.get(f"{KEYS}?owner_id={owner_id}")).json()["items"]] == [key["id"]]
    refused = await reader.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")
    assert (await reader.delete(f"{KEYS}/{uuid4()}")).status_code == 404
    keeper = (await user_with_role(hub, records, "api-keys:write"))[0]
    assert (await keeper.delete(path)).status_code == 204
    assert (await keeper.delete(path)).status_code == 404
    assert await status_of(hub, key["key"]) == 401


async def test_a_key_for_somebody_else_needs_a_permission_and_reach(hub: Hub, records: Records) -> None:
    _, other_id, _ = await user_with_role(hub, records, "roles:read")
    owner = {"type": "user", "id": other_id}
    plain, keeper, equal = [
        (await user_with_role(hub, records, *names))[0]
        for names in (["roles:read"], ["api-keys:write"], ["api-keys:write", "roles:read"])
    ]
    codes = [
        (await client.post(KEYS, json={"name": "a", "owner": owner})).json().get("code") for client in (plain, keeper)
    ]
    assert codes == ["permission_missing", "exceeds_own_permissions"]
    empty = await keeper.post(KEYS, json={"name": "a", "owner": owner, "permissions": []})
    assert empty.json()["code"] == "exceeds_own_permissions", "to act as somebody is more than to do what they may"
    key = await made(equal, owner=owner)
    me = (await hub.client(key["key"]).get(ME)).json()
    assert (me["user"]["id"], me["permissions"]) == (other_id, ["roles:read"])


async def test_nobody_rises_with_the_owner_of_a_key_that_they_made(hub: Hub, records: Records) -> None:
    """It names nothing, and is narrowed to what its maker held; to who could give all there is to give, it is not."""
    _, owner_id, role_id = await user_with_role(hub, records, "roles:read")
    owner = {"type": "user", "id": owner_id}
    keeper, _, _ = await user_with_role(hub, records, "api-keys:write", "roles:read")
    planted, wide = await made(keeper, owner=owner), await made(hub.admin, owner=owner)
    assert (planted["permissions"], wide["permissions"]) == (["api-keys:write", "roles:read"], None)
    more = {"permissions": ["roles:read", "users:read"]}
    assert (await hub.admin.patch(f"{ROLES}/{role_id}", json=more)).status_code == 200
    assert await status_of(hub, planted["key"], "/api/v1/users") == 403
    assert await status_of(hub, wide["key"], "/api/v1/users") == 200


@pytest.mark.parametrize("owner_type", ["user", "service_account"])
async def test_nobody_makes_a_key_of_who_may_do_more_from_a_moment_on(
    hub: Hub, records: Records, owner_type: str
) -> None:
    if owner_type == "user":
        owner_id = (await hub.new_user())["id"]
    else:
        owner_id = (await hub.admin.post(ACCOUNTS, json={"name": uuid4().hex})).json()["id"]
    subject = {"type": owner_type, "id": owner_id}
    keeper, _, _ = await user_with_role(hub, records, "api-keys:write", "service-accounts:write")
    role = await hub.new_role(permissions=["audit-events:read"])
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    given = {"subject": subject, "role_id": role["id"], "starts_at": tomorrow}
    assert (await hub.admin.post("/api/v1/role-assignments", json=given)).status_code == 201
    refused = await keeper.post(KEYS, json={"name": "a", "owner": subject})
    assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions")


async def test_a_narrowed_key_is_not_shown_what_its_owner_was_answered(hub: Hub, records: Records) -> None:
    client, _, _ = await user_with_role(hub, records, "roles:read", "roles:write")
    narrow = hub.client((await made(client, permissions=["roles:write"]))["key"])
    alike = hub.client((await made(client, permissions=["roles:write"]))["key"])
    header, body = {"Idempotency-Key": uuid4().hex}, {"name": uuid4().hex}
    answered = await narrow.post(ROLES, json=body, headers=header)
    assert answered.status_code == 201
    again = await alike.post(ROLES, json=body, headers=header)
    assert again.json() == answered.json(), "a key that takes the place of another goes on where that was"
    assert (await client.post(ROLES, json=body, headers=header)).json()["code"] == "name_taken"


async def test_the_rows_above_are_the_only_ways_to_anothers_key(hub: Hub, records: Records) -> None:
    account = (await hub.admin.post(ACCOUNTS, json={"name": uuid4().hex})).json()
    owner = {"type": "service_account", "id": account["id"]}
    keeper = (await user_with_role(hub, records, "api-keys:write", "api-keys:read"))[0]
    refused = await keeper.post(KEYS, json={"name": "a", "owner": owner})
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")
    key = await made((await user_with_role(hub, records, "service-accounts:write"))[0], owner=owner)
    refused = await keeper.delete(f"{KEYS}/{key['id']}")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")
    keeper = (await user_with_role(hub, records, "service-accounts:write"))[0]
    assert (await keeper.delete(f"{KEYS}/{key['id']}")).status_code == 204


async def test_a_service_account_acts_under_its_own_name(hub: Hub, records: Records) -> None:
    account = (await hub.admin.post(ACCOUNTS, json={"name": f"exporter {uuid4().hex}"})).json()
    key = await made(hub.admin, owner={"type": "service_account", "id": account["id"]})
    client = hub.client(key["key"])
    me = (await client.get(ME)).json()
    assert (me["user"], me["service_account"]) == (None, account)
    assert ([role["name"] for role in me["roles"]], me["permissions"]) == (["public"], [])
    assert {each["id"] for each in (await client.get(KEYS)).json()["items"]} == {key["id"]}
    other = await made(hub.admin, owner={"type": "service_account", "id": account["id"]})
    refused = await client.delete(f"{KEYS}/{other['id']}")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")
    gone = await client.delete(f"{KEYS}/{key['id']}")
    assert gone.status_code == 204
    (row,) = await records.audit(gone)
    assert (row["actor_id"], row["actor_name"]) == (UUID(account["id"]), account["name"])
    assert row["api_key_id"] == UUID(key["id"])


# --- ST6: when a key opens nothing any more ---


async def revoke(hub: Hub, key: dict[str, Any]) -> None:
    await hub.admin.delete(f"{KEYS}/{key['id']}")


async def disable(hub: Hub, key: dict[str, Any]) -> None:
    kind = "users" if key["owner"]["type"] == "user" else "service-accounts"
    answer = await hub.admin.patch(f"/api/v1/{kind}/{key['owner']['id']}", json={"is_active": False})
    assert answer.status_code == 200


async def delete(hub: Hub, key: dict[str, Any]) -> None:
    kind = "users" if key["owner"]["type"] == "user" else "service-accounts"
    assert (await hub.admin.delete(f"/api/v1/{kind}/{key['owner']['id']}")).status_code == 204


async def key_of_a(hub: Hub, records: Records, kind: str) -> dict[str, Any]:
    if kind == "user":
        return await made((await user_with_role(hub, records))[0])
    account = (await hub.admin.post(ACCOUNTS, json={"name": uuid4().hex})).json()
    return await made(hub.admin, owner={"type": "service_account", "id": account["id"]})


@pytest.mark.parametrize("kind", ["user", "service_account"])
@pytest.mark.parametrize("end", [revoke, disable, delete])
async def test_what_ends_a_key_on_one_worker_ends_it_on_the_other(
    hub: Hub,
    other_worker: Hub,
    records: Records,
    kind: str,
    end: Callable[[Hub, dict[str, Any]], Awaitable[None]],
) -> None:
    key = await key_of_a(hub, records, kind)
    assert {await status_of(each, key["key"]) for each in (hub, other_worker)} == {200}
    await end(hub, key)

    async def is_dead() -> bool:
        return await status_of(other_worker, key["key"]) == 401

    assert await within_a_second(is_dead)
    assert await status_of(hub, key["key"]) == 401
    rows = await records.one("SELECT count(*) FROM api_keys WHERE id = $1", UUID(key["id"]))
    assert rows == (1 if end is disable else 0)


@pytest.mark.parametrize("kind", ["user", "service_account"])
async def test_a_key_of_who_is_enabled_again_opens_again(hub: Hub, records: Records, kind: str) -> None:
    """Unlike a session, which one signs in to anew, a key stands in a configuration somewhere."""
    key = await key_of_a(hub, records, kind)
    await disable(hub, key)
    assert await status_of(hub, key["key"]) == 401
    path = "users" if kind == "user" else "service-accounts"
    await hub.admin.patch(f"/api/v1/{path}/{key['owner']['id']}", json={"is_active": True})
    assert await status_of(hub, key["key"]) == 200


async def test_of_parallel_revocations_on_two_workers_one_is_done(
    hub: Hub, other_worker: Hub, records: Records
) -> None:
    key = await key_of_a(hub, records, "user")
    token = hub.admin.headers["authorization"].removeprefix("Bearer ")
    workers = [hub, other_worker] * 4
    answers = await asyncio.gather(*(each.client(token).delete(f"{KEYS}/{key['id']}") for each in workers))
    assert sorted(answer.status_code for answer in answers) == [204] + [404] * 7
    rows = [row for answer in answers for row in await records.audit(answer)]
    assert [row["action"] for row in rows] == ["api_key.delete"]
    assert await status_of(other_worker, key["key"]) == 401


async def test_a_key_in_memory_expires_by_itself(hub: Hub, records: Records) -> None:
    until = datetime.now(UTC) + timedelta(milliseconds=900)
    key = await made(hub.admin, expires_at=until.isoformat())
    assert await status_of(hub, key["key"]) == 200
    await asyncio.sleep(1)
    assert await status_of(hub, key["key"]) == 401


@pytest.mark.parametrize("kind", ["api_key", "user", "tenant", "role", "gap"])
async def test_a_load_that_a_change_overtakes_is_not_kept(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    key = await key_of_a(hub, records, "user")
    presented = PresentedKey.read(key["key"].encode())
    principals = hub.parts.principals
    real = principals._load_key

    async def overtaken(given: PresentedKey) -> Any:
        loaded = await real(given)
        principal = loaded.principal
        changed = {"api_key": key["id"], "user": principal.id, "tenant": principal.tenant_id}
        if kind == "gap":
            principals._drop_all()
        else:
            principals.drop(kind, UUID(str(changed.get(kind, next(iter(principal.role_ids))))))
        return loaded

    monkeypatch.setattr(principals, "_load_key", overtaken)
    assert await status_of(hub, key["key"]) == 200
    assert principals._find(presented) is None
    monkeypatch.undo()

    async def is_kept() -> bool:
        return await status_of(hub, key["key"]) == 200 and principals._find(presented) is not None

    assert await within_a_second(is_kept)


@pytest.mark.parametrize(("changes", "is_kept"), [(0, True), (1, True), (1999, True), (2001, False)])
async def test_a_load_that_others_changes_overtake_is_kept(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch, changes: int, is_kept: bool
) -> None:
    """With many people signing out each second no key would ever be kept. Of more changes than are remembered nobody
    knows what they were about."""
    key = await key_of_a(hub, records, "user")
    principals, presented = hub.parts.principals, PresentedKey.read(key["key"].encode())
    real = principals._load_key

    async def overtaken(given: PresentedKey) -> Any:
        loaded = await real(given)
        for number in range(changes):
            principals.drop(("session", "user", "role", "api_key")[number % 4], uuid4())
        return loaded

    async def is_found() -> bool:
        await principals.of(presented)
        return principals._find(presented) is not None

    monkeypatch.setattr(principals, "_load_key", overtaken)
    assert await within_a_second(is_found) == is_kept


# --- what is no key of ours ---


async def test_whatever_is_wrong_with_a_key_is_answered_alike(hub: Hub, records: Records) -> None:
    live, revoked, expired = [await made(hub.admin) for _ in range(3)]
    await hub.admin.delete(f"{KEYS}/{revoked['id']}")
    await records.run("UPDATE api_keys SET expires_at = now() WHERE id = $1", UUID(expired["id"]))
    text = live["key"]
    other_secret = signed_anew(live["prefix"] + "_" + new_key(uuid7()).text[27:])
    wrong = {
        "unknown": new_key(uuid7()).text,
        "revoked": revoked["key"],
        "expired": expired["key"],
        "another secret": other_secret,
        "another checksum": text[:-1] + ("a" if text[-1] != "a" else "b"),
        "cut off": text[:-1],
        "longer": f"{text}a",
        "of no form": "dfh_" + "-" * (len(text) - 4),
        "its beginning": live["prefix"],
        "empty": "dfh_",
    }
    answers = [await hub.client(key).get(ME) for key in wrong.values()]
    told = {(answer.status_code, answer.json()["code"], answer.json()["detail"]) for answer in answers}
    assert told == {
        (401, "invalid_token", "The access token or API key is not valid. It may be mistyped, ended or revoked.")
    }
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert len({tuple(sorted(set(answer.headers) - {"x-request-id"})) for answer in answers}) == 1
    assert await status_of(hub, text) == 200


async def test_a_wrong_checksum_asks_the_database_nothing(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (await made(hub.admin))["key"]
    asked = _count_reads(hub, monkeypatch)
    for at in (5, 30, len(text) - 1):
        assert await status_of(hub, text[:at] + ("a" if text[at] != "a" else "b") + text[at + 1 :]) == 401
    assert asked == []


async def test_a_known_key_asks_the_database_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    key = (await made(hub.admin))["key"]

    async def is_kept() -> bool:
        await status_of(hub, key)
        return hub.parts.principals._find(PresentedKey.read(key.encode())) is not None

    assert await within_a_second(is_kept)
    asked = _count_reads(hub, monkeypatch)
    assert [await status_of(hub, key) for _ in range(5)] == [200] * 5
    assert asked == []


def _count_reads(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []
    real = hub.parts.reads._pool.acquire

    async def acquire(kind: str | None, tenant_id: UUID | None) -> Any:
        asked.append(kind)
        return await real(kind, tenant_id)

    monkeypatch.setattr(hub.parts.reads._pool, "acquire", acquire)
    return asked


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Basic {key}")],
        [("Authorization", "{key}")],
        [("Authorization", "Bearer {key} ")],
        [("Authorization", "Bearer {key}, Bearer {key}")],
        [("Authorization", "ApiKey {key}")],
        [("X-Api-Key", "{key}")],
        [("Cookie", "key={key}; Authorization=Bearer {key}")],
        [("Authorization", "Bearer {key}"), ("Authorization", "Bearer {key}")],
    ],
    ids=str,
)
async def test_a_key_stands_in_one_place_only(hub: Hub, headers: list[tuple[str, str]]) -> None:
    """ST4."""
    key = (await made(hub.admin))["key"]
    answer = await hub.client().get(ME, headers=[(name, value.format(key=key)) for name, value in headers])
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (await hub.client().get(f"{ME}?access_token={key}")).status_code == 401


async def test_a_key_is_taken_for_no_other_kind_of_token(hub: Hub, records: Records) -> None:
    """ST3."""
    key = await made(hub.admin)
    for text in (key["key"], key["key"].replace("dfh_", "dfr_")):
        answer = await hub.client().post("/api/v1/auth/refresh", json={"refresh_token": text})
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_refresh_token")
    password = {"email": "admin@example.org", "password": key["key"]}
    assert (await hub.client().post("/api/v1/auth/login", json=password)).status_code == 401


async def test_a_key_opens_nothing_of_another_tenant(two_tenants: tuple[Hub, Hub], records: Records) -> None:
    """MT1, AZ4."""
    hub, other = two_tenants
    ours, theirs = await made(hub.admin), await made(other.admin)
    account = (await other.admin.post(ACCOUNTS, json={"name": uuid4().hex})).json()
    client = hub.client(ours["key"])
    assert (await client.get(ME)).json()["tenant"] != (await hub.client(theirs["key"]).get(ME)).json()["tenant"]
    for path in (f"{KEYS}/{theirs['id']}", f"{ACCOUNTS}/{account['id']}"):
        assert [(await client.request(method, path)).status_code for method in ("GET", "DELETE")] == [404, 404]
    for query in ("limit=200", f"owner_id={account['id']}"):
        found = (await client.get(f"{KEYS}?{query}")).json()["items"]
        assert theirs["id"] not in {each["id"] for each in found}
    for owner in (theirs["owner"], {"type": "service_account", "id": account["id"]}):
        refused = await hub.admin.post(KEYS, json={"name": "a", "owner": owner})
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, "owner.id")
    assert await introspected(hub, theirs["key"]) == {"active": False}
    assert (await introspected(other, theirs["key"]))["active"]


async def test_a_suspended_tenants_keys_open_nothing_on_any_worker(
    hub: Hub, other_worker: Hub, records: Records
) -> None:
    other = await hub.new_tenant()
    key = await made(other.admin)
    tenant = (await hub.client(key["key"]).get(ME)).json()["tenant"]["id"]
    assert await status_of(other_worker, key["key"]) == 200
    assert (await hub.admin.post(f"/api/v1/tenants/{tenant}/suspend")).status_code == 200

    async def is_dead() -> bool:
        return await status_of(other_worker, key["key"]) == 401

    async def is_alive() -> bool:
        return not await is_dead()

    assert await within_a_second(is_dead)
    assert await status_of(hub, key["key"]) == 401
    await hub.admin.post(f"/api/v1/tenants/{tenant}/resume")
    assert await within_a_second(is_alive)


# --- introspection, streams ---


async def introspected(hub: Hub, token: str) -> dict[str, Any]:
    answer = await hub.admin.post("/api/v1/auth/introspect", data={"token": token})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_other_services_may_ask_what_a_key_is_worth(hub: Hub, records: Records) -> None:
    client, user_id, _ = await user_with_role(hub, records, "roles:read", "users:read")
    key = await made(client, permissions=["roles:read"])
    for _ in range(2):
        found = await introspected(hub, key["key"])
        assert (found["active"], found["sub"], found["permissions"]) == (True, user_id, ["roles:read"])
        assert (found["jti"], "sid" in found, found["token_type"]) == (key["id"], False, "Bearer")
        assert found["exp"] == int(datetime.fromisoformat(key["expires_at"]).timestamp())
    await client.delete(f"{KEYS}/{key['id']}")
    assert await introspected(hub, key["key"]) == {"active": False}
    assert await introspected(hub, new_key(uuid7()).text) == {"active": False}
    assert await introspected(hub, "dfh_") == {"active": False}


async def test_a_stream_ends_with_the_key(hub: Hub, records: Records) -> None:
    source = await registered(hub, type="simulated", config={})
    job = (await hub.admin.post(f"/api/v1/data-sources/{source['id']}/discover")).json()
    key = await made(hub.admin, permissions=["jobs:read"])
    client = hub.client(key["key"])
    watching = asyncio.create_task(client.get(f"/api/v1/jobs/{job['id']}/events"))
    await asyncio.sleep(0.7)
    assert not watching.done()
    await hub.admin.delete(f"{KEYS}/{key['id']}")
    async with asyncio.timeout(5):
        answer = await watching
    assert (answer.status_code, answer.text.count("event: job")) == (200, 1)
    await hub.admin.post(f"/api/v1/jobs/{job['id']}/cancel")


# --- when a key was last used ---


async def last_used(records: Records, key: dict[str, Any]) -> datetime | None:
    found: datetime | None = await records.one("SELECT last_used_at FROM api_keys WHERE id = $1", UUID(key["id"]))
    return found


async def test_the_last_use_is_known_to_the_hour_and_changes_no_version(hub: Hub, records: Records) -> None:
    key = await made(hub.admin)
    before = await hub.admin.get(f"{KEYS}/{key['id']}")
    await status_of(hub, key["key"])
    await hub.parts.key_uses.write()
    shown = (await hub.admin.get(f"{KEYS}/{key['id']}")).json()
    used = datetime.fromisoformat(shown["last_used_at"])
    assert (used.minute, used.second, used.microsecond) == (0, 0, 0)
    assert timedelta(0) <= datetime.now(UTC) - used < timedelta(hours=1, minutes=1)
    assert shown == before.json() | {"last_used_at": shown["last_used_at"]}


async def test_the_hub_writes_it_by_itself(hub: Hub, records: Records) -> None:
    key = await made(hub.admin)
    await status_of(hub, key["key"])
    async with asyncio.timeout(10):
        while await last_used(records, key) is None:
            await asyncio.sleep(0.1)


async def test_one_hour_is_written_once_and_the_next_anew(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await made(hub.admin)
    key_id, noted, now = UUID(key["id"]), uses.KeyUses(hub.parts.sessions), time.time()
    moments = iter([now, now + 1, now + 3600, now + 3601])
    monkeypatch.setattr(uses, "time", lambda: next(moments))
    written = []
    for _ in range(4):
        noted.note(key_id)
        written.append(len(noted._unwritten))
        await noted.write()
    monkeypatch.undo()
    assert written == [1, 0, 1, 0]
    used = await last_used(records, key)
    assert used is not None
    assert used.timestamp() == (now + 3600) // 3600 * 3600


async def test_a_worker_that_is_late_takes_no_later_use_back(hub: Hub, records: Records) -> None:
    key = await made(hub.admin)
    late = uses.KeyUses(hub.parts.sessions)
    late.note(UUID(key["id"]))
    ahead = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    await records.run("UPDATE api_keys SET last_used_at = $1 WHERE id = $2", ahead, UUID(key["id"]))
    await late.write()
    assert await last_used(records, key) == ahead


async def test_what_could_not_be_written_is_written_later(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, noted = await made(hub.admin), uses.KeyUses(hub.parts.sessions)
    noted.note(UUID(key["id"]))
    noted.note(uuid4())
    real = noted._write

    async def fail(given: Any) -> None:
        raise OSError

    monkeypatch.setattr(noted, "_write", fail)
    await noted.write()
    assert await last_used(records, key) is None
    monkeypatch.setattr(noted, "_write", real)
    await noted.write()
    assert await last_used(records, key) is not None
    assert noted._unwritten == {}


async def test_many_keys_are_written_some_at_a_time(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uses, "MOST_AT_ONCE", 2)
    keys, noted = [await made(hub.admin) for _ in range(5)], uses.KeyUses(hub.parts.sessions)
    for key in keys:
        noted.note(UUID(key["id"]))
    await noted.write()
    assert None not in [await last_used(records, key) for key in keys]


async def test_keys_that_expired_long_ago_are_removed(hub: Hub, records: Records) -> None:
    old, recent = await made(hub.admin), await made(hub.admin)
    for key, days in ((old, 31), (recent, 29)):
        await records.run(
            "UPDATE api_keys SET expires_at = now() - make_interval(days => $1) WHERE id = $2", days, UUID(key["id"])
        )
    await remove_due(hub.parts, datetime.now(UTC))
    assert [(await hub.admin.get(f"{KEYS}/{key['id']}")).status_code for key in (old, recent)] == [404, 200]


# --- on record, and nowhere else ---


async def test_the_record_names_the_key(hub: Hub, records: Records) -> None:
    client, user_id, _ = await user_with_role(hub, records, "roles:read", "roles:write")
    key = await made(client, permissions=["roles:write"])
    scripted = hub.client(key["key"])
    done = await scripted.post(ROLES, json={"name": uuid4().hex})
    refused = await scripted.get("/api/v1/users")
    by_hand = await client.post(ROLES, json={"name": uuid4().hex})
    rows = [row for answer in (done, refused, by_hand) for row in await records.audit(answer)]
    assert [row["actor_id"] for row in rows] == [UUID(user_id)] * 3
    assert [row["api_key_id"] for row in rows] == [UUID(key["id"]), UUID(key["id"]), None]
    found = await hub.admin.get(f"/api/v1/audit-events?api_key_id={key['id']}")
    assert [each["outcome"] for each in found.json()["items"]] == ["refused", "success"]
    assert {each["api_key_id"] for each in found.json()["items"]} == {key["id"]}


async def test_what_is_made_and_revoked_is_on_record_and_announced(hub: Hub, records: Records) -> None:
    _, before = await records.mark()
    key = await hub.admin.post(KEYS, json={"name": "a"})
    gone = await hub.admin.delete(key.headers["location"])
    (made_row,), (gone_row,) = await records.audit(key), await records.audit(gone)
    assert (made_row["action"], gone_row["action"]) == ("api_key.create", "api_key.delete")
    assert made_row["after"] == gone_row["before"]
    types = [event["type"].removeprefix("org.datafusionhub.") for event in await records.events(before)]
    assert types == ["api_key.created", "api_key.deleted"]


async def test_a_key_appears_nowhere_but_in_the_one_answer(
    hub: Hub, records: Records, cluster: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SS4. Its answer is kept for a second request, sealed."""
    lines, spoken = BytesIO(), StringIO()
    write, observe = RequestLog("json", "debug", lines), hub.app._observe

    def hear(exchange: Exchange) -> None:
        observe(exchange)
        write(exchange, 0.0)
        write.flush()

    monkeypatch.setattr(hub.app, "_observe", hear)
    handler = logging.StreamHandler(spoken)
    handler.setFormatter(JsonFormatter())
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    logging.getLogger().addHandler(handler)
    try:
        key = await made(hub.admin)
        answer = await hub.admin.post(KEYS, json={"name": "kept"}, headers={"Idempotency-Key": uuid4().hex})
        texts = [key["key"], answer.json()["key"]]
        answers = [
            await hub.client(text).request(method, path)
            for text in (*texts, f"{texts[0][:-1]}-")
            for method, path in (("GET", ME), ("GET", "/api/v1/no-such"), ("POST", ROLES), ("DELETE", f"{KEYS}/x"))
        ]
        answers += [await hub.admin.get(path) for path in (KEYS, f"{KEYS}/{key['id']}", "/metrics")]
        answers.append(await hub.admin.get("/api/v1/audit-events?limit=200"))
    finally:
        logging.getLogger().removeHandler(handler)
    said = "\n".join(
        [lines.getvalue().decode(), spoken.getvalue(), *(f"{each.headers} {each.text}" for each in answers)]
    )
    stored = await _whole_database(cluster, hub)
    assert texts[0][:26] in stored
    assert len(lines.getvalue().splitlines()) > 10
    for text in texts:
        for part in (text, text[27:], text[27:57]):
            assert part not in said
            assert part not in stored
            assert part.encode().hex() not in stored


async def _whole_database(cluster: EmbeddedPostgres, hub: Hub) -> str:
    connection = await asyncpg.connect(cluster.url("hub_owner", hub.url.rpartition("/")[2].partition("?")[0]))
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        texts = [await connection.fetch(f'SELECT t::text AS row FROM "{name}" AS t') for (name,) in tables]
    finally:
        await connection.close()
    return "\n".join(row["row"] for rows in texts for row in rows)


def test_the_pattern_for_scanners_finds_keys_and_no_prefixes() -> None:
    key = new_key(uuid7())
    assert re.findall(PATTERN, f"KEY={key.text}\n{key.prefix}") == [key.text]


async def test_lines_of_the_log_say_which_key_it_was(hub: Hub) -> None:
    key = await made(hub.admin)
    lines = BytesIO()
    exchange = await _exchange_of(hub, key["key"])
    write = RequestLog("json", "info", lines)
    write(exchange, 0.0)
    write.flush()
    assert f'"api_key_id":"{key["id"]}"' in lines.getvalue().decode()


async def _exchange_of(hub: Hub, key: str) -> Exchange:
    seen: list[Exchange] = []
    observe = hub.app._observe
    hub.app._observe = seen.append
    try:
        await hub.client(key).get(ME)
    finally:
        hub.app._observe = observe
    return seen[0]
