"""Users of a directory over SCIM 2.0 (RFC 7643, 7644)."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records
from tests.domain.scim import Directory, connected, told

pytestmark = pytest.mark.anyio
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
ADA: dict[str, Any] = {
    "userName": "Ada.Lovelace@example.org",
    "externalId": "00u1",
    "name": {"givenName": "Ada", "familyName": "Lovelace", "formatted": "Countess Ada"},
    "displayName": "Ada L.",
    "active": True,
    "title": "Analyst",
    "emails": [{"value": "ada@work.example.org", "type": "work", "primary": True}],
    "phoneNumbers": [{"value": "+44 1", "type": "mobile"}],
    ENTERPRISE: {"department": "Engines", "manager": {"value": "26118915"}},
}


@pytest.fixture(scope="module")
async def directory(hub: Hub) -> Directory:
    return await connected(hub)


@pytest.fixture(scope="module")
async def ada(directory: Directory) -> dict[str, Any]:
    return await directory.new_user(**ADA)


async def shown(hub: Hub, user_id: str) -> dict[str, Any]:
    answer = await hub.admin.get(f"/api/v1/users/{user_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def address() -> str:
    return f"{uuid4().hex}@example.org"


async def test_what_is_sent_is_what_is_shown(hub: Hub, directory: Directory, ada: dict[str, Any]) -> None:
    for name, value in ADA.items():
        assert ada[name] == value
    read = await directory.call("GET", f"/Users/{ada['id']}")
    assert read.json() == ada
    assert read.headers["etag"] == ada["meta"]["version"]
    assert ada["meta"]["location"].endswith(f"/scim/v2/Users/{ada['id']}")
    known = await shown(hub, ada["id"])
    assert (known["email"], known["first_name"], known["last_name"]) == (ADA["userName"], "Ada", "Lovelace")
    assert (known["managed_by"], known["is_active"], known["has_password"]) == ("scim", True, False)


@pytest.mark.parametrize(
    "condition",
    [
        'userName eq "ADA.lovelace@EXAMPLE.org"',
        'USERNAME EQ "ada.lovelace@example.org"',
        'urn:ietf:params:scim:schemas:core:2.0:User:userName sw "ada.lo"',
        'externalId eq "00u1"',
        'emails.value eq "ADA@work.example.org"',
        'emails eq "ada@work.example.org"',
        'emails[type eq "work" and value co "WORK"]',
        'emails[type eq "work" and not (value co "home")] and displayName sw "ada l"',
        'displayName eq "ADA L."',
        'name.familyName eq "lovelace" and active eq true',
        'active eq "True" and title ew "LYST"',
        f'{ENTERPRISE}:department eq "engines"',
        f'{ENTERPRISE}:manager.value eq "26118915"',
        'title pr and not (title eq "x") and userName co "lovelace"',
        'phoneNumbers pr and phoneNumbers.type eq "mobile"',
        'meta.created gt "2020-01-01T00:00:00Z" and meta.lastModified lt "2100-01-01T00:00:00+01:00" and title ge "anal"',
        '(userName eq "nobody@example.org" or externalId eq "00u1") and nickName eq null',
        'title ne "Chef" and phoneNumbers.value ne "x" and userName sw "ada.l"',
        'emails.primary eq true and title eq "analyst"',
    ],
)
async def test_a_filter_finds_what_it_says(directory: Directory, ada: dict[str, Any], condition: str) -> None:
    await directory.new_user()
    assert [each["id"] for each in await directory.found("Users", condition)] == [ada["id"]]
    assert ada["id"] not in [each["id"] for each in await directory.found("Users", f"not ({condition})")]


@pytest.mark.parametrize("condition", ['externalId eq "00U1"', 'userName eq "x"', 'id eq "no id"', "nickName pr"])
async def test_a_filter_finds_nothing_else(directory: Directory, ada: dict[str, Any], condition: str) -> None:
    assert ada["id"] not in [each["id"] for each in await directory.found("Users", condition)]


async def test_a_user_is_found_by_each_of_its_ids(directory: Directory, ada: dict[str, Any]) -> None:
    assert [each["id"] for each in await directory.found("Users", f'id eq "{ada["id"]}"')] == [ada["id"]]


@pytest.mark.parametrize(
    "condition",
    [
        "userName", "userName eq", 'userName xx "a"', 'noSuchThing eq "a"', '(userName eq "a"', 'userName eq "a" and',
        'userName eq "a") or (1 eq 1', "userName eq 1", "active gt true", 'active eq "maybe"', 'meta.created gt "soon"',
        'emails[noSuch eq "a"]', 'userName[value eq "a"]', 'name eq "a"', "userName eq 'a'", 'userName eq "a" "b"',
        "userName eq \"a'; DROP TABLE users; --", 'meta.location eq "x"', 'emails.value gt null', '""', "[", "not",
        'userName eq "\\ud800"', 'userName eq "\\u0000"', 'password eq "x"', 'password_hash pr', "(" * 100, "x" * 5000,
        'groups.$ref eq "x"', 'groups.$ref pr', " and ".join(['userName pr'] * 60), "not (" * 20 + "userName pr" + ")" * 20,
    ],
)  # fmt: skip
async def test_what_is_no_filter_is_an_invalid_filter(directory: Directory, condition: str) -> None:
    assert told(await directory.call("GET", "/Users", params={"filter": condition})) == (400, "invalidFilter")


async def test_values_of_filters_are_values_and_nothing_else(directory: Directory, ada: dict[str, Any]) -> None:
    for value in ("%", "_", "' OR 1=1 --", "$1", "a') OR ('a'='a", "\\\\", '\\"'):
        for condition in (f'userName eq "{value}"', f'title co "{value}"', f'emails[value sw "{value}"]'):
            assert await directory.found("Users", condition) == [], condition


async def test_pages_are_counted_from_one_and_sorted(hub: Hub) -> None:
    tenant = await hub.new_tenant()
    directory = await connected(tenant)
    names = [f"{letter}{number}@example.org" for number in range(2) for letter in "cab"]
    for name in names:
        await directory.new_user(userName=name, title=name[0].upper())
    page = (await directory.call("GET", "/Users?sortBy=userName&startIndex=2&count=2")).json()
    assert [each["userName"] for each in page["Resources"]] == sorted(names)[1:3]
    assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (6, 2, 2)
    down = (await directory.call("GET", "/Users?sortBy=title&sortOrder=descending&count=2")).json()
    assert [each["title"] for each in down["Resources"]] == ["C", "C"]
    for query, wanted in (
        ("count=0", 0),
        ("startIndex=0", 6),
        ("startIndex=-5&count=-1", 0),
        ("startIndex=99", 0),
        ("count=9999999999999", 6),
    ):
        found = (await directory.call("GET", f"/Users?{query}")).json()
        assert (found["totalResults"], len(found["Resources"])) == (6, wanted), query
    for query in ("count=many", "startIndex=1.5"):
        assert told(await directory.call("GET", f"/Users?{query}")) == (400, "invalidValue")
    assert told(await directory.call("GET", "/Users?sortBy=secret")) == (400, "invalidPath")
    assert (await directory.call("GET", "/Users?no_such_parameter=1")).status_code == 200
    search = {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"],
        "filter": 'userName sw "a"',
        "count": 1,
    }
    searched = await directory.call("POST", "/Users/.search", search | {"attributes": ["userName"]})
    assert searched.status_code == 200
    assert searched.json()["totalResults"] == 2
    assert set(searched.json()["Resources"][0]) == {"schemas", "id", "userName"}
    for wrong, kind in (({"schemas": 5}, "invalidSyntax"), ({"schemas": {"a": 1}}, "invalidSyntax"),
                        ({"attributes": 5}, "invalidValue"), ({"excludedAttributes": True}, "invalidValue")):  # fmt: skip
        assert told(await directory.call("POST", "/Users/.search", search | wrong)) == (400, kind), wrong


async def test_only_what_is_asked_for_is_shown(directory: Directory, ada: dict[str, Any]) -> None:
    path = f"/Users/{ada['id']}"
    some = (
        await directory.call("GET", f"{path}?attributes=username,name.givenName,emails.value,{ENTERPRISE}:department")
    ).json()
    assert some == {
        "schemas": ada["schemas"],
        "id": ada["id"],
        "userName": ada["userName"],
        "name": {"givenName": "Ada"},
        "emails": [{"value": "ada@work.example.org"}],
        ENTERPRISE: {"department": "Engines"},
    }
    rest = (await directory.call("GET", f"{path}?excludedAttributes=meta,emails.type,id,nothing,name")).json()
    assert rest["id"] == ada["id"]
    assert {"meta", "name"} & set(rest) == set()
    assert rest["emails"] == [{"value": "ada@work.example.org", "primary": True}]


async def test_entity_tags_are_weak_and_held_against_changes(directory: Directory) -> None:
    user = await directory.new_user()
    path, tag = f"/Users/{user['id']}", user["meta"]["version"]
    assert tag.startswith('W/"')
    assert (await directory.call("GET", path, headers={"If-None-Match": tag})).status_code == 304
    title = {"op": "replace", "path": "title", "value": "a"}
    changed = await directory.patch(path, title, headers={"If-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] == changed.json()["meta"]["version"] != tag
    for method, body in (("PUT", {"userName": user["userName"]}), ("DELETE", None)):
        stale = await directory.call(method, path, body, headers={"If-Match": tag})
        assert told(stale) == (412, None)
        assert stale.headers["etag"] == changed.headers["etag"]
    assert told(await directory.patch(path, title, headers={"If-Match": tag})) == (412, None)
    assert (await directory.call("DELETE", path, headers={"If-Match": "*"})).status_code == 204


async def test_a_group_that_is_joined_changes_the_tag_of_its_user(directory: Directory) -> None:
    user = await directory.new_user()
    group = await directory.new_group(user["id"])
    read = (await directory.call("GET", f"/Users/{user['id']}")).json()
    assert read["groups"] == [
        {"value": group["id"], "$ref": group["meta"]["location"], "display": group["displayName"], "type": "direct"}
    ]
    assert read["meta"]["version"] != user["meta"]["version"]
    assert [each["id"] for each in await directory.found("Users", f'groups.value eq "{group["id"]}"')] == [user["id"]]


async def test_one_user_name_in_all_its_spellings_is_one(directory: Directory) -> None:
    await directory.new_user(userName="Straße@Example.org")
    for spelling in ("STRASSE@example.org", "straße@example.ORG", "ｓtrasse@example.org"):
        assert told(await directory.call("POST", "/Users", {"userName": spelling})) == (409, "uniqueness"), spelling


async def test_of_many_who_make_the_same_user_at_once_one_does(directory: Directory) -> None:
    body = {"userName": address()}
    answers = await asyncio.gather(*(directory.call("POST", "/Users", body) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 5]
    assert {told(answer) for answer in answers if answer.status_code == 409} == {(409, "uniqueness")}


async def test_users_who_are_deleted_while_they_are_put_into_a_group_are_not_in_it(directory: Directory) -> None:
    users = [await directory.new_user() for _ in range(6)]
    groups = [await directory.new_group(*(user["id"] for user in users)) for _ in range(3)]
    member = [{"op": "add", "path": "members", "value": [{"value": user["id"]} for user in users]}]
    deleting = [directory.call("DELETE", f"/Users/{user['id']}") for user in users]
    answers = await asyncio.gather(*deleting, *(directory.patch(f"/Groups/{group['id']}", *member) for group in groups))
    assert [answer.status_code for answer in answers[: len(users)]] == [204] * len(users)
    assert {answer.status_code for answer in answers[len(users) :]} <= {204, 400}
    for group in groups:
        assert "members" not in (await directory.call("GET", f"/Groups/{group['id']}")).json()


async def test_a_user_name_that_is_no_address_has_one_beside_it(hub: Hub, directory: Directory) -> None:
    other, work = address(), address()
    emails = [{"value": other, "type": "home"}, {"value": work, "type": "work"}]
    user = await directory.new_user(userName=uuid4().hex, emails=emails)
    assert (await shown(hub, user["id"]))["email"] == work
    changed = await directory.patch(
        f"/Users/{user['id']}", {"op": "replace", "path": 'emails[type eq "home"].primary', "value": True}
    )
    assert changed.status_code == 200
    assert (await shown(hub, user["id"]))["email"] == other
    bare = await directory.new_user(userName="jdoe")
    assert (await shown(hub, bare["id"]))["email"] == "jdoe"
    assert told(await directory.call("POST", "/Users", {"userName": "JDoe"})) == (409, "uniqueness")


async def test_a_deactivated_user_is_signed_out_at_once_and_may_come_back(hub: Hub, directory: Directory) -> None:
    user = await directory.new_user()
    given = await hub.admin.patch(f"/api/v1/users/{user['id']}", json={"password": PASSWORD})
    assert given.status_code == 200
    client = await hub.sign_in(user["userName"])
    assert (await client.get("/api/v1/auth/me")).status_code == 200
    off = await directory.patch(f"/Users/{user['id']}", {"op": "Replace", "path": "active", "value": "False"})
    assert off.json()["active"] is False
    assert (await client.get("/api/v1/auth/me")).status_code == 401
    assert [each["id"] for each in await directory.found("Users", f'active eq false and id eq "{user["id"]}"')] == [
        user["id"]
    ]
    assert (
        await directory.patch(f"/Users/{user['id']}", {"op": "replace", "value": {"active": True}})
    ).status_code == 200
    await hub.sign_in(user["userName"])


async def test_what_a_directory_keeps_is_changed_there_alone(hub: Hub, directory: Directory, records: Records) -> None:
    user = await directory.new_user()
    path = f"/api/v1/users/{user['id']}"
    for change in ({"email": address()}, {"first_name": "x"}, {"last_name": "x"}, {"is_active": False}):
        refused = await hub.admin.patch(path, json=change)
        assert (refused.status_code, refused.json()["code"]) == (409, "managed_externally"), change
    gone = await hub.admin.delete(path)
    assert (gone.status_code, gone.json()["code"]) == (409, "managed_externally")
    role = await hub.new_role()
    assert (await hub.admin.put(f"{path}/roles/{role['id']}")).status_code == 200
    assert (await hub.admin.patch(path, json={"first_name": ""})).status_code == 200  # as it is
    taken_back = await hub.admin.patch(path, json={"managed_by": None, "first_name": "Ada"})
    assert (taken_back.json()["managed_by"], taken_back.json()["first_name"]) == (None, "Ada")
    assert told(await directory.call("GET", f"/Users/{user['id']}")) == (404, None)
    assert told(await directory.call("DELETE", f"/Users/{user['id']}")) == (404, None)


async def test_a_user_of_the_hub_is_handed_over_and_found_by_the_directory(hub: Hub, directory: Directory) -> None:
    local = await hub.new_user(first_name="Grace", last_name="Hopper")
    assert await directory.found("Users", f'userName eq "{local["email"]}"') == []
    refused = await directory.call("POST", "/Users", {"userName": local["email"].upper()})
    assert told(refused) == (409, "uniqueness")
    assert "managed_by" in refused.json()["detail"]
    handed = await hub.admin.patch(f"/api/v1/users/{local['id']}", json={"managed_by": "scim"})
    assert handed.json()["managed_by"] == "scim"
    (found,) = await directory.found("Users", f'userName eq "{local["email"].upper()}"')
    assert (found["id"], found["name"]) == (local["id"], {"givenName": "Grace", "familyName": "Hopper"})
    linked = await directory.patch(f"/Users/{found['id']}", {"op": "add", "path": "externalId", "value": "e1"})
    assert linked.json()["externalId"] == "e1"


async def test_who_may_do_more_is_not_handed_over(hub: Hub) -> None:
    clerk = await hub.user_with("users:read", "users:write")
    admin = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    refused = await clerk.patch(f"/api/v1/users/{admin}", json={"managed_by": "scim"})
    assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions")


async def test_the_last_admin_stays(hub: Hub, records: Records) -> None:
    tenant = await hub.new_tenant()
    directory = await connected(tenant)
    admin = (await tenant.admin.get("/api/v1/auth/me")).json()["user"]
    await tenant.admin.patch(f"/api/v1/users/{admin['id']}", json={"managed_by": "scim"})
    for refused in (
        await directory.patch(f"/Users/{admin['id']}", {"op": "replace", "path": "active", "value": False}),
        await directory.call("PUT", f"/Users/{admin['id']}", {"userName": admin["email"], "active": False}),
        await directory.call("DELETE", f"/Users/{admin['id']}"),
    ):
        assert told(refused) == (409, None)
        (row,) = await records.audit(refused)
        assert (row["outcome"], row["detail"], row["actor_name"]) == ("refused", "last_admin", "SCIM key Entra ID")
    assert (await tenant.admin.get("/api/v1/auth/me")).status_code == 200


async def test_a_directory_renames_deletes_and_makes_the_same_person_again(hub: Hub, directory: Directory) -> None:
    old, new = address(), address()
    user = await directory.new_user(userName=old, externalId="p1")
    renamed = await directory.patch(f"/Users/{user['id']}", {"op": "replace", "path": "userName", "value": new})
    assert (renamed.json()["id"], renamed.json()["userName"]) == (user["id"], new)
    assert (await shown(hub, user["id"]))["email"] == new
    other = await directory.new_user(userName=old)
    assert told(
        await directory.patch(f"/Users/{other['id']}", {"op": "replace", "path": "userName", "value": new})
    ) == (409, "uniqueness")
    assert (await directory.call("DELETE", f"/Users/{user['id']}")).status_code == 204
    assert told(await directory.call("DELETE", f"/Users/{user['id']}")) == (404, None)
    again = await directory.new_user(userName=new, externalId="p1")
    assert again["id"] != user["id"]
    off = await directory.call("PUT", f"/Users/{again['id']}", {"userName": new, "active": False})
    assert off.json()["active"] is False
    kept = await directory.call("PUT", f"/Users/{again['id']}", {"userName": new})
    assert kept.json()["active"] is False  # nobody comes back by what is not said
    assert "externalId" not in kept.json()


async def test_each_change_is_one_row_of_the_key(hub: Hub, directory: Directory, records: Records) -> None:
    made = await directory.call("POST", "/Users", {"userName": address()})
    path = f"/Users/{made.json()['id']}"
    changed = await directory.patch(path, {"op": "add", "path": "nickName", "value": "A"})
    same = await directory.patch(path, {"op": "add", "path": "nickName", "value": "A"})
    gone = await directory.call("DELETE", path)
    for answer, action in ((made, "user.create"), (changed, "user.update"), (gone, "user.delete")):
        (row,) = await records.audit(answer)
        assert (row["action"], row["actor_name"], str(row["actor_id"])) == (
            action,
            "SCIM key Entra ID",
            directory.key_id,
        )
    assert await records.audit(same) == []
    assert same.headers["etag"] == changed.headers["etag"]


@pytest.mark.parametrize(
    ("operations", "wanted"),
    [
        ([{"op": "add", "value": {"title": "t", "name": {"givenName": "G"}}}], {"title": "t", "name": {"givenName": "G"}}),
        ([{"op": "Add", "path": "name.familyName", "value": "F"}], {"name": {"familyName": "F"}}),
        ([{"op": "replace", "value": {"name.givenName": "G", "urn:ietf:params:scim:schemas:core:2.0:User:title": "t"}}],
         {"name": {"givenName": "G"}, "title": "t"}),
        ([{"op": "Add", "path": 'emails[type eq "work"].value', "value": "a@x.org"}], {"emails": [{"type": "work", "value": "a@x.org"}]}),
        ([{"op": "add", "path": "emails", "value": [{"value": "a@x.org"}, {"value": "b@x.org"}]},
          {"op": "remove", "path": 'emails[value eq "A@x.org"]'}], {"emails": [{"value": "b@x.org"}]}),
        ([{"op": "add", "path": "emails", "value": {"value": "a@x.org", "primary": True}},
          {"op": "add", "path": "emails", "value": [{"value": "b@x.org", "primary": "True"}]}],
         {"emails": [{"value": "a@x.org"}, {"value": "b@x.org", "primary": True}]}),
        ([{"op": "Add", "path": f"{ENTERPRISE}:department", "value": "D"}], {ENTERPRISE: {"department": "D"}}),
        ([{"op": "Add", "path": f"{ENTERPRISE}:manager", "value": "m1"}], {ENTERPRISE: {"manager": {"value": "m1"}}}),
        ([{"op": "add", "path": ENTERPRISE, "value": {"division": "V", "noSuch": 1}}], {ENTERPRISE: {"division": "V"}}),
        ([{"op": "add", "value": {ENTERPRISE: {"costCenter": "C"}}}], {ENTERPRISE: {"costCenter": "C"}}),
        ([{"op": "add", "path": "title", "value": "t"}, {"op": "Remove", "path": "TITLE"}], {"title": None}),
        ([{"op": "add", "path": "title", "value": "t"}, {"op": "replace", "path": "title", "value": ""}], {"title": None}),
        ([{"op": "replace", "path": 'addresses[type eq "work"].locality', "value": "L"},
          {"op": "add", "path": 'addresses[type eq "work"].country', "value": "C"}],
         {"addresses": [{"type": "work", "locality": "L", "country": "C"}]}),
        ([{"op": "replace", "value": {"id": "x", "meta": {}, "groups": [{"value": "g"}], "schemas": ["x"], "noSuch": 1, "title": "t"}}],
         {"title": "t"}),
        ([{"op": "replace", "path": "roles", "value": [{"value": "admin"}]}, {"op": "add", "path": "title", "value": "t"}], {"title": "t"}),
    ],
)  # fmt: skip
async def test_every_form_of_a_patch_is_taken(
    directory: Directory, operations: list[Any], wanted: dict[str, Any]
) -> None:
    user = await directory.new_user()
    answer = await directory.patch(f"/Users/{user['id']}", *operations)
    assert answer.status_code == 200, answer.text
    assert {name: answer.json().get(name) for name in wanted} == wanted
    assert answer.json()["id"] == user["id"]
    assert (await directory.call("GET", f"/Users/{user['id']}")).json() == answer.json()


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        ({"op": "replace", "path": "noSuch", "value": 1}, "invalidPath"),
        ({"op": "replace", "path": "id", "value": str(uuid4())}, "mutability"),
        ({"op": "replace", "path": "meta.version", "value": "x"}, "mutability"),
        ({"op": "add", "path": "groups", "value": [{"value": str(uuid4())}]}, "mutability"),
        ({"op": "replace", "path": "managed_by", "value": None}, "invalidPath"),
        ({"op": "replace", "path": "password_hash", "value": "x"}, "invalidPath"),
        ({"op": "replace", "path": "emails[type eq \"work\"", "value": "x"}, "invalidPath"),
        ({"op": "replace", "path": "emails[type eq \"work\"].value; DROP", "value": "x"}, "invalidPath"),
        ({"op": "replace", "path": "title[value eq \"x\"]", "value": "x"}, "invalidPath"),
        ({"op": "replace", "path": "emails[type co \"zz\"].value", "value": "x"}, "noTarget"),
        ({"op": "replace", "path": "emails[" + "(" * 200, "value": "x"}, "invalidPath"),
        ({"op": "remove"}, "noTarget"),
        ({"op": "move", "path": "title", "value": "x"}, "invalidSyntax"),
        ({"op": "replace", "path": "title"}, "invalidValue"),
        ({"op": "replace", "path": "title", "value": 5}, "invalidValue"),
        ({"op": "replace", "path": "active", "value": "perhaps"}, "invalidValue"),
        ({"op": "replace", "path": "userName", "value": ""}, "invalidValue"),
        ({"op": "remove", "path": "userName"}, "invalidValue"),
        ({"op": "replace", "path": "name", "value": "x"}, "invalidValue"),
        ({"op": "replace", "path": 7, "value": "x"}, "invalidPath"),
        ({"op": "add", "path": "emails", "value": [{"value": f"{n}@x.org"} for n in range(101)]}, "invalidValue"),
        ({"op": "replace", "path": "title", "value": "x" * 1001}, "invalidValue"),
        ({"op": "replace", "path": "userName", "value": "x" * 255}, "invalidValue"),
        ({"op": "replace", "path": "externalId", "value": "x" * 501}, "invalidValue"),
        ({"op": "replace", "path": "userName", "value": "p\u0430ypal@example.org"}, "invalidValue"),
        ({"op": "replace", "path": "name.givenName", "value": "a\nb"}, "invalidValue"),
        ("no operation", "invalidSyntax"),
    ],
)  # fmt: skip
async def test_what_cannot_be_patched_is_told_apart(directory: Directory, operation: Any, wanted: str) -> None:
    user = await directory.new_user()
    refused = await directory.patch(f"/Users/{user['id']}", {"op": "add", "path": "nickName", "value": "n"}, operation)
    assert told(refused) == (400, wanted)
    assert (await directory.call("GET", f"/Users/{user['id']}")).json() == user  # all or nothing


async def test_nobody_gives_themselves_what_is_not_theirs_to_give(hub: Hub, directory: Directory) -> None:
    chosen = str(uuid4())
    made = await directory.new_user(
        id=chosen, roles=[{"value": "admin"}], managed_by=None, tenant_id=chosen, version=9, password="x" * 20,
        meta={"version": "9", "created": "2000-01-01T00:00:00Z"}, groups=[{"value": chosen}], is_superuser=True,
    )  # fmt: skip
    assert made["id"] != chosen
    assert {"roles", "password", "managed_by", "groups", "is_superuser"} & set(made) == set()
    known = await shown(hub, made["id"])
    assert ([role["name"] for role in known["roles"]], known["has_password"]) == (["public"], False)
    assert known["managed_by"] == "scim"


async def test_who_has_signed_in_last_and_when(hub: Hub) -> None:
    user = await hub.new_user(password=PASSWORD)
    assert user["last_sign_in_at"] is None
    await hub.sign_in(user["email"])
    known = await shown(hub, user["id"])
    assert known["last_sign_in_at"] is not None
    assert known["version"] == user["version"]
    (listed,) = (await hub.admin.get("/api/v1/users", params={"email": user["email"]})).json()["items"]
    assert listed == known
