"""A11: nobody waits in an empty role, or in an empty group, for what others will give to it."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.test_role_assignments import ASSIGNMENTS, body_for, give, holder_of, new_domain, new_source, somebody

pytestmark = [pytest.mark.anyio, pytest.mark.found("A11")]

V1 = "/api/v1"
NAMES = ("roles:write", "roles:read", "users:write", "role-assignments:write", "groups:write", "groups:read")


@pytest.fixture
async def mallory(hub: Hub, records: Records) -> tuple[str, httpx.AsyncClient]:
    """May make roles and groups, and give them; may do nothing else."""
    return await holder_of(hub, records, *NAMES)


async def made_by(client: httpx.AsyncClient, path: str, **body: Any) -> str:
    answer = await client.post(f"{V1}/{path}", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def confirmed(client: httpx.AsyncClient, method: str, path: str, body: Any, holders: int) -> None:
    """Refused as it is and with another number, and done with the right one."""
    for query in ("", f"?confirm_holders={holders + 1}", "?confirm_holders=0"):
        answer = await client.request(method, f"{path}{query}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "holders_unconfirmed"), answer.text
        assert f"confirm_holders={holders}" in answer.json()["detail"]
    answer = await client.request(method, f"{path}?confirm_holders={holders}", json=body)
    assert answer.status_code in (200, 201), answer.text


@pytest.mark.parametrize("form", ["short", "long"])
async def test_whoever_gave_themselves_an_empty_role_is_named_when_it_is_filled(
    hub: Hub, records: Records, mallory: tuple[str, httpx.AsyncClient], form: str
) -> None:
    user, client = mallory
    role = await made_by(client, "roles", name=f"empty {form} {user}")
    if form == "short":
        assert (await client.put(f"{V1}/users/{user}/roles/{role}")).status_code == 200
    else:
        assert (await client.post(ASSIGNMENTS, json=body_for(user, role))).status_code == 201
    other, _ = await somebody(hub, records)
    await give(hub, other, role)
    path, body = f"{V1}/roles/{role}", {"permissions": ["audit-events:read"]}
    before = await records.mark()
    shown = await hub.admin.patch(path, params={"dry_run": "true"}, json=body)
    assert {line["user_id"] for line in shown.json()["gains"]} == {user, other}
    assert (await client.get(f"{V1}/audit-events")).status_code == 403
    assert (await records.mark())[1] == before[1]
    await confirmed(hub.admin, "PATCH", path, body, 2)
    assert (await client.get(f"{V1}/audit-events")).status_code == 200, "somebody has looked, and wants it so"


async def test_whoever_gave_themselves_another_end_of_an_empty_role_is_named_when_it_is_filled(
    hub: Hub, mallory: tuple[str, httpx.AsyncClient]
) -> None:
    """An admin gave it for a day, and fills it in the belief that the day has passed."""
    user, client = mallory
    role = (await hub.new_role(permissions=[]))["id"]
    given = await hub.admin.post(ASSIGNMENTS, json=body_for(user, role, expires_at="2999-01-01T00:00:00Z"))
    assert given.status_code == 201, given.text
    longer = await client.patch(f"{ASSIGNMENTS}/{given.json()['id']}", json={"expires_at": None})
    assert longer.status_code == 200, longer.text
    await confirmed(hub.admin, "PATCH", f"{V1}/roles/{role}", {"permissions": ["audit-events:read"]}, 1)


async def test_those_whom_an_admin_gave_the_role_need_not_be_confirmed(
    hub: Hub, records: Records, mallory: tuple[str, httpx.AsyncClient]
) -> None:
    """Who gave it could give them that, too."""
    user, _ = mallory
    role = await hub.new_role()
    await give(hub, user, role["id"])
    answer = await hub.admin.patch(f"{V1}/roles/{role['id']}", json={"permissions": ["audit-events:read"]})
    assert answer.status_code == 200


async def test_what_the_giver_holds_there_need_not_be_confirmed(
    hub: Hub, records: Records, mallory: tuple[str, httpx.AsyncClient]
) -> None:
    user, client = mallory
    role = await made_by(client, "roles", name=f"of what is held {user}")
    await client.post(ASSIGNMENTS, json=body_for(user, role))
    path = f"{V1}/roles/{role}"
    assert (await hub.admin.patch(path, json={"permissions": ["roles:read"]})).status_code == 200
    assert (await hub.admin.patch(path, json={"permissions": []})).status_code == 200, "to take is no gift"
    assert (await hub.admin.patch(path, json={"description": "x"})).status_code == 200
    refused = await hub.admin.patch(path, json={"permissions": ["roles:read", "users:read"]})
    assert refused.json()["code"] == "holders_unconfirmed"


async def test_a_giver_is_judged_where_they_gave(hub: Hub, records: Records) -> None:
    domain = await new_domain(records)
    scope = {"type": "data_domain", "id": domain}
    user, client = await holder_of(hub, records, "role-assignments:write", "data-sources:read", scope=scope)
    role = await hub.new_role()
    given = await client.post(ASSIGNMENTS, json=body_for(user, role["id"], scope=scope))
    assert given.status_code == 201, given.text
    path = f"{V1}/roles/{role['id']}"
    assert (await hub.admin.patch(path, json={"permissions": ["data-sources:read"]})).status_code == 200
    await confirmed(hub.admin, "PATCH", path, {"permissions": ["data-sources:read", "data-sources:test"]}, 1)


async def test_whoever_put_themselves_into_an_empty_group_is_named_when_a_role_is_given_to_it(
    hub: Hub, records: Records, mallory: tuple[str, httpx.AsyncClient]
) -> None:
    user, client = mallory
    group = await made_by(client, "groups", name=f"empty {user}")
    assert (await client.put(f"{V1}/groups/{group}/members/{user}")).status_code == 200
    role = await hub.new_role(permissions=["audit-events:read"])
    body = {"subject": {"type": "group", "id": group}, "role_id": role["id"]}
    shown = await hub.admin.post(ASSIGNMENTS, params={"dry_run": "true"}, json=body)
    assert {line["user_id"] for line in shown.json()["gains"]} == {user}
    await confirmed(hub.admin, "POST", ASSIGNMENTS, body, 1)


async def test_members_of_a_group_are_named_when_its_empty_role_is_filled(
    hub: Hub, records: Records, mallory: tuple[str, httpx.AsyncClient]
) -> None:
    user, client = mallory
    group = await made_by(client, "groups", name=f"of an empty role {user}")
    role = await hub.new_role()
    body = {"subject": {"type": "group", "id": group}, "role_id": role["id"]}
    assert (await hub.admin.post(ASSIGNMENTS, json=body)).status_code == 201
    assert (await client.put(f"{V1}/groups/{group}/members/{user}")).status_code == 200
    await confirmed(hub.admin, "PATCH", f"{V1}/roles/{role['id']}", {"permissions": ["audit-events:read"]}, 1)


async def test_whoever_waits_in_a_role_is_named_when_it_is_made_an_owner(
    hub: Hub, records: Records, mallory: tuple[str, httpx.AsyncClient]
) -> None:
    user, client = mallory
    role = await made_by(client, "roles", name=f"of owners {user}")
    await client.post(ASSIGNMENTS, json=body_for(user, role))
    source, domain = await new_source(hub), await new_domain(records)
    await confirmed(hub.admin, "PATCH", f"{V1}/data-sources/{source}", {"owner_role_id": role}, 1)
    await confirmed(hub.admin, "PATCH", f"{V1}/data-domains/{domain}", {"owner_role_id": role}, 1)
    body = {"name": f"owned {user}", "type": "rest", "config": {"base_url": "https://a.example"}, "owner_role_id": role}
    await confirmed(hub.admin, "POST", f"{V1}/data-sources", body, 1)
    await confirmed(hub.admin, "POST", f"{V1}/data-domains", {"name": f"owned {user}", "owner_role_id": role}, 1)
    item = {**body, "name": f"owned in bulk {user}"}
    bulk = await hub.admin.post(f"{V1}/data-sources/bulk", json={"data_sources": [item]})
    assert bulk.status_code == 400, bulk.text
    faults = [(fault["path"], fault["code"]) for fault in bulk.json()["errors"]]
    assert faults == [("data_sources[0].owner_role_id", "holders_unconfirmed")]
    again = await hub.admin.post(f"{V1}/data-sources/bulk?confirm_holders=1", json={"data_sources": [item]})
    assert again.status_code == 201, again.text


@pytest.mark.parametrize("way", ["source", "domain", "new source", "bulk"])
async def test_nobody_is_given_a_role_while_it_is_made_an_owner(
    hub: Hub, records: Records, mallory: tuple[str, httpx.AsyncClient], way: str
) -> None:
    """What they are about to be given is waited for, and counted."""
    user, client = mallory
    role = await made_by(client, "roles", name=f"raced {way} {user}")
    body = {"name": f"raced {way} {user}", "type": "rest", "config": {"base_url": "https://a.example"}}
    owned = {"owner_role_id": role}
    method, path, sent = {
        "source": ("PATCH", f"data-sources/{await new_source(hub)}", owned),
        "domain": ("PATCH", f"data-domains/{await new_domain(records)}", owned),
        "new source": ("POST", "data-sources", body | owned),
        "bulk": ("POST", "data-sources/bulk", {"data_sources": [body | owned]}),
    }[way]
    giving = await asyncpg.connect(hub.owner_url)
    try:
        async with asyncio.timeout(10), giving.transaction():
            await giving.execute("SELECT FROM roles WHERE id = $1::uuid FOR KEY SHARE", role)
            await giving.execute(
                """INSERT INTO role_assignments (id, tenant_id, subject_type, subject_id, role_id, scope_type,
                     starts_at, created_at, updated_at, created_by, updated_by)
                   SELECT gen_random_uuid(), tenant_id, 'user', $1::uuid, id, 'tenant', now(), now(), now(), $1, $1
                   FROM roles WHERE id = $2::uuid""",
                user,
                role,
            )
            owning = asyncio.create_task(hub.admin.request(method, f"{V1}/{path}", json=sent))
            while not owning.done() and not await records.one("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.02)
    finally:
        await giving.close()
    refused = await owning
    assert "holders_unconfirmed" in refused.text, (refused.status_code, refused.text)


@pytest.mark.parametrize(
    "query",
    [
        "confirm_holders=",
        "confirm_holders=-1",
        "confirm_holders=x",
        "confirm_holders=2000000001",
        "confirm_holders=1.0",
    ],
)
async def test_a_confirmation_is_a_whole_number(hub: Hub, query: str) -> None:
    role = await hub.new_role()
    answer = await hub.admin.patch(f"{V1}/roles/{role['id']}?{query}", json={"permissions": ["roles:read"]})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")


async def test_a_confirmation_where_nothing_has_to_be_confirmed_is_no_fault(hub: Hub) -> None:
    role = await hub.new_role()
    path = f"{V1}/roles/{role['id']}?confirm_holders=7"
    assert (await hub.admin.patch(path, json={"permissions": ["roles:read"]})).status_code == 200
