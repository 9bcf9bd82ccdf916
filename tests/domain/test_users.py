"""Users: api.md, AZ2, AZ5, AZ6, AZ7, AU1, FT9."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub
from tests.domain.conftest import Records, new_user, open_session

pytestmark = pytest.mark.anyio

USERS = "/api/v1/users"
ADMIN_ROLE = "00000000-0000-7000-8000-000000000101"
PUBLIC_ROLE = "00000000-0000-7000-8000-000000000102"


async def created(hub: Hub, **fields: Any) -> dict[str, Any]:
    answer = await hub.admin.post(USERS, json={"email": f"{uuid4().hex}@example.org", **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def admin_id(hub: Hub) -> str:
    return str((await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"])


async def assert_recorded(
    records: Records, answer: httpx.Response, before: tuple[int, int], action: str, event: str
) -> dict[str, Any]:
    """AU1: exactly one audit row and one event, of this request."""
    (row,) = await records.audit(answer)
    assert (row["action"], row["outcome"], row["actor_name"]) == (action, "success", ADMIN_EMAIL)
    assert await records.mark() == (before[0] + 1, before[1] + 1)
    (found,) = await records.events(before[1])
    assert found["type"] == f"org.datafusionhub.{event}"
    assert "password" not in str(found["data"]).replace("has_password", "")
    return row


# --- create, read, list ---


async def test_a_created_user_is_read_back_alike(hub: Hub, records: Records) -> None:
    before = await records.mark()
    body = {"email": "Ada@Example.org", "first_name": " Ada ", "last_name": "Lovelace", "is_active": False}
    made = await hub.admin.post(USERS, json=body)
    assert made.status_code == 201
    read = await hub.admin.get(made.headers["location"])
    assert made.content == read.content
    assert made.headers["etag"] == read.headers["etag"]
    assert made.headers["etag"].startswith('"v1-')
    assert made.json()["version"] == 1
    assert {name: made.json()[name] for name in ("first_name", "last_name", "is_active", "has_password")} == {
        "first_name": "Ada",
        "last_name": "Lovelace",
        "is_active": False,
        "has_password": False,
    }
    assert [role["id"] for role in made.json()["roles"]] == [PUBLIC_ROLE]
    assert made.json()["created_by"] == made.json()["updated_by"] == await admin_id(hub)
    assert made.json()["created_at"].endswith("Z")
    row = await assert_recorded(records, made, before, "user.create", "user.created")
    assert row["after"]["email"] == made.json()["email"]


@pytest.mark.parametrize(
    "field",
    ["id", "version", "tenant_id", "password_hash", "roles", "created_at", "has_password", "failed_logins", "Email"],
)
async def test_a_field_that_is_not_in_the_schema_is_named(hub: Hub, field: str) -> None:
    user = await created(hub)
    for answer in (
        await hub.admin.post(USERS, json={"email": "x@example.org", field: 1}),
        await hub.admin.patch(f"{USERS}/{user['id']}", json={field: 1}),
    ):
        assert (answer.status_code, [fault["path"] for fault in answer.json()["errors"]]) == (400, [field])


async def test_all_wrong_fields_are_named_at_once(hub: Hub) -> None:
    body = {"email": 5, "first_name": "x" * 101, "last_name": "a\tb", "is_active": "true", "password": 1, "age": 3}
    answer = await hub.admin.post(USERS, json=body)
    assert {fault["path"] for fault in answer.json()["errors"]} == set(body)


async def test_an_unknown_user_is_not_there_for_any_call(hub: Hub) -> None:
    unknown = uuid4()
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/roles"),
        ("PUT", f"/roles/{PUBLIC_ROLE}"),
        ("DELETE", f"/roles/{PUBLIC_ROLE}"),
    ):
        body: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
        answer = await hub.admin.request(method, f"{USERS}/{unknown}{path}", **body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)


async def test_users_of_another_tenant_are_not_there(hub: Hub, records: Records) -> None:
    """AZ2, AZ4: neither by id nor in lists, counts, members or searches, and no call changes them."""
    tenant_id, user = uuid4(), await created(hub, first_name="Foreigner")
    await records.run(
        "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, $2, 'T', true, now(), now())",
        tenant_id,
        tenant_id.hex,
    )
    await records.run("UPDATE users SET tenant_id = $1 WHERE id = $2::uuid", tenant_id, user["id"])
    path = f"{USERS}/{user['id']}"
    answers = [
        await hub.admin.get(path),
        await hub.admin.patch(path, json={"first_name": "Mine"}),
        await hub.admin.delete(path),
        await hub.admin.get(f"{path}/roles"),
        await hub.admin.put(f"{path}/roles/{ADMIN_ROLE}"),
        await hub.admin.delete(f"{path}/roles/{PUBLIC_ROLE}"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 6
    for query in (f"email={user['email']}", "q=Foreigner"):
        listed = (await hub.admin.get(f"{USERS}?{query}&count=exact")).json()
        assert (listed["items"], listed["total"]) == ([], 0)
    members = (await hub.admin.get(f"/api/v1/roles/{PUBLIC_ROLE}/members?limit=200")).json()
    assert user["id"] not in str(members)
    assert await records.one("SELECT first_name FROM users WHERE id = $1::uuid", user["id"]) == "Foreigner"


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "email", "-email", "updated_at", "-updated_at"])
async def test_pages_join_into_the_whole_list(hub: Hub, sort: str) -> None:
    for _ in range(3):
        await created(hub)
    whole = (await hub.admin.get(f"{USERS}?sort={sort}&limit=200&count=exact")).json()
    assert whole["next_cursor"] is None
    assert whole["total"] == len(whole["items"])
    ids, cursor = [], ""
    while True:
        page = (await hub.admin.get(f"{USERS}?sort={sort}&limit=2{cursor}")).json()
        ids += [user["id"] for user in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert ids == [user["id"] for user in whole["items"]]
    assert page["total"] is None


async def test_the_last_full_page_has_no_next(hub: Hub) -> None:
    total = (await hub.admin.get(f"{USERS}?count=exact&limit=1")).json()["total"]
    page = (await hub.admin.get(f"{USERS}?limit={min(total, 200)}")).json()
    assert page["next_cursor"] is None


@pytest.mark.parametrize(
    ("searched", "found"),
    [
        ("100%", True),
        ("100_", False),
        ("1__%", False),
        ("%", True),
        ("\\", False),
        ("ZÜRICH", True),
        ("zürich", True),
        ("!", False),
    ],
)
async def test_a_search_takes_its_text_as_it_is(hub: Hub, searched: str, found: bool) -> None:
    user = await created(hub, first_name="100% Zürich")
    listed = (await hub.admin.get(USERS, params={"q": searched, "limit": 200})).json()
    assert (user["id"] in str(listed)) is found
    await hub.admin.delete(f"{USERS}/{user['id']}")


async def test_filters_narrow(hub: Hub) -> None:
    off = await created(hub, is_active=False)
    listed = (await hub.admin.get(f"{USERS}?is_active=false&limit=200")).json()["items"]
    assert off["id"] in {user["id"] for user in listed}
    assert not any(user["is_active"] for user in listed)
    by_email = (await hub.admin.get(USERS, params={"email": off["email"].upper()})).json()["items"]
    assert [user["id"] for user in by_email] == [off["id"]]
    admins = (await hub.admin.get(f"{USERS}?role_id={ADMIN_ROLE}")).json()["items"]
    assert [user["email"] for user in admins] == [ADMIN_EMAIL]


# --- change ---


async def test_a_patch_changes_what_it_names(hub: Hub, records: Records) -> None:
    user = await created(hub, first_name="Ada", last_name="Byron")
    before = await records.mark()
    answer = await hub.admin.patch(f"{USERS}/{user['id']}", json={"last_name": "Lovelace"})
    assert answer.status_code == 200
    assert answer.json() == user | {"last_name": "Lovelace", "version": 2, "updated_at": answer.json()["updated_at"]}
    assert answer.json()["updated_at"] > user["updated_at"]
    assert answer.headers["etag"].startswith('"v2-')
    assert answer.content == (await hub.admin.get(f"{USERS}/{user['id']}")).content
    row = await assert_recorded(records, answer, before, "user.update", "user.updated")
    assert (row["before"]["last_name"], row["after"]["last_name"]) == ("Byron", "Lovelace")


@pytest.mark.parametrize(
    "body", [{}, {"first_name": "Ada"}, {"first_name": " Ada "}, {"is_active": True}, {"password": None}]
)
async def test_a_patch_that_changes_nothing_leaves_no_trace(hub: Hub, records: Records, body: dict[str, Any]) -> None:
    user = await created(hub, first_name="Ada")
    before = await records.mark()
    answer = await hub.admin.patch(f"{USERS}/{user['id']}", json=body)
    assert (answer.status_code, answer.json()) == (200, user)
    assert await records.mark() == before


async def test_a_password_is_set_and_taken_away(hub: Hub, records: Records) -> None:
    user = await created(hub)
    path, before = f"{USERS}/{user['id']}", await records.mark()
    given = await hub.admin.patch(path, json={"password": PASSWORD})
    assert (given.json()["has_password"], given.json()["version"]) == (True, 2)
    row = await assert_recorded(records, given, before, "user.set_password", "user.updated")
    assert PASSWORD not in str(row)
    assert "argon2" not in str(row)
    taken = await hub.admin.patch(path, json={"password": None})
    assert (taken.json()["has_password"], taken.json()["version"]) == (False, 3)


@pytest.mark.parametrize(
    "body",
    [
        {"first_name": 5},
        {"email": "nobody"},
        {"email": None},
        {"is_active": None},
        {"password": "short"},
        {"email": ADMIN_EMAIL},
    ],
)
async def test_a_patch_that_is_refused_changes_nothing(hub: Hub, records: Records, body: dict[str, Any]) -> None:
    user = await created(hub)
    before = await records.mark()
    answer = await hub.admin.patch(f"{USERS}/{user['id']}", json={"last_name": "New", **body})
    assert answer.status_code in (400, 409)
    assert (await hub.admin.get(f"{USERS}/{user['id']}")).json() == user
    assert await records.mark() == before


async def test_deleting_keeps_the_record_readable(hub: Hub, records: Records) -> None:
    user = await created(hub)
    before = await records.mark()
    answer = await hub.admin.delete(f"{USERS}/{user['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    row = await assert_recorded(records, answer, before, "user.delete", "user.deleted")
    assert row["before"]["email"] == user["email"]
    assert (await hub.admin.get(f"{USERS}/{user['id']}")).status_code == 404
    assert (await hub.admin.delete(f"{USERS}/{user['id']}")).status_code == 404
    assert (await hub.admin.post(USERS, json={"email": user["email"]})).status_code == 201


async def test_a_user_with_sessions_and_history_can_be_deleted(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    client = await hub.sign_in(email)
    user_id = (await client.get("/api/v1/auth/me")).json()["user"]["id"]
    assert (await hub.admin.delete(f"{USERS}/{user_id}")).status_code == 204
    assert (await client.get("/api/v1/auth/me")).status_code == 401
    assert await records.one("SELECT count(*) FROM audit_events WHERE actor_id = $1::uuid", user_id) >= 1


# --- versions: If-Match, If-None-Match (FT9) ---


async def tag_of(hub: Hub, user: dict[str, Any]) -> str:
    """Without its quotation marks."""
    tag: str = (await hub.admin.get(f"{USERS}/{user['id']}")).headers["etag"]
    return tag.strip('"')


@pytest.mark.parametrize("given", ['"TAG"', '"v9", "TAG"', "*", ' "TAG" ', '"x","TAG"'])
async def test_a_matching_version_passes(hub: Hub, given: str) -> None:
    user = await created(hub)
    header = {"If-Match": given.replace("TAG", await tag_of(hub, user))}
    answer = await hub.admin.patch(f"{USERS}/{user['id']}", json={"first_name": "A"}, headers=header)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "given", ['"v2"', '"v1"', "TAG", 'W/"TAG"', '"V1"', "1", '""', "", '"TAG', "null", '"v01"', '"TAG0"', '"v2-0"']
)
async def test_a_stale_version_is_a_412_that_names_the_current_one(hub: Hub, given: str) -> None:
    user = await created(hub)
    tag = await tag_of(hub, user)
    path, header = f"{USERS}/{user['id']}", {"If-Match": given.replace("TAG", tag)}
    for answer in (
        await hub.admin.patch(path, json={"first_name": "A"}, headers=header),
        await hub.admin.delete(path, headers=header),
        await hub.admin.put(f"{path}/roles/{ADMIN_ROLE}", headers=header),
    ):
        assert (answer.status_code, answer.json()["code"], answer.headers["etag"]) == (412, "stale_version", f'"{tag}"')
    assert (await hub.admin.get(path)).json() == user


async def test_of_parallel_changes_to_one_version_one_wins(hub: Hub, records: Records) -> None:
    user = await created(hub)
    header = {"If-Match": f'"{await tag_of(hub, user)}"'}
    changes = (hub.admin.patch(f"{USERS}/{user['id']}", json={"first_name": f"n{n}"}, headers=header) for n in range(8))
    answers = await asyncio.gather(*changes)
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    won = next(answer for answer in answers if answer.status_code == 200)
    assert (await hub.admin.get(f"{USERS}/{user['id']}")).json() == won.json()


async def test_parallel_changes_without_a_version_all_count(hub: Hub) -> None:
    user = await created(hub)
    path = f"{USERS}/{user['id']}"
    answers = await asyncio.gather(*(hub.admin.patch(path, json={"first_name": f"n{n}"}) for n in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await hub.admin.get(path)).json()["version"] == 9


@pytest.mark.parametrize(
    ("given", "status"),
    [('"TAG"', 304), ('W/"TAG"', 304), ('"v0", W/"TAG"', 304), ("*", 304), ('"v1"', 200), ("TAG", 200), ("", 200)],
)
async def test_who_has_this_version_is_told_so(hub: Hub, given: str, status: int) -> None:
    user = await created(hub)
    tag = await tag_of(hub, user)
    answer = await hub.admin.get(f"{USERS}/{user['id']}", headers={"If-None-Match": given.replace("TAG", tag)})
    assert (answer.status_code, answer.headers["etag"]) == (status, f'"{tag}"')
    assert bool(answer.content) is (status == 200)


async def test_a_deployment_may_want_a_version_on_every_change(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    path = f"{USERS}/{(await created(hub))['id']}"
    role = (await hub.new_role())["id"]
    user = (await hub.admin.put(f"{path}/roles/{role}")).json()
    monkeypatch.setattr(hub.parts, "settings", msgspec.structs.replace(hub.parts.settings, require_if_match=True))
    for answer in (
        await hub.admin.patch(path, json={"first_name": "A"}),
        await hub.admin.delete(path),
        await hub.admin.put(f"{path}/roles/{role}"),
        await hub.admin.delete(f"{path}/roles/{role}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (428, "precondition_required")
    assert (await hub.admin.get(path)).json() == user
    header = {"If-Match": f'"{await tag_of(hub, user)}"'}
    assert (await hub.admin.patch(path, json={"first_name": "A"}, headers=header)).status_code == 200


# --- roles of users ---


async def test_a_role_is_given_and_taken(hub: Hub, records: Records) -> None:
    user = await created(hub)
    role = await hub.new_role(permissions=["roles:read"])
    path, before = f"{USERS}/{user['id']}/roles", await records.mark()
    given = await hub.admin.put(f"{path}/{role['id']}")
    assert {shown["id"] for shown in given.json()["roles"]} == {PUBLIC_ROLE, role["id"]}
    assert given.json()["version"] == 2
    await assert_recorded(records, given, before, "user.assign_role", "user.updated")
    again = await hub.admin.put(f"{path}/{role['id']}")
    assert again.content == given.content
    assert await records.audit(again) == []
    listed = (await hub.admin.get(f"{path}?sort=name&count=exact")).json()
    assert (listed["total"], role in listed["items"]) == (2, True)
    members = (await hub.admin.get(f"/api/v1/roles/{role['id']}/members")).json()
    assert [member["id"] for member in members["items"]] == [user["id"]]
    before = await records.mark()
    taken = await hub.admin.delete(f"{path}/{role['id']}")
    assert taken.status_code == 204
    row = await assert_recorded(records, taken, before, "user.unassign_role", "user.updated")
    roles = {moment: {shown["id"] for shown in row[moment]["roles"]} for moment in ("before", "after")}
    assert roles == {"before": {role["id"], PUBLIC_ROLE}, "after": {PUBLIC_ROLE}}
    assert (await hub.admin.delete(f"{path}/{role['id']}")).status_code == 404


async def test_a_role_given_in_parallel_is_given_once(hub: Hub) -> None:
    user = await created(hub)
    path = f"{USERS}/{user['id']}/roles/{ADMIN_ROLE}"
    answers = await asyncio.gather(*(hub.admin.put(path) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await hub.admin.get(f"{USERS}/{user['id']}")).json()["version"] == 2
    await hub.admin.delete(path)


async def test_everyone_keeps_public(hub: Hub) -> None:
    user = await created(hub)
    answer = await hub.admin.delete(f"{USERS}/{user['id']}/roles/{PUBLIC_ROLE}")
    assert (answer.status_code, answer.json()["code"]) == (409, "system_role")


async def test_a_role_that_is_not_there_cannot_be_given(hub: Hub) -> None:
    user = await created(hub)
    assert (await hub.admin.put(f"{USERS}/{user['id']}/roles/{uuid4()}")).status_code == 404


# --- AZ5: nobody rises above themselves ---


@pytest.fixture(scope="module")
async def clerk(hub: Hub) -> httpx.AsyncClient:
    """May write users and roles, and nothing else: what remains to be had is everything."""
    return await hub.user_with("users:read", "users:write", "roles:read", "roles:write")


async def my_id(client: httpx.AsyncClient) -> str:
    return str((await client.get("/api/v1/auth/me")).json()["user"]["id"])


async def stronger_user(hub: Hub) -> dict[str, Any]:
    """Somebody with one permission that the clerk lacks."""
    user = await created(hub)
    role = await hub.admin.post("/api/v1/roles", json={"name": uuid4().hex, "permissions": ["audit-events:read"]})
    answer = await hub.admin.put(f"{USERS}/{user['id']}/roles/{role.json()['id']}")
    return dict(answer.json())


async def test_nobody_takes_the_account_of_who_may_do_more_from_a_moment_on(hub: Hub) -> None:
    clerk, user = await hub.user_with("users:write"), await created(hub)
    role = await hub.new_role(permissions=["audit-events:read"])
    given = {"subject": {"type": "user", "id": user["id"]}, "role_id": role["id"], "starts_at": "2999-01-01T00:00:00Z"}
    assert (await hub.admin.post("/api/v1/role-assignments", json=given)).status_code == 201
    refused = await clerk.patch(f"{USERS}/{user['id']}", json={"password": PASSWORD})
    assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions")


async def assert_refused(records: Records, answer: httpx.Response, client: httpx.AsyncClient) -> None:
    assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions")
    (row,) = await records.audit(answer)
    assert (row["outcome"], str(row["actor_id"])) == ("refused", await my_id(client))


@pytest.mark.parametrize(
    "body",
    [
        {"password": "another phrase about lanterns"},
        {"password": None},
        {"email": "taken.over@example.org"},
        {"is_active": False},
        {"first_name": "X"},
        {},
    ],
    ids=str,
)
async def test_a_stronger_user_cannot_be_changed(
    hub: Hub, records: Records, clerk: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    user = await stronger_user(hub)
    await assert_refused(records, await clerk.patch(f"{USERS}/{user['id']}", json=body), clerk)
    assert (await hub.admin.get(f"{USERS}/{user['id']}")).json() == user


async def test_a_stronger_user_cannot_be_deleted_or_lose_roles(
    hub: Hub, records: Records, clerk: httpx.AsyncClient
) -> None:
    user = await stronger_user(hub)
    for role in user["roles"]:
        answer = await clerk.delete(f"{USERS}/{user['id']}/roles/{role['id']}")
        assert answer.status_code == 403
    await assert_refused(records, await clerk.delete(f"{USERS}/{user['id']}"), clerk)
    assert (await hub.admin.get(f"{USERS}/{user['id']}")).json() == user


async def test_a_deactivated_stronger_user_cannot_be_taken_over(
    hub: Hub, records: Records, clerk: httpx.AsyncClient
) -> None:
    user = await stronger_user(hub)
    await hub.admin.patch(f"{USERS}/{user['id']}", json={"is_active": False})
    body = {"is_active": True, "password": "another phrase about lanterns"}
    await assert_refused(records, await clerk.patch(f"{USERS}/{user['id']}", json=body), clerk)


@pytest.mark.parametrize("role", [ADMIN_ROLE, "made"])
async def test_a_stronger_role_cannot_be_given(hub: Hub, records: Records, clerk: httpx.AsyncClient, role: str) -> None:
    if role == "made":
        permissions = ["users:read", "metrics:read"]
        role = (await hub.new_role(permissions=permissions))["id"]
    for target in (await my_id(clerk), (await created(hub))["id"]):
        await assert_refused(records, await clerk.put(f"{USERS}/{target}/roles/{role}"), clerk)


async def test_a_role_cannot_be_made_to_exceed_ones_own(hub: Hub, records: Records, clerk: httpx.AsyncClient) -> None:
    body = {"name": uuid4().hex, "permissions": ["users:read", "audit-events:read"]}
    await assert_refused(records, await clerk.post("/api/v1/roles", json=body), clerk)
    own = (await clerk.post("/api/v1/roles", json={"name": uuid4().hex, "permissions": ["users:read"]})).json()
    path = f"/api/v1/roles/{own['id']}"
    await assert_refused(records, await clerk.patch(path, json={"permissions": ["audit-events:read"]}), clerk)
    assert (await clerk.get(path)).json() == own


async def test_a_stronger_role_cannot_be_changed_or_deleted(
    hub: Hub, records: Records, clerk: httpx.AsyncClient
) -> None:
    body = {"name": uuid4().hex, "permissions": ["audit-events:read"]}
    role = (await hub.admin.post("/api/v1/roles", json=body)).json()
    path = f"/api/v1/roles/{role['id']}"
    for answer in (
        await clerk.patch(path, json={"name": "mine"}),
        await clerk.patch(path, json={"permissions": []}),
        await clerk.patch(path, json={"owner_role_id": PUBLIC_ROLE}),
        await clerk.delete(path),
        await clerk.put(f"{path}/approver-roles", json=[]),
    ):
        await assert_refused(records, answer, clerk)
    assert (await hub.admin.get(path)).json() == role


async def test_what_was_lost_cannot_be_given_on(hub: Hub, records: Records) -> None:
    """The permission is taken from the one who would give it, within the second."""
    email = await new_user(hub, records)
    user_id = await records.one("SELECT id::text FROM users WHERE email = $1", email)
    role = {"name": uuid4().hex, "permissions": ["users:write", "roles:write", "jobs:read"]}
    held = (await hub.admin.post("/api/v1/roles", json=role)).json()
    await hub.admin.put(f"{USERS}/{user_id}/roles/{held['id']}")
    client = await open_session(hub, records, email)
    await hub.admin.patch(f"/api/v1/roles/{held['id']}", json={"permissions": ["users:write", "roles:write"]})
    answer = await client.post("/api/v1/roles", json={"name": uuid4().hex, "permissions": ["jobs:read"]})
    assert answer.status_code == 403


async def test_a_weaker_user_can_be_managed(hub: Hub, clerk: httpx.AsyncClient) -> None:
    made = (await clerk.post(USERS, json={"email": f"{uuid4().hex}@example.org"})).json()
    path = f"{USERS}/{made['id']}"
    assert (await clerk.patch(path, json={"first_name": "A"})).status_code == 200
    assert (await clerk.delete(path)).status_code == 204


async def test_a_refused_call_is_on_record(hub: Hub, records: Records) -> None:
    client = await open_session(hub, records, await new_user(hub, records))
    before = await records.mark()
    answer = await client.post(USERS, json={"email": "x@example.org"})
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_missing")
    (row,) = await records.audit(answer)
    assert (row["outcome"], row["action"], row["detail"]) == ("refused", f"post {USERS}", "permission_missing")
    assert await records.mark() == (before[0] + 1, before[1])


async def test_an_anonymous_call_leaves_no_row(hub: Hub, records: Records) -> None:
    before = await records.mark()
    assert (await hub.client().delete(f"{USERS}/{uuid4()}")).status_code == 401
    assert await records.mark() == before


# --- AZ7: the last admin ---


async def second_admin(hub: Hub, records: Records) -> tuple[str, httpx.AsyncClient]:
    email = await new_user(hub, records)
    user_id = await records.one("SELECT id::text FROM users WHERE email = $1", email)
    assert (await hub.admin.put(f"{USERS}/{user_id}/roles/{ADMIN_ROLE}")).status_code == 200
    return user_id, await open_session(hub, records, email)


@pytest.mark.parametrize("useless", [{"is_active": False}, {"password": None}], ids=["inactive", "passwordless"])
@pytest.mark.parametrize("way", ["delete", "deactivate", "unassign", "password"])
async def test_the_last_admin_stays(hub: Hub, records: Records, way: str, useless: dict[str, Any]) -> None:
    """An admin who is not active, or cannot sign in, does not count."""
    other, _ = await second_admin(hub, records)
    assert (await hub.admin.patch(f"{USERS}/{other}", json=useless)).status_code == 200
    answer = await leave(hub.admin, way, await admin_id(hub))
    assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
    assert (await hub.admin.get("/api/v1/auth/me")).json()["user"]["is_active"]
    await hub.admin.delete(f"{USERS}/{other}")


async def leave(client: httpx.AsyncClient, way: str, user_id: str) -> httpx.Response:
    if way == "delete":
        return await client.delete(f"{USERS}/{user_id}")
    if way == "deactivate":
        return await client.patch(f"{USERS}/{user_id}", json={"is_active": False})
    if way == "password":
        return await client.patch(f"{USERS}/{user_id}", json={"password": None})
    return await client.delete(f"{USERS}/{user_id}/roles/{ADMIN_ROLE}")


@pytest.mark.parametrize(
    ("one", "other"),
    [("delete", "delete"), ("delete", "deactivate"), ("deactivate", "unassign"), ("unassign", "unassign")],
)
async def test_the_last_two_admins_cannot_leave_at_once(hub: Hub, records: Records, one: str, other: str) -> None:
    """AZ6: of the two one leaves and the other is told that they cannot."""
    pair = [await second_admin(hub, records) for _ in range(2)]
    await records.run("UPDATE users SET is_active = false WHERE email = $1", ADMIN_EMAIL)
    try:
        (a, first), (b, second) = pair
        answers = await asyncio.gather(leave(first, one, a), leave(second, other, b))
        assert sorted(answer.status_code for answer in answers)[-1] == 409
        left = "SELECT count(*) FROM users u JOIN role_assignments r ON r.subject_id = u.id WHERE r.role_id = $1::uuid AND u.is_active AND r.ended_at IS NULL"
        assert await records.one(left, ADMIN_ROLE) == 1
    finally:
        await records.run("UPDATE users SET is_active = true WHERE email = $1", ADMIN_EMAIL)
        await records.run(
            "DELETE FROM role_assignments r USING users u WHERE u.id = r.subject_id AND r.role_id = $1::uuid AND u.email <> $2",
            ADMIN_ROLE,
            ADMIN_EMAIL,
        )
        hub.parts.principals._drop_all()


async def test_a_user_is_made_with_a_password_that_works(hub: Hub) -> None:
    user = await created(hub, password=PASSWORD)
    assert user["has_password"]
    await hub.sign_in(user["email"])
