"""`?dry_run=true`: what is shown is what happens then, and nothing is done meanwhile."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from app.api.route_table import all_routes
from app.domain.roles.ownership import OWNER_BRINGS
from tests.conftest import Hub
from tests.declared import application, document
from tests.domain.conftest import Records
from tests.domain.test_role_assignments import (
    ASSIGNMENTS,
    body_for,
    expire,
    give,
    moment,
    new_domain,
    new_group,
    new_source,
    put_into,
    somebody,
)

pytestmark = pytest.mark.anyio

ROLES = "/api/v1/roles"
HOUR = timedelta(hours=1)
Lines = set[tuple[str, tuple[str, ...], str | None]]


async def dry(hub: Hub, records: Records, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """What the hub says would come of it, having done nothing and said nothing."""
    before, versions = await records.mark(), await everything(records)
    answer = await hub.admin.request(method, path, params={"dry_run": "true"}, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/vnd.dfh.rights-change+json"
    assert await records.mark() == before
    assert await everything(records) == versions
    return dict(answer.json())


async def everything(records: Records) -> list[Any]:
    """Of each row on which rights hang, what a change would change."""
    tables = ("users", "roles", "role_assignments", "data_domains", "groups")
    return [await records.one(f"SELECT array_agg((id, version) ORDER BY id)::text FROM {table}") for table in tables]


def lines(found: list[Mapping[str, Any]]) -> Lines:
    return {(line["user_id"], tuple(line["permissions"]), line["scope"]["id"]) for line in found}


async def test_filling_a_role_shows_who_gains(hub: Hub, records: Records) -> None:
    """Not those who may do it anyway, and everyone at their own place."""
    plain, _ = await somebody(hub, records)
    able, _ = await somebody(hub, records)
    member, _ = await somebody(hub, records)
    scoped, _ = await somebody(hub, records)
    role, other = await hub.new_role(permissions=["roles:read"]), await hub.new_role(permissions=["users:read"])
    source = await new_source(hub)
    group = await new_group(hub, records, member)
    for user in (plain, able):
        await give(hub, user, role["id"])
    await give(hub, able, other["id"])
    await give(hub, scoped, role["id"], scope={"type": "data_source", "id": source})
    await hub.admin.post(ASSIGNMENTS, json={"subject": {"type": "group", "id": group}, "role_id": role["id"]})
    found = await dry(hub, records, "PATCH", f"{ROLES}/{role['id']}", {"permissions": ["users:read"]})
    gained, lost = ("users:read",), ("roles:read",)
    assert lines(found["gains"]) == {(plain, gained, None), (member, gained, None), (scoped, gained, source)}
    losing = {(user, lost, None) for user in (plain, able, member)}
    assert lines(found["loses"]) == losing | {(scoped, lost, source)}
    assert (found["users"], found["truncated"]) == (4, False)


async def test_deleting_a_role_shows_who_loses(hub: Hub, records: Records) -> None:
    user, client = await somebody(hub, records)
    role = await hub.new_role(permissions=["roles:read", "users:read"])
    await give(hub, user, role["id"])
    found = await dry(hub, records, "DELETE", f"{ROLES}/{role['id']}")
    assert (found["gains"], lines(found["loses"])) == ([], {(user, ("roles:read", "users:read"), None)})
    assert (await client.get(ROLES)).status_code == 200


async def test_giving_changing_and_ending_show_the_moment_that_they_change(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    role = await hub.new_role(permissions=["roles:read"])
    gain: Lines = {(user, ("roles:read",), None)}
    for given in ({}, {"starts_at": moment(HOUR)}, {"expires_at": moment(HOUR)}):
        found = await dry(hub, records, "POST", ASSIGNMENTS, body_for(user, role["id"], **given))
        assert (lines(found["gains"]), found["loses"], found["users"]) == (gain, [], 1)
    assignment = await give(hub, user, role["id"], expires_at=moment(HOUR))
    path = f"{ASSIGNMENTS}/{assignment['id']}"
    for until, gains, loses in ((moment(2 * HOUR), gain, set()), (None, gain, set()), (moment(HOUR / 2), set(), gain)):
        found = await dry(hub, records, "PATCH", path, {"expires_at": until})
        assert (lines(found["gains"]), lines(found["loses"])) == (gains, loses)
    found = await dry(hub, records, "DELETE", path)
    assert (found["gains"], lines(found["loses"])) == ([], gain)
    await hub.admin.delete(path)
    later = await give(hub, user, role["id"], starts_at=moment(HOUR))
    found = await dry(hub, records, "DELETE", f"{ASSIGNMENTS}/{later['id']}")
    assert lines(found["loses"]) == gain


async def test_who_is_in_a_group_is_shown_to_those_alone_who_may_know(hub: Hub, records: Records) -> None:
    """To give a group something is no right to read its members; how many they are, everybody is told."""
    member, _ = await somebody(hub, records)
    group, role = await new_group(hub, records, member), await hub.new_role(permissions=["jobs:read"])
    giver, client = await somebody(hub, records)
    writing = await hub.new_role(permissions=["role-assignments:write", "jobs:read"])
    await give(hub, giver, writing["id"])
    body = {"subject": {"type": "group", "id": group}, "role_id": role["id"]}
    dry_run = {"dry_run": "true"}
    told = (await client.post(ASSIGNMENTS, json=body, params=dry_run)).json()
    assert told == {"gains": [], "loses": [], "users": 1, "truncated": True}
    reading = await hub.new_role(permissions=["groups:read"])
    await give(hub, giver, reading["id"])
    told = (await client.post(ASSIGNMENTS, json=body, params=dry_run)).json()
    assert [line["user_id"] for line in told["gains"]] == [member]


async def test_what_is_held_above_is_neither_gained_nor_lost(hub: Hub, records: Records) -> None:
    top = await new_domain(records)
    below = await new_domain(records, top)
    source = await new_source(hub)
    await put_into(records, below, source)
    user, _ = await somebody(hub, records)
    role, more = (
        await hub.new_role(permissions=["data-sources:read"]),
        await hub.new_role(permissions=["data-sources:read", "data-sources:test"]),
    )
    await give(hub, user, role["id"], scope={"type": "data_domain", "id": top})
    for kind, place in (("data_domain", below), ("data_source", source)):
        body = body_for(user, more["id"], scope={"type": kind, "id": place})
        found = await dry(hub, records, "POST", ASSIGNMENTS, body)
        assert lines(found["gains"]) == {(user, ("data-sources:test",), place)}


async def test_an_owner_gains_only_what_owning_does_not_bring(hub: Hub, records: Records) -> None:
    owner = await hub.new_role()
    source = await new_source(hub)
    await hub.admin.patch(f"/api/v1/data-sources/{source}", json={"owner_role_id": owner["id"]})
    user, _ = await somebody(hub, records)
    await give(hub, user, owner["id"])
    role = await hub.new_role(permissions=["data-sources:reference", "data-sources:test"])
    body = body_for(user, role["id"], scope={"type": "data_source", "id": source})
    found = await dry(hub, records, "POST", ASSIGNMENTS, body)
    assert lines(found["gains"]) == {(user, ("data-sources:reference",), source)}


async def test_the_short_form_shows_it_too(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    role = await hub.new_role(permissions=["roles:read"])
    path = f"/api/v1/users/{user}/roles/{role['id']}"
    assert lines((await dry(hub, records, "PUT", path))["gains"]) == {(user, ("roles:read",), None)}
    await hub.admin.put(path)
    assert (await dry(hub, records, "PUT", path))["users"] == 0
    assert lines((await dry(hub, records, "DELETE", path))["loses"]) == {(user, ("roles:read",), None)}


async def test_a_change_of_which_no_rights_hang_shows_nobody(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    role = await hub.new_role(permissions=["roles:read"])
    await give(hub, user, role["id"])
    for body in ({}, {"name": uuid4().hex}, {"description": "x"}, {"permissions": ["roles:read"]}):
        found = await dry(hub, records, "PATCH", f"{ROLES}/{role['id']}", body)
        assert found == {"gains": [], "loses": [], "users": 0, "truncated": False}
    assert (await dry(hub, records, "POST", ROLES, {"name": uuid4().hex, "permissions": ["roles:read"]}))["users"] == 0


async def test_a_dry_run_is_refused_as_the_change_would_be(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    role = await hub.new_role()
    given = await give(hub, user, role["id"], expires_at=moment(HOUR))
    twice = await hub.admin.post(ASSIGNMENTS, params={"dry_run": "true"}, json=body_for(user, role["id"]))
    assert (twice.status_code, twice.json()["code"]) == (409, "already_assigned")
    stale = await hub.admin.delete(
        f"{ASSIGNMENTS}/{given['id']}", params={"dry_run": "true"}, headers={"If-Match": '"v9"'}
    )
    assert stale.status_code == 412
    await expire(records, given)
    again = await dry(hub, records, "POST", ASSIGNMENTS, body_for(user, role["id"]))
    assert again["users"] == 0, "the role brings nothing"


@pytest.mark.parametrize("query", ["dry_run=maybe", "dry_run=", "dry_run=1", "dry_run=true&limit=5", "dryrun=true"])
async def test_an_unknown_parameter_is_a_fault(hub: Hub, records: Records, query: str) -> None:
    role = await hub.new_role()
    answer = await hub.admin.delete(f"{ROLES}/{role['id']}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
    assert (await hub.admin.delete(f"{ROLES}/{role['id']}?dry_run=false")).status_code == 204


async def test_a_dry_run_is_no_first_answer_to_a_key_and_none_is_replayed(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    role, header = await hub.new_role(permissions=["roles:read"]), {"Idempotency-Key": uuid4().hex}
    body = body_for(user, role["id"])
    first = await hub.admin.post(ASSIGNMENTS, params={"dry_run": "true"}, json=body, headers=header)
    made = await hub.admin.post(ASSIGNMENTS, json=body, headers=header)
    assert (first.status_code, made.status_code) == (200, 201)
    malformed = {"Idempotency-Key": "a key"}
    wrong = await hub.admin.post(ASSIGNMENTS, params={"dry_run": "true"}, json=body, headers=malformed)
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_idempotency_key")
    last = await hub.admin.post(ASSIGNMENTS, params={"dry_run": "true"}, json=body, headers=header)
    assert (last.status_code, last.json()["code"]) == (409, "already_assigned"), "what would come of it now"


async def test_at_most_a_thousand_lines_are_shown_and_all_are_counted(hub: Hub, records: Records) -> None:
    role = await hub.new_role(permissions=["roles:read"])
    await records.run(
        """INSERT INTO role_assignments (id, subject_type, subject_id, role_id, scope_type, tenant_id, starts_at, created_at,
             updated_at)
           SELECT gen_random_uuid(), 'service_account', gen_random_uuid(), $1::uuid, 'tenant', tenant_id, now(), now(), now()
           FROM roles, generate_series(1, 700) WHERE roles.id = $1::uuid""",
        role["id"],
    )
    few = await dry(hub, records, "DELETE", f"{ROLES}/{role['id']}")
    assert (len(few["loses"]), few["users"], few["truncated"]) == (700, 700, False)
    many = await dry(hub, records, "PATCH", f"{ROLES}/{role['id']}", {"permissions": ["users:read"]})
    assert (len(many["gains"]) + len(many["loses"]), many["users"], many["truncated"]) == (1000, 700, True)


async def test_messagepack_tells_the_same(hub: Hub, records: Records) -> None:
    user, _ = await somebody(hub, records)
    role = await hub.new_role(permissions=["roles:read"])
    await give(hub, user, role["id"])
    path = f"{ROLES}/{role['id']}"
    packed = await hub.admin.delete(path, params={"dry_run": "true"}, headers={"Accept": "application/msgpack"})
    assert packed.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(packed.content) == await dry(hub, records, "DELETE", path)


def test_every_route_that_takes_the_parameter_answers_to_it() -> None:
    routes = all_routes(application())
    taking = {route.name for route in routes if "dry_run" in route.access.parameters}
    assert taking == {route.name for route in routes if route.is_rehearsed}
    assert taking >= {f"{verb}_role" for verb in ("create", "update", "delete", "assign", "unassign")}
    assert taking >= {f"{verb}_assignment" for verb in ("create", "update", "end")}
    for operations in document()["paths"].values():
        for operation in operations.values():
            content = operation["responses"].get("200", {}).get("content", {})
            has_answer = "application/vnd.dfh.rights-change+json" in content
            assert has_answer == (operation["operationId"] in taking)


async def test_choosing_members_and_deleting_a_group_show_it(hub: Hub, records: Records) -> None:
    inside, _ = await somebody(hub, records)
    outside, _ = await somebody(hub, records)
    group = await new_group(hub, records, inside)
    source, owned = await new_source(hub), await new_source(hub)
    role = await hub.new_role(permissions=["data-sources:test"])
    owner = await hub.new_role()
    await hub.admin.patch(f"/api/v1/data-sources/{owned}", json={"owner_role_id": owner["id"]})
    subject = {"type": "group", "id": group}
    for body in (
        {"subject": subject, "role_id": role["id"], "scope": {"type": "data_source", "id": source}},
        {"subject": subject, "role_id": owner["id"]},
    ):
        assert (await hub.admin.post(ASSIGNMENTS, json=body)).status_code == 201
    by_owning = tuple(sorted(OWNER_BRINGS))
    path = f"/api/v1/groups/{group}"
    found = await dry(hub, records, "PUT", f"{path}/members/{outside}")
    assert lines(found["gains"]) == {(outside, ("data-sources:test",), source), (outside, by_owning, owned)}
    assert (found["loses"], found["users"]) == ([], 1)
    assert (await dry(hub, records, "PUT", f"{path}/members/{inside}"))["users"] == 0
    losing = {(inside, ("data-sources:test",), source), (inside, by_owning, owned)}
    assert lines((await dry(hub, records, "DELETE", f"{path}/members/{inside}"))["loses"]) == losing
    assert lines((await dry(hub, records, "DELETE", path))["loses"]) == losing
    assert (await hub.admin.delete(f"{path}/members/{outside}?dry_run=true")).status_code == 404


async def test_of_a_domain_it_shows_no_more_than_the_list_of_who_has_access(hub: Hub, records: Records) -> None:
    domain = await new_domain(records)
    scope = {"type": "data_domain", "id": domain}
    (holder, _), (writer, client) = await somebody(hub, records), await somebody(hub, records)
    await give(hub, holder, (await hub.new_role(permissions=["data-sources:read"]))["id"], scope=scope)
    writing = await hub.new_role(permissions=["data-domains:read", "data-domains:write"])
    await give(hub, writer, writing["id"], scope=scope)
    path = f"/api/v1/data-domains/{domain}"
    assert (await client.get(f"{path}/access")).status_code == 403
    asked = await client.delete(path, params={"dry_run": "true"})
    assert asked.json() == {"gains": [], "loses": [], "users": 2, "truncated": True}
    seeing = await hub.new_role(permissions=["role-assignments:read"])
    await give(hub, writer, seeing["id"], scope=scope)
    asked = await client.delete(path, params={"dry_run": "true"})
    assert {line["user_id"] for line in asked.json()["loses"]} == {holder, writer}


async def test_moving_owning_and_deleting_a_domain_show_it(hub: Hub, records: Records) -> None:
    left, right = await new_domain(records), await new_domain(records)
    moved = await new_domain(records, left)
    users = {name: (await somebody(hub, records))[0] for name in ("left", "right", "both", "here", "owner")}
    role = await hub.new_role(permissions=["data-sources:read"])
    owner = await hub.new_role()
    for name, place in (("left", left), ("right", right), ("both", left), ("both", right), ("here", moved)):
        await give(hub, users[name], role["id"], scope={"type": "data_domain", "id": place})
    await give(hub, users["owner"], owner["id"])
    path, reading = f"/api/v1/data-domains/{moved}", ("data-sources:read",)
    found = await dry(hub, records, "PATCH", path, {"parent_id": right})
    assert lines(found["gains"]) == {(users["right"], reading, moved)}
    assert lines(found["loses"]) == {(users["left"], reading, moved)}
    found = await dry(hub, records, "PATCH", path, {"parent_id": None})
    assert lines(found["loses"]) == {(users[name], reading, moved) for name in ("left", "both")}
    found = await dry(hub, records, "PATCH", path, {"owner_role_id": owner["id"]})
    assert (lines(found["gains"]), found["loses"]) == ({(users["owner"], tuple(sorted(OWNER_BRINGS)), moved)}, [])
    assert (await dry(hub, records, "PATCH", path, {"description": "x"}))["users"] == 0
    found = await dry(hub, records, "DELETE", path)
    assert (found["gains"], lines(found["loses"])) == ([], {(users["here"], reading, moved)})
