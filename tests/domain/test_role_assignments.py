"""Who is given which role, where, and until when: what stands in the way, and that it takes effect at its moment."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.domain.upkeep.services import remove_due
from tests.conftest import Hub
from tests.domain.conftest import Records, new_user, open_session

pytestmark = pytest.mark.anyio

ASSIGNMENTS = "/api/v1/role-assignments"
ADMIN_ROLE = "00000000-0000-7000-8000-000000000101"
PUBLIC_ROLE = "00000000-0000-7000-8000-000000000102"
TENANT = "00000000-0000-7000-8000-000000000001"
SOON = timedelta(hours=1)


def moment(after: timedelta) -> str:
    return (datetime.now(UTC) + after).isoformat().replace("+00:00", "Z")


def body_for(user: str, role: str, **given: Any) -> dict[str, Any]:
    return {"subject": {"type": "user", "id": user}, "role_id": role, **given}


async def give(hub: Hub, user: str, role: str, **given: Any) -> dict[str, Any]:
    made = await hub.admin.post(ASSIGNMENTS, json=body_for(user, role, **given))
    assert made.status_code == 201, made.text
    return dict(made.json())


async def somebody(hub: Hub, records: Records) -> tuple[str, httpx.AsyncClient]:
    """The id and the client of a new user."""
    email = await new_user(hub, records)
    client = await open_session(hub, records, email)
    return (await client.get("/api/v1/auth/me")).json()["user"]["id"], client


async def holder_of(
    hub: Hub, records: Records, *permissions: str, scope: dict[str, str] | None = None
) -> tuple[str, httpx.AsyncClient]:
    """Somebody with exactly these permissions there."""
    user, client = await somebody(hub, records)
    role = await hub.new_role(permissions=list(permissions))
    await give(hub, user, role["id"], **({"scope": scope} if scope else {}))
    return user, client


async def new_source(hub: Hub) -> str:
    body = {"name": uuid4().hex, "type": "rest", "config": {"base_url": "https://a.example"}}
    made = await hub.admin.post("/api/v1/data-sources", json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def new_domain(records: Records, *above: str) -> str:
    domain = str(uuid4())
    await records.run(
        """INSERT INTO data_domains (id, tenant_id, name, name_key, parent_id, lineage, created_at, updated_at)
           VALUES ($1::uuid, $2::uuid, $3, $3, $4::uuid, $5::uuid[], now(), now())""",
        domain,
        TENANT,
        domain,
        above[-1] if above else None,
        [*above, domain],
    )
    return domain


async def put_into(records: Records, domain: str, source: str) -> None:
    await records.run("UPDATE data_sources SET data_domain_id = $1::uuid WHERE id = $2::uuid", domain, source)


async def new_group(hub: Hub, records: Records, *members: str) -> str:
    group = str(uuid4())
    await records.run(
        """INSERT INTO groups (id, tenant_id, name, name_key, created_at, updated_at)
           VALUES ($1::uuid, $2::uuid, $3, $3, now(), now())""",
        group,
        TENANT,
        group,
    )
    for user in members:
        await records.run(
            """INSERT INTO group_members (id, tenant_id, group_id, user_id, created_at)
               VALUES (gen_random_uuid(), $1::uuid, $2::uuid, $3::uuid, now())""",
            TENANT,
            group,
            user,
        )
        hub.parts.principals.drop("user", UUID(user))
    return group


# --- given, read, changed, ended ---


async def test_a_role_is_given_read_changed_and_ended(hub: Hub, records: Records) -> None:
    user, client = await somebody(hub, records)
    role = await hub.new_role(permissions=["roles:read"])
    assert (await client.get("/api/v1/roles")).status_code == 403
    before, expires_at = await records.mark(), moment(SOON)
    made = await hub.admin.post(ASSIGNMENTS, json=body_for(user, role["id"], expires_at=expires_at, reason="a project"))
    assert made.status_code == 201, made.text
    given = made.json()
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    assert given == given | {
        "subject": {"type": "user", "id": user},
        "role_id": role["id"],
        "scope": {"type": "tenant", "id": None},
        "expires_at": expires_at,
        "reason": "a project",
        "via": {"type": "person", "id": me},
        "ended_at": None,
        "ended_by": None,
        "version": 1,
    }
    path = f"{ASSIGNMENTS}/{given['id']}"
    assert (made.headers["location"], made.headers["etag"]) == (path, '"v1"')
    assert (await hub.admin.get(path)).content == made.content
    assert (await client.get("/api/v1/roles")).status_code == 200

    changed = await hub.admin.patch(path, json={"expires_at": None}, headers={"If-Match": '"v1"'})
    assert changed.json() == given | {
        "expires_at": None,
        "version": 2,
        "updated_at": changed.json()["updated_at"],
    }
    ended = await hub.admin.delete(path)
    assert ended.status_code == 204
    assert (await client.get("/api/v1/roles")).status_code == 403
    read = (await hub.admin.get(path)).json()
    assert (read["ended_by"], read["version"]) == (me, 3)
    assert read["ended_at"] is not None

    assert await records.mark() == (before[0] + 4, before[1] + 3), "one of the rows is that of the refusal"
    rows = [row for answer in (made, changed, ended) for row in await records.audit(answer)]
    actions = [f"role_assignment.{name}" for name in ("create", "update", "end")]
    assert [(row["action"], str(row["resource_id"])) for row in rows] == [(name, given["id"]) for name in actions]
    events = await records.events(before[1])
    assert [event["type"] for event in events] == [
        f"org.datafusionhub.role_assignment.{name}" for name in ("created", "updated", "ended")
    ]
    assert {event["subject"] for event in events} == {f"role-assignments/{given['id']}"}
    assert events[-1]["data"] == read


async def test_the_short_form_is_an_assignment_for_the_whole_tenant(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    role = await hub.new_role()
    short = f"/api/v1/users/{user}/roles/{role['id']}"
    assert (await hub.admin.put(short)).status_code == 200
    found = (await hub.admin.get(ASSIGNMENTS, params={"subject_id": user, "role_id": role["id"]})).json()["items"]
    assert [each["scope"] for each in found] == [{"type": "tenant", "id": None}]
    assert (await hub.admin.delete(short)).status_code == 204
    assert (await hub.admin.get(f"{ASSIGNMENTS}/{found[0]['id']}")).json()["ended_at"] is not None
    again = await give(hub, user, role["id"])
    assert role["id"] in [each["id"] for each in (await hub.admin.get(f"/api/v1/users/{user}/roles")).json()["items"]]
    assert (await hub.admin.delete(f"{ASSIGNMENTS}/{again['id']}")).status_code == 204
    assert (await hub.admin.delete(short)).status_code == 404


async def test_the_short_form_takes_the_place_of_one_that_has_not_begun(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    role = await hub.new_role()
    later = await give(hub, user, role["id"], starts_at=moment(SOON))
    assert (await hub.admin.delete(f"/api/v1/users/{user}/roles/{role['id']}")).status_code == 404
    assert (await hub.admin.put(f"/api/v1/users/{user}/roles/{role['id']}")).status_code == 200
    assert (await hub.admin.get(f"{ASSIGNMENTS}/{later['id']}")).json()["ended_at"] is not None


async def test_a_patch_that_changes_nothing_leaves_no_trace(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    given = await give(hub, user, (await hub.new_role())["id"], expires_at=moment(SOON))
    before = await records.mark()
    for body in ({}, {"expires_at": given["expires_at"]}):
        answer = await hub.admin.patch(f"{ASSIGNMENTS}/{given['id']}", json=body)
        assert (answer.status_code, answer.json()) == (200, given)
    assert await records.mark() == before


async def test_what_has_ended_stays_as_it_was(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    role = await hub.new_role()
    ended = await give(hub, user, role["id"])
    await hub.admin.delete(f"{ASSIGNMENTS}/{ended['id']}")
    expired = await give(hub, user, role["id"], expires_at=moment(SOON))
    await expire(records, expired)
    before = await records.mark()
    for each in (ended, expired):
        for answer in (
            await hub.admin.delete(f"{ASSIGNMENTS}/{each['id']}"),
            await hub.admin.patch(f"{ASSIGNMENTS}/{each['id']}", json={"expires_at": None}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (409, "assignment_ended")
    assert await records.mark() == before


async def expire(records: Records, given: dict[str, Any]) -> None:
    """As if its day had come."""
    await records.run(
        """UPDATE role_assignments SET starts_at = now() - interval '2 hours', expires_at = now() - interval '1 hour'
           WHERE id = $1::uuid""",
        given["id"],
    )


# --- faults ---


@pytest.mark.parametrize(
    ("given", "path", "code"),
    [
        ({"subject": {"type": "user", "id": str(uuid4())}}, "subject.id", "unknown_user"),
        ({"subject": {"type": "group", "id": str(uuid4())}}, "subject.id", "unknown_group"),
        ({"subject": {"type": "service_account", "id": str(uuid4())}}, "subject.id", "unknown_service_account"),
        ({"subject": {"type": "robot", "id": str(uuid4())}}, "subject.type", "not_allowed"),
        ({"role_id": str(uuid4())}, "role_id", "unknown_role"),
        ({"scope": {"type": "data_domain", "id": str(uuid4())}}, "scope.id", "unknown_domain"),
        ({"scope": {"type": "data_source", "id": str(uuid4())}}, "scope.id", "unknown_source"),
        ({"scope": {"type": "data_source"}}, "scope.id", "required"),
        ({"scope": {"type": "tenant", "id": TENANT}}, "scope.id", "not_allowed"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at", "too_small"),
        ({"expires_at": moment(SOON), "starts_at": moment(2 * SOON)}, "expires_at", "too_small"),
        ({"expires_at": "9999-12-31T23:59:59.999999Z"}, "expires_at", "too_large"),
        ({"starts_at": "9999-12-31T23:59:59-14:00"}, "starts_at", "too_large"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at", "invalid"),
        ({"expires_at": "tomorrow"}, "expires_at", "invalid"),
        ({"expires_at": 5}, "expires_at", "wrong_type"),
        ({"ended_at": None}, "ended_at", "unknown_field"),
        ({"via": None}, "via", "unknown_field"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_a_fault_is_named(hub: Hub, records: Records, given: dict[str, Any], path: str, code: str) -> None:
    user, _ = await somebody(hub, records)
    role = await hub.new_role()
    before = await records.mark()
    answer = await hub.admin.post(ASSIGNMENTS, json=body_for(user, role["id"]) | given)
    assert answer.status_code == 400, answer.text
    assert [(fault["path"], fault["code"]) for fault in answer.json()["errors"]] == [(path, code)]
    assert await records.mark() == before


async def test_a_beginning_in_the_past_is_now(hub: Hub, records: Records) -> None:
    """Nothing is given for a time that is over: what somebody could do then is on record as it was."""
    user, _ = await somebody(hub, records)
    given = await give(hub, user, (await hub.new_role())["id"], starts_at="2020-01-01T00:00:00Z")
    assert given["starts_at"] > "2025"


async def test_things_of_another_tenant_are_not_there(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    foreign, _ = await somebody(hub, records)
    role, source, tenant = await hub.new_role(), await new_source(hub), uuid4()
    await records.run(
        "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, $2, 'T', true, now(), now())",
        tenant,
        tenant.hex,
    )
    theirs = await give(hub, foreign, role["id"])
    for table, row in (("users", foreign), ("data_sources", source), ("role_assignments", theirs["id"])):
        await records.run(f"UPDATE {table} SET tenant_id = $1 WHERE id = $2::uuid", tenant, row)
    for given in (
        body_for(foreign, role["id"]),
        body_for(user, role["id"], scope={"type": "data_source", "id": source}),
    ):
        assert (await hub.admin.post(ASSIGNMENTS, json=given)).status_code == 400
    for method in ("GET", "PATCH", "DELETE"):
        answer = await hub.admin.request(
            method, f"{ASSIGNMENTS}/{theirs['id']}", json={} if method == "PATCH" else None
        )
        assert answer.status_code == 404
    assert (await hub.admin.get(ASSIGNMENTS, params={"role_id": role["id"]})).json()["items"] == []


# --- twins and races ---


async def test_the_same_is_given_once(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    role, source = await hub.new_role(), await new_source(hub)
    await give(hub, user, role["id"])
    again = await hub.admin.post(ASSIGNMENTS, json=body_for(user, role["id"]))
    assert (again.status_code, again.json()["code"]) == (409, "already_assigned")
    for scope in ({"type": "data_source", "id": source},):
        await give(hub, user, role["id"], scope=scope)
        twice = await hub.admin.post(ASSIGNMENTS, json=body_for(user, role["id"], scope=scope))
        assert (twice.status_code, twice.json()["code"]) == (409, "already_assigned")


async def test_what_has_expired_makes_room_and_ends_when_it_expired(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    role = await hub.new_role()
    first = await give(hub, user, role["id"], expires_at=moment(SOON))
    await expire(records, first)
    second = await give(hub, user, role["id"])
    read = (await hub.admin.get(f"{ASSIGNMENTS}/{first['id']}")).json()
    assert read["ended_at"] == read["expires_at"] < second["starts_at"]


@pytest.mark.parametrize("form", ["long", "short", "both"])
async def test_of_fifty_who_give_the_same_one_does(hub: Hub, records: Records, form: str) -> None:
    user, _ = await somebody(hub, records)
    role = await hub.new_role()
    before = await records.mark()

    def send(number: int) -> Any:
        if form == "short" or (form == "both" and number % 2):
            return hub.admin.put(f"/api/v1/users/{user}/roles/{role['id']}")
        return hub.admin.post(ASSIGNMENTS, json=body_for(user, role["id"]))

    answers = await asyncio.gather(*map(send, range(50)))
    won = [answer for answer in answers if answer.status_code in (200, 201)]
    assert {answer.status_code for answer in answers} <= {200, 201, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"already_assigned"}
    assert len([answer for answer in won if answer.status_code == 201]) <= 1
    assert (await records.mark())[0] - before[0] == 1
    held = (await hub.admin.get(ASSIGNMENTS, params={"subject_id": user, "role_id": role["id"]})).json()["items"]
    assert len(held) == 1


async def test_of_fifty_who_end_the_same_one_does(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    given = await give(hub, user, (await hub.new_role())["id"])
    before = await records.mark()
    answers = await asyncio.gather(*(hub.admin.delete(f"{ASSIGNMENTS}/{given['id']}") for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [204] + [409] * 49
    after = await records.mark()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


async def test_a_key_replays_the_first_answer(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    body, header = body_for(user, (await hub.new_role())["id"]), {"Idempotency-Key": uuid4().hex}
    first = await hub.admin.post(ASSIGNMENTS, json=body, headers=header)
    second = await hub.admin.post(ASSIGNMENTS, json=body, headers=header)
    assert (second.status_code, second.content) == (201, first.content)


# --- nobody gives what they lack ---


async def test_nobody_gives_changes_or_ends_what_they_lack(hub: Hub, records: Records) -> None:
    """AZ5."""
    user, _ = await somebody(hub, records)
    strong, weak = await hub.new_role(permissions=["users:write"]), await hub.new_role(permissions=["roles:read"])
    _, client = await holder_of(hub, records, "role-assignments:write", "role-assignments:read", "roles:read")
    assert (await client.post(ASSIGNMENTS, json=body_for(user, weak["id"]))).status_code == 201
    theirs = await give(hub, user, strong["id"], expires_at=moment(SOON))
    path = f"{ASSIGNMENTS}/{theirs['id']}"
    for answer in (
        await client.post(ASSIGNMENTS, json=body_for(user, strong["id"])),
        await client.post(ASSIGNMENTS, json=body_for(user, ADMIN_ROLE)),
        await client.patch(path, json={"expires_at": None}),
        await client.patch(path, json={"expires_at": moment(2 * SOON)}),
        await client.delete(path),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions")
        assert [row["outcome"] for row in await records.audit(answer)] == ["refused"]
    assert (await hub.admin.get(path)).json() == theirs


async def test_nobody_gives_for_longer_than_they_hold_themselves(hub: Hub, records: Records) -> None:
    """AZ5. Whoever could would take the end off what they have been given for a while."""
    user, client = await somebody(hub, records)
    friend, _ = await somebody(hub, records)
    permissions = ["groups:write", "role-assignments:read", "role-assignments:write", "users:read", "users:write"]
    role = await hub.new_role(permissions=permissions)
    end = moment(SOON)
    own = await give(hub, user, role["id"], expires_at=end)
    group = await new_group(hub, records)
    given = body_for(user, role["id"], subject={"type": "group", "id": group})
    assert (await hub.admin.post(ASSIGNMENTS, json=given)).status_code == 201
    for answer in (
        await client.patch(f"{ASSIGNMENTS}/{own['id']}", json={"expires_at": None}),
        await client.patch(f"{ASSIGNMENTS}/{own['id']}", json={"expires_at": moment(2 * SOON)}),
        await client.post(ASSIGNMENTS, json=body_for(friend, role["id"])),
        await client.post(ASSIGNMENTS, json=body_for(friend, role["id"], expires_at=moment(2 * SOON))),
        await client.put(f"/api/v1/users/{friend}/roles/{role['id']}"),
        await client.put(f"/api/v1/groups/{group}/members/{user}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions"), answer.text
    assert (await client.post(ASSIGNMENTS, json=body_for(friend, role["id"], expires_at=end))).status_code == 201
    sooner = await client.patch(f"{ASSIGNMENTS}/{own['id']}", json={"expires_at": moment(SOON / 2)})
    assert sooner.status_code == 200


async def test_whoever_holds_it_for_good_by_another_way_gives_it_for_good(hub: Hub, records: Records) -> None:
    """Of several assignments each counts for as long as it lasts: two short ones after each other are no long one."""
    user, client = await somebody(hub, records)
    friend, _ = await somebody(hub, records)
    permissions = ["role-assignments:write", "groups:write"]
    short, long = [await hub.new_role(permissions=permissions) for _ in range(2)]
    await give(hub, user, short["id"], expires_at=moment(SOON))
    group = await new_group(hub, records, user)
    given = body_for(user, long["id"], subject={"type": "group", "id": group})
    assert (await hub.admin.post(ASSIGNMENTS, json=given)).status_code == 201
    assert (await client.post(ASSIGNMENTS, json=body_for(friend, short["id"]))).status_code == 201
    assert (await client.put(f"/api/v1/groups/{group}/members/{friend}")).is_success


async def test_who_owns_for_a_while_makes_no_owner_for_good(hub: Hub, records: Records) -> None:
    """The role that owns may have no permissions of its own."""
    user, client = await somebody(hub, records)
    friend, _ = await somebody(hub, records)
    owner = await hub.new_role(permissions=[])
    await give(hub, user, (await hub.new_role(permissions=["role-assignments:write"]))["id"])
    source = {"name": uuid4().hex, "type": "rest", "config": {"base_url": "https://a.example"}}
    made = await hub.admin.post("/api/v1/data-sources", json={**source, "owner_role_id": owner["id"]})
    assert made.status_code == 201, made.text
    own = await give(hub, user, owner["id"], expires_at=moment(SOON))
    for answer in (
        await client.patch(f"{ASSIGNMENTS}/{own['id']}", json={"expires_at": None}),
        await client.post(ASSIGNMENTS, json=body_for(friend, owner["id"])),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions"), answer.text
    soon = await client.post(ASSIGNMENTS, json=body_for(friend, owner["id"], expires_at=own["expires_at"]))
    assert soon.status_code == 201


async def test_a_right_to_give_is_needed(hub: Hub, records: Records) -> None:
    user, client = await holder_of(hub, records, "role-assignments:read", "users:write", "roles:write")
    role = await hub.new_role()
    given = await give(hub, user, role["id"])
    for method, path in (("POST", ""), ("PATCH", f"/{given['id']}"), ("DELETE", f"/{given['id']}")):
        body = body_for(user, role["id"]) if method == "POST" else {}
        answer = await client.request(method, f"{ASSIGNMENTS}{path}", json=None if method == "DELETE" else body)
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_missing")
    _, blind = await somebody(hub, records)
    assert (await blind.get(ASSIGNMENTS)).status_code == 403
    assert (await blind.get(f"{ASSIGNMENTS}/{given['id']}")).status_code == 404


async def test_public_is_given_to_nobody_and_taken_from_nobody(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    answer = await hub.admin.post(ASSIGNMENTS, json=body_for(user, PUBLIC_ROLE))
    assert (answer.status_code, answer.json()["code"]) == (409, "system_role")
    held = (await hub.admin.get(ASSIGNMENTS, params={"subject_id": user, "role_id": PUBLIC_ROLE})).json()["items"]
    for each in held:
        ended = await hub.admin.delete(f"{ASSIGNMENTS}/{each['id']}")
        assert (ended.status_code, ended.json()["code"]) == (409, "system_role")


# --- parts of the tenant ---


async def test_a_role_holds_where_it_is_given_and_nowhere_else(hub: Hub, records: Records) -> None:
    top = await new_domain(records)
    below, beside = await new_domain(records, top), await new_domain(records)
    inside, deep, outside = [await new_source(hub) for _ in range(3)]
    for domain, source in ((top, inside), (below, deep), (beside, outside)):
        await put_into(records, domain, source)
    user, client = await somebody(hub, records)
    role = await hub.new_role(permissions=["data-sources:read"])
    given = await give(hub, user, role["id"], scope={"type": "data_domain", "id": top})

    async def seen() -> set[str]:
        answer = await client.get("/api/v1/data-sources?limit=200")
        return {each["id"] for each in answer.json()["items"]} if answer.status_code == 200 else set()

    assert await seen() == {inside, deep}
    await give(hub, user, role["id"], scope={"type": "data_source", "id": outside})
    assert await seen() == {inside, deep, outside}
    await hub.admin.delete(f"{ASSIGNMENTS}/{given['id']}")
    assert await seen() == {outside}
    assert (await client.get(f"/api/v1/data-sources/{inside}")).status_code == 404


async def test_who_may_give_in_a_domain_gives_there_and_below(hub: Hub, records: Records) -> None:
    top = await new_domain(records)
    below, beside = await new_domain(records, top), await new_domain(records)
    source, other = await new_source(hub), await new_source(hub)
    await put_into(records, below, source)
    user, _ = await somebody(hub, records)
    names = ("role-assignments:write", "role-assignments:read", "data-sources:read")
    _, client = await holder_of(hub, records, *names, scope={"type": "data_domain", "id": top})
    role, strong = (
        await hub.new_role(permissions=["data-sources:read"]),
        await hub.new_role(permissions=["data-sources:write"]),
    )
    scopes = [
        {"type": "data_domain", "id": top},
        {"type": "data_domain", "id": below},
        {"type": "data_source", "id": source},
    ]
    for scope in scopes:
        made = await client.post(ASSIGNMENTS, json=body_for(user, role["id"], scope=scope))
        assert made.status_code == 201, made.text
        assert (await client.get(f"{ASSIGNMENTS}/{made.json()['id']}")).json() == made.json()
        refused = await client.post(ASSIGNMENTS, json=body_for(user, strong["id"], scope=scope))
        assert refused.json()["code"] == "exceeds_own_permissions"
    hidden = [{"type": "data_domain", "id": beside}, {"type": "data_source", "id": other}]
    for scope in hidden:
        unknown = {**scope, "id": str(uuid4())}
        answers = [
            await client.post(ASSIGNMENTS, json=body_for(user, role["id"], scope=each)) for each in (scope, unknown)
        ]
        assert [answer.status_code for answer in answers] == [400, 400]
        assert answers[0].json()["errors"] == answers[1].json()["errors"], "what may not be seen is not there"
    everywhere = await client.post(ASSIGNMENTS, json=body_for(user, role["id"]))
    assert (everywhere.status_code, everywhere.json()["code"]) == (403, "permission_missing")


async def test_of_a_part_of_the_tenant_its_assignments_are_seen(hub: Hub, records: Records) -> None:
    """AZ4: in lists and counts as one by one."""
    top, beside = await new_domain(records), await new_domain(records)
    below = await new_domain(records, top)
    source, other = await new_source(hub), await new_source(hub)
    await put_into(records, below, source)
    user, _ = await somebody(hub, records)
    role = await hub.new_role()
    mine = [
        await give(hub, user, role["id"], scope={"type": kind, "id": each})
        for kind, each in (("data_domain", top), ("data_domain", below), ("data_source", source))
    ]
    foreign = [
        await give(hub, user, role["id"], scope={"type": "data_domain", "id": beside}),
        await give(hub, user, role["id"], scope={"type": "data_source", "id": other}),
        await give(hub, user, role["id"]),
    ]
    scope = {"type": "data_domain", "id": top}
    _, client = await holder_of(hub, records, "role-assignments:read", scope=scope)
    shown = (await client.get(ASSIGNMENTS, params={"role_id": role["id"], "count": "exact"})).json()
    assert ({each["id"] for each in shown["items"]}, shown["total"]) == ({each["id"] for each in mine}, 3)
    assert [(await client.get(f"{ASSIGNMENTS}/{each['id']}")).status_code for each in mine] == [200] * 3
    for each in foreign:
        for method in ("GET", "PATCH", "DELETE"):
            body: dict[str, Any] | None = {} if method == "PATCH" else None
            assert (await client.request(method, f"{ASSIGNMENTS}/{each['id']}", json=body)).status_code in (403, 404)
        assert (await client.get(f"{ASSIGNMENTS}/{each['id']}")).status_code == 404


async def test_a_group_holds_for_its_members(hub: Hub, records: Records) -> None:
    user, client = await somebody(hub, records)
    group = await new_group(hub, records, user)
    role = await hub.new_role(permissions=["roles:read"])
    assert (await client.get("/api/v1/roles")).status_code == 403
    body = {"subject": {"type": "group", "id": group}, "role_id": role["id"]}
    made = await hub.admin.post(ASSIGNMENTS, json=body)
    assert made.status_code == 201, made.text
    assert (await client.get("/api/v1/roles")).status_code == 200
    assert (await hub.admin.delete(f"{ASSIGNMENTS}/{made.json()['id']}")).status_code == 204
    assert (await client.get("/api/v1/roles")).status_code == 403


# --- the last admin ---


async def admin_assignments(hub: Hub) -> list[dict[str, Any]]:
    found = await hub.admin.get(ASSIGNMENTS, params={"role_id": ADMIN_ROLE, "in_force": "true", "limit": 200})
    return list(found.json()["items"])


async def test_admin_is_given_for_the_whole_tenant_only(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    scope = {"type": "data_source", "id": await new_source(hub)}
    answer = await hub.admin.post(ASSIGNMENTS, json=body_for(user, ADMIN_ROLE, scope=scope))
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "scope.type")


async def test_the_last_admin_stays_and_gets_no_end(hub: Hub, records: Records) -> None:
    """AZ7. An admin for a time, or through a group, does not stand in for them."""
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    (mine,) = [each for each in await admin_assignments(hub) if each["subject"]["id"] == me]
    path = f"{ASSIGNMENTS}/{mine['id']}"
    for_a_time, _ = await somebody(hub, records)
    in_a_group, _ = await somebody(hub, records)
    later, _ = await somebody(hub, records)
    group = await new_group(hub, records, in_a_group)
    passing = await give(hub, for_a_time, ADMIN_ROLE, expires_at=moment(SOON))
    to_begin = await give(hub, later, ADMIN_ROLE, starts_at=moment(SOON))
    body: dict[str, Any] = {"subject": {"type": "group", "id": group}, "role_id": ADMIN_ROLE}
    of_group = (await hub.admin.post(ASSIGNMENTS, json=body)).json()
    for answer in (
        await hub.admin.delete(path),
        await hub.admin.patch(path, json={"expires_at": moment(SOON)}),
        await hub.admin.delete(f"/api/v1/users/{me}/roles/{ADMIN_ROLE}"),
        await hub.admin.delete(f"/api/v1/users/{me}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
        assert [row["outcome"] for row in await records.audit(answer)] == ["refused"]
    for each in (passing, to_begin, of_group):
        assert (await hub.admin.delete(f"{ASSIGNMENTS}/{each['id']}")).status_code == 204


# --- moments ---


async def test_an_assignment_begins_and_expires_by_itself(hub: Hub, other_worker: Hub, records: Records) -> None:
    """By the database's clock, on every worker, and what is shown of the user has another tag."""
    user, client = await somebody(hub, records)
    elsewhere = other_worker.client(client.headers["authorization"].removeprefix("Bearer "))
    role = await hub.new_role(permissions=["roles:read"])
    path = f"/api/v1/users/{user}"
    starts, ends = timedelta(seconds=0.8), timedelta(seconds=1.8)
    begun = await records.one("SELECT now()")
    given = await give(
        hub, user, role["id"], starts_at=(begun + starts).isoformat(), expires_at=(begun + ends).isoformat()
    )
    tags, allowed = [], []
    for until in (timedelta(0), starts, ends):
        wait = (begun + until - await records.one("SELECT clock_timestamp()")).total_seconds()
        await asyncio.sleep(max(wait, 0) + 0.1)
        tags.append((await hub.admin.get(path)).headers["etag"])
        allowed.append([(await each.get("/api/v1/roles")).status_code for each in (client, elsewhere)])
    assert allowed == [[403, 403], [200, 200], [403, 403]]
    assert tags[0] == tags[2] != tags[1]
    assert (await hub.admin.get(f"{ASSIGNMENTS}/{given['id']}")).json() == given


# --- lists ---


async def test_lists_are_narrowed_by_moment_and_state(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    roles = [await hub.new_role() for _ in range(4)]
    lasting = await give(hub, user, roles[0]["id"])
    future = await give(hub, user, roles[1]["id"], starts_at=moment(SOON), expires_at=moment(2 * SOON))
    ended = await give(hub, user, roles[2]["id"], starts_at=moment(SOON))
    await hub.admin.delete(f"{ASSIGNMENTS}/{ended['id']}")
    expired = await give(hub, user, roles[3]["id"], expires_at=moment(SOON))
    await expire(records, expired)

    async def found(**asked: str) -> set[str]:
        answer = await hub.admin.get(ASSIGNMENTS, params={"subject_id": user, **asked})
        assert answer.status_code == 200, answer.text
        return {each["id"] for each in answer.json()["items"] if each["role_id"] != PUBLIC_ROLE}

    assert await found() == {each["id"] for each in (lasting, future, ended, expired)}
    assert await found(in_force="true") == {lasting["id"]}
    assert await found(in_force="false") == {each["id"] for each in (future, ended, expired)}
    assert await found(at=moment(-SOON - timedelta(minutes=30))) == {expired["id"]}
    assert await found(at=moment(SOON + timedelta(minutes=30))) == {lasting["id"], future["id"]}
    assert await found(at=moment(3 * SOON)) == {lasting["id"]}
    assert await found(at=moment(-3 * SOON)) == set()
    assert await found(scope_type="data_domain") == set()
    assert await found(role_id=roles[0]["id"], subject_type="user", scope_type="tenant") == {lasting["id"]}


async def test_nobody_gives_an_owner_role_who_lacks_what_owning_brings(hub: Hub, records: Records) -> None:
    """The role itself may bring nothing. In a part of the tenant it owns nothing."""
    role = await hub.new_role()
    domain, source = await new_domain(records), await new_source(hub)
    await put_into(records, domain, source)
    user, _ = await somebody(hub, records)
    giver, client = await holder_of(hub, records, "role-assignments:write", "role-assignments:read", "users:write")
    free = await client.post(ASSIGNMENTS, json=body_for(giver, role["id"]))
    assert free.status_code == 201, "it owns nothing yet"
    assert (await client.delete(f"{ASSIGNMENTS}/{free.json()['id']}")).status_code == 204
    for path in (f"/api/v1/data-sources/{source}", f"/api/v1/data-domains/{domain}"):
        owned = await hub.admin.patch(path, json={"owner_role_id": role["id"]})
        assert owned.status_code == 200, owned.text
        given = await give(hub, user, role["id"])
        for answer in (
            await client.post(ASSIGNMENTS, json=body_for(giver, role["id"])),
            await client.put(f"/api/v1/users/{giver}/roles/{role['id']}"),
            await client.delete(f"{ASSIGNMENTS}/{given['id']}"),
            await client.patch(f"{ASSIGNMENTS}/{given['id']}", json={"expires_at": moment(SOON)}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions")
        assert (await hub.admin.delete(f"{ASSIGNMENTS}/{given['id']}")).status_code == 204
        scoped = body_for(giver, role["id"], scope={"type": "data_source", "id": source})
        part = await client.post(ASSIGNMENTS, json=scoped)
        assert part.status_code == 201, part.text
        await client.delete(f"{ASSIGNMENTS}/{part.json()['id']}")
        await hub.admin.patch(path, json={"owner_role_id": None})


async def test_upkeep_ends_what_has_expired_when_it_expired(hub: Hub, records: Records) -> None:
    """And nothing else, whatever the worker's clock says."""
    user, _ = await somebody(hub, records)
    roles = [await hub.new_role() for _ in range(3)]
    expired = await give(hub, user, roles[0]["id"], expires_at=moment(SOON))
    await expire(records, expired)
    others = [await give(hub, user, roles[1]["id"], expires_at=moment(SOON)), await give(hub, user, roles[2]["id"])]
    await remove_due(hub.parts, datetime.now(UTC) + timedelta(days=1))
    read = (await hub.admin.get(f"{ASSIGNMENTS}/{expired['id']}")).json()
    assert read["ended_at"] == read["expires_at"]
    assert (read["ended_by"], read["version"]) == (None, expired["version"] + 1)
    assert [(await hub.admin.get(f"{ASSIGNMENTS}/{each['id']}")).json() for each in others] == others
