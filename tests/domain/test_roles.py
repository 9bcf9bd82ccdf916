"""Roles: openspec/specs/roles/spec.md; AZ2, AZ5, AZ6, AU1, MA1. Rising above oneself: tests/domain/test_users.py."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event

from tests.conftest import ADMIN_EMAIL, Hub
from tests.domain.conftest import Records, new_user, open_session

pytestmark = pytest.mark.anyio

ROLES = "/api/v1/roles"
ADMIN_ROLE = "00000000-0000-7000-8000-000000000101"
PUBLIC_ROLE = "00000000-0000-7000-8000-000000000102"


async def created(hub: Hub, **fields: Any) -> dict[str, Any]:
    answer = await hub.admin.post(ROLES, json={"name": uuid4().hex, **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_created_role_is_read_back_alike(hub: Hub) -> None:
    made = await hub.admin.post(ROLES, json={"name": "Analysts", "permissions": ["roles:read"]})
    read = await hub.admin.get(made.headers["location"])
    assert made.status_code == 201
    assert made.content == read.content
    assert read.headers["etag"] == '"v1"'


async def test_a_new_role_is_one_statement_of_no_session(hub: Hub) -> None:
    """Half of what it would cost otherwise. Whatever a rule asks of it, it asks only where the answer is open."""
    begun: list[object] = []

    def note(connection: object) -> None:
        begun.append(connection)

    event.listen(hub.parts.engine.sync_engine, "begin", note)
    await created(hub, description="of one row", permissions=["roles:read"])
    assert begun == []
    await created(hub, name="ѕіх")  # Cyrillic letters, each of which looks Latin
    assert len(begun) == 1
    event.remove(hub.parts.engine.sync_engine, "begin", note)


async def test_names_are_unique_whatever_their_case(hub: Hub) -> None:
    await hub.admin.post(ROLES, json={"name": "Straße"})
    twice = await hub.admin.post(ROLES, json={"name": "STRASSE"})
    assert (twice.status_code, twice.json()["code"]) == (409, "name_taken")
    assert [(fault["path"], fault["code"]) for fault in twice.json()["errors"]] == [("name", "name_taken")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ｏｐｓ", "ops"),
        ("ﬁnance", "FINANCE"),
        ("café", "CAFE\u0301"),
        ("data\u200bteam", "Data\ufeffTeam"),
        ("ΣΟΦΟΣ", "σοφος"),
        ("İzmir", "i̇zmir"),
        (" padded ", "Padded"),
    ],
    ids=ascii,
)
async def test_names_that_look_alike_are_one_name(hub: Hub, one: str, other: str) -> None:
    first = await created(hub, name=one)
    second = await hub.admin.post(ROLES, json={"name": other})
    assert (second.status_code, second.json()["code"]) == (409, "name_taken")
    third = await created(hub)
    renamed = await hub.admin.patch(f"{ROLES}/{third['id']}", json={"name": other})
    assert (renamed.status_code, renamed.json()["code"]) == (409, "name_taken")
    found = (await hub.admin.get(ROLES, params={"name": other})).json()["items"]
    assert [role["id"] for role in found] == [first["id"]]
    await hub.admin.delete(f"{ROLES}/{first['id']}")


@pytest.mark.parametrize(
    "name", ["", " ", "\t", "\u200b", "\u3000", "\u2060\u00ad", "a\x07b", "x" * 201, None, 5, ["a"]], ids=ascii
)
async def test_a_name_can_be_seen(hub: Hub, name: Any) -> None:
    answer = await hub.admin.post(ROLES, json={"name": name})
    assert answer.status_code == 400
    assert {fault["path"] for fault in answer.json()["errors"]} == {"name"}


async def test_parallel_creations_of_one_name_make_one_role(hub: Hub, records: Records) -> None:
    before, name = await records.mark(), uuid4().hex
    answers = await asyncio.gather(*(hub.admin.post(ROLES, json={"name": name}) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    after = await records.mark()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


async def test_permissions_are_known_ones_each_once(hub: Hub) -> None:
    role = await created(hub, permissions=["users:read", "roles:read", "users:read"])
    assert role["permissions"] == ["roles:read", "users:read"]
    body = {"name": "x", "permissions": ["roles:read", "roles:reed", "", "ROLES:READ", "*", "roles:*"]}
    answer = await hub.admin.post(ROLES, json=body)
    assert (answer.status_code, {fault["code"] for fault in answer.json()["errors"]}) == (400, {"unknown_permission"})
    assert [fault["path"] for fault in answer.json()["errors"]] == [f"permissions[{index}]" for index in range(1, 6)]


@pytest.mark.parametrize("field", ["id", "is_system", "version", "tenant_id", "members", "name_key", "Permissions"])
async def test_a_field_that_is_not_in_the_schema_is_named(hub: Hub, field: str) -> None:
    role = await created(hub)
    for answer in (
        await hub.admin.post(ROLES, json={"name": "x", field: True}),
        await hub.admin.patch(f"{ROLES}/{role['id']}", json={field: True}),
    ):
        assert (answer.status_code, [fault["path"] for fault in answer.json()["errors"]]) == (400, [field])


async def test_a_patch_keeps_clears_and_replaces(hub: Hub, records: Records) -> None:
    owner = await created(hub)
    role = await created(hub, description="old", permissions=["roles:read"], owner_role_id=owner["id"])
    before = await records.mark()
    answer = await hub.admin.patch(f"{ROLES}/{role['id']}", json={"description": None, "permissions": ["users:read"]})
    expected = {
        "description": None,
        "permissions": ["users:read"],
        "version": 2,
        "updated_at": answer.json()["updated_at"],
    }
    assert answer.json() == role | expected
    assert answer.content == (await hub.admin.get(f"{ROLES}/{role['id']}")).content
    (row,) = await records.audit(answer)
    assert (row["action"], row["before"]["description"], row["after"]["description"]) == ("role.update", "old", None)
    assert row["actor_name"] == ADMIN_EMAIL
    assert await records.mark() == (before[0] + 1, before[1] + 1)
    cleared = await hub.admin.patch(f"{ROLES}/{role['id']}", json={"owner_role_id": None})
    assert cleared.json()["owner_role_id"] is None


@pytest.mark.parametrize("body", [{}, {"description": None}, {"permissions": ["roles:read", "roles:read"]}])
async def test_a_patch_that_changes_nothing_leaves_no_trace(hub: Hub, records: Records, body: dict[str, Any]) -> None:
    role = await created(hub, permissions=["roles:read"])
    before = await records.mark()
    answer = await hub.admin.patch(f"{ROLES}/{role['id']}", json=body)
    assert (answer.status_code, answer.json(), answer.headers["etag"]) == (200, role, '"v1"')
    assert await records.mark() == before


@pytest.mark.parametrize(
    "body",
    [
        {"name": None},
        {"permissions": None},
        {"permissions": ["x:y"]},
        {"owner_role_id": str(uuid4())},
        {"name": "admin"},
    ],
)
async def test_a_patch_that_is_refused_changes_nothing(hub: Hub, records: Records, body: dict[str, Any]) -> None:
    role = await created(hub)
    before = await records.mark()
    answer = await hub.admin.patch(f"{ROLES}/{role['id']}", json={"description": "new", **body})
    assert answer.status_code in (400, 409)
    assert (await hub.admin.get(f"{ROLES}/{role['id']}")).json() == role
    assert await records.mark() == before


async def test_a_patch_is_read_as_a_merge_patch_too(hub: Hub) -> None:
    """RFC 7396 section 4 names its media type; clients that send it mean what we do."""
    role = await created(hub)
    header = {"Content-Type": "application/merge-patch+json"}
    answer = await hub.admin.patch(f"{ROLES}/{role['id']}", content=b'{"description": "x"}', headers=header)
    assert (answer.status_code, answer.json()["description"]) == (200, "x")
    assert (await hub.admin.post(ROLES, content=b'{"name": "x"}', headers=header)).status_code == 415


# --- built-in roles ---


@pytest.mark.parametrize("role_id", [ADMIN_ROLE, PUBLIC_ROLE])
async def test_built_in_roles_stay_as_they_are(hub: Hub, records: Records, role_id: str) -> None:
    path = f"{ROLES}/{role_id}"
    as_it_was = (await hub.admin.get(path)).content
    for answer in (
        await hub.admin.patch(path, json={"permissions": ["users:read"]}),
        await hub.admin.patch(path, json={"name": "other"}),
        await hub.admin.patch(path, json={"owner_role_id": PUBLIC_ROLE}),
        await hub.admin.put(f"{path}/approver-roles", json=[PUBLIC_ROLE]),
        await hub.admin.delete(path),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "system_role")
    assert (await hub.admin.get(path)).content == as_it_was


async def test_public_starts_empty_and_admin_may_do_everything(hub: Hub) -> None:
    permissions = (await hub.admin.get("/api/v1/permissions?limit=200&count=exact")).json()
    assert permissions["total"] == len(permissions["items"])
    assert (await hub.admin.get(f"{ROLES}/{PUBLIC_ROLE}")).json()["permissions"] == []
    held = (await hub.admin.get(f"{ROLES}/{ADMIN_ROLE}")).json()["permissions"]
    assert held == [permission["name"] for permission in permissions["items"]]


# --- members, owners, approvers ---


async def test_a_deleted_role_is_gone_from_its_members(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    client = await open_session(hub, records, email)
    user = (await client.get("/api/v1/auth/me")).json()["user"]
    role = await created(hub, permissions=["roles:read"])
    await hub.admin.put(f"/api/v1/users/{user['id']}/roles/{role['id']}")
    assert (await client.get(ROLES)).status_code == 200
    before = await hub.admin.get(f"/api/v1/users/{user['id']}")
    deleted = await hub.admin.delete(f"{ROLES}/{role['id']}")
    assert deleted.status_code == 204
    assert [row["action"] for row in await records.audit(deleted)] == ["role.delete"]
    assert (await client.get(ROLES)).status_code == 403
    after = await hub.admin.get(f"/api/v1/users/{user['id']}")
    assert [held["id"] for held in after.json()["roles"]] == [PUBLIC_ROLE]
    assert after.headers["etag"] != before.headers["etag"], "what is shown of the user has changed"
    assert (await hub.admin.get(f"{ROLES}/{role['id']}/members")).status_code == 404


async def test_a_renamed_role_changes_what_is_shown_of_its_members(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    user = (await hub.admin.get("/api/v1/users", params={"email": email})).json()["items"][0]
    role = await created(hub)
    path = f"/api/v1/users/{user['id']}"
    tag = (await hub.admin.put(f"{path}/roles/{role['id']}")).headers["etag"]
    await hub.admin.patch(f"{ROLES}/{role['id']}", json={"name": uuid4().hex})
    assert (await hub.admin.get(path, headers={"If-None-Match": tag})).status_code == 200


async def test_a_role_that_owns_another_cannot_be_deleted(hub: Hub, records: Records) -> None:
    owner = await created(hub)
    owned = await created(hub, owner_role_id=owner["id"])
    before = await records.mark()
    answer = await hub.admin.delete(f"{ROLES}/{owner['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "still_in_use")
    assert answer.json()["detail"] == "The role owns other roles. Give them another owner first."
    assert await records.mark() == before
    assert (await hub.admin.delete(f"{ROLES}/{owned['id']}")).status_code == 204
    assert (await hub.admin.delete(f"{ROLES}/{owner['id']}")).status_code == 204


async def test_approver_roles_are_replaced_as_a_list(hub: Hub, records: Records) -> None:
    role, one, two = [await created(hub) for _ in range(3)]
    path = f"{ROLES}/{role['id']}/approver-roles"
    before = await records.mark()
    given = await hub.admin.put(path, json={"items": [two["id"], one["id"], two["id"]]})
    assert given.json()["items"] == sorted([one["id"], two["id"]])
    assert given.headers["etag"] == (await hub.admin.get(f"{ROLES}/{role['id']}")).headers["etag"] == '"v2"'
    assert given.content == (await hub.admin.get(path)).content
    (row,) = await records.audit(given)
    assert (row["action"], row["after"]["approver_roles"]) == ("role.set_approvers", given.json()["items"])
    assert await records.mark() == (before[0] + 1, before[1] + 1)
    again = await hub.admin.put(path, json=[one["id"], two["id"]])
    assert (again.status_code, again.content) == (200, given.content)
    assert await records.audit(again) == []
    assert (await hub.admin.put(path, json=[])).json()["items"] == []


@pytest.mark.parametrize("items", [[str(uuid4())], ["admin"], [None], [PUBLIC_ROLE, 5], "admin", 5])
@pytest.mark.parametrize("wrapped", [True, False])
async def test_approvers_are_a_short_list_of_roles(hub: Hub, items: Any, wrapped: bool) -> None:
    role = await created(hub)
    answer = await hub.admin.put(f"{ROLES}/{role['id']}/approver-roles", json={"items": items} if wrapped else items)
    assert answer.status_code == 400
    assert len(answer.json()["errors"]) <= 1, "a list that is too long is not looked up item by item"


@pytest.mark.parametrize("wrapped", [True, False])
async def test_a_list_of_approvers_that_is_too_long_is_not_looked_up(hub: Hub, wrapped: bool) -> None:
    role, items = await created(hub), [str(uuid4()) for _ in range(51)]
    answer = await hub.admin.put(f"{ROLES}/{role['id']}/approver-roles", json={"items": items} if wrapped else items)
    assert [fault["code"] for fault in answer.json()["errors"]] == ["too_long"]


async def test_a_stale_version_of_the_approvers_is_a_412(hub: Hub) -> None:
    role = await created(hub)
    path = f"{ROLES}/{role['id']}/approver-roles"
    assert (await hub.admin.put(path, json=[PUBLIC_ROLE], headers={"If-Match": '"v7"'})).status_code == 412
    assert (await hub.admin.get(path)).json()["items"] == []


async def test_an_unknown_role_is_not_there_for_any_call(hub: Hub) -> None:
    unknown = uuid4()
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {}),
        ("DELETE", "", None),
        ("GET", "/members", None),
        ("GET", "/approver-roles", None),
        ("PUT", "/approver-roles", []),
    ):
        answer = await hub.admin.request(method, f"{ROLES}/{unknown}{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)


async def test_roles_of_another_tenant_are_not_there(hub: Hub, records: Records) -> None:
    """AZ2, AZ3, AZ4: not by id, not in lists, not as owner, approver or something to give."""
    tenant_id, role = uuid4(), await created(hub, name=f"foreign {uuid4().hex}")
    insert = "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, $2, 'T', true, now(), now())"
    await records.run(insert, tenant_id, tenant_id.hex)
    await records.run("UPDATE roles SET tenant_id = $1 WHERE id = $2::uuid", tenant_id, role["id"])
    path, mine = f"{ROLES}/{role['id']}", await created(hub)
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    answers = [
        await hub.admin.get(path),
        await hub.admin.patch(path, json={"name": "mine"}),
        await hub.admin.delete(path),
        await hub.admin.get(f"{path}/members"),
        await hub.admin.get(f"{path}/approver-roles"),
        await hub.admin.put(f"{path}/approver-roles", json=[]),
        await hub.admin.put(f"/api/v1/users/{me}/roles/{role['id']}"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 7
    refused = [
        await hub.admin.patch(f"{ROLES}/{mine['id']}", json={"owner_role_id": role["id"]}),
        await hub.admin.post(ROLES, json={"name": "x", "owner_role_id": role["id"]}),
        await hub.admin.put(f"{ROLES}/{mine['id']}/approver-roles", json=[role["id"]]),
    ]
    assert [answer.json()["errors"][0]["code"] for answer in refused] == ["unknown_role"] * 3
    listed = (await hub.admin.get(ROLES, params={"q": "foreign", "count": "exact"})).json()
    assert (listed["items"], listed["total"]) == ([], 0)
    assert (await hub.admin.post(ROLES, json={"name": role["name"]})).status_code == 201, "names are per tenant (MT3)"


async def test_the_list_of_permissions_is_a_list_like_any_other(hub: Hub) -> None:
    page = (await hub.admin.get("/api/v1/permissions?limit=2")).json()
    assert set(page) == {"items", "next_cursor", "total"}
    assert set(page["items"][0]) == {"name", "description"}
    rest = (await hub.admin.get("/api/v1/permissions", params={"cursor": page["next_cursor"], "limit": 200})).json()
    names = [item["name"] for item in page["items"] + rest["items"]]
    assert names == sorted(names)
    assert rest["next_cursor"] is None
    assert (await hub.admin.get("/api/v1/permissions?cursor=AAAA")).json()["code"] == "invalid_cursor"
