"""Asking for a role: who may, who decides, and that one decision wins."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.domain.upkeep.services import remove_due
from tests.conftest import Hub
from tests.domain.conftest import Records, new_user, open_session
from tests.domain.rights import new_domain
from tests.domain.test_role_assignments import give, new_source

pytestmark = pytest.mark.anyio

REQUESTS = "/api/v1/role-requests"
ROLES = "/api/v1/roles"
ADMIN_ROLE = "00000000-0000-7000-8000-000000000101"
PUBLIC_ROLE = "00000000-0000-7000-8000-000000000102"
WHY = "For the audit of the first half year."


class People:
    """Somebody who asks, roles to ask for, and those who decide."""

    def __init__(self, hub: Hub, records: Records) -> None:
        self._hub = hub
        self._records = records

    async def somebody(self, *role_ids: str, **given: Any) -> tuple[str, httpx.AsyncClient]:
        """The id and the client of a new user who holds these roles."""
        email = await new_user(self._hub, self._records)
        user = await self._records.one("SELECT id::text FROM users WHERE email = $1", email)
        for role_id in role_ids:
            await give(self._hub, user, role_id, **given)
        return user, await open_session(self._hub, self._records, email)

    async def role(self, *approver_roles: str, permissions: Iterable[str] = ("jobs:read",), **given: Any) -> str:
        role = await self._hub.new_role(permissions=list(permissions), **{"is_requestable": True, **given})
        if approver_roles:
            put = await self._hub.admin.put(f"{ROLES}/{role['id']}/approver-roles", json=list(approver_roles))
            assert put.status_code == 200, put.text
        return str(role["id"])

    async def approver_role(self, *permissions: str) -> str:
        """One whose holders may decide on requests for `role`."""
        return str((await self._hub.new_role(permissions=list(permissions or ("jobs:read",))))["id"])


@pytest.fixture
def people(hub: Hub, records: Records) -> People:
    return People(hub, records)


def moment(after: timedelta) -> str:
    return (datetime.now(UTC) + after).isoformat().replace("+00:00", "Z")


async def asked(client: httpx.AsyncClient, role: str, **given: Any) -> dict[str, Any]:
    made = await client.post(REQUESTS, json={"role_id": role, "justification": WHY, **given})
    assert made.status_code == 201, made.text
    return dict(made.json())


async def refused(client: httpx.AsyncClient, role: str, **given: Any) -> tuple[int, str]:
    answer = await client.post(REQUESTS, json={"role_id": role, "justification": WHY, **given})
    return answer.status_code, answer.json()["code"]


async def decided(client: httpx.AsyncClient, request: dict[str, Any], how: str = "approve") -> tuple[int, str]:
    """The status, and the state or the code of the refusal."""
    answer = await client.post(f"{REQUESTS}/{request['id']}/{how}")
    body = answer.json()
    return answer.status_code, body["status"] if answer.status_code == 200 else body["code"]


async def shown(client: httpx.AsyncClient, request: dict[str, Any]) -> dict[str, Any]:
    answer = await client.get(f"{REQUESTS}/{request['id']}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def listed(client: httpx.AsyncClient, **asked: str) -> list[str]:
    answer = await client.get(REQUESTS, params={"limit": "200", "count": "exact", **asked})
    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] == len(answer.json()["items"])
    return [item["id"] for item in answer.json()["items"]]


async def timeline(client: httpx.AsyncClient, request: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await client.get(f"{REQUESTS}/{request['id']}/timeline")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def permissions_of(client: httpx.AsyncClient) -> list[str]:
    return list((await client.get("/api/v1/auth/me")).json()["permissions"])


# --- asking ---


async def test_what_is_asked_for_is_shown_and_waits_for_who_decides(people: People, hub: Hub) -> None:
    approvers = await people.approver_role()
    await people.somebody(approvers)
    user, client = await people.somebody()
    role = await people.role(approvers)
    made = await client.post(REQUESTS, json={"role_id": role, "justification": WHY})
    request = made.json()
    assert made.headers["location"] == f"{REQUESTS}/{request['id']}"
    assert (request["user_id"], request["role_id"], request["status"]) == (user, role, "pending")
    assert request["scope"] == {"type": "tenant", "id": None}
    assert request["awaits"] == [approvers]
    read = await client.get(made.headers["location"])
    assert (read.json(), read.headers["etag"]) == (request, made.headers["etag"])
    days = datetime.fromisoformat(request["pending_until"]) - datetime.fromisoformat(request["created_at"])
    assert timedelta(days=13, hours=23) < days < timedelta(days=14, hours=1)


async def test_a_key_neither_asks_nor_decides(people: People, hub: Hub) -> None:
    _, client = await people.somebody()
    role = await people.role()
    request = await asked(client, role)
    made = await hub.admin.post("/api/v1/api-keys", json={"name": uuid4().hex})
    key = hub.client(made.json()["key"])
    assert await refused(key, role) == (403, "session_required")
    for how in ("approve", "deny", "cancel", "revoke"):
        assert await decided(key, request, how) == (403, "session_required")
    assert (await key.get(f"{REQUESTS}/{request['id']}")).status_code == 200


async def test_a_role_that_may_not_be_asked_for_is_like_none(people: People) -> None:
    _, client = await people.somebody()
    role = await people.role(is_requestable=False)
    answers = [
        await client.post(REQUESTS, json={"role_id": each, "justification": WHY}) for each in (role, str(uuid4()))
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    bodies = [answer.json() | {"request_id": ""} for answer in answers]
    assert bodies[0] == bodies[1]


async def test_built_in_roles_have_codes_of_their_own(people: People, hub: Hub) -> None:
    _, client = await people.somebody()
    assert await refused(client, PUBLIC_ROLE) == (409, "role_is_public")
    assert await refused(client, ADMIN_ROLE) == (409, "admin_not_requestable")
    await hub.admin.patch("/api/v1/tenant-settings", json={"is_admin_requestable": True})
    request = await asked(client, ADMIN_ROLE)
    assert request["awaits"] == [ADMIN_ROLE]
    domain = await new_domain(hub)
    assert (await refused(client, ADMIN_ROLE, scope={"type": "data_domain", "id": domain["id"]}))[0] == 400
    assert await decided(hub.admin, request) == (200, "approved")
    await hub.admin.patch("/api/v1/tenant-settings", json={"is_admin_requestable": False})


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"scope": {"type": "data_source", "id": str(uuid4())}}, "scope.id"),
        ({"scope": {"type": "data_domain", "id": str(uuid4())}}, "scope.id"),
        ({"scope": {"type": "tenant", "id": str(uuid4())}}, "scope.id"),
        ({"scope": {"type": "data_source"}}, "scope.id"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"renews": str(uuid4())}, "renews"),
        ({"justification": ""}, "justification"),
        ({"justification": "  "}, "justification"),
        ({"user_id": str(uuid4())}, "user_id"),
    ],
)
async def test_what_does_not_fit_is_named(people: People, given: dict[str, Any], path: str) -> None:
    _, client = await people.somebody()
    role = await people.role()
    answer = await client.post(REQUESTS, json={"role_id": role, "justification": WHY, **given})
    assert answer.status_code == 400
    assert path in [fault["path"] for fault in answer.json()["errors"]]


async def test_what_is_held_at_a_scope_that_covers_it_is_not_asked_for(people: People, hub: Hub) -> None:
    role = await people.role()
    top = await new_domain(hub)
    below = await new_domain(hub, parent_id=top["id"])
    source = await new_source(hub)
    await hub.admin.patch(f"/api/v1/data-sources/{source}", json={"data_domain_id": below["id"]})
    scopes = [{"type": "data_domain", "id": below["id"]}, {"type": "data_source", "id": source}]
    _, client = await people.somebody(role, scope={"type": "data_domain", "id": top["id"]})
    for scope in scopes:
        assert await refused(client, role, scope=scope) == (409, "already_assigned")
    await asked(client, role)
    _, other = await people.somebody(role)
    for scope in scopes:
        assert await refused(other, role, scope=scope) == (409, "already_assigned")
    _, third = await people.somebody(role, scope=scopes[1])
    await asked(third, role, scope=scopes[0])


async def test_a_twin_is_refused_until_the_first_is_decided(people: People) -> None:
    _, client = await people.somebody()
    role = await people.role()
    first = await asked(client, role)
    assert await refused(client, role) == (409, "request_pending")
    assert await decided(client, first, "cancel") == (200, "cancelled")
    await asked(client, role)


async def test_where_nobody_could_decide_nothing_is_asked(people: People, records: Records) -> None:
    approvers, others = await people.approver_role(), await people.approver_role()
    _, client = await people.somebody(approvers)
    role = await people.role(approvers)
    assert await refused(client, role) == (409, "no_eligible_approver")
    weak = await people.approver_role("users:read")
    await people.somebody(weak)
    assert await refused(client, await people.role(weak)) == (409, "no_eligible_approver")
    await people.somebody(approvers, others)
    assert await refused(client, await people.role(approvers, others)) == (409, "no_eligible_approver")
    await people.somebody(others)
    await asked(client, await people.role(approvers, others))


# --- who decides ---


async def test_one_of_each_approver_role_has_to_approve(people: People, hub: Hub) -> None:
    one, other = await people.approver_role(), await people.approver_role()
    (_, ann), (_, bob), (_, eve) = [await people.somebody(role) for role in (one, other, one)]
    user, client = await people.somebody()
    role = await people.role(one, other, permissions=["jobs:read"])
    request = await asked(client, role)
    assert await decided(ann, request) == (200, "pending")
    assert (await shown(client, request))["awaits"] == [other]
    assert await decided(ann, request) == (409, "already_approved")
    assert await decided(eve, request) == (409, "approval_not_needed")
    assert await permissions_of(client) == []
    assert await decided(bob, request) == (200, "approved")
    assert await permissions_of(client) == ["jobs:read"]
    assert await decided(eve, request) == (409, "request_decided")
    given = (await hub.admin.get(f"/api/v1/role-assignments/{(await shown(client, request))['assignment_id']}")).json()
    assert given["via"] == {"type": "request", "id": request["id"]}
    assert (given["subject"]["id"], given["role_id"]) == (user, role)


@pytest.mark.parametrize("order", ["versatile first", "versatile last"])
async def test_who_holds_two_approver_roles_fills_the_one_that_completes(people: People, order: str) -> None:
    one, other = sorted([await people.approver_role(), await people.approver_role()])
    _, versatile = await people.somebody(one, other)
    _, plain = await people.somebody(one)
    _, client = await people.somebody()
    request = await asked(client, await people.role(one, other))
    first, second = (versatile, plain) if order == "versatile first" else (plain, versatile)
    assert await decided(first, request) == (200, "pending")
    assert await decided(second, request) == (200, "approved")


async def test_without_approver_roles_the_nearest_owner_role_decides_and_then_admins(people: People, hub: Hub) -> None:
    far, near = await people.approver_role(), await people.approver_role()
    (_, ann), (_, bob) = await people.somebody(far), await people.somebody(near)
    top = await new_domain(hub, owner_role_id=far)
    below = await new_domain(hub, parent_id=top["id"], owner_role_id=near)
    role = await people.role()
    for domain, awaits, decider, other in ((below, near, bob, ann), (top, far, ann, bob)):
        _, client = await people.somebody()
        request = await asked(client, role, scope={"type": "data_domain", "id": domain["id"]})
        assert request["awaits"] == [awaits]
        assert (await decided(other, request))[0] == 404
        assert await decided(decider, request) == (200, "approved")
    _, client = await people.somebody()
    request = await asked(client, role)
    assert request["awaits"] == [ADMIN_ROLE]
    assert (await decided(ann, request))[0] == 404
    assert await decided(hub.admin, request) == (200, "approved")


async def test_an_owner_role_of_which_nobody_could_decide_is_passed_over(people: People, hub: Hub) -> None:
    far, near = await people.approver_role(), await people.approver_role()
    await people.somebody(far)
    _, client = await people.somebody(near)
    top = await new_domain(hub, owner_role_id=far)
    below = await new_domain(hub, parent_id=top["id"], owner_role_id=near)
    request = await asked(client, await people.role(), scope={"type": "data_domain", "id": below["id"]})
    assert request["awaits"] == [far]


async def test_an_approver_holds_the_role_and_its_permissions_at_that_scope(people: People, hub: Hub) -> None:
    approvers = await people.approver_role()
    here, there = await new_domain(hub), await new_domain(hub)
    scope = {"type": "data_domain", "id": here["id"]}
    _, right = await people.somebody(approvers, scope=scope)
    _, elsewhere = await people.somebody(approvers, scope={"type": "data_domain", "id": there["id"]})
    _, client = await people.somebody()
    request = await asked(client, await people.role(approvers), scope=scope)
    assert (await decided(elsewhere, request))[0] == 404
    assert await decided(right, request) == (200, "approved")
    weak = await people.approver_role("users:read")
    _, lacking = await people.somebody(weak)
    strong = await people.approver_role("jobs:read")
    await people.somebody(weak, strong)
    request = await asked(client, await people.role(weak), scope={"type": "data_domain", "id": there["id"]})
    assert (await decided(lacking, request))[0] == 404


async def test_who_lets_others_own_could_own_or_owns(people: People, hub: Hub) -> None:
    owners = await people.role()
    approvers = await people.approver_role()
    await new_domain(hub, owner_role_id=owners)
    await hub.admin.put(f"{ROLES}/{owners}/approver-roles", json=[approvers])
    _, lacking = await people.somebody(approvers)
    _, client = await people.somebody()
    assert await refused(client, owners) == (409, "no_eligible_approver")
    _, owner = await people.somebody(approvers, owners)
    request = await asked(client, owners)
    assert (await decided(lacking, request))[0] == 404
    assert await decided(owner, request) == (200, "approved")


async def test_members_of_a_group_decide_as_holders_of_its_roles(people: People, hub: Hub) -> None:
    approvers = await people.approver_role()
    user, decider = await people.somebody()
    group = (await hub.admin.post("/api/v1/groups", json={"name": uuid4().hex})).json()
    await hub.admin.put(f"/api/v1/groups/{group['id']}/members/{user}")
    subject = {"type": "group", "id": group["id"]}
    given = await hub.admin.post("/api/v1/role-assignments", json={"subject": subject, "role_id": approvers})
    assert given.status_code == 201, given.text
    _, client = await people.somebody()
    request = await asked(client, await people.role(approvers))
    assert await listed(decider, to_decide="true") == [request["id"]]
    assert await decided(decider, request) == (200, "approved")


async def test_nobody_decides_on_their_own_request(people: People, hub: Hub) -> None:
    approvers = await people.approver_role()
    await people.somebody(approvers)
    _, client = await people.somebody(approvers)
    request = await asked(client, await people.role(approvers))
    for how in ("approve", "deny", "revoke"):
        assert await decided(client, request, how) == (403, "own_request")
    assert await listed(client, to_decide="true") == []
    assert (await shown(client, request))["status"] == "pending"


async def test_who_sees_a_request_and_may_not_decide_is_forbidden_and_others_see_none(people: People, hub: Hub) -> None:
    _, client = await people.somebody()
    request = await asked(client, await people.role())
    reader = await hub.user_with("role-requests:read")
    stranger = await hub.user_with()
    for how in ("approve", "deny", "revoke"):
        assert await decided(reader, request, how) == (403, "not_an_approver")
        assert (await decided(stranger, request, how))[0] == 404
    assert await decided(reader, request, "cancel") == (403, "not_your_request")
    for path in ("", "/timeline"):
        assert (await reader.get(f"{REQUESTS}/{request['id']}{path}")).status_code == 200
        hidden = await stranger.get(f"{REQUESTS}/{request['id']}{path}")
        absent = await stranger.get(f"{REQUESTS}/{uuid4()}{path}")
        assert hidden.status_code == absent.status_code == 404
        assert hidden.json() | {"request_id": ""} == absent.json() | {"request_id": ""}


async def test_one_denial_is_enough(people: People) -> None:
    one, other = await people.approver_role(), await people.approver_role()
    (_, ann), (_, bob) = await people.somebody(one), await people.somebody(other)
    _, client = await people.somebody()
    request = await asked(client, await people.role(one, other))
    assert await decided(ann, request) == (200, "pending")
    denied = await bob.post(f"{REQUESTS}/{request['id']}/deny", json={"reason": "Not this year."})
    assert (denied.json()["status"], denied.json()["awaits"]) == ("denied", [])
    for how in ("approve", "deny"):
        assert await decided(bob, request, how) == (409, "request_decided")
    assert await decided(client, request, "cancel") == (409, "request_decided")
    assert await permissions_of(client) == []
    assert [entry["kind"] for entry in await timeline(client, request)] == ["created", "approved", "denied"]
    assert (await timeline(client, request))[-1]["text"] == "Not this year."


# --- what comes of it ---


async def test_grant_audit_and_event_are_of_one_transaction(people: People, hub: Hub, records: Records) -> None:
    approvers = await people.approver_role()
    approver, decider = await people.somebody(approvers)
    _, client = await people.somebody()
    request = await asked(client, await people.role(approvers))
    _, before = await records.mark()
    answer = await decider.post(f"{REQUESTS}/{request['id']}/approve", json={"reason": "Fine."})
    rows = await records.audit(answer)
    assert [row["action"] for row in rows] == ["role_assignment.create", "role_request.approve"]
    assert {str(row["actor_id"]) for row in rows} == {approver}
    events = [event["type"].removeprefix("org.datafusionhub.") for event in await records.events(before)]
    assert events == ["role_assignment.created", "role_request.approved"]


async def test_a_grant_that_cannot_be_made_leaves_the_request_as_it_was(people: People, hub: Hub) -> None:
    user, client = await people.somebody()
    role = await people.role()
    request = await asked(client, role)
    await give(hub, user, role)
    assert await decided(hub.admin, request) == (409, "already_assigned")
    assert (await shown(client, request))["status"] == "pending"
    assert [entry["kind"] for entry in await timeline(client, request)] == ["created"]


async def test_a_right_for_a_time_ends_at_its_time(people: People, hub: Hub) -> None:
    _, client = await people.somebody()
    ends_at = moment(timedelta(hours=1))
    request = await asked(client, await people.role(), expires_at=ends_at)
    assert request["pending_until"] == ends_at
    assert await decided(hub.admin, request) == (200, "approved")
    given = await hub.admin.get(f"/api/v1/role-assignments/{(await shown(client, request))['assignment_id']}")
    assert given.json()["expires_at"] == ends_at


async def test_a_revoked_request_takes_back_what_it_gave(people: People, hub: Hub) -> None:
    approvers = await people.approver_role()
    _, decider = await people.somebody(approvers)
    _, client = await people.somebody()
    request = await asked(client, await people.role(approvers))
    assert await decided(decider, request, "revoke") == (409, "request_not_approved")
    assert await decided(decider, request) == (200, "approved")
    assert await permissions_of(client) == ["jobs:read"]
    assert await decided(decider, request, "revoke") == (200, "revoked")
    assert await permissions_of(client) == []
    assert await decided(decider, request, "revoke") == (409, "request_not_approved")
    assert await decided(decider, request) == (409, "request_decided")
    kinds = [entry["kind"] for entry in await timeline(client, request)]
    assert kinds == ["created", "approved", "revoked"]


async def test_what_was_ended_otherwise_is_not_revoked(people: People, hub: Hub) -> None:
    _, client = await people.somebody()
    request = await asked(client, await people.role())
    await decided(hub.admin, request)
    assignment = (await shown(client, request))["assignment_id"]
    assert (await hub.admin.delete(f"/api/v1/role-assignments/{assignment}")).status_code == 204
    assert await decided(hub.admin, request, "revoke") == (409, "assignment_ended")


async def test_a_renewal_comes_in_the_place_of_what_it_names(people: People, hub: Hub) -> None:
    role = await people.role()
    soon, later = moment(timedelta(hours=1)), moment(timedelta(days=30))
    user, client = await people.somebody()
    first = await give(hub, user, role, expires_at=soon)
    assert await refused(client, role, expires_at=later) == (409, "already_assigned")
    assert (await refused(client, role, renews=first["id"], expires_at=moment(timedelta(minutes=9))))[0] == 400
    _, other = await people.somebody()
    assert (await refused(other, role, renews=first["id"]))[0] == 400
    request = await asked(client, role, renews=first["id"], expires_at=later)
    assert await decided(hub.admin, request) == (200, "approved")
    second = (await shown(client, request))["assignment_id"]
    ended = (await hub.admin.get(f"/api/v1/role-assignments/{first['id']}")).json()
    assert ended["ended_at"] is not None
    assert (await hub.admin.get(f"/api/v1/role-assignments/{second}")).json()["expires_at"] == later
    assert await permissions_of(client) == ["jobs:read"]
    endless = await give(hub, (await people.somebody())[0], role)
    assert (await refused(client, role, renews=endless["id"]))[0] == 400


@pytest.mark.parametrize("end", [None, timedelta(days=60)])
async def test_a_renewal_shortens_nothing_that_was_prolonged_meanwhile(
    people: People, hub: Hub, end: timedelta | None
) -> None:
    role, (user, client) = await people.role(), await people.somebody()
    held = await give(hub, user, role, expires_at=moment(timedelta(hours=1)))
    request = await asked(client, role, renews=held["id"], expires_at=moment(timedelta(days=30)))
    path = f"/api/v1/role-assignments/{held['id']}"
    prolonged = await hub.admin.patch(path, json={"expires_at": None if end is None else moment(end)})
    assert prolonged.status_code == 200, prolonged.text
    assert await decided(hub.admin, request) == (409, "already_assigned")
    assert (await hub.admin.get(path)).json() == prolonged.json()
    assert (await shown(client, request))["status"] == "pending"


async def test_what_has_no_end_is_not_renewed(people: People, hub: Hub) -> None:
    role = await people.role()
    user, client = await people.somebody()
    held = await give(hub, user, role)
    assert await refused(client, role, renews=held["id"]) == (409, "already_assigned")


# --- lists ---


async def test_lists_show_ones_own_those_to_decide_and_with_the_permission_all(people: People, hub: Hub) -> None:
    approvers = await people.approver_role()
    approver, decider = await people.somebody(approvers)
    (user, client), (_, other) = await people.somebody(), await people.somebody()
    role = await people.role(approvers)
    mine, theirs = await asked(client, role), await asked(other, role)
    assert await listed(client) == await listed(client, mine="true") == [mine["id"]]
    assert await listed(client, mine="false") == [mine["id"]]
    assert await listed(client, user_id=approver) == []
    assert (await client.get(REQUESTS, params={"mine": "perhaps"})).status_code == 400
    assert await listed(decider) == []
    assert await listed(decider, to_decide="true") == [theirs["id"], mine["id"]]
    assert await listed(decider, to_decide="true", role_id=role, user_id=user) == [mine["id"]]
    assert await listed(hub.admin, role_id=role) == [theirs["id"], mine["id"]]
    await decided(decider, mine)
    assert await listed(decider, to_decide="true") == [theirs["id"]]
    assert await listed(client, status="approved") == [mine["id"]]
    assert await listed(client, status="pending") == []
    assert await listed(hub.admin, role_id=role, status="pending") == [theirs["id"]]
    page = (await client.get(REQUESTS, params={"limit": 1})).json()
    assert page["next_cursor"] is None


async def test_pages_of_ones_own_go_on(people: People) -> None:
    _, client = await people.somebody()
    made = [(await asked(client, await people.role()))["id"] for _ in range(3)]
    first = (await client.get(REQUESTS, params={"limit": 2})).json()
    second = (await client.get(REQUESTS, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]


async def test_comments_stand_in_the_timeline(people: People, hub: Hub) -> None:
    _, client = await people.somebody()
    request = await asked(client, await people.role())
    said = await client.post(f"{REQUESTS}/{request['id']}/comments", json={"text": "It is urgent."})
    assert (said.status_code, said.json()["kind"], said.json()["text"]) == (201, "commented", "It is urgent.")
    await hub.admin.post(f"{REQUESTS}/{request['id']}/comments", json={"text": "Until when?"})
    entries = await timeline(client, request)
    assert [entry["text"] for entry in entries] == [WHY, "It is urgent.", "Until when?"]
    stranger = await hub.user_with()
    hidden = await stranger.post(f"{REQUESTS}/{request['id']}/comments", json={"text": "x"})
    assert hidden.status_code == 404


# --- time ---


async def over(records: Records, request: dict[str, Any]) -> None:
    await records.run(
        "UPDATE role_requests SET pending_until = now() - interval '1 second' WHERE id = $1::uuid", request["id"]
    )


async def test_an_undecided_request_expires_at_its_moment(people: People, hub: Hub, records: Records) -> None:
    _, client = await people.somebody()
    role = await people.role()
    request = await asked(client, role)
    tag = (await client.get(f"{REQUESTS}/{request['id']}")).headers["etag"]
    await over(records, request)
    found = await client.get(f"{REQUESTS}/{request['id']}")
    assert (found.json()["status"], found.json()["awaits"]) == ("expired", [])
    assert found.headers["etag"] != tag
    assert await listed(client, status="pending") == []
    assert await listed(client, status="expired") == [request["id"]]
    assert await listed(hub.admin, to_decide="true", role_id=role) == []
    for how in ("approve", "deny"):
        assert await decided(hub.admin, request, how) == (409, "request_decided")
    assert await decided(client, request, "cancel") == (409, "request_decided")
    before = await shown(client, request)
    _, events = await records.mark()
    await remove_due(hub.parts, datetime.now(UTC))
    assert await shown(client, request) == before
    assert await listed(client, status="expired") == [request["id"]]
    assert await records.one("SELECT status FROM role_requests WHERE id = $1::uuid", request["id"]) == "expired"
    assert [entry["kind"] for entry in await timeline(client, request)] == ["created", "expired"]
    types = [event["type"] for event in await records.events(events) if request["id"] in event["subject"]]
    assert types == ["org.datafusionhub.role_request.expired"]


async def test_an_expired_one_makes_room_for_the_next_at_once(people: People, records: Records) -> None:
    _, client = await people.somebody()
    role = await people.role()
    request = await asked(client, role)
    await over(records, request)
    await asked(client, role)
    assert [entry["actor_id"] for entry in await timeline(client, request)][-1] is None


# --- what goes meanwhile ---


async def test_requests_of_a_deleted_user_are_cancelled(people: People, hub: Hub) -> None:
    user, client = await people.somebody()
    request = await asked(client, await people.role())
    assert (await hub.admin.delete(f"/api/v1/users/{user}")).status_code == 204
    assert (await shown(hub.admin, request))["status"] == "cancelled"
    assert (await timeline(hub.admin, request))[-1]["text"] == "The user was deleted."


async def test_requests_for_a_deleted_role_are_cancelled(people: People, hub: Hub) -> None:
    _, client = await people.somebody()
    role = await people.role()
    request = await asked(client, role)
    assert (await hub.admin.delete(f"{ROLES}/{role}")).status_code == 204
    assert (await shown(client, request))["status"] == "cancelled"
    assert (await timeline(client, request))[-1]["text"] == "The role was deleted."


async def test_requests_for_a_deleted_scope_are_cancelled(people: People, hub: Hub) -> None:
    _, client = await people.somebody()
    domain, source, role = await new_domain(hub), await new_source(hub), await people.role()
    for scope, path in (
        ({"type": "data_domain", "id": domain["id"]}, f"/api/v1/data-domains/{domain['id']}"),
        ({"type": "data_source", "id": source}, f"/api/v1/data-sources/{source}"),
    ):
        request = await asked(client, role, scope=scope)
        assert (await hub.admin.delete(path)).status_code == 204
        assert (await shown(client, request))["status"] == "cancelled"


async def test_with_other_approver_roles_requests_begin_anew(people: People, hub: Hub) -> None:
    one, other = await people.approver_role(), await people.approver_role()
    (_, ann), (_, bob) = await people.somebody(one), await people.somebody(other)
    _, client = await people.somebody()
    role = await people.role(one, other)
    request = await asked(client, role)
    assert await decided(ann, request) == (200, "pending")
    await hub.admin.put(f"{ROLES}/{role}/approver-roles", json=[other])
    assert (await shown(client, request))["awaits"] == [other]
    assert [entry["is_void"] for entry in await timeline(client, request)] == [False, True, False]
    assert await decided(bob, request) == (200, "approved")


async def test_a_deleted_approver_role_is_waited_for_no_more(people: People, hub: Hub) -> None:
    one, other = await people.approver_role(), await people.approver_role()
    await people.somebody(one)
    _, bob = await people.somebody(other)
    _, client = await people.somebody()
    request = await asked(client, await people.role(one, other))
    assert (await hub.admin.delete(f"{ROLES}/{one}")).status_code == 204
    assert (await shown(client, request))["awaits"] == [other]
    assert (await hub.admin.delete(f"{ROLES}/{other}")).status_code == 204
    assert (await shown(client, request))["awaits"] == [ADMIN_ROLE]
    assert await decided(hub.admin, request) == (200, "approved")
    assert await decided(bob, request) in ((404, "not_found"), (403, "not_an_approver"))


async def test_a_role_that_brings_more_now_is_approved_anew(people: People, hub: Hub) -> None:
    one, other = await people.approver_role(), await people.approver_role("jobs:read", "users:read")
    (_, ann), _ = await people.somebody(one), await people.somebody(other)
    _, client = await people.somebody()
    role = await people.role(one, other)
    request = await asked(client, role)
    assert await decided(ann, request) == (200, "pending")
    await hub.admin.patch(f"{ROLES}/{role}", json={"permissions": ["jobs:read", "users:read"]})
    assert (await shown(client, request))["awaits"] == sorted([one, other])
    assert await decided(ann, request) == (403, "not_an_approver")


@pytest.mark.parametrize("how", ["disabled", "lost the role", "deleted"])
async def test_with_who_gave_it_an_approval_falls(people: People, hub: Hub, how: str) -> None:
    """An account that was taken over, say, and closed when that was seen: what it approved counts no more."""
    one, other = await people.approver_role(), await people.approver_role()
    ann_id, ann = await people.somebody(one)
    (_, eve), (_, bob) = await people.somebody(one), await people.somebody(other)
    _, client = await people.somebody()
    request = await asked(client, await people.role(one, other))
    assert await decided(ann, request) == (200, "pending")
    if how == "disabled":
        gone = await hub.admin.patch(f"/api/v1/users/{ann_id}", json={"is_active": False})
    elif how == "deleted":
        gone = await hub.admin.delete(f"/api/v1/users/{ann_id}")
    else:
        gone = await hub.admin.delete(f"/api/v1/users/{ann_id}/roles/{one}")
    assert gone.is_success, gone.text
    assert await decided(bob, request) == (200, "pending")
    assert (await shown(client, request))["awaits"] == [one]
    assert await permissions_of(client) == []
    assert await decided(eve, request) == (200, "approved")
    voided = [entry["is_void"] for entry in await timeline(client, request) if entry["kind"] == "approved"]
    assert voided == [True, False, False]


# --- in somebody's place ---


DELEGATIONS = "/api/v1/delegations"


async def delegated(giver: httpx.AsyncClient, to_user: str, **times: str) -> dict[str, Any]:
    body = {"to_user_id": to_user, "ends_at": moment(timedelta(days=1)), **times}
    made = await giver.post(DELEGATIONS, json=body)
    assert made.status_code == 201, made.text
    return dict(made.json())


async def test_decisions_go_to_somebody_else_and_both_are_named(people: People, hub: Hub, records: Records) -> None:
    approvers = await people.approver_role()
    (away, giver), (stand_in, decider) = await people.somebody(approvers), await people.somebody()
    _, client = await people.somebody()
    request = await asked(client, await people.role(approvers))
    assert (await decided(decider, request))[0] == 404
    await delegated(giver, stand_in)
    assert await listed(decider, to_decide="true") == [request["id"]]
    answer = await decider.post(f"{REQUESTS}/{request['id']}/approve")
    assert answer.json()["status"] == "approved"
    row = (await records.audit(answer))[-1]
    assert (str(row["actor_id"]), row["after"]["on_behalf_of"]) == (stand_in, away)
    entry = (await timeline(client, request))[-1]
    assert (entry["actor_id"], entry["on_behalf_of"]) == (stand_in, away)


async def test_a_delegation_is_never_wider_than_its_giver(people: People, hub: Hub) -> None:
    approvers = await people.approver_role()
    (away, giver), (stand_in, decider) = await people.somebody(approvers), await people.somebody()
    third, further = await people.somebody()
    await delegated(giver, stand_in)
    await delegated(decider, third)
    _, client = await people.somebody()
    role = await people.role(approvers)
    request = await asked(client, role)
    assert (await decided(further, request))[0] == 404, "what one was given is not one's own to give"
    own = await giver.post(REQUESTS, json={"role_id": role, "justification": WHY})
    assert (own.status_code, own.json()["code"]) == (409, "no_eligible_approver")
    assert (await hub.admin.delete(f"/api/v1/users/{away}/roles/{approvers}")).status_code == 204
    assert (await decided(decider, request))[0] == 404
    assert await listed(decider, to_decide="true") == []


async def test_nobody_decides_on_their_own_request_by_another_hand(people: People, hub: Hub) -> None:
    approvers = await people.approver_role()
    (_, ann), (bob, bobs) = await people.somebody(approvers), await people.somebody()
    await people.somebody(approvers)
    await delegated(ann, bob)
    role = await people.role(approvers)
    anns, own = await asked(ann, role), await asked(bobs, role)
    assert (await decided(bobs, anns))[0] == 404
    assert await decided(bobs, own) == (403, "own_request")


async def test_one_hand_fills_one_slot_and_nobodys_approval_counts_twice(people: People) -> None:
    one, other = await people.approver_role(), await people.approver_role()
    (_, ann), (bob, bobs) = await people.somebody(one), await people.somebody(other)
    await delegated(ann, bob)
    _, client = await people.somebody()
    request = await asked(client, await people.role(one, other))
    assert await decided(bobs, request) == (200, "pending")
    assert await decided(bobs, request) == (409, "already_approved")
    assert await decided(ann, request) == (200, "approved")
    again = await asked(client, await people.role(one, one))
    assert await decided(bobs, again) == (200, "approved")


async def test_who_has_a_part_in_one_approval_has_none_in_another(people: People) -> None:
    """By their hand or by their right: else one approver and a friend of theirs would be two approvers."""
    one, other = await people.approver_role(), await people.approver_role()
    (ann, anns), (_, bobs) = await people.somebody(one), await people.somebody(other)
    friend, friends = await people.somebody()
    await delegated(anns, friend)
    await delegated(bobs, ann)
    _, client = await people.somebody()
    request = await asked(client, await people.role(one, other))
    assert await decided(friends, request) == (200, "pending")
    assert await decided(anns, request) == (409, "already_approved")
    assert (await anns.get(REQUESTS, params={"to_decide": "true"})).json()["items"] == []
    assert await decided(bobs, request) == (200, "approved")


async def test_the_right_of_who_has_approved_in_anothers_place_fills_no_second_slot(people: People, hub: Hub) -> None:
    one, other = await people.approver_role(), await people.approver_role()
    (_, anns), (bob, bobs), (friend, friends) = (
        await people.somebody(one),
        await people.somebody(),
        await people.somebody(),
    )
    await delegated(anns, bob)
    await delegated(bobs, friend)
    _, client = await people.somebody()
    _, third = await people.somebody(other)
    request = await asked(client, await people.role(one, other))
    assert await decided(bobs, request) == (200, "pending")
    await give(hub, bob, other)
    assert await decided(friends, request) == (409, "already_approved")
    assert (await friends.get(REQUESTS, params={"to_decide": "true"})).json()["items"] == []
    assert await decided(third, request) == (200, "approved")


@pytest.mark.parametrize("times", [("starts_at", timedelta(hours=1)), ("ends_at", timedelta(seconds=1))])
async def test_a_delegation_begins_and_ends_by_itself(people: People, times: tuple[str, timedelta]) -> None:
    approvers = await people.approver_role()
    (_, giver), (stand_in, decider) = await people.somebody(approvers), await people.somebody()
    await delegated(giver, stand_in, **{times[0]: moment(times[1])})
    _, client = await people.somebody()
    request = await asked(client, await people.role(approvers))
    if times[0] == "ends_at":
        await asyncio.sleep(1.1)
    assert (await decided(decider, request))[0] == 404


async def test_delegations_are_their_givers_and_receivers_own(people: People, hub: Hub, records: Records) -> None:
    (_, giver), (receiver, other) = await people.somebody(), await people.somebody()
    made = await giver.post(DELEGATIONS, json={"to_user_id": receiver, "ends_at": moment(timedelta(days=1))})
    path = made.headers["location"]
    assert [row["action"] for row in await records.audit(made)] == ["delegation.create"]
    assert (await other.get(DELEGATIONS)).json()["items"] == []
    assert (await other.get(DELEGATIONS, params={"received": "true"})).json()["items"] == [made.json()]
    assert (await giver.get(DELEGATIONS)).json()["items"] == [made.json()]
    assert (await other.get(path)).json() == made.json()
    stranger = await hub.user_with()
    assert (await stranger.get(path)).status_code == (await hub.admin.get(path)).status_code == 404
    assert (await stranger.delete(path)).status_code == 404
    deleted = await giver.delete(path)
    assert deleted.status_code == 204
    assert [row["action"] for row in await records.audit(deleted)] == ["delegation.delete"]
    assert (await giver.get(path)).status_code == 404


async def test_a_delegation_that_does_not_fit_is_refused(people: People) -> None:
    (user, client), (other, _) = await people.somebody(), await people.somebody()
    later, past = moment(timedelta(days=1)), "2020-01-01T00:00:00Z"
    for to_user, ends_at, path in (
        (user, later, "to_user_id"),
        (str(uuid4()), later, "to_user_id"),
        (other, past, "ends_at"),
    ):
        answer = await client.post(DELEGATIONS, json={"to_user_id": to_user, "ends_at": ends_at})
        assert (answer.status_code, [fault["path"] for fault in answer.json()["errors"]]) == (400, [path])


async def test_with_a_deleted_user_their_delegations_go(people: People, hub: Hub) -> None:
    (_, giver), (receiver, _) = await people.somebody(), await people.somebody()
    await delegated(giver, receiver)
    assert (await hub.admin.delete(f"/api/v1/users/{receiver}")).status_code == 204
    assert (await giver.get(DELEGATIONS)).json()["items"] == []


# --- races ---


async def test_of_fifty_approvals_at_once_one_gives_the_role(people: People, hub: Hub, records: Records) -> None:
    approvers = await people.approver_role()
    deciders = [(await people.somebody(approvers))[1] for _ in range(10)]
    user, client = await people.somebody()
    role = await people.role(approvers)
    request = await asked(client, role)
    answers = await asyncio.gather(*(decided(decider, request) for decider in deciders for _ in range(5)))
    assert answers.count((200, "approved")) == 1
    assert {answer for answer in answers if answer[0] != 200} == {(409, "request_decided")}
    given = await records.one(
        "SELECT count(*) FROM role_assignments WHERE role_id = $1::uuid AND subject_id = $2::uuid", role, user
    )
    assert given == 1
    assert [entry["kind"] for entry in await timeline(client, request)] == ["created", "approved"]


async def test_of_approve_deny_and_cancel_at_once_one_wins(people: People, records: Records) -> None:
    approvers = await people.approver_role()
    (_, ann), (_, bob) = await people.somebody(approvers), await people.somebody(approvers)
    role = await people.role(approvers)
    for _ in range(5):
        user, client = await people.somebody()
        request = await asked(client, role)
        calls = [(ann, "approve"), (bob, "deny"), (client, "cancel"), (bob, "approve"), (ann, "deny")]
        answers = await asyncio.gather(*(decided(who, request, how) for who, how in calls))
        won = [state for status, state in answers if status == 200]
        assert len(won) == 1
        assert {answer for answer in answers if answer[0] != 200} == {(409, "request_decided")}
        assert (await shown(client, request))["status"] == won[0]
        held = await records.one(
            "SELECT count(*) FROM role_assignments WHERE role_id = $1::uuid AND subject_id = $2::uuid", role, user
        )
        assert held == (1 if won == ["approved"] else 0)


async def test_of_requests_for_the_same_at_once_one_is_made(people: People) -> None:
    _, client = await people.somebody()
    role = await people.role()
    answers = await asyncio.gather(
        *(client.post(REQUESTS, json={"role_id": role, "justification": WHY}) for _ in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"request_pending"}


async def test_a_user_deleted_while_their_request_is_approved_holds_nothing(
    people: People, hub: Hub, records: Records
) -> None:
    for _ in range(5):
        user, client = await people.somebody()
        role = await people.role()
        request = await asked(client, role)
        answers = await asyncio.gather(
            decided(hub.admin, request), hub.admin.delete(f"/api/v1/users/{user}"), return_exceptions=True
        )
        assert not [answer for answer in answers if isinstance(answer, BaseException)]
        open_ones = "SELECT count(*) FROM role_assignments WHERE subject_id = $1::uuid AND ended_at IS NULL"
        assert await records.one(open_ones, user) == 0
        assert (await shown(hub.admin, request))["status"] in ("approved", "cancelled")
