"""Roles that anybody signed in may see and ask for, and how little of them."""

import httpx
import pytest

from tests.conftest import Hub
from tests.domain.conftest import Records

pytestmark = pytest.mark.anyio

ROLES = "/api/v1/roles"
ADMIN_ROLE = "00000000-0000-7000-8000-000000000101"


@pytest.fixture(scope="module")
async def member(hub: Hub) -> httpx.AsyncClient:
    """Somebody without any permission."""
    return await hub.user_with()


async def test_anybody_sees_what_may_be_asked_for_and_no_more_of_it(hub: Hub, member: httpx.AsyncClient) -> None:
    role = await hub.new_role(name="stargazers", permissions=["jobs:read"], is_requestable=True)
    await hub.new_role()
    shown = await member.get(ROLES, params={"is_requestable": "true", "count": "exact"})
    assert shown.status_code == 200
    assert shown.json()["items"] == [{name: role[name] for name in ("id", "name", "description")}]
    assert shown.json()["total"] == 1
    assert (await member.get(ROLES, params={"is_requestable": "true", "name": "Stargazers"})).json()["items"]
    assert (await member.get(ROLES, params={"is_requestable": "true", "q": "no such text"})).json()["items"] == []


@pytest.mark.parametrize("asked", ["", "?is_requestable=false", "?q=a", "?is_system=true", "?no_such=parameter"])
async def test_all_other_roles_take_the_permission(member: httpx.AsyncClient, asked: str) -> None:
    refused = await member.get(f"{ROLES}{asked}")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")


@pytest.mark.parametrize("narrowed", ["owner_role_id=" + ADMIN_ROLE, "is_system=true"])
async def test_nothing_else_is_learnt_by_narrowing(member: httpx.AsyncClient, narrowed: str) -> None:
    refused = await member.get(f"{ROLES}?is_requestable=true&{narrowed}")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")


async def test_a_role_is_no_single_thing_to_those_who_may_not_see_roles(hub: Hub, member: httpx.AsyncClient) -> None:
    role = await hub.new_role(is_requestable=True)
    assert (await member.get(f"{ROLES}/{role['id']}")).status_code == 404


async def test_who_may_see_roles_sees_all_of_those_that_may_be_asked_for(hub: Hub) -> None:
    role = await hub.new_role(is_requestable=True)
    found = (await hub.admin.get(ROLES, params={"is_requestable": "true", "name": role["name"]})).json()["items"]
    assert found == [role]
    changed = await hub.admin.patch(f"{ROLES}/{role['id']}", json={"is_requestable": False})
    assert changed.json()["is_requestable"] is False


async def test_admin_is_among_them_where_the_tenant_says_so(hub: Hub, records: Records) -> None:
    assert (await hub.admin.get(f"{ROLES}/{ADMIN_ROLE}")).json()["is_requestable"] is False
    for allowed in (True, False):
        changed = await hub.admin.patch("/api/v1/tenant-settings", json={"is_admin_requestable": allowed})
        assert changed.status_code == 200
        role = (await hub.admin.get(f"{ROLES}/{ADMIN_ROLE}")).json()
        assert role["is_requestable"] is allowed
    refused = await hub.admin.patch(f"{ROLES}/{ADMIN_ROLE}", json={"is_requestable": True})
    assert (refused.status_code, refused.json()["code"]) == (409, "system_role")
