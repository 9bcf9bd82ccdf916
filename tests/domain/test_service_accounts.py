"""Service accounts: made, changed and taken away by those who may, with nothing to sign in with."""

from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Hub
from tests.domain.conftest import Records

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
