"""A role that very many hold: renamed and deleted within the request, seen by everybody who shows a member (L8)."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.domain.sources.secrets.sealed import OLDEST_OF_EACH_KEY
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records
from tests.sampling import sampled

pytestmark = [pytest.mark.anyio, pytest.mark.found("L8")]

MEMBERS = 2_000


@pytest.fixture
async def crowded(hub: Hub, records: Records) -> dict[str, Any]:
    """A role of many members; one of them is `member`."""
    role = (await hub.admin.post("/api/v1/roles", json={"name": uuid4().hex, "permissions": ["roles:read"]})).json()
    await records.run(
        """WITH made AS (
             INSERT INTO users (id, tenant_id, email, email_key, first_name, last_name, is_active, created_at, updated_at)
             SELECT gen_random_uuid(), '00000000-0000-7000-8000-000000000001', $1::text || i, $1::text || i, '', '', true,
               now(), now()
             FROM generate_series(1, $2::int) AS i RETURNING id, tenant_id)
           INSERT INTO role_assignments (id, subject_type, subject_id, role_id, scope_type, tenant_id, starts_at, created_at,
             updated_at)
           SELECT gen_random_uuid(), 'user', id, $3::uuid, 'tenant', tenant_id, now(), now(), now() FROM made""",
        uuid4().hex,
        MEMBERS,
        role["id"],
    )
    body = {"email": f"{uuid4().hex}@example.org", "password": PASSWORD}
    member = (await hub.admin.post("/api/v1/users", json=body)).json()
    await hub.admin.put(f"/api/v1/users/{member['id']}/roles/{role['id']}")
    return {"id": role["id"], "member": member["id"], "email": body["email"]}


@pytest.mark.parametrize("way", ["rename", "delete"])
async def test_no_member_is_written_when_a_role_is_renamed_or_deleted(
    hub: Hub, records: Records, crowded: dict[str, Any], way: str
) -> None:
    """The time that it takes must not hang on the number of members: what is not written costs nothing."""
    before = await records.one("SELECT sum(version)::int FROM users")
    path = f"/api/v1/roles/{crowded['id']}"
    answer = await (hub.admin.delete(path) if way == "delete" else hub.admin.patch(path, json={"name": uuid4().hex}))
    assert answer.status_code in (200, 204), answer.text
    assert await records.one("SELECT sum(version)::int FROM users") == before
    left = await records.one(
        "SELECT count(*) FROM role_assignments WHERE role_id = $1::uuid AND ended_at IS NULL", crowded["id"]
    )
    assert left == (0 if way == "delete" else MEMBERS + 1)


async def tag_of(hub: Hub, user_id: str) -> tuple[str, httpx.Response]:
    answer = await hub.admin.get(f"/api/v1/users/{user_id}")
    return answer.headers["etag"], answer


@pytest.mark.parametrize("way", ["rename", "delete"])
async def test_what_is_shown_of_a_member_has_another_tag_afterwards(
    hub: Hub, crowded: dict[str, Any], way: str
) -> None:
    path = f"/api/v1/users/{crowded['member']}"
    tag, before = await tag_of(hub, crowded["member"])
    same = await hub.admin.get(path, headers={"If-None-Match": tag})
    assert same.status_code == 304
    role = f"/api/v1/roles/{crowded['id']}"
    await (
        hub.admin.delete(role) if way == "delete" else hub.admin.patch(role, json={"name": "renamed " + uuid4().hex})
    )
    seen = await hub.admin.get(path, headers={"If-None-Match": tag})
    assert (seen.status_code, seen.json()["version"]) == (200, before.json()["version"])
    assert seen.json()["roles"] != before.json()["roles"]
    stale = await hub.admin.patch(path, json={"first_name": "Ada"}, headers={"If-Match": tag})
    assert (stale.status_code, stale.headers["etag"]) == (412, seen.headers["etag"])
    mended = await hub.admin.patch(path, json={"first_name": "Ada"}, headers={"If-Match": seen.headers["etag"]})
    assert mended.status_code == 200


async def test_what_a_role_permits_is_no_part_of_a_members_tag(hub: Hub, crowded: dict[str, Any]) -> None:
    tag, _ = await tag_of(hub, crowded["member"])
    await hub.admin.patch(f"/api/v1/roles/{crowded['id']}", json={"permissions": [], "description": "nothing"})
    assert (await tag_of(hub, crowded["member"]))[0] == tag


async def test_a_tag_covers_a_lock_that_ends_by_itself(hub: Hub, records: Records, crowded: dict[str, Any]) -> None:
    open_tag, _ = await tag_of(hub, crowded["member"])
    lock = "UPDATE users SET locked_until = now() + $2::interval WHERE id = $1::uuid"
    await records.run(lock.replace("$2::interval", "interval '1 hour'"), crowded["member"])
    locked_tag, _ = await tag_of(hub, crowded["member"])
    await records.run(lock.replace("$2::interval", "interval '-1 hour'"), crowded["member"])
    assert locked_tag != open_tag
    assert (await tag_of(hub, crowded["member"]))[0] == open_tag


@pytest.mark.parametrize("way", sampled(["permit", "rename", "delete"], every=3))
async def test_every_worker_knows_of_the_change_at_once(
    hub: Hub, other_worker: Hub, crowded: dict[str, Any], way: str
) -> None:
    member = await hub.sign_in(crowded["email"])
    elsewhere = other_worker.client(member.headers["Authorization"].removeprefix("Bearer "))
    assert (await elsewhere.get("/api/v1/auth/me")).json()["permissions"].count("roles:read") == 1
    path = f"/api/v1/roles/{crowded['id']}"
    if way == "delete":
        await hub.admin.delete(path)
    else:
        await hub.admin.patch(path, json={"permissions": []} if way == "permit" else {"name": "now " + crowded["id"]})
    await wait_for_notices()
    for client in (member, elsewhere):
        me = (await client.get("/api/v1/auth/me")).json()
        assert ("roles:read" in me["permissions"]) == (way == "rename")
        assert ("now " + crowded["id"] in [role["name"] for role in me["roles"]]) == (way == "rename")


async def wait_for_notices() -> None:
    """As long as a worker may take to learn of something."""
    await asyncio.sleep(1)


async def test_the_keys_of_secrets_are_found_from_key_to_key(hub: Hub, records: Records) -> None:
    """At each start: the plan walks along the index, and reads as many rows as there are keys."""
    await hub.admin.post(
        "/api/v1/data-sources",
        json={
            "name": uuid4().hex,
            "type": "postgresql",
            "config": {"host": "db.example.org", "database": "shop", "username": "reader"},
            "secrets": {"password": "a secret of today"},
        },
    )
    await records.run(
        """INSERT INTO data_source_secrets (data_source_id, name, tenant_id, sealed, key_id, version, updated_at)
           SELECT id, 'n' || i, tenant_id, '\\x00', 'k' || (i % 3), 1, now() - i * interval '1 second'
           FROM data_sources CROSS JOIN generate_series(1, 3000) AS i LIMIT 3000"""
    )
    found = await records.run(OLDEST_OF_EACH_KEY)
    assert {row["key_id"]: row["name"] for row in found if row["key_id"].startswith("k")}.items() >= {
        "k0": "n3000",
        "k1": "n2998",
        "k2": "n2999",
    }.items()
    body = await records.one("SELECT prosrc FROM pg_proc WHERE proname = 'oldest_secret_of_each_key'")
    plan = "\n".join(row[0] for row in await records.run(f"EXPLAIN (ANALYZE, TIMING OFF) {body}"))
    assert "data_source_secrets_key_id_idx" in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan
