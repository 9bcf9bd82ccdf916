"""A deleted tenant: gone at once for everybody, its rows some at a time, its audit log and its slug never."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.core.database import METADATA
from app.domain.tenants.removal import KEPT, remove_deleted
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, discovered, registered

pytestmark = pytest.mark.anyio

TENANTS = "/api/v1/tenants"
LATER = timedelta(minutes=2)
FILLED = {
    *("audit_events", "data_source_secrets", "data_source_tags", "data_source_tests", "data_sources"),
    *("idempotency_keys", "jobs", "outbox_events", "role_approvers", "roles", "sessions", "source_objects"),
    *(
        "api_keys",
        "data_domains",
        "group_members",
        "groups",
        "role_assignments",
        "scim_keys",
        "service_accounts",
        "tenant_settings",
        "users",
        "webhook_deliveries",
        "webhook_secrets",
        "webhooks",
    ),
}
"""Tables that `live` leaves rows in."""


DOMAIN = """
    INSERT INTO data_domains (id, tenant_id, name, name_key, parent_id, lineage, created_at, updated_at)
    VALUES ($1::uuid, $2, $3, $3, $4, ARRAY[$1::uuid], now(), now()) RETURNING id"""
GROUP = """
    INSERT INTO groups (id, tenant_id, name, name_key, created_at, updated_at)
    VALUES ($1, $2, 'all', 'all', now(), now()) RETURNING id"""
MEMBER = "INSERT INTO group_members (id, tenant_id, group_id, user_id, created_at) VALUES ($1, $2, $3, $4, now())"


async def live(hub: Hub, records: Records) -> UUID:
    """Something of everything; roles that own each other, domains of one name in each other. The tenant's id."""
    owner, owned = await hub.new_role(), await hub.new_role()
    await hub.admin.patch(f"/api/v1/roles/{owner['id']}", json={"owner_role_id": owned["id"]})
    await hub.admin.patch(f"/api/v1/roles/{owned['id']}", json={"owner_role_id": owner["id"]})
    await hub.admin.put(f"/api/v1/roles/{owned['id']}/approver-roles", json={"items": [owner["id"]]})
    secretly = {"host": "db.example.org", "database": "d", "username": "u"}
    await registered(hub, config=secretly, secrets={"password": "x"}, tags=["a"], owner_role_id=owner["id"])
    source = await registered(hub, type="simulated", config={"objects": 3})
    await hub.admin.post(f"{SOURCES}/{source['id']}/test")
    await discovered(hub, f"{SOURCES}/{source['id']}")
    me = (await hub.admin.get("/api/v1/auth/me")).json()
    tenant_id = UUID(me["tenant"]["id"])
    above = None
    for name in ("one", "one", "other"):
        above = await records.one(DOMAIN, uuid4(), tenant_id, name, above)
    await records.one(DOMAIN, uuid4(), tenant_id, "other", None)
    group_id = await records.one(GROUP, uuid4(), tenant_id)
    await records.run(MEMBER, uuid4(), tenant_id, group_id, UUID(me["user"]["id"]))
    await hub.admin.post("/api/v1/service-accounts", json={"name": "robot"})
    await hub.admin.post("/api/v1/api-keys", json={"name": "of a robot"})
    await hub.admin.post("/api/v1/scim-keys", json={"name": "Entra ID"})
    webhook = await hub.admin.post("/api/v1/webhooks", json={"url": "https://no-such-name.invalid/"})
    assert (await hub.admin.post(f"/api/v1/webhooks/{webhook.json()['id']}/test")).status_code == 200
    body = {"name": uuid4().hex}
    await hub.admin.post("/api/v1/roles", json=body, headers={"Idempotency-Key": uuid4().hex})
    return tenant_id


async def rows(records: Records, tenant_id: UUID) -> dict[str, int]:
    """By table, of those that have any."""
    tables = [table.name for table in METADATA.sorted_tables if "tenant_id" in table.columns]
    count = "SELECT count(*) FROM {} WHERE tenant_id = $1"
    found = {name: await records.one(count.format(name), tenant_id) for name in tables}
    return {name: number for name, number in found.items() if number}


async def deleted(hub: Hub, tenant_id: UUID) -> httpx.Response:
    answer = await hub.admin.delete(f"{TENANTS}/{tenant_id}")
    assert answer.status_code == 204, answer.text
    return answer


@pytest.mark.parametrize("most", [pytest.param(3, marks=pytest.mark.slow), 5000])
async def test_all_that_belongs_to_it_goes_but_for_its_audit_log(hub: Hub, records: Records, most: int) -> None:
    gone, stays = await hub.new_tenant(), await hub.new_tenant()
    tenant_id, other_id = await live(gone, records), await live(stays, records)
    before, others = await rows(records, tenant_id), await rows(records, other_id)
    assert set(before) >= FILLED
    await deleted(hub, tenant_id)
    now = datetime.now(UTC)
    assert await remove_deleted(hub.parts, now, most) == 0, "a request that had begun before may still write"
    steps = 0
    while await remove_deleted(hub.parts, now + LATER, most) >= most:
        steps += 1
    assert (steps > 10) == (most == 3)
    assert set(await rows(records, tenant_id)) <= KEPT
    assert await rows(records, other_id) == others
    assert await records.one("SELECT emptied_at FROM tenants WHERE id = $1", tenant_id) is not None
    assert await remove_deleted(hub.parts, now + LATER, most) == 0
    empty = "SELECT count(*) FROM audit_events WHERE action = 'tenant.empty' AND resource_id = $1"
    assert await records.one(empty, tenant_id) == 1


async def test_what_stays_is_what_the_application_may_not_delete(records: Records) -> None:
    tables = {table.name for table in METADATA.sorted_tables if "tenant_id" in table.columns}
    may = {name: await records.one("SELECT has_table_privilege('hub_app', $1, 'DELETE')", name) for name in tables}
    assert {name for name in tables if not may[name]} == KEPT


async def test_it_is_gone_at_once_for_everybody(hub: Hub, records: Records, other_worker: Hub) -> None:
    other = await hub.new_tenant()
    me = (await other.admin.get("/api/v1/auth/me")).json()
    tenant_id, login = me["tenant"]["id"], {"email": me["user"]["email"], "password": PASSWORD}
    answer = await deleted(hub, tenant_id)
    assert (await other.admin.get("/api/v1/auth/me")).status_code == 401
    assert (await hub.client().post("/api/v1/auth/login", json=login)).status_code == 401
    for method, path, given in (
        *(("GET", "", None), ("PATCH", "", {"name": "x"}), ("DELETE", "", None)),
        *(("POST", "/suspend", None), ("POST", "/resume", None)),
    ):
        found = await hub.admin.request(method, f"{TENANTS}/{tenant_id}{path}", json=given)
        assert (found.status_code, found.json()["code"]) == (404, "not_found")
    listed = [each["id"] for each in (await hub.admin.get(TENANTS, params={"limit": 200})).json()["items"]]
    assert tenant_id not in listed
    (row,) = await records.audit(answer)
    assert (row["action"], row["before"]["slug"]) == ("tenant.delete", me["tenant"]["slug"])


async def test_its_slug_is_never_given_again(hub: Hub) -> None:
    def body(slug: str) -> dict[str, Any]:
        return {"slug": slug, "name": slug, "admin": {"email": "a@example.org", "password": PASSWORD}}

    made = await hub.admin.post(TENANTS, json=body("bygone"))
    await deleted(hub, made.json()["id"])
    for slug in ("bygone", "byg0ne"):
        answer = await hub.admin.post(TENANTS, json=body(slug))
        assert (answer.status_code, answer.json()["code"]) == (409, "slug_taken")


async def test_a_stale_copy_deletes_nothing(hub: Hub) -> None:
    other = await hub.new_tenant()
    tenant_id = (await other.admin.get("/api/v1/auth/me")).json()["tenant"]["id"]
    stale = await hub.admin.delete(f"{TENANTS}/{tenant_id}", headers={"If-Match": '"v2"'})
    assert stale.status_code == 412
    assert (await other.admin.get("/api/v1/auth/me")).status_code == 200


async def test_the_operators_tenant_is_not_deleted(hub: Hub, records: Records) -> None:
    tenant_id = (await hub.admin.get("/api/v1/auth/me")).json()["tenant"]["id"]
    answer = await hub.admin.delete(f"{TENANTS}/{tenant_id}")
    assert (answer.status_code, answer.json()["code"]) == (409, "default_tenant")
    assert [row["outcome"] for row in await records.audit(answer)] == ["refused"]
