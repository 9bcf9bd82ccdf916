"""The two ways of reading are one: every select of every repository runs by asyncpg and by SQLAlchemy alike (AZ4, MT1).

Selects and lists are found, not named: a new resource is held to this from its first commit.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from sqlalchemy import Select

import app.domain
from app.core.database import explain
from app.core.errors import HubError, NotFound
from app.core.lists.listing import Listing, ListQuery
from app.core.reads import LONGEST_REMEMBERED, Reads, compiled
from app.domain.events.sequencing import give_positions
from app.domain.roles.repositories import ROLE, RoleRepository
from app.domain.roles.schemas import RoleOut
from app.domain.tenants.models import DEFAULT_TENANT_ID
from app.domain.users.repositories import USER, UserRepository
from app.domain.users.schemas import UserOut
from tests.conftest import Hub
from tests.domain.seals import seal_all
from tests.sampling import sampled

pytestmark = pytest.mark.anyio

ADMIN_ROLE = UUID("00000000-0000-7000-8000-000000000101")
SAMPLES = {"boolean": "true", "uuid": str(ADMIN_ROLE), "date-time": "2025-01-01T00:00:00Z", "string": "a"}


def found(kind: type) -> dict[str, Any]:
    """Every module-level object of the kind in the domain's repositories, and the select behind every principal."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(app.domain.__path__, "app.domain.")
        if module.name.endswith((".repositories", ".principals"))
    ]
    pairs = (
        (f"{module.__name__.split('.')[2]}.{name}", value) for module in modules for name, value in vars(module).items()
    )
    return {name: value for name, value in pairs if isinstance(value, kind)}


SELECTS: dict[str, Select[Any]] = found(Select)
LISTINGS: dict[str, Listing] = found(Listing)


def queries_of(listing: Listing) -> Iterator[ListQuery]:
    """First and later pages of every sort in both directions, each filter alone and all of them at once."""
    filters = {name: filter_.parse(_sample(filter_.schema)) for name, filter_ in listing.filters.items()}
    for sort in (*listing.sorts, *(f"-{name}" for name in listing.sorts)):
        yield ListQuery(extent=None, sort=sort, limit=3)
    for name, value in filters.items():
        yield ListQuery(extent=None, sort=listing.default_sort, filters={name: value})
    yield ListQuery(extent=None, sort=listing.default_sort, filters=filters)


def _sample(schema: Any) -> str:
    if "enum" in schema:
        return str(schema["enum"][0])
    return SAMPLES.get(schema.get("format", ""), SAMPLES.get(schema["type"], "a"))


@pytest.fixture(scope="module")
async def bound(hub: Hub) -> dict[str, Any]:
    """A row of everything, and values for what the selects bind."""
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    session = (await hub.admin.get("/api/v1/auth/sessions")).json()["items"][0]["id"]
    await hub.admin.post(
        "/api/v1/roles", json={"name": "aardvark", "owner_role_id": str(ADMIN_ROLE), "is_requestable": True}
    )
    body = {"name": "a source", "type": "rest", "config": {"base_url": "https://a.example"}, "tags": ["a", "ü"]}
    source = await hub.admin.post("/api/v1/data-sources", json=body)
    assert source.status_code == 201, source.text
    source_id = UUID(source.json()["id"])
    key = await hub.admin.post("/api/v1/api-keys", json={"name": "a key", "permissions": ["roles:read"]})
    assert key.status_code == 201, key.text
    directory = await hub.admin.post("/api/v1/scim-keys", json={"name": "Entra ID"})
    assert directory.status_code == 201, directory.text
    async with hub.parts.reads.connection("test", DEFAULT_TENANT_ID) as connection:
        for insert in INSERTS:
            await connection.execute(insert, uuid4(), DEFAULT_TENANT_ID, source_id)
        for insert in INSERTS_OF_USER:
            await connection.execute(insert, uuid4(), DEFAULT_TENANT_ID, UUID(me))
        await connection.execute("UPDATE jobs SET created_by = $1", UUID(me))
        token_id = await connection.fetchval(SERVICE_TOKEN)
    await seal_all(hub)
    assert await give_positions(hub.parts) > 0
    return {
        "tenant_id": DEFAULT_TENANT_ID,
        "number": 1,
        "token_id": token_id,
        "user_id": UUID(me),
        "member_role_id": ADMIN_ROLE,
        "actor_id": UUID(me),
        "principal_id": UUID(me),
        "unfinished": ["queued", "running"],
        "most": 10,
        "review_id": await a_review_of(hub),
        "request_id": await a_request_of(hub, UUID(me)),
        "name": "reports.dashboards:read",
        "member_group_id": await a_group_of(hub, me),
        "domain_ids": [uuid4()],
        "owner_role_ids": [ADMIN_ROLE],
        "data_source_id": source_id,
        "session_id": UUID(session),
        "current_session_id": UUID(session),
        "own_id": UUID(me),
        "key_id": UUID(key.json()["id"]),
        "scim_key_id": UUID(directory.json()["id"]),
        "webhook_id": await a_webhook_of(hub),
        "now": datetime.now(UTC),
    }


DELEGATION = """
    INSERT INTO delegations (id, tenant_id, user_id, to_user_id, starts_at, ends_at, created_at, updated_at)
    VALUES ($1, $2, $3, $1, now(), now() + interval '1 day', now(), now())
"""
REQUEST = """
    WITH request AS (
      INSERT INTO role_requests (id, tenant_id, user_id, role_id, scope_type, scope_id, justification, status,
        pending_until, slots, awaits, created_at, updated_at)
      VALUES ($1, $2, $3, $4, 'data_source', $1, 'ü', 'pending', now() + interval '1 day', ARRAY[$4::uuid],
        ARRAY[$4::uuid], now(), now())
      RETURNING *)
    INSERT INTO role_request_entries (id, tenant_id, request_id, kind, actor_id, role_ids, created_at)
    SELECT id, tenant_id, id, 'created', user_id, '{}', now() FROM request RETURNING id
"""


DELIVERY = """
    INSERT INTO webhook_deliveries (id, tenant_id, webhook_id, event_id, event_type, subject, status, attempts, created_at,
      expires_at, last_attempt_at, response_status, duration_ms, failure)
    SELECT gen_random_uuid(), $1, $2, gen_random_uuid(), 'role.created', 'roles/ü', status, 1, now(), now(), now(), 500, 1.5,
      'http_error'
    FROM unnest(ARRAY['pending', 'failed']) AS status
"""


async def a_webhook_of(hub: Hub) -> UUID:
    made = await hub.admin.post("/api/v1/webhooks", json={"url": "https://a.example/", "event_types": ["role.created"]})
    assert made.status_code == 201, made.text
    webhook_id = UUID(made.json()["id"])
    async with hub.parts.reads.connection("test", DEFAULT_TENANT_ID) as connection:
        await connection.execute(DELIVERY, DEFAULT_TENANT_ID, webhook_id)
    return webhook_id


async def a_review_of(hub: Hub) -> UUID:
    body = {"name": "ü", "role_id": str(ADMIN_ROLE), "due_at": "2100-01-01T00:00:00Z", "on_no_answer": "keep"}
    made = await hub.admin.post("/api/v1/access-reviews", json=body)
    assert made.status_code == 201, made.text
    return UUID(made.json()["id"])


async def a_request_of(hub: Hub, user_id: UUID) -> UUID:
    async with hub.parts.reads.connection("test", DEFAULT_TENANT_ID) as connection:
        await connection.execute(DELEGATION, uuid4(), DEFAULT_TENANT_ID, user_id)
        made: UUID = await connection.fetchval(REQUEST, uuid4(), DEFAULT_TENANT_ID, user_id, ADMIN_ROLE)
    return made


async def a_group_of(hub: Hub, user_id: str) -> UUID:
    group = (await hub.admin.post("/api/v1/groups", json={"name": "aardvarks"})).json()["id"]
    assert (await hub.admin.put(f"/api/v1/groups/{group}/members/{user_id}")).status_code == 200
    return UUID(group)


INSERTS = [
    """INSERT INTO data_domains (id, tenant_id, name, name_key, lineage, owner_role_id, created_at, updated_at)
       SELECT $1, $2, 'Sales', 'sales', ARRAY[$1::uuid], '00000000-0000-7000-8000-000000000101', now(), now()
       WHERE $3::uuid IS NOT NULL""",
    """INSERT INTO permissions (id, tenant_id, name, description, created_at, updated_at)
       SELECT $1, $2, 'reports.dashboards:read', 'ü', now(), now() WHERE $3::uuid IS NOT NULL""",
    """INSERT INTO data_source_tests VALUES
       ($1, $2, $3, 'passed', '[{"name": "resolve", "duration_ms": 1.5}]', '{"version": "ü"}', 2.25, now())""",
    """INSERT INTO source_objects VALUES
       ($1, $2, $3, 'orders', '{shop,orders}', 'shop.orders', 'table', true, '[{"name": "id", "position": 1}]', now())""",
    """INSERT INTO jobs (id, tenant_id, kind, status, subject_id, arguments, result, created_at, updated_at)
       VALUES ($1, $2, 'a', 'queued', $3, '{}', '{"found": 3}', now(), now())""",
    """INSERT INTO invitations (id, tenant_id, email, email_key, first_name, last_name, role_ids, expires_at, created_at,
         updated_at)
       SELECT $1, $2, 'ü@example.org', 'ü@example.org', 'ü', '', ARRAY[$3::uuid], now(), now(), now()""",
    """INSERT INTO service_accounts (id, tenant_id, name, name_key, is_active, created_at, updated_at)
       VALUES ($1, $2, 'an account', $3::uuid::text, true, now(), now())""",
    """INSERT INTO oauth_clients (id, tenant_id, client_id, name, name_key, redirect_uris, is_confidential, created_at, updated_at)
       VALUES ($1, $2, 'dfo_x', 'a client', $3::uuid::text, '{https://app.example.org/ü}', false, now(), now())""",
]
INSERTS_OF_USER = [
    """INSERT INTO factors (id, tenant_id, user_id, type, name, confirmed_at, created_at, updated_at)
       VALUES ($1, $2, $3, 'passkey', 'ü', now(), now(), now())""",
    """INSERT INTO user_identities (id, tenant_id, user_id, kind, provider, issuer, subject, created_at)
       VALUES ($1, $2, $3, 'oidc', 'corp', 'https://idp.example.org', 'ü', now())""",
    """INSERT INTO identity_providers (id, tenant_id, kind, name, label, is_active, scopes, allowed_domains, created_at,
         updated_at, created_by)
       VALUES ($1, $2, 'oidc', 'corp', 'Ü', true, '{openid}', '{}', now(), now(), $3)""",
]
SERVICE_TOKEN = """
    INSERT INTO service_tokens (id, tenant_id, service_account_id, jwk_id, created_at, expires_at)
    SELECT gen_random_uuid(), tenant_id, id, gen_random_uuid(), now(), now() + interval '1 hour' FROM service_accounts
    LIMIT 1 RETURNING id"""


async def by_asyncpg(hub: Hub, statement: Select[Any], values: dict[str, Any]) -> list[list[Any]]:
    return [list(row) for row in await hub.parts.reads.rows(statement, values)]


async def by_sqlalchemy(hub: Hub, statement: Select[Any], values: dict[str, Any]) -> list[list[Any]]:
    async with hub.parts.sessions(values["tenant_id"]) as session:
        return [list(row) for row in await session.execute(statement, values)]


async def same_rows(hub: Hub, statement: Select[Any], values: dict[str, Any]) -> list[list[Any]]:
    fast, slow = await by_asyncpg(hub, statement, values), await by_sqlalchemy(hub, statement, values)
    assert msgspec.json.encode(fast) == msgspec.json.encode(slow)
    return fast


async def table_ids(hub: Hub, statement: Select[Any]) -> list[UUID]:
    table: Any = statement.get_final_froms()[0]
    while hasattr(table, "left"):
        table = table.left
    async with hub.parts.reads.connection("test", DEFAULT_TENANT_ID) as connection:
        return [row[0] for row in await connection.fetch(f'SELECT id FROM "{table.name}" LIMIT 3')]


def test_the_domains_selects_and_lists_are_found() -> None:
    assert {"users.USER", "roles.ROLE", "auth.LIVE_SESSION"} <= set(SELECTS)
    assert {"users.USERS", "users.MEMBERS", "users.ROLES_OF_USER", "roles.ROLES", "auth.SESSIONS"} <= set(LISTINGS)
    assert len(LISTINGS) >= 8


# --- the same bytes ---


@pytest.mark.parametrize("name", SELECTS)
async def test_a_select_reads_the_same_both_ways(hub: Hub, bound: dict[str, Any], name: str) -> None:
    rows = [
        row
        for row_id in await table_ids(hub, SELECTS[name])
        for row in await same_rows(hub, SELECTS[name], bound | {"id": row_id, "ids": [row_id]})
    ]
    assert rows, "a comparison of nothing says nothing"


@pytest.mark.parametrize("name", sampled(LISTINGS, every=4))
async def test_a_list_reads_the_same_both_ways(hub: Hub, bound: dict[str, Any], name: str) -> None:
    listing, seen = LISTINGS[name], 0
    for query in queries_of(listing):
        rows = await same_rows(hub, listing.statement(query), bound | listing.parameters(query))
        seen += len(rows)
        (total,) = await same_rows(hub, listing.count_statement(query), bound | listing.parameters(query))
        assert total[0] >= len(rows[: query.limit])
        if rows and not query.filters:
            after = msgspec.structs.replace(
                query, after=(rows[0][listing.sort_position(query.sort)], UUID(str(rows[0][0])))
            )
            later = await same_rows(hub, listing.statement(after), bound | listing.parameters(after))
            assert later[: len(rows) - 1] == rows[1:]
    assert seen, "a comparison of nothing says nothing"


@pytest.mark.parametrize("name", LISTINGS)
def test_a_statement_is_built_once(name: str) -> None:
    """A condition that is another object each time would be remembered each time."""
    for query in queries_of(LISTINGS[name]):
        assert LISTINGS[name].statement(query) is LISTINGS[name].statement(query)
        assert LISTINGS[name].count_statement(query) is LISTINGS[name].count_statement(query)


MOMENTS = [
    datetime(2026, 11, 30, 20, 48, tzinfo=UTC),
    datetime(2026, 11, 30, 20, 48, 0, 100_000, tzinfo=UTC),
    datetime(2026, 11, 30, 20, 48, 59, 1, tzinfo=UTC),
    datetime(2026, 11, 30, 20, 48, 59, 999_999, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
    datetime(1883, 11, 18, 12, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(2, 1, 1, tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
]


async def test_a_moment_comes_back_as_it_was_sent(hub: Hub) -> None:
    async with hub.parts.reads.connection("test", DEFAULT_TENANT_ID) as connection:
        for moment in MOMENTS:
            assert await connection.fetchval("SELECT $1::timestamptz", moment) == moment
        assert await connection.fetchval("SELECT $1::timestamptz[]", MOMENTS) == MOMENTS
        assert await connection.fetchval("SELECT NULL::timestamptz") is None


async def test_moments_are_read_whatever_form_the_database_gives_them(hub: Hub, cluster: Any) -> None:
    """Somebody has set another form, and another zone, for all who connect."""
    name = hub.url.rpartition("/")[2]
    owner = await asyncpg.connect(cluster.url("hub_owner", name))
    await owner.execute(f"""ALTER DATABASE "{name}" SET datestyle = 'SQL, DMY'""")
    await owner.execute(f"""ALTER DATABASE "{name}" SET timezone = 'Asia/Kathmandu'""")
    reads = Reads(hub.url, pool_size=1, timeout_s=5)
    try:
        async with reads.connection("test", DEFAULT_TENANT_ID) as connection:
            found = await connection.fetchval("SELECT '2026-05-04 03:02:01.5+05:45'::timestamptz")
    finally:
        await owner.execute(f'ALTER DATABASE "{name}" RESET datestyle')
        await owner.execute(f'ALTER DATABASE "{name}" RESET timezone')
        await owner.close()
        reads.close()
    assert found.isoformat() == "2026-05-03T21:17:01.500000+00:00"


DOCUMENTS: list[Any] = [
    {},
    [],
    None,
    'a ": b, \\ c',
    {'"a": ': [1, 1.5, 1e-7, -0.25, True, None, {"ü\x7f\u2028": "\t\x1f"}]},
    {"short": "x" * (LONGEST_REMEMBERED - 20)},
    {"long": ["a: b, c" * 10] * LONGEST_REMEMBERED},
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: repr(document)[:20])
async def test_a_stored_document_is_written_as_the_hub_writes_it(hub: Hub, document: Any) -> None:
    """For the first time and from memory."""
    async with hub.parts.reads.connection("test", DEFAULT_TENANT_ID) as connection:
        for _ in range(2):
            found = await connection.fetchval("SELECT $1::jsonb", document)
            assert msgspec.json.encode([found]) == msgspec.json.encode([document])


# --- the tenant predicate ---

PREDICATE = re.compile(r"\b(\w+)\.tenant_id = \$\d+")


OF_OPERATORS = re.compile(r"\$\d+::UUID = \$\d+::UUID AND tenants\.deleted_at IS NULL")
"""Tenants themselves are of no tenant: who asks has to be of the operators'."""


def assert_bound_to_a_tenant(statement: Select[Any]) -> None:
    sql, names, own, _ = compiled(statement)
    where = sql.partition("WHERE")[2]
    if "FROM tenants" in sql:
        assert OF_OPERATORS.search(where), sql
        assert DEFAULT_TENANT_ID in own.values()
    else:
        assert PREDICATE.search(where), sql
    assert "tenant_id" in names


@pytest.mark.parametrize("name", SELECTS)
def test_every_select_is_bound_to_a_tenant(name: str) -> None:
    assert_bound_to_a_tenant(SELECTS[name])


@pytest.mark.parametrize("name", LISTINGS)
def test_every_list_and_count_is_bound_to_a_tenant(name: str) -> None:
    for query in queries_of(LISTINGS[name]):
        assert_bound_to_a_tenant(LISTINGS[name].statement(query))
        assert_bound_to_a_tenant(LISTINGS[name].count_statement(query))


@pytest.mark.parametrize("name", [*SELECTS, *LISTINGS])
async def test_another_tenant_sees_no_row(hub: Hub, bound: dict[str, Any], name: str) -> None:
    foreign = bound | {"tenant_id": uuid4()}
    if name in SELECTS:
        for row_id in await table_ids(hub, SELECTS[name]):
            assert await same_rows(hub, SELECTS[name], foreign | {"id": row_id, "ids": [row_id]}) == []
        return
    listing = LISTINGS[name]
    query = ListQuery(extent=None, sort=listing.default_sort)
    assert await same_rows(hub, listing.statement(query), foreign | listing.parameters(query)) == []
    assert await same_rows(hub, listing.count_statement(query), foreign | listing.parameters(query)) == [[0]]


@pytest.mark.parametrize("name", LISTINGS)
def test_every_sort_of_a_list_ends_in_the_id(name: str) -> None:
    """Rows with one sort value have one order, or a page would lose some of them."""
    for query in queries_of(LISTINGS[name]):
        sql = compiled(LISTINGS[name].statement(query))[0]
        assert re.search(
            r"ORDER BY .*, \w+\.(id|subject_id|user_id|data_source_id)( DESC)?\s+LIMIT 201\) AS page\s+LIMIT \$\d+", sql
        ), sql


# --- the same errors ---


async def failure(read: Any, hub: Hub, statement: Select[Any], values: dict[str, Any]) -> HubError:
    try:
        await read(hub, statement, values)
    except Exception as error:
        explained = explain(error)
        assert explained is not None, error
        return explained
    raise AssertionError("nothing failed")


IDS = {"id", "ids", "session_id", "user_id", "data_source_id", "member_role_id", "key_id", "token_id"}
"""Parameters that texts and numbers are no values of."""


@pytest.mark.parametrize("name", [name for name, each in SELECTS.items() if set(compiled(each).names) & IDS])
@pytest.mark.parametrize("value", ["text", 5])
async def test_a_value_of_another_type_fails_the_same_both_ways(
    hub: Hub, bound: dict[str, Any], name: str, value: Any
) -> None:
    """But for the tenant, which is part of the connection before anything is sent."""
    values = dict.fromkeys([*bound, "id", "ids"], value) | {"tenant_id": DEFAULT_TENANT_ID}
    fast = await failure(by_asyncpg, hub, SELECTS[name], values)
    assert fast.status == 400
    assert await hub.parts.reads.rows(SELECTS[name], bound | {"id": uuid4(), "ids": [uuid4()]}) is not None


@pytest.mark.parametrize(
    ("statement", "repository", "struct"),
    [(ROLE, RoleRepository, RoleOut), (USER, UserRepository, UserOut)],
    ids=["role", "user"],
)
async def test_what_is_not_there_is_not_there_either_way(
    hub: Hub, statement: Any, repository: Any, struct: Any
) -> None:
    values = {"id": uuid4(), "tenant_id": DEFAULT_TENANT_ID}
    with pytest.raises(NotFound):
        await hub.parts.reads.one(statement, struct, **values)
    async with hub.parts.sessions(values["tenant_id"]) as session:
        with pytest.raises(NotFound):
            await repository(session).read(struct, **values)


async def test_a_read_survives_a_table_that_changes_under_it(hub: Hub, bound: dict[str, Any], cluster: Any) -> None:
    """A prepared statement of a table that was altered fails once; it is prepared again and nobody notices."""
    values = bound | {"id": ADMIN_ROLE}
    await hub.parts.reads.rows(ROLE, values)
    owner = await asyncpg.connect(cluster.url("hub_owner", hub.url.rpartition("/")[2]))
    await owner.execute("ALTER TABLE roles ALTER COLUMN description TYPE varchar(5000)")
    await owner.close()
    for _ in range(3):
        assert len(await hub.parts.reads.rows(ROLE, values)) == 1


async def test_a_connection_that_was_ended_costs_one_answer_at_most(hub: Hub, bound: dict[str, Any]) -> None:
    values = bound | {"id": ADMIN_ROLE}
    await hub.parts.reads.rows(ROLE, values)
    async with hub.parts.sessions(None) as session:
        from sqlalchemy import text

        await session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'hub reads' AND datname = current_database()"
            )
        )
    answers = [await hub.admin.get(f"/api/v1/roles/{ADMIN_ROLE}") for _ in range(3)]
    assert {answer.status_code for answer in answers[1:]} == {200}
    assert answers[0].status_code in (200, 503)
