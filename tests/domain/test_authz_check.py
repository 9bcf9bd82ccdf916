"""Checks: openspec/specs/authorization/spec.md."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.core.reads import Reads
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.test_scoped_rights import READ, TEST, WRITE, Rights
from tests.domain.test_scoped_rights import rights as rights

pytestmark = pytest.mark.anyio

CHECK = "/api/v1/authz/check"
ADMIN_ROLE = "00000000-0000-7000-8000-000000000101"
PUBLIC_ROLE = "00000000-0000-7000-8000-000000000102"
PREVIEW = "data-sources:preview"
TENANT = {"type": "tenant", "id": None}


async def asked(client: httpx.AsyncClient, *checks: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await client.post(CHECK, json={"checks": list(checks)})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


def on_source(action: str, source_id: Any, **more: Any) -> dict[str, Any]:
    return {"action": action, "resource_type": "data_source", "resource_id": str(source_id), **more}


def on_domain(action: str, domain_id: Any, **more: Any) -> dict[str, Any]:
    return {"action": action, "resource_type": "data_domain", "resource_id": str(domain_id), **more}


async def allowed(client: httpx.AsyncClient, *checks: dict[str, Any]) -> list[bool]:
    results = await asked(client, *checks)
    assert all(result["allowed"] is bool(result["via"]) for result in results)
    return [result["allowed"] for result in results]


async def test_what_holds_for_the_tenant_is_told_with_the_role_and_the_assignment(
    hub: Hub, rights: Rights, records: Records
) -> None:
    user, client = await rights.person()
    role = await rights.role("roles:read")
    await rights.give(user, role)
    held, lacking = await asked(client, {"action": "roles:read"}, {"action": "roles:write"})
    assignment = await records.one("SELECT id FROM role_assignments WHERE role_id = $1::uuid", role)
    assert held == {
        "allowed": True,
        "via": [
            {
                "type": "assignment",
                "role_id": role,
                "assignment_id": str(assignment),
                "group_id": None,
                "scope": TENANT,
                "request_id": None,
            }
        ],
    }
    assert lacking == {"allowed": False, "via": []}


async def test_a_hundred_checks_are_answered_in_their_order(hub: Hub) -> None:
    person = await hub.user_with("roles:read")
    checks = [{"action": name} for name in ("roles:read", "users:read", "roles:write", "roles:read")] * 25
    assert await allowed(person, *checks) == [True, False, False, True] * 25
    for count in (0, 101):
        answer = await person.post(CHECK, json={"checks": [{"action": "roles:read"}] * count})
        assert answer.status_code == 400


async def test_an_unknown_action_is_named(hub: Hub) -> None:
    checks = [{"action": "roles:read"}, {"action": "roles:reed"}, {"action": "reports.x:read"}]
    answer = await hub.admin.post(CHECK, json={"checks": checks})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert [(fault["path"], fault["code"]) for fault in answer.json()["errors"]] == [
        ("checks[1].action", "unknown_permission"),
        ("checks[2].action", "unknown_permission"),
    ]


async def test_what_is_asked_about_has_a_type_and_an_id_and_lies_in_no_future(hub: Hub) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    checks = [
        {"action": READ, "resource_id": str(uuid4())},
        {"action": READ, "resource_type": "data_source"},
        {"action": READ, "at": tomorrow},
    ]
    answer = await hub.admin.post(CHECK, json={"checks": checks})
    paths = [fault["path"] for fault in answer.json()["errors"]]
    assert (answer.status_code, paths) == (400, ["checks[0].resource_type", "checks[1].resource_id", "checks[2].at"])
    for wrong in ({"resource_type": "role", "resource_id": str(uuid4())}, {"at": "2026-01-01T00:00:00"}, {"x": 1}):
        assert (await hub.admin.post(CHECK, json={"checks": [{"action": READ} | wrong]})).status_code == 400


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00-12:00"])
async def test_long_ago_nobody_might_do_anything(hub: Hub, at: str) -> None:
    assert await allowed(hub.admin, {"action": READ, "at": at}) == [False]


async def test_permissions_of_other_services_are_answered_for(hub: Hub) -> None:
    name = f"reports.x{uuid4().hex}:read"
    await hub.admin.put(f"/api/v1/permissions/{name}", json={"description": "See reports."})
    person, other = await hub.user_with(name), await hub.user_with()
    assert await allowed(person, {"action": name}) == [True]
    assert await allowed(other, {"action": name}) == [False]
    (of_admin,) = await asked(hub.admin, {"action": name})
    assert [via["role_id"] for via in of_admin["via"]] == [ADMIN_ROLE]


async def test_what_everybody_may_do_comes_from_public(hub: Hub, records: Records) -> None:
    person = await hub.user_with()
    await records.run("UPDATE roles SET permissions = '{jobs:read}' WHERE name = 'public'")
    hub.parts.principals._drop_all()
    (result,) = await asked(person, {"action": "jobs:read"})
    await records.run("UPDATE roles SET permissions = '{}' WHERE name = 'public'")
    hub.parts.principals._drop_all()
    assert [(via["type"], via["role_id"], via["assignment_id"]) for via in result["via"]] == [
        ("public", PUBLIC_ROLE, None)
    ]


async def test_a_right_on_a_source_is_a_right_there_alone(rights: Rights) -> None:
    mine, other = await rights.source(), await rights.source()
    user, client = await rights.person()
    role = await rights.role(READ)
    await rights.give(user, role, mine)
    checks = (on_source(READ, mine), on_source(READ, other), on_source(WRITE, mine), {"action": READ})
    results = await asked(client, *checks, on_source(READ, uuid4()))
    assert [result["allowed"] for result in results] == [True, False, False, False, False]
    assert results[0]["via"][0]["scope"] == {"type": "data_source", "id": mine}


async def test_a_right_in_a_domain_reaches_all_below_it(rights: Rights) -> None:
    top = await rights.domain()
    below = await rights.domain(top)
    beside = await rights.domain()
    inside, outside = await rights.source(below), await rights.source(beside)
    user, client = await rights.person()
    await rights.give(user, await rights.role(READ), top, "data_domain")
    checks = (on_source(READ, inside), on_source(READ, outside), on_domain(READ, below), on_domain(READ, beside))
    results = await asked(client, *checks, on_domain(READ, top), {"action": READ})
    assert [result["allowed"] for result in results] == [True, False, True, False, True, False]
    assert {via["scope"]["id"] for result in results for via in result["via"]} == {str(top)}


async def test_what_a_role_owns_its_members_may_use(rights: Rights) -> None:
    user, client = await rights.person()
    role = await rights.role()
    await rights.give(user, role)
    domain = await rights.domain(owner=role)
    below = await rights.domain(domain)
    owned, inside, other = await rights.source(owner=role), await rights.source(below), await rights.source()
    await rights._records.run("UPDATE roles SET is_owner = true WHERE id = $1::uuid", role)
    rights._hub.parts.principals._drop_all()
    results = await asked(
        client,
        on_source(WRITE, owned),
        on_source(TEST, inside),
        on_source(READ, other),
        on_domain(READ, below),
        on_source("data-sources:reference", owned),
        on_source("roles:read", owned),
        {"action": READ},
    )
    assert [result["allowed"] for result in results] == [True, True, False, True, False, False, False]
    assert [via["type"] for result in results for via in result["via"]] == ["owner"] * 3
    assert results[0]["via"][0]["scope"] == {"type": "data_source", "id": owned}
    assert results[1]["via"][0]["scope"] == {"type": "data_domain", "id": str(domain)}


async def test_a_right_of_a_group_names_the_group(rights: Rights, records: Records) -> None:
    user, client = await rights.person()
    group, role = uuid4(), await rights.role("roles:read")
    await records.run(
        """INSERT INTO group_members (id, tenant_id, group_id, user_id, created_at)
           SELECT gen_random_uuid(), tenant_id, $1, id, now() FROM users WHERE id = $2::uuid""",
        group,
        user,
    )
    await rights.give(str(group), role, subject_type="group")
    (result,) = await asked(client, {"action": "roles:read"})
    assert [via["group_id"] for via in result["via"]] == [str(group)]


async def test_every_ground_of_a_right_is_told(rights: Rights) -> None:
    domain = await rights.domain()
    source = await rights.source(domain)
    user, client = await rights.person()
    for scope, kind in ((None, ""), (domain, "data_domain"), (source, "data_source")):
        await rights.give(user, await rights.role(READ), scope, kind)
    (result,) = await asked(client, on_source(READ, source))
    assert sorted(via["scope"]["type"] for via in result["via"]) == ["data_domain", "data_source", "tenant"]


async def test_what_is_not_there_or_not_to_be_seen_is_not_allowed(hub: Hub, rights: Rights) -> None:
    name = f"reports.y{uuid4().hex}:read"
    await hub.admin.put(f"/api/v1/permissions/{name}", json={"description": "See reports."})
    source = await rights.source()
    assert await allowed(hub.admin, on_source(READ, source), on_source(READ, uuid4())) == [True, False]
    blind = await hub.user_with(name)
    assert await allowed(blind, {"action": name}, on_source(name, source)) == [True, False]
    seeing = await hub.user_with(name, READ)
    assert await allowed(seeing, on_source(name, source)) == [True]
    user, named = await rights.person()
    await rights.give(user, await rights.role(name), source)
    assert await allowed(named, on_source(name, source)) == [True]
    assert (await hub.admin.delete(f"/api/v1/data-sources/{source}")).status_code == 204
    assert await allowed(named, on_source(name, source)) == [False]


async def test_others_are_asked_about_by_who_may(hub: Hub, rights: Rights) -> None:
    source = await rights.source()
    user, client = await rights.person()
    await rights.give(user, await rights.role(READ), source)
    about = [on_source(READ, source, user_id=user), {"action": READ, "user_id": user}]
    plain = await hub.user_with(READ)
    refused = await plain.post(CHECK, json={"checks": about})
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")
    assert await allowed(client, *about) == [True, False]
    checker = await hub.user_with("authz:check", READ)
    unknown = {"action": READ, "user_id": str(uuid4())}
    assert await allowed(checker, *about, unknown) == [True, False, False]
    blind = await hub.user_with("authz:check")
    assert await allowed(blind, *about) == [False, False]
    await hub.admin.patch(f"/api/v1/users/{user}", json={"is_active": False})
    assert await allowed(checker, *about) == [False, False], "who cannot sign in may do nothing"


async def test_a_check_of_the_past_tells_what_was(hub: Hub, rights: Rights) -> None:
    user, client = await rights.person()
    role = await hub.new_role(permissions=["roles:read"])
    path = f"/api/v1/users/{user}/roles/{role['id']}"
    moments = [datetime.now(UTC)]
    changes: list[tuple[str, str, Any]] = [
        ("PUT", path, None),
        ("PATCH", f"/api/v1/roles/{role['id']}", {"permissions": ["jobs:read"]}),
        ("PATCH", f"/api/v1/roles/{role['id']}", {"permissions": ["roles:read"]}),
        ("DELETE", path, None),
        ("PUT", path, None),
        ("DELETE", f"/api/v1/roles/{role['id']}", None),
    ]
    for method, where, body in changes:
        assert (await hub.admin.request(method, where, json=body)).is_success
        moments.append(datetime.now(UTC))
    checks = [{"action": "roles:read", "at": moment.isoformat()} for moment in moments]
    assert await allowed(client, *checks) == [False, True, False, True, False, True, False]


async def test_checks_of_oneself_read_nothing_from_the_database(
    rights: Rights, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await rights.source()
    user, client = await rights.person()
    await rights.give(user, await rights.role(READ, "roles:read"), source)
    await rights.give(user, await rights.role("jobs:read"))
    checks = [
        {"action": "jobs:read"},
        {"action": "users:read"},
        on_source(READ, source),
        on_source(WRITE, source),
        on_source(READ, uuid4()),
        on_domain(READ, uuid4()),
    ]
    first = await asked(client, *checks)
    read: list[str] = []
    run = Reads._run

    async def counted(self: Reads, statement: Any, *arguments: Any) -> Any:
        read.append(statement.sql)
        return await run(self, statement, *arguments)

    monkeypatch.setattr(Reads, "_run", counted)
    assert await asked(client, *checks) == first
    assert read == []
    assert await allowed(client, *[on_source("jobs:read", source)] * 50) == [True] * 50
    assert len(read) == 0, "named and held everywhere"
    assert await allowed(client, *[on_source("jobs:read", UUID(int=place)) for place in range(50)]) == [False] * 50
    assert len(read) == 1, "one statement for all of them"


async def test_an_end_is_known_to_checks_within_a_second_on_every_worker(hub: Hub, other_worker: Hub) -> None:
    person = await hub.user_with("roles:read")
    elsewhere = other_worker.client(person.headers["authorization"].removeprefix("Bearer "))
    me = (await person.get("/api/v1/auth/me")).json()["user"]
    assert (
        await allowed(person, {"action": "roles:read"}) == await allowed(elsewhere, {"action": "roles:read"}) == [True]
    )
    (role,) = (role for role in me["roles"] if role["id"] != PUBLIC_ROLE)
    assert (await hub.admin.delete(f"/api/v1/users/{me['id']}/roles/{role['id']}")).status_code == 204
    assert await allowed(person, {"action": "roles:read"}) == [False]
    await asyncio.sleep(1)
    assert await allowed(elsewhere, {"action": "roles:read"}) == [False]


async def test_msgpack_says_the_same(hub: Hub) -> None:
    import msgspec

    checks = {"checks": [{"action": READ}, {"action": READ, "user_id": str(uuid4())}]}
    headers = {"content-type": "application/msgpack", "accept": "application/msgpack"}
    packed = await hub.admin.post(CHECK, content=msgspec.msgpack.encode(checks), headers=headers)
    plain = await hub.admin.post(CHECK, json=checks)
    assert msgspec.msgpack.decode(packed.content) == plain.json()


async def test_an_api_key_is_answered_for_itself(hub: Hub, rights: Rights) -> None:
    source = await rights.source()
    user, client = await rights.person()
    await rights.give(user, await rights.role("roles:read", "jobs:read", "api-keys:write"))
    await rights.give(user, await rights.role(READ, TEST), source)
    made = await client.post("/api/v1/api-keys", json={"name": "of a test", "permissions": ["roles:read", READ]})
    assert made.status_code == 201, made.text
    program = hub.client(made.json()["key"])
    checks = [{"action": "roles:read"}, {"action": "jobs:read"}, on_source(READ, source), on_source(TEST, source)]
    assert await allowed(program, *checks) == [True, False, True, False]
    now = datetime.now(UTC).isoformat()
    assert await allowed(program, *({**each, "at": now} for each in checks)) == [True, False, True, False]
    assert await allowed(client, *checks) == [True] * 4


async def test_a_service_account_that_is_turned_off_may_do_nothing(hub: Hub, rights: Rights) -> None:
    account = (await hub.admin.post("/api/v1/service-accounts", json={"name": uuid4().hex})).json()
    await rights.give(account["id"], await rights.role("roles:read"), subject_type="service_account")
    about = {"action": "roles:read", "user_id": account["id"]}
    assert await allowed(hub.admin, about) == [True]
    before = datetime.now(UTC).isoformat()
    answer = await hub.admin.patch(f"/api/v1/service-accounts/{account['id']}", json={"is_active": False})
    assert answer.status_code == 200, answer.text
    assert await allowed(hub.admin, about, about | {"at": before}) == [False, True]
    permissions = await hub.admin.get(f"/api/v1/users/{account['id']}/effective-permissions", params={"at": before})
    assert [line["permission"] for line in permissions.json()["items"]] == ["roles:read"]
