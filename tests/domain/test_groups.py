"""Groups: openspec/specs/groups/spec.md; AZ2, AZ4, AZ5, AZ7, AU1."""

import asyncio
import re
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from app.domain.groups import memberships
from tests.conftest import Hub
from tests.domain.conftest import Records, open_session
from tests.domain.rights import give, giving, new_domain, somebody
from tests.domain.sources import SOURCES, ended, faults, registered, working

pytestmark = pytest.mark.anyio

GROUPS = "/api/v1/groups"
ADMIN_ROLE = "00000000-0000-7000-8000-000000000101"
READ, WRITE = "groups:read", "groups:write"


async def new_group(hub: Hub, **fields: Any) -> dict[str, Any]:
    made = await hub.admin.post(GROUPS, json={"name": f"group {uuid4().hex}", **fields})
    assert made.status_code == 201, made.text
    return dict(made.json())


async def group_with(hub: Hub, records: Records, *permissions: str, **columns: Any) -> dict[str, Any]:
    """A new one to which this was given, by hand."""
    group, role = await new_group(hub), await hub.new_role(permissions=list(permissions))
    await give(records, group["id"], role["id"], subject_type="group", **columns)
    return group


async def put_in(client: httpx.AsyncClient, group: dict[str, Any], user: dict[str, Any]) -> httpx.Response:
    return await client.put(f"{GROUPS}/{group['id']}/members/{user['id']}")


async def take_out(client: httpx.AsyncClient, group: dict[str, Any], user: dict[str, Any]) -> httpx.Response:
    return await client.delete(f"{GROUPS}/{group['id']}/members/{user['id']}")


async def members(hub: Hub, group: dict[str, Any], **query: Any) -> list[str]:
    found = await hub.admin.get(f"{GROUPS}/{group['id']}/members", params=query)
    assert found.status_code == 200, found.text
    return [user["id"] for user in found.json()["items"]]


# --- one by one ---


async def test_a_created_group_is_read_back_alike(hub: Hub) -> None:
    made = await hub.admin.post(GROUPS, json={"name": "Sales", "description": "Who sells."})
    read = await hub.admin.get(made.headers["location"])
    assert (made.status_code, read.content, read.headers["etag"]) == (201, made.content, '"v1"')
    assert made.json()["managed_by"] is None


async def test_every_change_is_on_record(hub: Hub, records: Records) -> None:
    mark, user = await records.mark(), await hub.new_user()
    mark = await records.mark()
    made = await hub.admin.post(GROUPS, json={"name": uuid4().hex})
    path, member = made.headers["location"], f"{made.headers['location']}/members/{user['id']}"
    answers = [
        made,
        await hub.admin.patch(path, json={"description": "Of another kind."}),
        await hub.admin.put(member),
        await hub.admin.put(member),
        await hub.admin.delete(member),
        await hub.admin.delete(path),
    ]
    assert all(answer.is_success for answer in answers)
    rows = [row for answer in answers for row in await records.audit(answer)]
    assert [row["action"] for row in rows] == [
        "group.create", "group.update", "group.add_member", "group.remove_member", "group.delete",
    ]  # fmt: skip
    assert rows[2]["after"] == rows[3]["before"] == {"user_id": user["id"]}
    assert [event["type"].removeprefix("org.datafusionhub.") for event in await records.events(mark[1])] == [
        "group.created", "group.updated", "group.member_added", "group.member_removed", "group.deleted",
    ]  # fmt: skip
    assert (await hub.admin.get(path)).status_code == 404


async def test_names_are_unique_and_look_like_no_other(hub: Hub) -> None:
    first = await new_group(hub, name="cope")
    other = await new_group(hub)
    for name in ("COPE", " cope", "соре"):
        for answer in (
            await hub.admin.post(GROUPS, json={"name": name}),
            await hub.admin.patch(f"{GROUPS}/{other['id']}", json={"name": name}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
    found = (await hub.admin.get(GROUPS, params={"name": "Cope"})).json()["items"]
    assert [group["id"] for group in found] == [first["id"]]


@pytest.mark.parametrize("field", ["id", "external_id", "members", "version", "name_key"])
async def test_a_field_that_is_not_in_the_schema_is_named(hub: Hub, field: str) -> None:
    group = await new_group(hub)
    for answer in (
        await hub.admin.post(GROUPS, json={"name": uuid4().hex, field: "x"}),
        await hub.admin.patch(f"{GROUPS}/{group['id']}", json={field: "x"}),
    ):
        assert (answer.status_code, faults(answer)) == (400, {field: "unknown_field"})


async def test_a_stale_version_is_a_412(hub: Hub) -> None:
    group, user = await new_group(hub), await hub.new_user()
    path, stale = f"{GROUPS}/{group['id']}", {"If-Match": '"v7"'}
    for answer in (
        await hub.admin.patch(path, json={"description": "x"}, headers=stale),
        await hub.admin.delete(path, headers=stale),
        await hub.admin.put(f"{path}/members/{user['id']}", headers=stale),
    ):
        assert answer.status_code == 412
    tag = (await hub.admin.get(f"/api/v1/users/{user['id']}")).headers["etag"]
    put = await hub.admin.put(f"{path}/members/{user['id']}", headers={"If-Match": tag})
    assert (put.status_code, put.headers["etag"], put.json()["id"]) == (200, tag, user["id"])


# --- members ---


async def test_members_are_listed_like_those_of_a_role(hub: Hub) -> None:
    group, users = await new_group(hub), [await hub.new_user() for _ in range(3)]
    for user in users:
        assert (await put_in(hub.admin, group, user)).status_code == 200
    assert await members(hub, group) == [user["id"] for user in sorted(users, key=lambda user: str(user["email"]))]
    assert await members(hub, group, sort="-created_at") == [user["id"] for user in reversed(users)]
    page = await hub.admin.get(f"{GROUPS}/{group['id']}/members", params={"limit": 1, "count": "exact"})
    assert (len(page.json()["items"]), page.json()["total"]) == (1, 3)
    await hub.admin.patch(f"/api/v1/users/{users[0]['id']}", json={"email": f"zz{uuid4().hex}@example.org"})
    assert (await members(hub, group))[-1] == users[0]["id"], "in order of the address that they have now"


async def test_a_membership_that_has_ended_is_kept_and_may_begin_again(hub: Hub, records: Records) -> None:
    group, user = await new_group(hub), await hub.new_user()
    for _ in range(2):
        await put_in(hub.admin, group, user)
        assert (await take_out(hub.admin, group, user)).status_code == 204
        assert (await take_out(hub.admin, group, user)).status_code == 404
    await put_in(hub.admin, group, user)
    assert await members(hub, group) == [user["id"]]
    rows = await records.run("SELECT ended_at, ended_by FROM group_members WHERE group_id = $1::uuid", group["id"])
    assert sorted(row["ended_at"] is None for row in rows) == [False, False, True]
    assert all(row["ended_by"] is not None for row in rows if row["ended_at"])


async def test_parallel_puts_make_one_membership(hub: Hub, records: Records) -> None:
    group, user = await new_group(hub), await hub.new_user()
    answers = await asyncio.gather(*(put_in(hub.admin, group, user) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert await records.one("SELECT count(*) FROM group_members WHERE group_id = $1::uuid", group["id"]) == 1


async def test_members_hold_what_was_given_to_the_group_within_the_request(hub: Hub, records: Records) -> None:
    group = await group_with(hub, records, "roles:read")
    user = await hub.new_user()
    client = await open_session(hub, records, user["email"])
    assert (await client.get("/api/v1/roles")).status_code == 403
    await put_in(hub.admin, group, user)
    assert (await client.get("/api/v1/roles")).status_code == 200
    await take_out(hub.admin, group, user)
    assert (await client.get("/api/v1/roles")).status_code == 403
    await put_in(hub.admin, group, user)
    assert (await client.get("/api/v1/roles")).status_code == 200
    assert (await hub.admin.delete(f"{GROUPS}/{group['id']}")).status_code == 204
    assert (await client.get("/api/v1/roles")).status_code == 403
    for table, column in (("group_members", "group_id"), ("role_assignments", "subject_id")):
        left = f"SELECT count(*), count(ended_at) FROM {table} WHERE {column} = $1::uuid"
        (row,) = await records.run(left, group["id"])
        assert row[0] == row[1] > 0, "ended, not deleted"


async def test_of_a_group_with_very_many_members_the_rest_is_ended_by_a_job(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they held by it is gone with the request."""
    monkeypatch.setattr(memberships, "AT_ONCE", 20)
    group, user = await group_with(hub, records, "roles:read"), await hub.new_user()
    await put_in(hub.admin, group, user)
    client = await open_session(hub, records, user["email"])
    await records.run(
        """INSERT INTO users (id, tenant_id, email, email_key, first_name, last_name, is_active, created_at, updated_at)
           SELECT gen_random_uuid(), tenant_id, 'many ' || number, 'many ' || number, '', '', true, now(), now()
           FROM groups, generate_series(1, 49) AS number WHERE id = $1::uuid""",
        group["id"],
    )
    await records.run(
        """INSERT INTO group_members (id, tenant_id, group_id, user_id, created_at)
           SELECT gen_random_uuid(), tenant_id, $1::uuid, id, now() FROM users WHERE email LIKE 'many %'""",
        group["id"],
    )
    assert (await client.get("/api/v1/roles")).status_code == 200
    assert (await hub.admin.delete(f"{GROUPS}/{group['id']}")).status_code == 204
    assert (await client.get("/api/v1/roles")).status_code == 403
    left = "SELECT count(*) FROM group_members WHERE group_id = $1::uuid AND ended_at IS NULL"
    assert await records.one(left, group["id"]) == 30
    (job,) = (await hub.admin.get("/api/v1/jobs", params={"subject_id": group["id"]})).json()["items"]
    async with working(hub.parts):
        done = await ended(hub.admin, job["id"])
    assert (done["kind"], done["status"], done["result"]) == ("group.end_memberships", "succeeded", {"ended": 30})
    assert await records.one(left, group["id"]) == 0
    by = "SELECT count(DISTINCT ended_by) FROM group_members WHERE group_id = $1::uuid"
    assert await records.one(by, group["id"]) == 1


async def test_a_user_who_is_deleted_is_in_no_group(hub: Hub, records: Records) -> None:
    group, user = await new_group(hub), await hub.new_user()
    await put_in(hub.admin, group, user)
    assert (await hub.admin.delete(f"/api/v1/users/{user['id']}")).status_code == 204
    assert await members(hub, group) == []
    assert await records.one("SELECT count(ended_at) FROM group_members WHERE user_id = $1::uuid", user["id"]) == 1
    assert (await put_in(hub.admin, group, user)).status_code == 404


# --- nobody rises ---


async def test_nobody_puts_anybody_into_a_group_that_may_do_more_than_they(hub: Hub, records: Records) -> None:
    client = await somebody(hub, records, giving(None, READ, WRITE, "roles:read"))
    me = (await client.get("/api/v1/auth/me")).json()["user"]
    stronger = await group_with(hub, records, "roles:read", "roles:write")
    member = await hub.new_user()
    await put_in(hub.admin, stronger, member)
    path = f"{GROUPS}/{stronger['id']}"
    for answer in (
        await put_in(client, stronger, me),
        await put_in(client, stronger, await hub.new_user()),
        await take_out(client, stronger, member),
        await client.patch(path, json={"name": uuid4().hex}),
        await client.delete(path),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions")
    assert await members(hub, stronger) == [member["id"]]
    equal = await group_with(hub, records, "roles:read")
    assert (await put_in(client, equal, me)).status_code == 200
    assert (await client.patch(f"{GROUPS}/{equal['id']}", json={"description": "x"})).status_code == 200
    assert (await client.delete(f"{GROUPS}/{equal['id']}")).status_code == 204


async def test_what_is_given_from_tomorrow_on_counts_and_what_has_ended_does_not(hub: Hub, records: Records) -> None:
    client = await somebody(hub, records, giving(None, READ, WRITE))
    group = await group_with(hub, records, "roles:write")
    where = "WHERE subject_id = $1::uuid"
    await records.run(f"UPDATE role_assignments SET starts_at = now() + interval '1 day' {where}", group["id"])
    assert (await put_in(client, group, await hub.new_user())).json()["code"] == "exceeds_own_permissions"
    expired = "starts_at = now() - interval '2 days', expires_at = now() - interval '1 day'"
    await records.run(f"UPDATE role_assignments SET {expired} {where}", group["id"])
    assert (await put_in(client, group, await hub.new_user())).status_code == 200
    await records.run(f"UPDATE role_assignments SET expires_at = NULL, ended_at = now() {where}", group["id"])
    assert (await put_in(client, group, await hub.new_user())).status_code == 200


async def test_nobody_joins_a_group_while_its_role_is_being_filled(hub: Hub, records: Records) -> None:
    """Whoever fills it has counted who is in the group, and whoever joins has looked at what it brings."""
    client = await somebody(hub, records, giving(None, READ, WRITE))
    group, role, user = await new_group(hub), await hub.new_role(permissions=[]), await hub.new_user()
    await give(records, group["id"], role["id"], subject_type="group")
    filling = await asyncpg.connect(hub.owner_url)
    try:
        async with asyncio.timeout(10), filling.transaction():
            await filling.execute("SELECT FROM roles WHERE id = $1::uuid FOR UPDATE", role["id"])
            joining = asyncio.create_task(put_in(client, group, user))
            while not joining.done() and not await records.one("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.02)
            added = "UPDATE roles SET permissions = '{audit-events:read}' WHERE id = $1::uuid"
            await filling.execute(added, role["id"])
    finally:
        await filling.close()
    assert (await joining).json().get("code") == "exceeds_own_permissions"
    assert await members(hub, group) == []


async def test_what_a_group_holds_somewhere_is_asked_for_there(hub: Hub, records: Records) -> None:
    """A domain above the source is enough, another one is not."""
    top, other = await new_domain(hub), await new_domain(hub)
    below = await new_domain(hub, parent_id=top["id"])
    source = await registered(hub, data_domain_id=below["id"])
    preview = "data-sources:preview"
    groups = [
        await group_with(hub, records, preview, scope_type="data_source", scope_id=source["id"]),
        await group_with(hub, records, preview, scope_id=below["id"]),
    ]
    keeper = giving(None, READ, WRITE)
    for place, status in ((top, 200), (below, 200), (other, 403)):
        client = await somebody(hub, records, keeper, giving(place, preview))
        answers = [await put_in(client, group, await hub.new_user()) for group in groups]
        assert [answer.status_code for answer in answers] == [status] * 2, place


async def test_what_a_group_owns_is_asked_for_where_it_is(hub: Hub, records: Records) -> None:
    role, domain = await hub.new_role(), await new_domain(hub)
    owned = await registered(hub, owner_role_id=role["id"], data_domain_id=domain["id"])
    group = await new_group(hub)
    await give(records, group["id"], role["id"], subject_type="group")
    keeper = giving(None, READ, WRITE)
    owning = [f"data-sources:{verb}" for verb in ("discover", "preview", "read", "test", "write")]
    for given, status in (
        ([], 403),
        ([giving(domain, *owning[1:])], 403),
        ([giving(domain, *owning)], 200),
        ([{"role": role}], 200),
    ):
        client = await somebody(hub, records, keeper, *given)
        assert (await put_in(client, group, await hub.new_user())).status_code == status, given
    member = await hub.new_user()
    await put_in(hub.admin, group, member)
    client = await open_session(hub, records, member["email"])
    assert (await client.get(f"{SOURCES}/{owned['id']}")).status_code == 200
    elsewhere = await new_domain(hub)
    owning_more = (f"/api/v1/data-domains/{elsewhere['id']}", {"owner_role_id": role["id"]})
    refused = await hub.admin.patch(owning_more[0], json=owning_more[1])
    assert refused.json()["code"] == "holders_unconfirmed", "some were put in by who holds nothing there"
    holders = re.findall(r"confirm_holders=(\d+)", refused.json()["detail"])
    confirmed = await hub.admin.patch(f"{owning_more[0]}?confirm_holders={holders[0]}", json=owning_more[1])
    assert confirmed.status_code == 200, confirmed.text
    client = await somebody(hub, records, keeper, giving(domain, *owning))
    assert (await put_in(client, group, await hub.new_user())).status_code == 403, "it owns more than that by now"


async def test_an_admin_by_a_group_is_not_the_last_admin(hub: Hub, records: Records) -> None:
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]
    group, other = await new_group(hub), await hub.new_user(password="a heron waits where two rivers meet")
    await give(records, group["id"], ADMIN_ROLE, subject_type="group")
    await put_in(hub.admin, group, other)
    refused = await hub.admin.delete(f"/api/v1/users/{me['id']}/roles/{ADMIN_ROLE}")
    assert (refused.status_code, refused.json()["code"]) == (409, "last_admin")


async def test_groups_of_another_tenant_are_not_there(hub: Hub, records: Records) -> None:
    tenant_id, group, user = uuid4(), await new_group(hub, name=f"foreign {uuid4().hex}"), await hub.new_user()
    insert = "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, $2, 'T', true, now(), now())"
    await records.run(insert, tenant_id, tenant_id.hex)
    await records.run("UPDATE groups SET tenant_id = $1 WHERE id = $2::uuid", tenant_id, group["id"])
    path = f"{GROUPS}/{group['id']}"
    answers = [
        await hub.admin.get(path),
        await hub.admin.patch(path, json={}),
        await hub.admin.delete(path),
        await hub.admin.get(f"{path}/members"),
        await put_in(hub.admin, group, user),
        await take_out(hub.admin, group, user),
    ]
    assert [answer.status_code for answer in answers] == [404] * 6
    listed = (await hub.admin.get(GROUPS, params={"q": "foreign", "count": "exact"})).json()
    assert (listed["items"], listed["total"]) == ([], 0)


async def test_an_unknown_group_or_user_is_not_there_for_any_call(hub: Hub) -> None:
    group, user = await new_group(hub), await hub.new_user()
    unknown = {"id": str(uuid4())}
    for answer in (
        await hub.admin.get(f"{GROUPS}/{unknown['id']}"),
        await hub.admin.get(f"{GROUPS}/{unknown['id']}/members"),
        await put_in(hub.admin, unknown, user),
        await put_in(hub.admin, group, unknown),
        await take_out(hub.admin, group, user),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
