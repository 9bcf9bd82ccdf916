"""Roles that ask for a second factor: what they bring is there with one, and nowhere without."""

from typing import Any

import httpx
import pytest

from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.factors import AUTH, Person
from tests.domain.sources import SOURCES, registered

pytestmark = pytest.mark.anyio
V1 = "/api/v1"


@pytest.fixture
async def ada(hub: Hub, records: Records) -> Person:
    return await (await Person.new(hub, records)).set_up_totp()


async def id_of(hub: Hub, person: Person) -> str:
    return str((await person.client.get(f"{AUTH}/me")).json()["user"]["id"])


async def role_with(hub: Hub, *permissions: str, **given: Any) -> str:
    role = await hub.new_role(permissions=list(permissions), requires_mfa=True, **given)
    assert role["requires_mfa"] is True
    return str(role["id"])


async def give(hub: Hub, subject: dict[str, str], role_id: str, **scope: Any) -> None:
    body = {"subject": subject, "role_id": role_id, **scope}
    given = await hub.admin.post(f"{V1}/role-assignments", json=body)
    assert given.status_code == 201, given.text


def refused(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.json().get("code")) == (403, "factor_required")


async def test_permissions_come_with_a_factor_and_a_step_up_brings_it(hub: Hub, ada: Person) -> None:
    role_id = await role_with(hub, "roles:read", "roles:write")
    await give(hub, {"type": "user", "id": await id_of(hub, ada)}, role_id)
    without = await ada.client.get(f"{V1}/roles")
    for answer in (
        without,
        await ada.client.get(f"{V1}/roles/{role_id}"),
        await ada.client.post(f"{V1}/roles", json={"name": "x"}),
        await ada.client.get(f"{V1}/roles/00000000-0000-7000-8000-00000000dead"),
    ):
        assert refused(answer), answer.text
        assert "/api/v1/auth/step-up" in answer.json()["detail"]
    assert "roles:read" not in (await ada.client.get(f"{AUTH}/me")).json()["permissions"]
    assert (await ada.client.get(f"{V1}/users")).json()["code"] == "permission_missing"
    done = await ada.client.post(f"{AUTH}/step-up", json={"method": "totp", "code": await ada.code()})
    assert done.status_code == 204
    assert (await ada.client.get(f"{V1}/roles")).status_code == 200
    assert "roles:read" in (await ada.client.get(f"{AUTH}/me")).json()["permissions"]


async def test_a_sign_in_with_a_factor_has_them_and_one_without_has_not(hub: Hub, ada: Person) -> None:
    role_id = await role_with(hub, "roles:read")
    await give(hub, {"type": "user", "id": await id_of(hub, ada)}, role_id)
    assert (await (await ada.sign_in()).get(f"{V1}/roles")).status_code == 200
    assert refused(await ada.client.get(f"{V1}/roles/{role_id}"))


async def test_what_another_role_brings_is_there_without(hub: Hub, ada: Person) -> None:
    user = {"type": "user", "id": await id_of(hub, ada)}
    await give(hub, user, await role_with(hub, "roles:read", "users:read"))
    await give(hub, user, str((await hub.new_role(permissions=["roles:read"]))["id"]))
    assert (await ada.client.get(f"{V1}/roles")).status_code == 200
    assert refused(await ada.client.get(f"{V1}/users"))


async def test_a_group_does_not_get_around_it(hub: Hub, ada: Person) -> None:
    group = (await hub.admin.post(f"{V1}/groups", json={"name": f"group of {ada.email}"})).json()["id"]
    await give(hub, {"type": "group", "id": group}, await role_with(hub, "users:read"))
    added = await hub.admin.put(f"{V1}/groups/{group}/members/{await id_of(hub, ada)}")
    assert added.is_success, added.text
    assert refused(await ada.client.get(f"{V1}/users"))
    assert (await (await ada.sign_in()).get(f"{V1}/users")).status_code == 200


async def test_an_owner_role_does_not_get_around_it(hub: Hub, ada: Person) -> None:
    role_id = await role_with(hub)
    source = await registered(hub, owner_role_id=role_id)
    other = await registered(hub)
    await give(hub, {"type": "user", "id": await id_of(hub, ada)}, role_id)
    assert refused(await ada.client.get(f"{SOURCES}/{source['id']}"))
    assert (await ada.client.get(f"{SOURCES}/{other['id']}")).status_code == 404
    listed = await ada.client.get(SOURCES)
    assert refused(listed), listed.text
    with_factor = await ada.sign_in()
    assert (await with_factor.get(f"{SOURCES}/{source['id']}")).status_code == 200
    assert (await with_factor.get(f"{SOURCES}/{other['id']}")).status_code == 404


async def test_a_scope_does_not_get_around_it(hub: Hub, ada: Person) -> None:
    source, other = await registered(hub), await registered(hub)
    scope = {"type": "data_source", "id": source["id"]}
    role_id = await role_with(hub, "data-sources:read", "data-sources:write")
    await give(hub, {"type": "user", "id": await id_of(hub, ada)}, role_id, scope=scope)
    assert refused(await ada.client.get(f"{SOURCES}/{source['id']}"))
    assert refused(await ada.client.patch(f"{SOURCES}/{source['id']}", json={"description": "x"}))
    assert (await ada.client.get(f"{SOURCES}/{other['id']}")).status_code == 404
    with_factor = await ada.sign_in()
    assert (await with_factor.get(f"{SOURCES}/{source['id']}")).status_code == 200


async def test_no_key_carries_a_factor(hub: Hub, ada: Person) -> None:
    role_id = await role_with(hub, "users:read")
    await give(hub, {"type": "user", "id": await id_of(hub, ada)}, role_id)
    made = await (await ada.sign_in()).post(f"{V1}/api-keys", json={"name": "of ada", "permissions": ["users:read"]})
    assert made.status_code == 201, made.text
    assert refused(await hub.client(made.json()["key"]).get(f"{V1}/users"))
    account = (await hub.admin.post(f"{V1}/service-accounts", json={"name": f"of {ada.email}"})).json()["id"]
    await give(hub, {"type": "service_account", "id": account}, role_id)
    key = {"name": "of the account", "owner": {"type": "service_account", "id": account}}
    made = await hub.admin.post(f"{V1}/api-keys", json=key)
    assert made.status_code == 201, made.text
    assert refused(await hub.client(made.json()["key"]).get(f"{V1}/users"))


async def test_checks_of_oneself_know_the_session_and_those_of_others_what_they_may_with_one(
    hub: Hub, ada: Person
) -> None:
    user_id = await id_of(hub, ada)
    await give(hub, {"type": "user", "id": user_id}, await role_with(hub, "users:read"))
    check = {"checks": [{"action": "users:read"}]}
    of_ada = {"checks": [{"action": "users:read", "user_id": user_id}]}
    assert (await ada.client.post(f"{V1}/authz/check", json=check)).json()["results"][0]["allowed"] is False
    assert (await (await ada.sign_in()).post(f"{V1}/authz/check", json=check)).json()["results"][0]["allowed"] is True
    assert (await hub.admin.post(f"{V1}/authz/check", json=of_ada)).json()["results"][0]["allowed"] is True


async def test_reasons_of_a_right_are_those_that_hold_in_the_session(hub: Hub, ada: Person) -> None:
    user = {"type": "user", "id": await id_of(hub, ada)}
    asks, asks_not = await role_with(hub, "users:read"), await hub.new_role(permissions=["users:read"])
    await give(hub, user, asks)
    await give(hub, user, str(asks_not["id"]))
    check = {"checks": [{"action": "users:read"}]}
    (found,) = (await ada.client.post(f"{V1}/authz/check", json=check)).json()["results"]
    assert [via["role_id"] for via in found["via"]] == [asks_not["id"]]


async def test_a_change_of_the_role_is_felt_within_a_second(hub: Hub, ada: Person) -> None:
    role = await hub.new_role(permissions=["users:read"])
    await give(hub, {"type": "user", "id": await id_of(hub, ada)}, str(role["id"]))
    assert (await ada.client.get(f"{V1}/users")).status_code == 200
    changed = await hub.admin.patch(f"{V1}/roles/{role['id']}", json={"requires_mfa": True})
    assert (changed.status_code, changed.json()["requires_mfa"]) == (200, True)
    assert refused(await ada.client.get(f"{V1}/users"))
    await hub.admin.patch(f"{V1}/roles/{role['id']}", json={"requires_mfa": False})
    assert (await ada.client.get(f"{V1}/users")).status_code == 200


async def test_built_in_roles_ask_for_nothing(hub: Hub) -> None:
    for name in ("admin", "public"):
        (role,) = (await hub.admin.get(f"{V1}/roles?name={name}")).json()["items"]
        assert role["requires_mfa"] is False
        answer = await hub.admin.patch(f"{V1}/roles/{role['id']}", json={"requires_mfa": True})
        assert (answer.status_code, answer.json()["code"]) == (409, "system_role")


async def test_nobody_gives_what_they_hold_only_with_a_factor(hub: Hub, ada: Person) -> None:
    """Neither now nor for later."""
    user_id = await id_of(hub, ada)
    user = {"type": "user", "id": user_id}
    await give(hub, user, await role_with(hub, "jobs:read"))
    writes = await hub.new_role(permissions=["role-assignments:read", "role-assignments:write", "users:read"])
    await give(hub, user, str(writes["id"]))
    target = await hub.new_role(permissions=["jobs:read"])
    body = {"subject": {"type": "user", "id": (await hub.new_user())["id"]}, "role_id": target["id"]}
    without = await ada.client.post(f"{V1}/role-assignments", json=body)
    assert (without.status_code, without.json()["code"]) == (403, "exceeds_own_permissions")
    assert (await (await ada.sign_in()).post(f"{V1}/role-assignments", json=body)).status_code == 201


async def test_a_rehearsal_tells_of_rights_as_they_are_with_a_factor(hub: Hub, ada: Person) -> None:
    """Who holds the role gains and loses by it, whether or not they show their factor at the moment."""
    user_id, role_id = await id_of(hub, ada), await role_with(hub, "users:read")
    body = {"subject": {"type": "user", "id": user_id}, "role_id": role_id}
    shown = await hub.admin.post(f"{V1}/role-assignments?dry_run=true", json=body)
    assert shown.status_code == 200, shown.text
    assert shown.json()["gains"] == [
        {"user_id": user_id, "permissions": ["users:read"], "scope": {"type": "tenant", "id": None}}
    ]
    await give(hub, body["subject"], role_id)  # type: ignore[arg-type]
    ended = await hub.admin.patch(f"{V1}/roles/{role_id}?dry_run=true", json={"permissions": []})
    assert [line["user_id"] for line in ended.json()["loses"]] == [user_id]
    flipped = await hub.admin.patch(f"{V1}/roles/{role_id}?dry_run=true", json={"requires_mfa": False})
    assert (flipped.json()["gains"], flipped.json()["loses"]) == ([], [])


async def test_a_refusal_is_on_record(hub: Hub, ada: Person, records: Records) -> None:
    await give(hub, {"type": "user", "id": await id_of(hub, ada)}, await role_with(hub, "users:read"))
    (row,) = await records.audit(await ada.client.get(f"{V1}/users"))
    assert (row["outcome"], row["detail"]) == ("refused", "factor_required")


async def test_an_approver_decides_with_a_factor(hub: Hub, ada: Person) -> None:
    approvers = await role_with(hub)
    await give(hub, {"type": "user", "id": await id_of(hub, ada)}, approvers)
    wanted = await hub.new_role(is_requestable=True)
    await hub.admin.put(f"{V1}/roles/{wanted['id']}/approver-roles", json=[approvers])
    asker = await hub.user_with()
    asked = await asker.post(f"{V1}/role-requests", json={"role_id": wanted["id"], "justification": "For the audit."})
    assert asked.status_code == 201, asked.text
    place = f"{V1}/role-requests/{asked.json()['id']}/approve"
    assert refused(await ada.client.post(place))
    assert (await (await ada.sign_in()).post(place)).status_code == 200


async def test_what_one_may_decide_with_a_factor_is_given_to_nobody_without_one(hub: Hub, ada: Person) -> None:
    """Else whoever knows the password, and has an account with a factor of their own, decides by it."""
    other = await hub.new_user()
    body = {"to_user_id": other["id"], "ends_at": "2999-01-01T00:00:00Z"}
    assert (await ada.client.post(f"{V1}/delegations", json=body)).status_code == 201
    await give(hub, {"type": "user", "id": await id_of(hub, ada)}, await role_with(hub))
    assert refused(await ada.client.post(f"{V1}/delegations", json=body))
    assert (await (await ada.sign_in()).post(f"{V1}/delegations", json=body)).status_code == 201
