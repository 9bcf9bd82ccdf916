"""Effective permissions and lists of access: openspec/specs/authorization/spec.md."""

from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from app.core.lists.listing import mark_of
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.test_scoped_rights import READ, SOURCES, TEST, WRITE, Rights
from tests.domain.test_scoped_rights import rights as rights

pytestmark = pytest.mark.anyio

USERS = "/api/v1/users"
DOMAINS = "/api/v1/data-domains"
GIVEN = "role-assignments:read"
OWNED = {
    "data-sources:read",
    "data-sources:write",
    "data-sources:test",
    "data-sources:discover",
    "data-sources:preview",
}


async def walked(client: httpx.AsyncClient, path: str, limit: int = 3) -> list[dict[str, Any]]:
    """All items, a page at a time."""
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": limit, "count": "exact"}
    while True:
        answer = await client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= limit
        found += page["items"]
        if page["next_cursor"] is None:
            assert page["total"] == len(found)
            return found
        assert len(page["items"]) == limit
        params["cursor"] = page["next_cursor"]


async def of_user(client: httpx.AsyncClient, user: str) -> list[tuple[str, str, str | None]]:
    lines = await walked(client, f"{USERS}/{user}/effective-permissions")
    assert all(line["via"] for line in lines)
    return [(line["permission"], line["scope"]["type"], line["scope"]["id"]) for line in lines]


async def test_everything_that_somebody_may_do_is_listed_with_where_it_holds(rights: Rights) -> None:
    user, client = await rights.person()
    domain, source = await rights.domain(), await rights.source()
    await rights.give(user, await rights.role("roles:read", READ))
    await rights.give(user, await rights.role(READ, TEST), domain, "data_domain")
    await rights.give(user, await rights.role(WRITE), source)
    await rights.give(user, await rights.role(READ), source)
    await rights.give(user, await rights.role())
    assert await of_user(client, user) == [
        (READ, "tenant", None),
        ("roles:read", "tenant", None),
        (READ, "data_domain", str(domain)),
        (TEST, "data_domain", str(domain)),
        (READ, "data_source", source),
        (WRITE, "data_source", source),
    ]


async def test_what_roles_own_is_listed_thing_by_thing(rights: Rights, records: Records) -> None:
    user, client = await rights.person()
    role = await rights.role()
    await rights.give(user, role)
    domains = {str(await rights.domain(owner=role)) for _ in range(2)}
    sources = {await rights.source(owner=role) for _ in range(2)}
    await records.run("UPDATE roles SET is_owner = true WHERE id = $1::uuid", role)
    lines = await of_user(client, user)
    assert {(kind, thing) for _, kind, thing in lines} == {("data_domain", each) for each in domains} | {
        ("data_source", each) for each in sources
    }
    assert {permission for permission, _, _ in lines} >= OWNED
    assert "data-sources:reference" not in {permission for permission, _, _ in lines}


async def test_ones_own_permissions_are_ones_own_to_read_and_others_need_a_permission(hub: Hub, rights: Rights) -> None:
    user, client = await rights.person()
    other, _ = await rights.person()
    assert (await client.get(f"{USERS}/{user}/effective-permissions")).status_code == 200
    assert (await client.get(f"{USERS}/{other}/effective-permissions")).status_code == 404
    reader = await hub.user_with("users:read")
    assert (await reader.get(f"{USERS}/{other}/effective-permissions")).status_code == 200
    assert (await reader.get(f"{USERS}/{uuid4()}/effective-permissions")).status_code == 404


async def test_the_permissions_of_somebody_who_is_gone_are_there_for_the_past(hub: Hub, rights: Rights) -> None:
    user, _ = await rights.person()
    await rights.give(user, await rights.role("roles:read"))
    before = datetime.now(UTC)
    assert (await hub.admin.delete(f"{USERS}/{user}")).status_code == 204
    path = f"{USERS}/{user}/effective-permissions"
    assert (await hub.admin.get(path)).status_code == 404
    then = await hub.admin.get(path, params={"at": before.isoformat()})
    assert [line["permission"] for line in then.json()["items"]] == ["roles:read"]


@pytest.mark.parametrize(
    "params",
    [{"at": "yesterday"}, {"limit": "0"}, {"cursor": "AAAA"}, {"sort": "permission"}, {"x": "1"}, {"count": "yes"}],
)
async def test_a_wrong_parameter_is_named(hub: Hub, rights: Rights, params: dict[str, str]) -> None:
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    source = await rights.source()
    for path in (f"{USERS}/{me}/effective-permissions", f"{SOURCES}/{source}/access"):
        answer = await hub.admin.get(path, params=params)
        assert answer.status_code == 400, answer.text
        assert [fault["path"] for fault in answer.json()["errors"]] == list(params)
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        assert (await hub.admin.get(path, params={"at": tomorrow})).status_code == 400


async def test_a_cursor_belongs_to_one_list_and_one_moment(hub: Hub, rights: Rights) -> None:
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    path = f"{USERS}/{me}/effective-permissions"
    cursor = (await hub.admin.get(path, params={"limit": "1"})).json()["next_cursor"]
    for where, params in (
        (path, {"at": datetime.now(UTC).isoformat()}),
        (f"{SOURCES}/{await rights.source()}/access", {}),
    ):
        answer = await hub.admin.get(where, params=params | {"cursor": cursor})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize(
    "key", [(2**40, str(uuid4()), "a"), (-1, str(uuid4()), "a"), (1, str(uuid4()), "\x00"), (1, "x", "a"), 5]
)
async def test_a_cursor_that_somebody_made_up_is_refused(hub: Hub, key: object) -> None:
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    packed = msgspec.msgpack.encode((mark_of("effective permissions", "", {}), key))
    cursor = urlsafe_b64encode(packed).rstrip(b"=").decode()
    answer = await hub.admin.get(f"{USERS}/{me}/effective-permissions", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def access(client: httpx.AsyncClient, path: str) -> dict[str, dict[str, Any]]:
    found = await walked(client, f"{path}/access", limit=2)
    assert [line["user_id"] for line in found] == sorted(line["user_id"] for line in found)
    return {line["user_id"]: line for line in found}


async def test_everybody_with_a_right_on_a_source_is_listed_with_what_it_comes_from(
    hub: Hub, rights: Rights, records: Records
) -> None:
    owner_role = await rights.role()
    top = await rights.domain()
    domain = await rights.domain(top)
    source = await rights.source(domain, owner=owner_role)
    await records.run("UPDATE roles SET is_owner = true WHERE id = $1::uuid", owner_role)
    (everywhere, _), (above, _), (there, _), (owner, _), (member, _), (nobody, _), (elsewhere, _) = [
        await rights.person() for _ in range(7)
    ]
    group = str(uuid4())
    await records.run(
        """INSERT INTO group_members (id, tenant_id, group_id, user_id, created_at)
           SELECT gen_random_uuid(), tenant_id, $1::uuid, id, now() FROM users WHERE id = $2::uuid""",
        group,
        member,
    )
    reading = await rights.role(READ, "roles:read")
    await rights.give(everywhere, reading)
    await rights.give(above, await rights.role(READ, TEST), top, "data_domain")
    await rights.give(there, await rights.role(WRITE), source)
    await rights.give(owner, owner_role)
    await rights.give(group, reading, domain, "data_domain", subject_type="group")
    await rights.give(nobody, await rights.role("roles:read"))
    await rights.give(elsewhere, reading, await rights.source())
    found = await access(hub.admin, f"{SOURCES}/{source}")
    assert {everywhere, above, there, owner, member} <= set(found)
    assert not {nobody, elsewhere} & set(found)
    assert found[everywhere]["permissions"] == [READ], "what is about no place is not access to one"
    assert found[above]["permissions"] == sorted([READ, TEST])
    assert found[there]["permissions"] == [WRITE]
    assert set(found[owner]["permissions"]) >= OWNED
    assert found[owner]["via"][0]["type"] == "owner"
    assert [(via["group_id"], via["scope"]["id"]) for via in found[member]["via"]] == [(group, str(domain))]
    assert found[there]["email"] == (await hub.admin.get(f"{USERS}/{there}")).json()["email"]
    of_domain = await access(hub.admin, f"{DOMAINS}/{domain}")
    assert {everywhere, above, member} <= set(of_domain)
    assert not {there, owner, nobody} & set(of_domain)
    await hub.admin.patch(f"{USERS}/{there}", json={"is_active": False})
    assert there not in await access(hub.admin, f"{SOURCES}/{source}")


async def test_who_may_see_assignments_in_a_place_sees_who_has_access_there(hub: Hub, rights: Rights) -> None:
    domain = await rights.domain()
    inside, outside = await rights.source(domain), await rights.source()
    user, steward = await rights.person()
    await rights.give(user, await rights.role(GIVEN), domain, "data_domain")
    for path, status in (
        (f"{SOURCES}/{inside}", 200),
        (f"{DOMAINS}/{domain}", 200),
        (f"{SOURCES}/{outside}", 404),
        (f"{SOURCES}/{uuid4()}", 404),
        (f"{DOMAINS}/{await rights.domain()}", 404),
    ):
        assert (await steward.get(f"{path}/access")).status_code == status, path
    reader = await hub.user_with(READ)
    assert (await reader.get(f"{SOURCES}/{inside}/access")).status_code == 403, "seen, but not who else sees it"
    user, there = await rights.person()
    await rights.give(user, await rights.role(READ), inside)
    assert (await there.get(f"{SOURCES}/{inside}/access")).status_code == 403
    assert (await there.get(f"{SOURCES}/{outside}/access")).status_code == 404


async def test_access_to_what_is_gone_is_there_for_the_past(hub: Hub, rights: Rights) -> None:
    source = await rights.source()
    user, _ = await rights.person()
    await rights.give(user, await rights.role(READ), source)
    before = datetime.now(UTC)
    await rights._records.run("UPDATE role_assignments SET ended_at = now() WHERE scope_id = $1::uuid", source)
    assert (await hub.admin.delete(f"{SOURCES}/{source}")).status_code == 204
    path = f"{SOURCES}/{source}/access"
    assert (await hub.admin.get(path)).status_code == 404
    then = (await hub.admin.get(path, params={"at": before.isoformat()})).json()
    assert user in {line["user_id"] for line in then["items"]}


async def test_a_page_of_access_is_found_along_indexes_however_many_hold_a_role(
    hub: Hub, rights: Rights, records: Records
) -> None:
    """By rows that PostgreSQL goes through, not by time: of 3,000 holders no more than a page needs of each stream."""
    from app.domain.authz.lists import ABOUT_PLACES, NOTHING
    from app.domain.authz.repositories import ACCESS, MOST
    from app.domain.tenants.models import DEFAULT_TENANT_ID

    source, role = await rights.source(), await rights.role(READ)
    await records.run(
        """INSERT INTO users (id, tenant_id, email, email_key, first_name, last_name, is_active, created_at, updated_at)
           SELECT gen_random_uuid(), $1, n || '@many.example', n || '@many.example', '', '', true, now(), now()
           FROM generate_series(1, 3000) AS n""",
        DEFAULT_TENANT_ID,
    )
    await records.run(
        """INSERT INTO role_assignments (id, tenant_id, subject_type, subject_id, role_id, scope_type, starts_at,
             created_at, updated_at)
           SELECT gen_random_uuid(), tenant_id, 'user', id, $1::uuid, 'tenant', now(), now(), now() FROM users
           WHERE email LIKE '%@many.example'""",
        role,
    )
    values = {
        "tenant_id": DEFAULT_TENANT_ID,
        "at": None,
        "reach": [UUID(source)],
        "owner_role_ids": [],
        "about_places": ABOUT_PLACES,
        "owner_brings": [],
        "after": NOTHING,
        "page_limit": 51,
    }
    async with hub.parts.reads.connection("test", DEFAULT_TENANT_ID) as connection:
        explaining = f"EXPLAIN (ANALYZE, FORMAT JSON) {ACCESS.sql}"
        ((explained,),) = await connection.fetch(explaining, *(values[name] for name in ACCESS.names))
    rows = max(_rows(explained[0]["Plan"], "role_assignments"))
    assert rows <= MOST, "a stream is cut off where the page ends"
    page = (await hub.admin.get(f"{SOURCES}/{source}/access", params={"limit": 50})).json()
    assert len(page["items"]) == 50
    assert page["next_cursor"] is not None


def _rows(plan: dict[str, Any], table: str) -> list[float]:
    own = [plan["Actual Rows"]] if plan.get("Relation Name") == table else []
    return own + [rows for part in plan.get("Plans", ()) for rows in _rows(part, table)]
