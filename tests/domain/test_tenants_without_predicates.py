"""MT1: with every tenant predicate taken out of the code, row-level security shows and changes no foreign row.

Each of two tenants has rows in every table: those of the second are a copy of the first one's, with ids of their own.
Routes and tables are found, not named: a new one is held to this from its first commit.
"""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from sqlalchemy import event

from app.asgi import create_app, framed
from app.core import reads
from app.core.embedded import EmbeddedPostgres
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.events.sequencing import give_positions
from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub, parts_of_hub, running_hub
from tests.core.test_reads import DELEGATION
from tests.core.test_reads import REQUEST as ROLE_REQUEST
from tests.declared import application
from tests.domain.oauth import Flow, Somebody, flow_of_registered, machine_that_signs
from tests.domain.seals import seal_all
from tests.domain.sources import NOWHERE, registered

pytestmark = pytest.mark.anyio

OTHER = UUID("01900000-0000-7000-8000-00000000000b")
UUIDS = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


# --- two tenants, with rows everywhere ---


async def tell_story(hub: Hub, owner: "asyncpg.Connection[Any]") -> None:
    """In the default tenant."""
    user, role = await hub.new_user(password=PASSWORD), await hub.new_role(permissions=["roles:read"])
    approver = await hub.new_role()
    await hub.admin.put(f"/api/v1/users/{user['id']}/roles/{role['id']}")
    await hub.admin.put(f"/api/v1/roles/{role['id']}/approver-roles", json=[approver["id"]])
    await hub.admin.patch(f"/api/v1/roles/{role['id']}", json={"permissions": ["users:read"]})
    await hub.admin.post("/api/v1/service-accounts", json={"name": "a program"}, headers={"idempotency-key": "one"})
    source = await registered(hub, config=NOWHERE, tags=["shop"], secrets={"password": "a secret"})
    tested = await hub.admin.post(f"/api/v1/data-sources/{source['id']}/test")
    assert tested.status_code == 200, tested.text
    job = await hub.admin.post(f"/api/v1/data-sources/{source['id']}/discover")
    assert job.status_code == 202, job.text
    review = {"name": "a", "role_id": role["id"], "due_at": "2100-01-01T00:00:00Z", "on_no_answer": "keep"}
    begun = await hub.admin.post("/api/v1/access-reviews", json=review)
    assert begun.status_code == 201, begun.text
    permission = await hub.admin.put("/api/v1/permissions/reports.dashboards:read", json={"description": "Read them."})
    assert permission.is_success, permission.text
    key = await hub.admin.post("/api/v1/api-keys", json={"name": "a key", "permissions": ["roles:read"]})
    assert key.status_code == 201, key.text
    directory = await hub.admin.post("/api/v1/scim-keys", json={"name": "Entra ID"})
    assert directory.status_code == 201, directory.text
    webhook = await hub.admin.post("/api/v1/webhooks", json={"url": "https://no-such-name.invalid/"})
    assert webhook.status_code == 201, webhook.text
    invited = await hub.admin.post("/api/v1/users/invitations", json={"email": "invited@example.org"})
    assert invited.status_code == 201, invited.text
    forgotten = await hub.client().post("/api/v1/auth/forgot-password", json={"email": "invited@example.org"})
    assert forgotten.status_code == 202, forgotten.text
    told = await hub.admin.post(f"/api/v1/webhooks/{webhook.json()['id']}/test")
    assert told.status_code == 200, told.text
    await tell_of_oauth(hub, UUID(user["id"]), owner)
    await owner.execute(DELEGATION, uuid4(), DEFAULT_TENANT_ID, UUID(user["id"]))
    await owner.execute(ROLE_REQUEST, uuid4(), DEFAULT_TENANT_ID, UUID(user["id"]), UUID(role["id"]))
    await owner.execute("UPDATE jobs SET status = 'failed', finished_at = now()")  # no worker will
    await owner.execute(
        """INSERT INTO source_objects (id, tenant_id, data_source_id, name, path, qualified_name, kind, is_active, fields,
                                       discovered_at)
           VALUES (gen_random_uuid(), $1, $2, 'orders', '{orders}', 'orders', 'table', true, '[]', now())""",
        DEFAULT_TENANT_ID,
        UUID(source["id"]),
    )
    await fill_what_is_empty(owner, UUID(user["id"]))
    assert await give_positions(hub.parts) > 0
    await seal_all(hub)
    await owner.execute(
        """INSERT INTO event_attempts (tenant_id, event_id, destination, subject, attempts, retry_at, reason)
           SELECT tenant_id, id, 'broker', subject, 1, now(), 'busy' FROM outbox_events"""
    )


async def tell_of_oauth(hub: Hub, user_id: UUID, owner: "asyncpg.Connection[Any]") -> None:
    assert await flow_of_registered(hub)
    machine = await machine_that_signs(hub)
    assert await machine.token()
    code = await Flow(hub).code(Somebody(str(user_id), "of the story"))
    assert code
    await owner.execute("UPDATE sign_in_codes SET expires_at = now() + interval '1 day'")


async def fill_what_is_empty(owner: "asyncpg.Connection[Any]", user_id: UUID) -> None:
    """What no call of this story makes."""
    domain_id, group_id = uuid4(), uuid4()
    for statement, *values in (
        (
            """INSERT INTO data_domains (id, tenant_id, name, name_key, lineage, created_at, updated_at)
               VALUES ($1, $2, 'sales', 'sales', ARRAY[$1::uuid], now(), now())""",
            domain_id,
        ),
        (
            """INSERT INTO groups (id, tenant_id, name, name_key, created_at, updated_at)
               VALUES ($1, $2, 'people', 'people', now(), now())""",
            group_id,
        ),
        (
            """INSERT INTO group_members (id, tenant_id, group_id, user_id, created_at)
               VALUES ($1, $2, $3, $4, now())""",
            uuid4(),
            group_id,
            user_id,
        ),
        (
            """INSERT INTO factors (id, tenant_id, user_id, type, name, confirmed_at, created_at, updated_at)
               VALUES ($1, $2, $3, 'passkey', 'laptop', now(), now(), now())""",
            uuid4(),
            user_id,
        ),
        (
            """INSERT INTO identity_providers (id, tenant_id, kind, name, label, is_active, scopes, allowed_domains,
                                               created_at, updated_at)
               VALUES ($1, $2, 'oidc', 'corp', 'Corp', true, '{}', '{}', now(), now())""",
            uuid4(),
        ),
        (
            """INSERT INTO user_identities (id, tenant_id, user_id, kind, provider, issuer, subject, created_at)
               VALUES ($1, $2, $3, 'oidc', 'corp', 'https://idp.example.org', 'one', now())""",
            uuid4(),
            user_id,
        ),
        (
            """INSERT INTO recovery_codes (id, tenant_id, user_id, digest, created_at)
               VALUES ($1, $2, $3, '\\x00', now())""",
            uuid4(),
            user_id,
        ),
        ("INSERT INTO spent_tokens (id, tenant_id, expires_at) VALUES ($1, $2, now() + interval '1 day')", uuid4()),
        (
            """INSERT INTO saml_keys (id, tenant_id, provider_id, certificate, sealed, key_id, created_at)
               VALUES ($1, $2, $1, 'x', 'x', 'gone', now())""",
            uuid4(),
        ),
        (
            """INSERT INTO saml_metadata (id, tenant_id, provider_id, url, document, fetched_at)
               VALUES ($1, $2, $1, 'https://idp.example.org', 'x', now())""",
            uuid4(),
        ),
        (
            """INSERT INTO saml_arrivals (id, tenant_id, digest, provider_id, request_id, said, expires_at)
               VALUES ($1, $2, 'x', $1, 'x', '{}', now())""",
            uuid4(),
        ),
    ):
        row_id, *more = values
        await owner.execute(statement, row_id, DEFAULT_TENANT_ID, *more)


COLUMNS = """
    SELECT relname AS table_name, attname AS name, format_type(atttypid, NULL) AS type
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
      AND attidentity = '' AND attgenerated = '' ORDER BY 1, attnum"""
THEIRS = "md5({0}::text || 'theirs')::uuid"
"""The id in the copy of what has this one."""


def _copied(name: str, kind: str) -> str:
    if name == "tenant_id":
        return f"'{OTHER}'::uuid"
    if kind == "uuid[]":
        return f"ARRAY(SELECT {THEIRS.format('item')} FROM unnest({name}) AS item)"
    if kind in ("text", "jsonb"):
        return f'pg_temp.theirs("{name}"::text)::{kind}'
    return THEIRS.format(name) if kind == "uuid" else f'"{name}"'


WRITTEN = f"""
    CREATE FUNCTION pg_temp.theirs(written text) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE found text;
    BEGIN
      FOR found IN SELECT DISTINCT (regexp_matches(written, '{UUIDS.pattern}', 'g'))[1] LOOP
        written := replace(written, found, {THEIRS.format("found")}::text);
      END LOOP;
      RETURN written;
    END $$"""
"""Ids in texts and documents."""


async def tables_of_tenants(connection: "asyncpg.Connection[Any]") -> dict[str, list[tuple[str, str]]]:
    """With their columns."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in await connection.fetch(COLUMNS):
        found.setdefault(row["table_name"], []).append((row["name"], row["type"]))
    return {table: columns for table, columns in found.items() if "tenant_id" in dict(columns)}


async def copy_tenant(superuser: "asyncpg.Connection[Any]") -> None:
    """Every row, also in tables that nobody thought of here; without triggers, which would add rows of their own."""
    await superuser.execute(WRITTEN)
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute(
        """INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at)
           VALUES ($1, 'theirs', 'Theirs', true, now(), now())""",
        OTHER,
    )
    for table, columns in (await tables_of_tenants(superuser)).items():
        names = ", ".join(f'"{name}"' for name, _ in columns)
        copied = ", ".join(_copied(*column) for column in columns)
        await superuser.execute(f"INSERT INTO {table} ({names}) SELECT {copied} FROM {table}")


@dataclass
class Two:
    """Two tenants of one hub; `mutant` is the hub without tenant predicates, `bare` the same without the wall, too."""

    mutant: Hub
    bare: Hub
    owner: "asyncpg.Connection[Any]"
    ids: dict[UUID, dict[str, list[UUID]]]
    """By tenant and table, those of all rows."""

    async def admin_of(self, hub: Hub, tenant_id: UUID) -> httpx.AsyncClient:
        return await hub.sign_in(ADMIN_EMAIL, tenant="default" if tenant_id == DEFAULT_TENANT_ID else "theirs")

    def every_id(self, tenant_id: UUID) -> set[str]:
        return {str(row_id) for ids in self.ids[tenant_id].values() for row_id in ids}

    async def rows_of(self, tenant_id: UUID) -> dict[str, str]:
        """A digest of each table's rows."""
        return {
            table: await self.owner.fetchval(
                f"SELECT md5(string_agg(row::text, '' ORDER BY row::text)) FROM {table} AS row WHERE tenant_id = $1",
                tenant_id,
            )
            for table in self.ids[tenant_id].keys() - {"tenants"}
        }


class Predicates:
    """Takes comparisons with a tenant out of every statement, whichever way it is sent."""

    COMPARED = re.compile(
        r"""(?:\w+\.)?tenant_id\ =\ (?P<given>\$\d+)(?:::\w+)?  # with the tenant of whoever asks
          | (?P<operator>\$\d+)::UUID\ =\ '00000000-0000-7000-8000-000000000001'(?:::UUID)?  # whether it is the default one
          | \w+\.tenant_id\ =\ \w+\.tenant_id  # of two tables""",
        re.VERBOSE,
    )

    def __init__(self) -> None:
        self.taken_out = 0

    def without(self, sql: str) -> str:
        sql, count = self.COMPARED.subn(self._replaced, sql)
        self.taken_out += count
        return sql

    @staticmethod
    def _replaced(found: "re.Match[str]") -> str:
        given = found["given"] or found["operator"]
        return f"({given}::uuid IS NULL OR true)" if given else "true"


def mutate(hub: Hub, predicates: Predicates) -> None:
    """Its changes; its fast reads are those of the whole process."""

    def take_out(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> tuple[str, Any]:
        return predicates.without(statement), values

    event.listen(hub.parts.engine.sync_engine, "before_cursor_execute", take_out, retval=True)


@pytest.fixture(scope="module")
def predicates() -> Iterator[Predicates]:
    found, real = Predicates(), reads.compiled
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            reads, "compiled", lambda statement: (own := real(statement))._replace(sql=found.without(own.sql))
        )
        yield found


@pytest.fixture(scope="module")
async def two(
    cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory, predicates: Predicates
) -> AsyncIterator[Two]:
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("hub")) as hub:
        name = hub.url.rpartition("/")[2]
        owner = await asyncpg.connect(hub.owner_url)
        await tell_story(hub, owner)
        superuser = await asyncpg.connect(cluster.url("postgres", name))
        await copy_tenant(superuser)
        await superuser.close()
        parts = parts_of_hub(hub.settings, cluster.url("postgres", name))
        litestar = create_app(parts)
        async with litestar.lifespan():
            bare = replace(hub, parts=parts, app=framed(litestar, hub.settings))
            for mutant in (hub, bare):
                mutate(mutant, predicates)
            yield Two(hub, bare, owner, {tenant_id: await ids_of(owner, tenant_id) for tenant_id in TENANTS})
        await owner.close()


TENANTS = (DEFAULT_TENANT_ID, OTHER)
ONE_OF_BOTH = [pytest.param(DEFAULT_TENANT_ID, id="ours", marks=pytest.mark.slow), pytest.param(OTHER, id="theirs")]
"""For the plain run, where every route is asked for every id of the other tenant."""


async def ids_of(owner: "asyncpg.Connection[Any]", tenant_id: UUID) -> dict[str, list[UUID]]:
    """The first column that is an id: of rows that have none of their own, the one of what they belong to, if only the
    tenant."""
    found: dict[str, list[UUID]] = {}
    for table, columns in (await tables_of_tenants(owner)).items():
        key = next((name for name, kind in columns if kind == "uuid" and name != "tenant_id"), "tenant_id")
        found[table] = [
            row[0] for row in await owner.fetch(f"SELECT DISTINCT {key} FROM {table} WHERE tenant_id = $1", tenant_id)
        ]
    return found | {"tenants": [tenant_id]}


async def test_both_have_rows_in_every_table(two: Two) -> None:
    for tenant_id in TENANTS:
        assert {table for table, ids in two.ids[tenant_id].items() if not ids} == set()
    assert len(two.ids[OTHER]) >= 15
    assert not two.every_id(OTHER) & two.every_id(DEFAULT_TENANT_ID)


# --- calls about what is another tenant's ---


TABLES = {
    "source_id": "data_sources",
    "object_id": "source_objects",
    "job_id": "jobs",
    "role_id": "roles",
    "user_id": "users",
    "session_id": "sessions",
    "account_id": "service_accounts",
    "key_id": "api_keys",
    "scim_key_id": "scim_keys",
    "assignment_id": "role_assignments",
    "group_id": "groups",
    "domain_id": "data_domains",
    "request_id": "role_requests",
    "review_id": "access_reviews",
    "item_id": "access_review_items",
    "delegation_id": "delegations",
    "factor_id": "factors",
    "webhook_id": "webhooks",
    "delivery_id": "webhook_deliveries",
    "tenant_id": "tenants",
    "invitation_id": "invitations",
}
"""By path parameter whose ids it takes; of one that is not here, all ids are tried."""


def routes(*methods: str) -> Iterator[tuple[str, str]]:
    for route in application().routes:
        template = getattr(route, "path_format", "")
        for handler in getattr(route, "route_handlers", ()):
            for method in {*handler.http_methods} & {*methods}:
                if template.startswith("/api/v1/"):
                    yield method, template


def paths(template: str, ids: dict[str, list[UUID]]) -> Iterator[str]:
    names = re.findall(r"{(\w+)}", template)
    every = [row_id for found in ids.values() for row_id in found]
    for values in product(*(ids[TABLES[name]] if name in TABLES else every for name in names)):
        yield template.format(**dict(zip(names, values, strict=True)))


def lists(template: str) -> Iterator[str]:
    yield f"{template}?limit=200&count=exact"
    yield from (f"{template}?q={text}" for text in ("a", "or", "."))


async def leaks(two: Two, hub: Hub, tenant_id: UUID) -> dict[str, set[str]]:
    """By route the foreign ids that its answers hold, but for those that were asked for."""
    (foreign,) = {*TENANTS} - {tenant_id}
    client = await two.admin_of(hub, tenant_id)
    found: dict[str, set[str]] = {}
    for _, template in routes("GET"):
        if tenant_id == DEFAULT_TENANT_ID and template.startswith("/api/v1/tenants"):
            continue  # operators see that tenants are there
        asked = lists(template) if "{" not in template else paths(template, two.ids[foreign])
        for path in asked:
            answer = await client.get(path)
            shown = set(UUIDS.findall(answer.text)) & two.every_id(foreign)
            if answer.status_code == 200 and "{" in template:
                shown |= set(UUIDS.findall(path))
            found.setdefault(template, set()).update(shown - (set(UUIDS.findall(path)) if answer.is_error else set()))
    return {template: shown for template, shown in found.items() if shown}


@pytest.mark.parametrize("tenant_id", ONE_OF_BOTH)
async def test_no_read_shows_a_foreign_row(two: Two, predicates: Predicates, tenant_id: UUID) -> None:
    before = predicates.taken_out
    assert await leaks(two, two.mutant, tenant_id) == {}
    assert predicates.taken_out > before + 50


@pytest.mark.parametrize("tenant_id", ONE_OF_BOTH)
async def test_without_the_wall_they_show_plenty(two: Two, tenant_id: UUID) -> None:
    """So it is the wall that holds, and not something that the test left in."""
    found = await leaks(two, two.bare, tenant_id)
    assert set(found) >= {
        *("/api/v1/users", "/api/v1/users/{user_id}", "/api/v1/users/{user_id}/roles", "/api/v1/audit-events"),
        *("/api/v1/roles", "/api/v1/roles/{role_id}", "/api/v1/roles/{role_id}/members"),
        *("/api/v1/data-sources", "/api/v1/data-sources/{source_id}", "/api/v1/data-sources/{source_id}/tests"),
        *("/api/v1/data-sources/{source_id}/objects/{object_id}", "/api/v1/jobs/{job_id}", "/api/v1/jobs"),
        *("/api/v1/service-accounts", "/api/v1/service-accounts/{account_id}"),
    }


BODIES: tuple[Any, ...] = ({}, {"description": "leaked"}, {"name": "leaked"}, {"is_active": False}, [])


@pytest.mark.slow
@pytest.mark.parametrize("tenant_id", TENANTS, ids=["ours", "theirs"])
async def test_no_change_reaches_a_foreign_row(two: Two, tenant_id: UUID) -> None:
    (foreign,) = {*TENANTS} - {tenant_id}
    client, before = await two.admin_of(two.mutant, tenant_id), await two.rows_of(foreign)
    for method, template in routes("POST", "PUT", "PATCH", "DELETE"):
        if "{" not in template or (tenant_id == DEFAULT_TENANT_ID and template.startswith("/api/v1/tenants")):
            continue
        for path in paths(template, two.ids[foreign]):
            for body in BODIES if method in ("PATCH", "PUT", "POST") else ({},):
                answer = await client.request(method, path, json=body)
                assert answer.is_client_error, (method, path, answer.text)
    assert await two.rows_of(foreign) == before


@pytest.mark.parametrize("tenant_id", TENANTS, ids=["ours", "theirs"])
async def test_nothing_of_ones_own_can_be_tied_to_a_foreign_row(two: Two, tenant_id: UUID) -> None:
    """A role of theirs for a user of ours, and the other way round."""
    (foreign,) = {*TENANTS} - {tenant_id}
    client, before = await two.admin_of(two.mutant, tenant_id), await two.rows_of(foreign)
    own, theirs = two.ids[tenant_id], two.ids[foreign]
    for users, roles_ in ((own["users"], theirs["roles"]), (theirs["users"], own["roles"])):
        for user_id, role_id in product(users, roles_):
            answer = await client.put(f"/api/v1/users/{user_id}/roles/{role_id}")
            assert answer.status_code == 404, answer.text
    assert await two.rows_of(foreign) == before
