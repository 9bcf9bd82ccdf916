"""Groups of a directory over SCIM 2.0 (RFC 7643, 7644)."""

from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records
from tests.domain.scim import Directory, connected, told

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def directory(hub: Hub) -> Directory:
    return await connected(hub, "Okta")


async def members(directory: Directory, group_id: str) -> set[str]:
    read = await directory.call("GET", f"/Groups/{group_id}")
    assert read.status_code == 200, read.text
    return {each["value"] for each in read.json().get("members", [])}


def value(*users: dict[str, Any]) -> list[dict[str, str]]:
    return [{"value": user["id"]} for user in users]


async def test_a_group_is_made_read_replaced_and_deleted(hub: Hub, directory: Directory, records: Records) -> None:
    one, two = await directory.new_user(), await directory.new_user()
    made = await directory.new_group(one["id"], externalId="g1", displayName="Engineers")
    assert (made["displayName"], made["externalId"]) == ("Engineers", "g1")
    assert made["members"] == [{"value": one["id"], "$ref": one["meta"]["location"], "type": "User"}]
    path = f"/Groups/{made['id']}"
    assert (await directory.call("GET", path)).json() == made
    known = (await hub.admin.get(f"/api/v1/groups/{made['id']}")).json()
    assert (known["name"], known["managed_by"]) == ("Engineers", "scim")
    put = await directory.call("PUT", path, {"displayName": "Engineering", "members": value(two)})
    assert (put.json()["displayName"], await members(directory, made["id"])) == ("Engineering", {two["id"]})
    assert "externalId" not in put.json()
    assert put.headers["etag"] == put.json()["meta"]["version"] != made["meta"]["version"]
    (row,) = await records.audit(put)
    assert (row["action"], row["actor_name"]) == ("group.update", "SCIM key Okta")
    assert (await directory.call("GET", path, headers={"If-None-Match": put.headers["etag"]})).status_code == 304
    assert told(await directory.call("DELETE", path, headers={"If-Match": made["meta"]["version"]})) == (412, None)
    assert (await directory.call("DELETE", path)).status_code == 204
    assert told(await directory.call("GET", path)) == (404, None)
    again = await directory.new_group(displayName="Engineering")
    assert again["id"] != made["id"]


async def test_members_come_and_go_in_every_form(directory: Directory) -> None:
    a, b, c = [await directory.new_user() for _ in range(3)]
    group = await directory.new_group(a["id"])
    path, ids = f"/Groups/{group['id']}", {"a": a["id"], "b": b["id"], "c": c["id"]}
    for operation, wanted in (
        ({"op": "Add", "path": "members", "value": value(a, b)}, "ab"),
        ({"op": "add", "value": {"members": value(c)}}, "abc"),
        ({"op": "Remove", "path": f'members[value eq "{a["id"]}"]'}, "bc"),
        ({"op": "remove", "path": f'members[value eq "{a["id"]}"]'}, "bc"),
        ({"op": "remove", "path": f'MEMBERS[VALUE EQ "{a["id"]}" or value eq "{b["id"]}"]'}, "c"),
        ({"op": "Replace", "path": "urn:ietf:params:scim:schemas:core:2.0:Group:members", "value": value(a, b)}, "ab"),
        ({"op": "Remove", "path": "members", "value": value(b)}, "a"),
        ({"op": "replace", "value": {"members": value(b, c), "id": group["id"]}}, "bc"),
        ({"op": "remove", "path": "members"}, ""),
        ({"op": "add", "path": "members", "value": value(c)[0]}, "c"),
        ({"op": "replace", "path": "members", "value": []}, ""),
    ):
        answer = await directory.patch(path, operation)
        assert answer.status_code == 204, answer.text
        assert answer.headers["etag"].startswith('W/"')
        assert await members(directory, group["id"]) == {ids[name] for name in wanted}, operation
    both = (
        {"op": "add", "path": "members", "value": value(a)},
        {"op": "remove", "path": f'members[value eq "{a["id"]}"]'},
    )
    await directory.patch(path, *both)
    assert await members(directory, group["id"]) == set()
    asked = await directory.patch(path, *reversed(both), params={"attributes": "members"})
    assert asked.json()["members"] == [{"value": a["id"], "$ref": a["meta"]["location"], "type": "User"}]


async def test_a_group_is_renamed_as_entra_and_okta_do_it(directory: Directory) -> None:
    group = await directory.new_group()
    for operation in (
        {"op": "Replace", "path": "displayName", "value": f"x {uuid4().hex}"},
        {"op": "replace", "value": {"id": group["id"], "displayName": f"x {uuid4().hex}"}},
    ):
        assert (await directory.patch(f"/Groups/{group['id']}", operation)).status_code == 204
    (found,) = await directory.found("Groups", f'displayName eq "{operation["value"]["displayName"].upper()}"')  # type: ignore[index]
    assert found["id"] == group["id"]


async def test_groups_are_found(directory: Directory) -> None:
    user = await directory.new_user()
    group = await directory.new_group(user["id"], externalId="found 1")
    await directory.new_group()
    for condition in (
        f'displayName eq "{group["displayName"]}"',
        'externalId eq "found 1"',
        f'members.value eq "{user["id"]}"',
        f'members eq "{user["id"]}"',
        f'members[value eq "{user["id"]}" and type eq "User"]',
        f'id eq "{group["id"]}" and members pr',
    ):
        found = await directory.found("Groups", condition, excludedAttributes="members")
        assert [each["id"] for each in found] == [group["id"]], condition
        assert "members" not in found[0]
    assert (await directory.found("Groups", f'id eq "{group["id"]}"'))[0]["members"] == group["members"]
    for nothing in ("members.noSuch eq 1", "members.$ref pr", 'members.$ref eq "x"'):
        assert told(await directory.call("GET", "/Groups", params={"filter": nothing})) == (400, "invalidFilter")


async def test_members_are_users_whom_the_directory_keeps(
    hub: Hub, two_tenants: tuple[Hub, Hub], directory: Directory
) -> None:
    _, other = two_tenants
    elsewhere = await (await connected(other)).new_user()
    local, group = await hub.new_user(), await directory.new_group()
    for member in (
        {"value": local["id"]}, {"value": elsewhere["id"]}, {"value": str(uuid4())}, {"value": "ada"}, {},
        {"value": group["id"], "type": "Group"}, {"value": group["id"]}, {"value": local["id"], "$ref": f"x/Groups/{group['id']}"},
    ):  # fmt: skip
        refused = await directory.patch(f"/Groups/{group['id']}", {"op": "add", "path": "members", "value": [member]})
        if member:
            assert told(refused) == (400, "invalidValue"), member
        made = await directory.call("POST", "/Groups", {"displayName": uuid4().hex, "members": [member]})
        if member:
            assert told(made) == (400, "invalidValue"), member
    assert await members(directory, group["id"]) == set()


async def test_what_a_directory_keeps_of_a_group_is_changed_there_alone(hub: Hub, directory: Directory) -> None:
    user = await directory.new_user()
    group = await directory.new_group(user["id"])
    path = f"/api/v1/groups/{group['id']}"
    for refused in (
        await hub.admin.patch(path, json={"name": "another"}),
        await hub.admin.put(f"{path}/members/{user['id']}"),
        await hub.admin.delete(f"{path}/members/{user['id']}"),
        await hub.admin.delete(path),
    ):
        assert (refused.status_code, refused.json()["code"]) == (409, "managed_externally")
    assert (await hub.admin.patch(path, json={"description": "Who builds."})).status_code == 200
    assert (await hub.admin.patch(path, json={"managed_by": None, "name": uuid4().hex})).status_code == 200
    assert told(await directory.call("GET", f"/Groups/{group['id']}")) == (404, None)
    assert (await hub.admin.delete(path)).status_code == 204


async def test_a_group_of_the_hub_is_handed_over(hub: Hub, directory: Directory) -> None:
    name = uuid4().hex
    group = (await hub.admin.post("/api/v1/groups", json={"name": name})).json()
    refused = await directory.call("POST", "/Groups", {"displayName": name.upper()})
    assert told(refused) == (409, "uniqueness")
    await hub.admin.patch(f"/api/v1/groups/{group['id']}", json={"managed_by": "scim"})
    (found,) = await directory.found("Groups", f'displayName eq "{name}"')
    assert found["id"] == group["id"]


async def test_whom_the_directory_does_not_keep_any_more_an_admin_takes_out(hub: Hub, directory: Directory) -> None:
    """The directory does not see them, and they have what the group brings."""
    user, other = await directory.new_user(), await directory.new_user()
    group = await directory.new_group(user["id"], other["id"])
    await hub.admin.patch(f"/api/v1/users/{user['id']}", json={"managed_by": None})
    shown = (await directory.call("GET", f"/Groups/{group['id']}")).json()
    assert [each["value"] for each in shown["members"]] == [other["id"]]
    path = f"/api/v1/groups/{group['id']}/members"
    assert (await hub.admin.delete(f"{path}/{other['id']}")).json()["code"] == "managed_externally"
    assert (await hub.admin.delete(f"{path}/{user['id']}")).status_code == 204
    assert [each["id"] for each in (await hub.admin.get(path)).json()["items"]] == [other["id"]]
    assert (await hub.admin.put(f"{path}/{user['id']}")).json()["code"] == "managed_externally"


async def test_a_group_that_carries_a_role_gives_it_within_a_second(
    hub: Hub, directory: Directory, records: Records
) -> None:
    user = await directory.new_user()
    await hub.admin.patch(f"/api/v1/users/{user['id']}", json={"password": PASSWORD})
    client = await hub.sign_in(user["userName"])
    assert (await client.get("/api/v1/users")).status_code == 403
    group, role = await directory.new_group(), await hub.new_role(permissions=["users:read"])
    given = {"subject": {"type": "group", "id": group["id"]}, "role_id": role["id"], "scope": {"type": "tenant"}}
    assert (await hub.admin.post("/api/v1/role-assignments", json=given)).status_code == 201
    path = f"/Groups/{group['id']}"
    put_in = await directory.patch(path, {"op": "add", "path": "members", "value": value(user)})
    assert (await client.get("/api/v1/users")).status_code == 200
    (row,) = await records.audit(put_in)
    assert (row["action"], row["actor_name"]) == ("group.update", "SCIM key Okta")
    assert row["after"]["members_added"] == [user["id"]]
    await directory.patch(path, {"op": "remove", "path": f'members[value eq "{user["id"]}"]'})
    assert (await client.get("/api/v1/users")).status_code == 403


async def test_a_deleted_user_is_in_no_group_and_its_groups_look_different(directory: Directory) -> None:
    user = await directory.new_user()
    group = await directory.new_group(user["id"])
    await directory.call("DELETE", f"/Users/{user['id']}")
    read = (await directory.call("GET", f"/Groups/{group['id']}")).json()
    assert "members" not in read
    assert read["meta"]["version"] != group["meta"]["version"]


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        ({"op": "replace", "path": 'members[value eq "x"].value', "value": "y"}, "mutability"),
        ({"op": "add", "path": "members.value", "value": "y"}, "mutability"),
        ({"op": "remove", "path": 'members[type eq "User"]'}, "invalidFilter"),
        ({"op": "remove", "path": 'members[not (value eq "x")]'}, "invalidFilter"),
        ({"op": "remove", "path": 'members[value eq "x"]'}, "invalidValue"),
        ({"op": "replace", "path": "displayName", "value": " "}, "invalidValue"),
        ({"op": "replace", "path": "displayName", "value": "x" * 201}, "invalidValue"),
        ({"op": "replace", "path": "displayName", "value": "a\x07b"}, "invalidValue"),
        ({"op": "replace", "path": "description", "value": "x"}, "invalidPath"),
        ({"op": "replace", "path": "members", "value": "x"}, "invalidValue"),
    ],
)
async def test_what_cannot_be_patched_is_told_apart(directory: Directory, operation: Any, wanted: str) -> None:
    user = await directory.new_user()
    group = await directory.new_group(user["id"])
    assert told(await directory.patch(f"/Groups/{group['id']}", operation)) == (400, wanted)
    assert (await directory.call("GET", f"/Groups/{group['id']}")).json() == group
