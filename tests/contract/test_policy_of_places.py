"""AZ1, AZ2, AZ4: every operation, for callers of the same tenant with rights elsewhere, and for callers of another one.

Read from the application's own route table: an operation with a kind of id that is not known here fails the test of
`World`, so that none is left out.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from app.core.migrations import permissions
from app.domain.auth.gate import reading
from tests.conftest import PASSWORD, Hub
from tests.contract.test_policy_table import Operation, operations
from tests.domain.conftest import Records
from tests.domain.oauth import registered_client

pytestmark = pytest.mark.anyio

NOT_OF_A_TENANT = {"type_name", "name", "provider_name", "step", "tenant_id", "permission_name", "number"}
"""What paths name that is no id of something of one tenant."""
UNTOUCHED = ("audit_events", "outbox_events", "sessions", "idempotency_keys", "upkeep_state", "rights_history")
"""Tables that calls may leave rows in, whatever they are answered."""
PROVIDER = {"kind": "oidc", "label": "ü", "issuer": "https://idp.example.org", "client_id": "hub", "client_secret": "s"}
STALE = {"If-Match": '"v999999"'}
"""With it nothing that is let in goes on to change anything."""


class World:
    """One of everything that paths name, in one tenant."""

    def __init__(self, ids: Mapping[str, str]) -> None:
        self.ids = dict(ids)

    @classmethod
    async def made(cls, hub: Hub, records: Records) -> "World":
        role, user = await hub.new_role(), await hub.new_user(password=PASSWORD)
        account = await hub.admin.post("/api/v1/service-accounts", json={"name": uuid4().hex})
        group = await hub.admin.post("/api/v1/groups", json={"name": uuid4().hex})
        domain = (await hub.admin.post("/api/v1/data-domains", json={"name": uuid4().hex})).json()
        body: dict[str, Any] = {"name": uuid4().hex, "type": "rest", "config": {"base_url": "https://a.example"}}
        body["data_domain_id"] = domain["id"]
        key = await hub.admin.post("/api/v1/api-keys", json={"name": uuid4().hex})
        directory = await hub.admin.post("/api/v1/scim-keys", json={"name": uuid4().hex})
        source = (await hub.admin.post("/api/v1/data-sources", json=body)).json()
        given = await hub.admin.post(
            "/api/v1/role-assignments",
            json={
                "subject": {"type": "user", "id": user["id"]},
                "role_id": role["id"],
                "scope": {"type": "data_source", "id": source["id"]},
            },
        )
        assert given.status_code == 201, given.text
        tenant = await records.one("SELECT tenant_id FROM users WHERE id = $1::uuid", user["id"])
        made = await records.one(
            """INSERT INTO source_objects (id, tenant_id, data_source_id, name, path, qualified_name, kind, is_active, fields,
                 notes, discovered_at)
               VALUES (gen_random_uuid(), $1, $2::uuid, 'orders', '{orders}', 'orders', 'table', true, '[]', '{}', now())
               RETURNING id""",
            tenant,
            source["id"],
        )
        job = await records.one(
            """INSERT INTO jobs (id, tenant_id, kind, status, subject_id, arguments, created_at, updated_at, finished_at)
               VALUES (gen_random_uuid(), $1, 'data_source.discover', 'failed', $2::uuid, '{}', now(), now(), now())
               RETURNING id""",
            tenant,
            source["id"],
        )
        asked = await records.one(
            """INSERT INTO role_requests (id, tenant_id, user_id, role_id, scope_type, justification, status, pending_until,
                 slots, awaits, created_at, updated_at)
               VALUES (gen_random_uuid(), $1, $2::uuid, $3::uuid, 'tenant', 'Why not?', 'pending',
                 now() + interval '1 day', '{}', '{}', now(), now())
               RETURNING id""",
            tenant,
            user["id"],
            role["id"],
        )
        review = await hub.admin.post(
            "/api/v1/access-reviews",
            json={
                "name": "Who may?",
                "role_id": role["id"],
                "due_at": "2100-01-01T00:00:00Z",
                "on_no_answer": "keep",
            },
        )
        lines = (await hub.admin.get(f"/api/v1/access-reviews/{review.json()['id']}/items")).json()["items"]
        session = await hub.sign_in(user["email"])
        away = await session.post(
            "/api/v1/delegations",
            json={"to_user_id": (await hub.new_user())["id"], "ends_at": "2100-01-01T00:00:00Z"},
        )
        sessions = (await session.get("/api/v1/auth/sessions")).json()["items"]
        row = await records.one("SELECT id::text FROM audit_events WHERE tenant_id = $1 LIMIT 1", tenant)
        client = await registered_client(hub)
        told = {"url": "https://hooks.example.org/", "data_domain_id": domain["id"]}
        webhook = await hub.admin.post("/api/v1/webhooks", json=told)
        delivery = await records.one(
            """INSERT INTO webhook_deliveries (id, tenant_id, webhook_id, event_id, event_type, subject, status, created_at,
                                               expires_at)
               VALUES (gen_random_uuid(), $1, $2::uuid, gen_random_uuid(), 'role.created', 'roles/x', 'failed', now(), now())
               RETURNING id""",
            tenant,
            webhook.json()["id"],
        )
        invitation = await hub.admin.post("/api/v1/users/invitations", json={"email": f"{uuid4().hex}@example.org"})
        provider = await hub.admin.post("/api/v1/identity-providers", json=PROVIDER | {"name": f"p{uuid4().hex}"})
        identity = await records.one(
            """INSERT INTO user_identities (id, tenant_id, user_id, kind, provider, issuer, subject, created_at)
               VALUES (gen_random_uuid(), $1, $2::uuid, 'oidc', 'corp', 'https://idp.example.org', $2::text, now())
               RETURNING id""",
            tenant,
            user["id"],
        )
        factor = await session.post("/api/v1/auth/factors", json={"type": "totp", "name": "phone"})
        return cls(
            {
                "event_id": row,
                "role_id": role["id"],
                "user_id": user["id"],
                "account_id": account.json()["id"],
                "oauth_client_id": client["id"],
                "group_id": group.json()["id"],
                "domain_id": domain["id"],
                "key_id": key.json()["id"],
                "scim_key_id": directory.json()["id"],
                "source_id": source["id"],
                "assignment_id": given.json()["id"],
                "request_id": str(asked),
                "review_id": review.json()["id"],
                "item_id": lines[0]["id"],
                "delegation_id": away.json()["id"],
                "object_id": str(made),
                "job_id": str(job),
                "invitation_id": invitation.json()["id"],
                "provider_id": provider.json()["id"],
                "identity_id": str(identity),
                "factor_id": factor.json()["id"],
                "session_id": sessions[0]["id"],
                "webhook_id": webhook.json()["id"],
                "delivery_id": str(delivery),
            }
        )

    def path(self, operation: Operation) -> str:
        return operation.path.format(**self.ids)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[Operation]:
    return [
        operation
        for operation in operations(tmp_path_factory.mktemp("routes"))
        if not NOT_OF_A_TENANT & set(names_in(operation)) and operation.path.startswith("/api/")
    ]


@pytest.fixture(scope="module")
async def records(hub: Hub) -> AsyncIterator[Records]:
    connection = await asyncpg.connect(hub.owner_url)
    yield Records(connection)
    await connection.close()


@pytest.fixture(scope="module")
async def worlds(two_tenants: tuple[Hub, Hub], records: Records) -> tuple[World, World, World]:
    """Two in the default tenant, one in another."""
    hub, other = two_tenants
    return await World.made(hub, records), await World.made(hub, records), await World.made(other, records)


def names_in(operation: Operation) -> list[str]:
    return [part.partition("}")[0] for part in operation.path.split("{")[1:]]


def of_nothing(operation: Operation) -> str:
    return operation.path.format(**{name: uuid4() for name in names_in(operation)})


async def asked(client: httpx.AsyncClient, operation: Operation, path: str, body: Any) -> tuple[int, str]:
    """The status, and the code of a refusal."""
    has_body = operation.method in ("POST", "PUT", "PATCH")
    answer = await client.request(operation.method, path, headers=STALE, **({"json": body} if has_body else {}))
    return answer.status_code, answer.json()["code"] if answer.status_code >= 400 else ""


async def test_everything_that_paths_name_is_in_a_world(
    table: list[Operation], worlds: tuple[World, World, World]
) -> None:
    named = {name for operation in table for name in names_in(operation)}
    assert named == set(worlds[0].ids)


@pytest.mark.parametrize(
    "body", [pytest.param({}, id="empty"), pytest.param({"no_such_field": 1}, id="wrong", marks=pytest.mark.slow)]
)
async def test_what_another_tenant_has_is_like_what_nobody_has(
    two_tenants: tuple[Hub, Hub],
    records: Records,
    table: list[Operation],
    worlds: tuple[World, World, World],
    body: Any,
) -> None:
    """By the admins of both, who may do everything at home. And nothing of it has changed."""
    hub, other = two_tenants
    ours, _, theirs = worlds
    before = await fingerprints(records)
    for client, world in ((other.admin, ours), (hub.admin, theirs)):
        for operation in table:
            if names_in(operation):
                foreign = await asked(client, operation, world.path(operation), body)
                absent = await asked(client, operation, of_nothing(operation), body)
                assert foreign == absent, operation
                assert foreign[0] in (400, 404), operation
    assert await fingerprints(records) == before


async def fingerprints(records: Records) -> dict[str, str]:
    """Of each table's rows."""
    tables = await records.run(
        "SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant_id' AND table_schema = 'public'"
    )
    names = sorted(str(row[0]) for row in tables if row[0] not in UNTOUCHED)
    return {
        name: await records.one(f"SELECT md5(string_agg(row::text, ',' ORDER BY row::text)) FROM {name} AS row")
        for name in names
    }


async def test_lists_show_no_row_of_another_tenant(
    two_tenants: tuple[Hub, Hub], table: list[Operation], worlds: tuple[World, World, World]
) -> None:
    hub, other = two_tenants
    for client, foreign in ((other.admin, worlds[2:]), (hub.admin, worlds[:2])):
        for operation in lists_of(table):
            # What somebody was refused stands in their own tenant's log, by the id that they gave.
            of_audit = {"outcome": "success"} if operation.path.endswith("/audit-events") else {}
            found = await client.get(operation.path, params={"limit": 200, "count": "exact", **of_audit})
            assert found.status_code == 200, operation
            shown = found.text
            strangers = [world for world in worlds if world not in foreign]
            assert not [each for world in strangers for each in world.ids.values() if each in shown], operation


def lists_of(table: list[Operation]) -> list[Operation]:
    """But for the operators' own, which is about tenants."""
    lists = [each for each in table if each.method == "GET" and each.access.listing and not names_in(each)]
    return [each for each in lists if each.path != "/api/v1/tenants"]


@pytest.fixture
async def scoped(hub: Hub, records: Records, worlds: tuple[World, World, World]) -> httpx.AsyncClient:
    """Somebody who holds every permission on one source, and none anywhere else."""
    user = await hub.new_user(password=PASSWORD)
    role = await hub.new_role(permissions=sorted(permissions()))
    given = await hub.admin.post(
        "/api/v1/role-assignments",
        json={
            "subject": {"type": "user", "id": user["id"]},
            "role_id": role["id"],
            "scope": {"type": "data_source", "id": worlds[0].ids["source_id"]},
        },
    )
    assert given.status_code == 201, given.text
    return await hub.sign_in(user["email"])


async def test_a_right_on_one_source_opens_what_is_about_it_and_nothing_else(
    table: list[Operation], worlds: tuple[World, World, World], scoped: httpx.AsyncClient
) -> None:
    own, beside, _ = worlds
    for operation in table:
        if operation.access.permission is None or not names_in(operation):
            continue
        inside = await asked(scoped, operation, own.path(operation), {"no_such_field": 1})
        outside = await asked(scoped, operation, beside.path(operation), {})
        absent = await asked(scoped, operation, of_nothing(operation), {})
        if operation.access.on == "data_source":
            assert inside[0] not in (401, 403, 404), operation
        elif operation.access.on is None:
            assert inside == (404, "not_found"), operation
        assert outside == absent == (404, "not_found"), operation


async def test_lists_show_the_one_source_and_what_is_about_it(
    table: list[Operation], worlds: tuple[World, World, World], scoped: httpx.AsyncClient
) -> None:
    own, *others = worlds
    seen = set()
    for operation in lists_of(table):
        found = await scoped.get(operation.path, params={"limit": 200, "count": "exact"})
        if operation.access.permission is not None and operation.access.on is None:
            assert found.status_code == 403, operation
            continue
        assert found.status_code == 200, (operation, found.text)
        items = found.json()["items"]
        assert found.json()["total"] == len(items), operation
        assert not [each for world in others for each in world.ids.values() if each in found.text], operation
        if operation.access.on is not None:
            seen |= {each for each in own.ids.values() if each in found.text}
    assert {own.ids["source_id"], own.ids["job_id"]} <= seen


async def test_one_right_of_a_scope_brings_no_other(
    hub: Hub, table: list[Operation], worlds: tuple[World, World, World]
) -> None:
    """Whoever may see it and nothing else is told that they may not; whoever may not even see it, that it is not there."""
    for may_see in (True, False):
        for operation in table:
            wanted = operation.access.permission
            if operation.access.on != "data_source" or wanted is None or wanted == reading(wanted):
                continue
            if not names_in(operation):
                continue
            held = [reading(wanted)] if may_see else ["jobs:read" if wanted != "jobs:read" else "jobs:write"]
            client = await somebody_with(hub, held, UUID(worlds[0].ids["source_id"]))
            answer = await asked(client, operation, worlds[0].path(operation), {})
            assert answer == ((403, "permission_missing") if may_see else (404, "not_found")), operation


async def somebody_with(hub: Hub, held: list[str], source_id: UUID) -> httpx.AsyncClient:
    user, role = await hub.new_user(password=PASSWORD), await hub.new_role(permissions=held)
    given = await hub.admin.post(
        "/api/v1/role-assignments",
        json={
            "subject": {"type": "user", "id": user["id"]},
            "role_id": role["id"],
            "scope": {"type": "data_source", "id": str(source_id)},
        },
    )
    assert given.status_code == 201, given.text
    return await hub.sign_in(user["email"])
