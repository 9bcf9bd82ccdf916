"""Service accounts: made, changed and taken away by those who may, with nothing to sign in with."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import registered

pytestmark = pytest.mark.anyio

ACCOUNTS = "/api/v1/service-accounts"


async def new_account(hub: Hub, **given: Any) -> dict[str, Any]:
    made = await hub.admin.post(ACCOUNTS, json={"name": uuid4().hex, **given})
    assert made.status_code == 201, made.text
    return dict(made.json())


async def test_an_account_is_made_shown_changed_and_deleted(hub: Hub, records: Records) -> None:
    made = await hub.admin.post(ACCOUNTS, json={"name": " Nightly  report ", "description": "At four."})
    account = made.json()
    assert made.headers["location"] == f"{ACCOUNTS}/{account['id']}"
    assert (account["name"], account["description"], account["is_active"]) == ("Nightly report", "At four.", True)
    path = made.headers["location"]
    shown = await hub.admin.get(path)
    assert (shown.json(), shown.headers["etag"]) == (account, '"v1"')
    changed = await hub.admin.patch(path, json={"description": None, "is_active": False}, headers={"If-Match": '"v1"'})
    assert changed.json() | {"updated_at": ""} == account | {
        "description": None,
        "is_active": False,
        "version": 2,
        "updated_at": "",
    }
    assert (await hub.admin.patch(path, json={"name": "x"}, headers={"If-Match": '"v1"'})).status_code == 412
    deleted = await hub.admin.delete(path)
    assert deleted.status_code == 204
    assert (await hub.admin.get(path)).status_code == 404
    actions = [row["action"] for answer in (made, changed, deleted) for row in await records.audit(answer)]
    assert actions == ["service_account.create", "service_account.update", "service_account.delete"]


async def test_every_change_is_announced(hub: Hub, records: Records) -> None:
    _, before = await records.mark()
    account = await new_account(hub)
    path = f"{ACCOUNTS}/{account['id']}"
    await hub.admin.patch(path, json={"description": "Another."})
    await hub.admin.patch(path, json={"description": "Another."})
    await hub.admin.delete(path)
    types = [event["type"].removeprefix("org.datafusionhub.") for event in await records.events(before)]
    assert types == ["service_account.created", "service_account.updated", "service_account.deleted"]


@pytest.mark.parametrize("other", ["Exporter", "EXPORTER", "ｅxporter", "ехроrter"])
async def test_names_tell_accounts_apart(hub: Hub, other: str) -> None:
    await hub.admin.post(ACCOUNTS, json={"name": "exporter"})
    answer = await hub.admin.post(ACCOUNTS, json={"name": other})
    assert answer.status_code in (400, 409)
    assert answer.json()["errors"][0]["code"] in ("name_taken", "mixed_scripts")


async def test_a_name_in_other_letters_that_look_alike_is_taken(hub: Hub) -> None:
    await hub.admin.post(ACCOUNTS, json={"name": "cop"})
    answer = await hub.admin.post(ACCOUNTS, json={"name": "сор"})
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")


async def test_the_list_is_searched_and_narrowed(hub: Hub) -> None:
    one, two = await new_account(hub, description="herons"), await new_account(hub, description="herons")
    await hub.admin.patch(f"{ACCOUNTS}/{two['id']}", json={"is_active": False})
    found = await hub.admin.get(f"{ACCOUNTS}?q=herons&is_active=true&count=exact")
    assert ([each["id"] for each in found.json()["items"]], found.json()["total"]) == ([one["id"]], 1)


async def test_the_admin_role_has_both_permissions(hub: Hub) -> None:
    me = (await hub.admin.get("/api/v1/auth/me")).json()
    assert {"service-accounts:read", "service-accounts:write"} <= set(me["permissions"])


async def test_who_keeps_accounts_needs_to_hold_nothing_else(hub: Hub) -> None:
    account = await new_account(hub)
    keeper = await hub.user_with("service-accounts:write")
    assert (await keeper.patch(f"{ACCOUNTS}/{account['id']}", json={"description": "Mine."})).status_code == 200


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "a", "password": "x"}, {"name": "a", "is_active": "yes"}])
async def test_what_is_no_account_is_refused(hub: Hub, body: Any) -> None:
    assert (await hub.admin.post(ACCOUNTS, json=body)).status_code == 400


async def test_an_account_signs_in_nowhere(hub: Hub) -> None:
    account = await new_account(hub)
    for email in (account["id"], account["name"]):
        body = {"email": email, "password": ""}
        answer = await hub.client().post("/api/v1/auth/login", json=body)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")


# --- what they may do ---


async def key_of(hub: Hub, account: dict[str, Any], **given: Any) -> str:
    body = {"name": "a key", "owner": {"type": "service_account", "id": account["id"]}, **given}
    made = await hub.admin.post("/api/v1/api-keys", json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


async def given_to(hub: Hub, account: dict[str, Any], *permissions: str, source_id: str | None = None) -> str:
    """The id of the assignment, for the whole tenant or one source."""
    role = await hub.new_role(permissions=list(permissions))
    scope = {"type": "tenant"} if source_id is None else {"type": "data_source", "id": source_id}
    body = {"subject": {"type": "service_account", "id": account["id"]}, "role_id": role["id"], "scope": scope}
    made = await hub.admin.post("/api/v1/role-assignments", json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def within_a_second(check: Callable[[], Awaitable[bool]]) -> bool:
    deadline = time.monotonic() + 1
    while not (holds := await check()) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return holds


async def test_a_role_of_an_account_begins_and_ends_on_every_worker_within_a_second(
    hub: Hub, other_worker: Hub
) -> None:
    account = await new_account(hub)
    client = other_worker.client(await key_of(hub, account))
    assert (await client.get("/api/v1/roles")).status_code == 403
    assignment = await given_to(hub, account, "roles:read")

    async def is_let_in() -> bool:
        return (await client.get("/api/v1/roles")).status_code == 200

    async def is_not() -> bool:
        return not await is_let_in()

    assert await within_a_second(is_let_in)
    me = (await client.get("/api/v1/auth/me")).json()
    assert (len(me["roles"]), me["permissions"]) == (2, ["roles:read"])
    assert (await hub.admin.delete(f"/api/v1/role-assignments/{assignment}")).status_code == 204
    assert await within_a_second(is_not)


async def test_an_account_with_a_right_on_one_source_sees_that_one(hub: Hub) -> None:
    account, sources = await new_account(hub), [await registered(hub) for _ in range(2)]
    await given_to(hub, account, "data-sources:read", "data-sources:write", source_id=sources[0]["id"])
    client = hub.client(await key_of(hub, account, permissions=["data-sources:read"]))
    found = (await client.get("/api/v1/data-sources?count=exact")).json()
    assert ([each["id"] for each in found["items"]], found["total"]) == ([sources[0]["id"]], 1)
    path = "/api/v1/data-sources/{id}"
    assert [(await client.get(path.format(**each))).status_code for each in sources] == [200, 404]
    assert (await client.patch(path.format(**sources[0]), json={"description": "x"})).status_code == 403


@pytest.mark.parametrize("is_scoped", [False, True])
async def test_nobody_acts_as_or_changes_an_account_that_may_do_more(hub: Hub, is_scoped: bool) -> None:
    account = await new_account(hub)
    source_id = (await registered(hub))["id"] if is_scoped else None
    await given_to(hub, account, "data-sources:test", source_id=source_id)
    lesser = await hub.user_with("service-accounts:write", "service-accounts:read")
    equal = await hub.user_with("service-accounts:write", "data-sources:test")
    path, owner = f"{ACCOUNTS}/{account['id']}", {"type": "service_account", "id": account["id"]}
    for refused in (
        await lesser.patch(path, json={"description": "Mine."}),
        await lesser.delete(path),
        await lesser.post("/api/v1/api-keys", json={"name": "a", "owner": owner}),
        await lesser.post("/api/v1/api-keys", json={"name": "a", "owner": owner, "permissions": []}),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions")
    assert (await equal.post("/api/v1/api-keys", json={"name": "a", "owner": owner})).status_code == 201
    assert (await equal.patch(path, json={"description": "Ours."})).status_code == 200


async def test_an_account_asks_what_it_may_do(hub: Hub) -> None:
    account, source = await new_account(hub), await registered(hub)
    await given_to(hub, account, "roles:read", "users:read")
    await given_to(hub, account, "data-sources:read", source_id=source["id"])
    client = hub.client(await key_of(hub, account, permissions=["roles:read", "data-sources:read"]))
    there = {"resource_type": "data_source", "resource_id": source["id"]}
    checks = [
        {"action": "roles:read"},
        {"action": "users:read"},
        {"action": "data-sources:read"},
        {"action": "data-sources:read", **there},
        {"action": "data-sources:write", **there},
    ]
    for _ in range(2):
        answer = await client.post("/api/v1/authz/check", json={"checks": checks})
        assert [each["allowed"] for each in answer.json()["results"]] == [True, False, False, True, False]


async def test_what_a_deleted_account_held_has_ended(hub: Hub, records: Records) -> None:
    account = await new_account(hub)
    await given_to(hub, account, "roles:read")
    await hub.admin.delete(f"{ACCOUNTS}/{account['id']}")
    rows = await records.run("SELECT ended_at FROM role_assignments WHERE subject_id = $1::uuid", account["id"])
    assert len(rows) == 2
    assert all(row["ended_at"] is not None for row in rows)
