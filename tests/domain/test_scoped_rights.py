"""Rights for a part of the tenant: what is shown, what is hidden, and when it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.domain.tenants.models import DEFAULT_TENANT_ID
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records

pytestmark = pytest.mark.anyio

SOURCES = "/api/v1/data-sources"
READ, WRITE, TEST = "data-sources:read", "data-sources:write", "data-sources:test"


class Rights:
    """Rows as the slices write them, for what the tests of other slices prove."""

    def __init__(self, hub: Hub, records: Records) -> None:
        self._hub = hub
        self._records = records

    async def source(self, domain: UUID | None = None, owner: str | None = None) -> str:
        body = {"name": uuid4().hex, "type": "rest", "config": {"base_url": "https://a.example"}}
        made = await self._hub.admin.post(SOURCES, json=body)
        assert made.status_code == 201, made.text
        source_id = made.json()["id"]
        await self._records.run(
            "UPDATE data_sources SET data_domain_id = $1, owner_role_id = $2::uuid WHERE id = $3::uuid",
            domain,
            owner,
            source_id,
        )
        return str(source_id)

    async def domain(self, parent: UUID | None = None, owner: str | None = None) -> UUID:
        domain_id = uuid4()
        await self._records.run(
            """INSERT INTO data_domains (id, tenant_id, name, name_key, parent_id, lineage, owner_role_id, created_at,
                 updated_at)
               VALUES ($1, $2, $3, $3, $4,
                 coalesce((SELECT lineage FROM data_domains WHERE id = $4), '{}') || $1::uuid, $5::uuid, now(), now())""",
            domain_id,
            DEFAULT_TENANT_ID,
            uuid4().hex,
            parent,
            owner,
        )
        return domain_id

    async def role(self, *permissions: str) -> str:
        return str((await self._hub.new_role(permissions=list(permissions)))["id"])

    async def give(
        self, subject: str, role: str, scope: UUID | str | None = None, kind: str = "data_source", **columns: Any
    ) -> None:
        given = {"starts_at": "now()", "expires_at": "NULL"} | columns
        await self._records.run(
            f"""INSERT INTO role_assignments (id, tenant_id, subject_type, subject_id, role_id, scope_type, scope_id,
                  starts_at, expires_at, created_at, updated_at)
                VALUES (gen_random_uuid(), $1, $2, $3::uuid, $4::uuid, $5, $6::uuid, {given["starts_at"]},
                  {given["expires_at"]}, now(), now())""",
            DEFAULT_TENANT_ID,
            columns.get("subject_type", "user"),
            subject,
            role,
            kind if scope else "tenant",
            None if scope is None else str(scope),
        )
        self._hub.parts.principals._drop_all()

    async def person(self) -> tuple[str, httpx.AsyncClient]:
        user = await self._hub.new_user(password=PASSWORD)
        return str(user["id"]), await self._hub.sign_in(user["email"])


@pytest.fixture
def rights(hub: Hub, records: Records) -> Rights:
    return Rights(hub, records)


async def shown(client: httpx.AsyncClient, path: str = SOURCES) -> set[str]:
    answer = await client.get(path, params={"limit": 200, "count": "exact"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] == len(answer.json()["items"])
    return {item["id"] for item in answer.json()["items"]}


async def test_a_role_on_one_source_shows_that_source_alone(rights: Rights) -> None:
    mine, other = await rights.source(), await rights.source()
    user, client = await rights.person()
    assert (await client.get(SOURCES)).status_code == 403
    await rights.give(user, await rights.role(READ), mine)
    assert await shown(client) == {mine}
    assert (await client.get(f"{SOURCES}/{mine}")).status_code == 200
    hidden = await client.get(f"{SOURCES}/{other}")
    absent = await client.get(f"{SOURCES}/{uuid4()}")
    assert hidden.status_code == absent.status_code == 404
    assert hidden.json() | {"request_id": ""} == absent.json() | {"request_id": ""}
    assert await shown(client, f"{SOURCES}/{mine}/objects") == set()
    assert (await client.get(f"{SOURCES}/{other}/objects")).status_code == 404


async def test_what_one_sees_and_may_not_change_is_forbidden_and_what_one_does_not_see_is_not_there(
    rights: Rights,
) -> None:
    mine, other = await rights.source(), await rights.source()
    user, client = await rights.person()
    await rights.give(user, await rights.role(READ), mine)
    assert (await client.patch(f"{SOURCES}/{mine}", json={"description": "x"})).status_code == 403
    assert (await client.patch(f"{SOURCES}/{other}", json={"description": "x"})).status_code == 404
    assert (await client.delete(f"{SOURCES}/{other}")).status_code == 404
    await rights.give(user, await rights.role(WRITE), mine)
    assert (await client.patch(f"{SOURCES}/{mine}", json={"description": "x"})).status_code == 200


async def test_a_role_on_a_domain_holds_in_all_below_it(rights: Rights, records: Records) -> None:
    top = await rights.domain()
    below = await rights.domain(await rights.domain(top))
    beside = await rights.domain()
    in_top, in_below, in_beside = [await rights.source(each) for each in (top, below, beside)]
    user, client = await rights.person()
    await rights.give(user, await rights.role(READ), top, "data_domain")
    assert await shown(client) == {in_top, in_below}
    assert (await client.get(f"{SOURCES}/{in_beside}")).status_code == 404
    await records.run("UPDATE data_sources SET data_domain_id = $1 WHERE id = $2::uuid", beside, in_below)
    assert await shown(client) == {in_top}
    assert (await client.get(f"{SOURCES}/{in_below}")).status_code == 404


@pytest.mark.parametrize("search", [{"q": "needle"}, {"tag": "needle"}, {"type": "rest", "q": "n"}])
async def test_searches_and_filters_stay_within_what_one_sees(hub: Hub, rights: Rights, search: dict[str, str]) -> None:
    mine, other = await rights.source(), await rights.source()
    for source in (mine, other):
        changed = await hub.admin.patch(f"{SOURCES}/{source}", json={"tags": ["needle"], "description": "a needle"})
        assert changed.status_code == 200
    user, client = await rights.person()
    await rights.give(user, await rights.role(READ), mine)
    found = await client.get(SOURCES, params={**search, "count": "exact"})
    assert [item["id"] for item in found.json()["items"]] == [mine]
    assert found.json()["total"] == 1


async def test_an_owner_role_brings_every_verb_but_references_on_what_it_owns(rights: Rights, records: Records) -> None:
    owners = await rights.role()
    domain = await rights.domain(owner=owners)
    owned, inside, foreign = await rights.source(owner=owners), await rights.source(domain), await rights.source()
    await records.run("UPDATE roles SET is_owner = true WHERE id = $1::uuid", owners)
    user, client = await rights.person()
    await rights.give(user, owners)
    assert await shown(client) == {owned, inside}
    for source in (owned, inside):
        assert (await client.patch(f"{SOURCES}/{source}", json={"description": "x"})).status_code == 200
    assert (await client.patch(f"{SOURCES}/{foreign}", json={"description": "x"})).status_code == 404


async def test_members_of_a_group_hold_what_it_was_given(rights: Rights, records: Records) -> None:
    mine, group = await rights.source(), uuid4()
    user, client = await rights.person()
    await records.run(
        "INSERT INTO groups (id, tenant_id, name, name_key, created_at, updated_at) VALUES ($1, $2, $3, $3, now(), now())",
        group,
        DEFAULT_TENANT_ID,
        uuid4().hex,
    )
    await records.run(
        """INSERT INTO group_members (id, tenant_id, group_id, user_id, created_at)
           VALUES (gen_random_uuid(), $1, $2, $3::uuid, now())""",
        DEFAULT_TENANT_ID,
        group,
        user,
    )
    await rights.give(str(group), await rights.role(READ), mine, subject_type="group")
    assert await shown(client) == {mine}


@pytest.mark.parametrize("when", ["starts_at", "expires_at"])
async def test_a_right_begins_and_ends_at_its_moment_by_itself(rights: Rights, when: str) -> None:
    """Nothing notifies anybody: a worker that holds the principal in memory knows when it becomes untrue."""
    mine = await rights.source()
    user, client = await rights.person()
    await rights.give(user, await rights.role(READ), mine, **{when: "now() + interval '1.5 seconds'"})
    before, after = (200, 403) if when == "expires_at" else (403, 200)
    assert (await client.get(SOURCES)).status_code == before
    await eventually(lambda: answers(client, after))


async def answers(client: httpx.AsyncClient, status: int) -> bool:
    return (await client.get(SOURCES)).status_code == status


async def eventually(is_so: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(200):
        if await is_so():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come about")


async def test_jobs_about_a_source_are_seen_by_whoever_may_see_jobs_there(
    hub: Hub, rights: Rights, records: Records
) -> None:
    mine, other = await rights.source(), await rights.source()
    jobs = {}
    for source in (mine, other):
        started = await hub.admin.post(f"{SOURCES}/{source}/discover")
        jobs[source] = started.json()["id"] if started.status_code == 202 else await queued(records, source)
    user, client = await rights.person()
    await rights.give(user, await rights.role("jobs:read"), mine)
    assert await shown(client, "/api/v1/jobs") == {jobs[mine]}
    assert (await client.get(f"/api/v1/jobs/{jobs[mine]}")).status_code == 200
    assert (await client.get(f"/api/v1/jobs/{jobs[other]}")).status_code == 404
    assert (await client.post(f"/api/v1/jobs/{jobs[mine]}/cancel")).status_code == 403
    assert (await client.post(f"/api/v1/jobs/{jobs[other]}/cancel")).status_code == 404


async def queued(records: Records, source: str) -> str:
    return str(
        await records.one(
            """INSERT INTO jobs (id, tenant_id, kind, status, subject_id, arguments, created_at, updated_at)
               VALUES (gen_random_uuid(), $1, 'data_source.discover', 'queued', $2::uuid, '{}', now(), now())
               RETURNING id""",
            DEFAULT_TENANT_ID,
            source,
        )
    )


async def test_a_scoped_right_brings_nothing_beyond_its_scope(rights: Rights) -> None:
    """Users, roles and the audit log are the whole tenant's: on a source such a permission means nothing."""
    mine = await rights.source()
    user, client = await rights.person()
    await rights.give(user, await rights.role("users:read", "roles:read", "audit-events:read", WRITE, TEST), mine)
    for path in ("users", "roles", "audit-events", f"users/{user}"):
        assert (await client.get(f"/api/v1/{path}")).status_code in (403, 404), path
    assert (await client.get("/api/v1/auth/me")).json()["permissions"] == []


async def test_somebody_who_may_do_more_on_one_source_cannot_be_changed(hub: Hub, rights: Rights) -> None:
    mine = await rights.source()
    user, _ = await rights.person()
    await rights.give(user, await rights.role(WRITE), mine)
    clerk = await hub.user_with("users:read", "users:write")
    assert (await clerk.patch(f"/api/v1/users/{user}", json={"first_name": "X"})).status_code == 403


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "name", "-updated_at"])
async def test_pages_of_named_sources_miss_none_and_end(rights: Rights, records: Records, sort: str) -> None:
    """Some go while they are paged through; what was made in between stays out."""
    mine = []
    for _ in range(7):
        mine.append(await rights.source())
        await rights.source()
    user, client = await rights.person()
    role = await rights.role(READ)
    for source in mine:
        await rights.give(user, role, source)
    first = (await client.get(SOURCES, params={"limit": 2, "sort": sort})).json()
    left = [source for source in mine if source not in {item["id"] for item in first["items"]}]
    for gone in left[1:3]:
        await records.run("DELETE FROM data_sources WHERE id = $1::uuid", gone)
    seen, cursor = [item["id"] for item in first["items"]], first["next_cursor"]
    while cursor:
        page = (await client.get(SOURCES, params={"limit": 2, "sort": sort, "cursor": cursor})).json()
        assert page["items"]
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 5
    assert set(seen) == set(mine) - set(left[1:3])
    if sort.endswith("created_at"):
        assert seen == sorted(seen, key=mine.index, reverse=sort.startswith("-"))
