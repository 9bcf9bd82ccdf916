"""Permissions of other services: openspec/specs/authorization/spec.md."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.core import migrations
from app.core.embedded import EmbeddedPostgres
from tests.conftest import Hub
from tests.domain.conftest import Records

pytestmark = pytest.mark.anyio

PERMISSIONS = "/api/v1/permissions"
ROLES = "/api/v1/roles"
ADMIN_ROLE = f"{ROLES}/00000000-0000-7000-8000-000000000101"


def new_name() -> str:
    return f"reports.d{uuid4().hex}:read"


async def registered(hub: Hub, name: str = "", description: str = "See dashboards.") -> str:
    name = name or new_name()
    answer = await hub.admin.put(f"{PERMISSIONS}/{name}", json={"description": description})
    assert answer.status_code == 200, answer.text
    return name


async def listed(client: httpx.AsyncClient, q: str) -> list[dict[str, Any]]:
    return list((await client.get(PERMISSIONS, params={"q": q})).json()["items"])


async def test_a_registered_permission_is_listed_beside_those_of_the_hub(hub: Hub) -> None:
    name = await registered(hub, description="See dashboards.")
    assert await listed(hub.admin, name) == [{"name": name, "description": "See dashboards."}]
    everything: list[dict[str, Any]] = []
    cursor = None
    while cursor is not None or not everything:
        page = (await hub.admin.get(PERMISSIONS, params={"limit": 7} | ({"cursor": cursor} if cursor else {}))).json()
        everything, cursor = everything + page["items"], page["next_cursor"]
    assert [item["name"] for item in everything] == sorted({item["name"] for item in everything})
    assert name in {item["name"] for item in everything}


async def test_a_permission_is_registered_once_and_then_changed(hub: Hub, records: Records) -> None:
    name = await registered(hub)
    before = await records.mark()
    again = await hub.admin.put(f"{PERMISSIONS}/{name}", json={"description": "See dashboards."})
    assert (again.headers["etag"], await records.mark()) == ('"v1"', before)
    changed = await hub.admin.put(f"{PERMISSIONS}/{name}", json={"description": "Look at them."})
    assert (changed.headers["etag"], changed.json()["description"]) == ('"v2"', "Look at them.")
    assert [row["action"] for row in await records.audit(changed)] == ["permission.update"]
    stale = await hub.admin.put(f"{PERMISSIONS}/{name}", json={"description": "x"}, headers={"If-Match": '"v1"'})
    assert stale.status_code == 412
    read = await hub.admin.get(f"{PERMISSIONS}/{name}")
    assert (read.content, read.headers["etag"]) == (changed.content, '"v2"')
    assert (await listed(hub.admin, name))[0]["description"] == "Look at them."


@pytest.mark.parametrize(
    "name",
    [
        "dashboards:read",
        "reports.:read",
        ".a:read",
        "reports.a",
        "reports.a:",
        "Reports.a:read",
        "reports.a:b:c",
        "a..b:c",
        "reports.a:re ad",
        f"reports.{'a' * 100}:read",
        "reports.a_b:read",
        "reports.ä:read",
        "-a.b:c",
    ],
    ids=ascii,
)
async def test_a_name_has_a_prefix_a_resource_and_a_verb(hub: Hub, name: str) -> None:
    answer = await hub.admin.put(f"{PERMISSIONS}/{name}", json={"description": "x"})
    assert (answer.status_code, [fault["path"] for fault in answer.json()["errors"]]) == (400, ["name"])


async def test_the_permissions_of_the_hub_stay_as_they_are(hub: Hub) -> None:
    for answer in (
        await hub.admin.put(f"{PERMISSIONS}/roles:read", json={"description": "x"}),
        await hub.admin.delete(f"{PERMISSIONS}/roles:read"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "built_in_permission")


async def test_only_those_who_may_register_permissions(hub: Hub) -> None:
    reader = await hub.user_with("permissions:read", "roles:write")
    assert (await reader.put(f"{PERMISSIONS}/{new_name()}", json={"description": "x"})).status_code == 403
    writer = await hub.user_with("permissions:write")
    assert (await writer.put(f"{PERMISSIONS}/{new_name()}", json={"description": "x"})).status_code == 200


async def test_an_admin_holds_it_at_once_on_every_worker(hub: Hub, other_worker: Hub) -> None:
    token = hub.admin.headers["authorization"].removeprefix("Bearer ")
    elsewhere = other_worker.client(token)
    assert len((await elsewhere.get("/api/v1/auth/me")).json()["permissions"]) > 10
    assert await listed(elsewhere, "roles:read")
    name = await registered(hub)
    assert name in (await hub.admin.get("/api/v1/auth/me")).json()["permissions"]
    assert name in (await hub.admin.get(ADMIN_ROLE)).json()["permissions"]
    for _ in range(20):
        if await listed(elsewhere, name) and name in (await elsewhere.get("/api/v1/auth/me")).json()["permissions"]:
            break
        await asyncio.sleep(0.05)
    assert await listed(elsewhere, name)
    assert (await hub.admin.delete(f"{PERMISSIONS}/{name}")).status_code == 204
    assert name not in (await hub.admin.get("/api/v1/auth/me")).json()["permissions"]
    assert await listed(hub.admin, name) == []


async def test_a_role_brings_it_as_any_other(hub: Hub) -> None:
    name = await registered(hub)
    person = await hub.user_with(name, "roles:read")
    assert (await person.get("/api/v1/auth/me")).json()["permissions"] == sorted([name, "roles:read"])


async def test_a_role_cannot_bring_what_nobody_registered(hub: Hub) -> None:
    role, name = await hub.new_role(permissions=[]), new_name()
    for answer in (
        await hub.admin.post(ROLES, json={"name": uuid4().hex, "permissions": ["roles:read", name]}),
        await hub.admin.patch(f"{ROLES}/{role['id']}", json={"permissions": ["roles:read", name]}),
    ):
        faults = [(fault["path"], fault["code"]) for fault in answer.json()["errors"]]
        assert (answer.status_code, faults) == (400, [("permissions[1]", "unknown_permission")])


async def test_nobody_gives_a_permission_of_another_service_that_they_lack(hub: Hub) -> None:
    name, maker = await registered(hub), await hub.user_with("roles:write")
    answer = await maker.post(ROLES, json={"name": uuid4().hex, "permissions": [name]})
    assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions")


async def test_what_a_role_still_has_is_not_withdrawn(hub: Hub, records: Records) -> None:
    name = await registered(hub)
    role = await hub.new_role(permissions=[name])
    refused = await hub.admin.delete(f"{PERMISSIONS}/{name}")
    assert (refused.status_code, refused.json()["code"]) == (409, "still_in_use")
    await hub.admin.patch(f"{ROLES}/{role['id']}", json={"permissions": []})
    before = await records.mark()
    gone = await hub.admin.delete(f"{PERMISSIONS}/{name}")
    assert gone.status_code == 204
    assert [row["action"] for row in await records.audit(gone)] == ["permission.delete"]
    events = [event["type"].removeprefix("org.datafusionhub.") for event in await records.events(before[1])]
    assert events == ["role.updated", "permission.deleted"]
    assert (await hub.admin.delete(f"{PERMISSIONS}/{name}")).status_code == 404


async def test_a_role_and_a_withdrawal_that_race_leave_no_role_with_nothing(hub: Hub) -> None:
    for _ in range(5):
        name = await registered(hub)
        made, gone = await asyncio.gather(
            hub.admin.post(ROLES, json={"name": uuid4().hex, "permissions": [name]}),
            hub.admin.delete(f"{PERMISSIONS}/{name}"),
        )
        assert (made.status_code, gone.status_code) in {(201, 409), (400, 204), (403, 204)}


async def test_admins_keep_them_when_the_hub_is_migrated_again(
    hub: Hub, cluster: EmbeddedPostgres, records: Records
) -> None:
    name = await registered(hub)
    await migrations.migrate(cluster.url("hub_owner", hub.url.rpartition("/")[2]))
    assert name in await records.one("SELECT permissions FROM roles WHERE name = 'admin'")
