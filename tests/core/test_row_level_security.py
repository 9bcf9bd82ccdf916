"""The wall in the database between tenants (MT1), and connections that many of them share (MT2)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.database import INTERRUPTED, Sessions, create_engine
from app.core.embedded import EmbeddedPostgres
from app.core.reads import Reads
from app.core.tenancy import DEFAULT_TENANT_ID, TENANT_SETTING
from app.domain.models import METADATA
from app.domain.roles.models import Role
from app.domain.roles.repositories import RoleRepository
from app.domain.roles.schemas import RoleOut
from tests.postgres import create_database, drop_database

pytestmark = pytest.mark.anyio

OPEN_TO_ALL = {
    "alembic_version": "which schema it is",
    "schema_breaks": "which releases can work with it",
    "upkeep": "how upkeep goes, counted over all tenants",
    "audit_watermark": "up to where the audit log is sealed; functions of the owner alone read it",
    "sealing_keys": "public keys",
    "audit_anchors": "how far seals are copied",
    "relays": "how the relays go, counted over all tenants",
}
"""Tables without a wall: of nobody, and read only but for the last."""
OTHER = UUID("01900000-0000-7000-8000-00000000000b")
ROLES = RoleRepository.selection(RoleOut)


class Walled:
    """A database with two tenants, of which each has roles of its own."""

    def __init__(self, owner: "asyncpg.Connection[Any]", app_url: str) -> None:
        self.owner = owner
        self.app_url = app_url


@pytest.fixture(scope="module")
async def walled(cluster: EmbeddedPostgres, migrated: str) -> AsyncIterator[Walled]:
    name = await create_database(cluster, migrated)
    owner = await asyncpg.connect(cluster.url("hub_owner", name))
    await owner.execute(
        "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, 'b', 'B', true, now(), now())",
        OTHER,
    )
    await owner.execute(
        """INSERT INTO roles (id, tenant_id, name, name_key, permissions, is_system, created_at, updated_at)
           SELECT gen_random_uuid(), $1, 'theirs ' || i, 'theirs ' || i, '{}', false, now(), now()
           FROM generate_series(1, 5) AS i""",
        OTHER,
    )
    yield Walled(owner, cluster.url("hub_app", name))
    await owner.close()
    await drop_database(cluster, name)


@pytest.fixture
async def app(walled: Walled) -> "AsyncIterator[asyncpg.Connection[Any]]":
    connection = await asyncpg.connect(walled.app_url)
    yield connection
    await connection.close()


# --- the wall ---


UNWALLED = """
    SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
      AND NOT (relrowsecurity AND relforcerowsecurity
        AND (SELECT array_agg(polname::text ORDER BY polname) = '{of_owner,of_tenant}'
               AND bool_and(polpermissive AND polcmd = '*' AND polwithcheck IS NULL)
               AND bool_and(polroles = CASE polname WHEN 'of_owner' THEN ARRAY['hub_owner'::regrole::oid]
                                                    ELSE ARRAY['hub_app'::regrole::oid] END)
               AND bool_and(CASE polname WHEN 'of_owner' THEN pg_get_expr(polqual, polrelid) = 'true'
                                         ELSE pg_get_expr(polqual, polrelid) LIKE '%current_setting(''hub.tenant_id''%' END)
             FROM pg_policy WHERE polrelid = pg_class.oid))
    ORDER BY 1"""


async def unwalled(walled: Walled) -> set[str]:
    return {row["relname"] for row in await walled.owner.fetch(UNWALLED)}


async def test_every_table_is_walled_off_but_for_those_named(walled: Walled) -> None:
    assert await unwalled(walled) == set(OPEN_TO_ALL)


@pytest.mark.parametrize(
    "forgotten",
    [
        "CREATE TABLE forgotten (tenant_id uuid)",
        "CREATE TABLE forgotten (name text)",
        "CREATE TABLE forgotten (tenant_id uuid); ALTER TABLE forgotten ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE roles NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY of_owner ON roles",
        "CREATE POLICY more ON roles USING (true)",
        "ALTER POLICY of_owner ON roles TO PUBLIC",
        "ALTER POLICY of_tenant ON roles USING (true)",
        "ALTER POLICY of_tenant ON roles WITH CHECK (true)",
    ],
)
async def test_a_table_without_its_wall_is_found(walled: Walled, forgotten: str) -> None:
    async with walled.owner.transaction():
        await walled.owner.execute(forgotten)
        assert await unwalled(walled) > set(OPEN_TO_ALL)
        await walled.owner.execute("ROLLBACK; BEGIN")
    assert await unwalled(walled) == set(OPEN_TO_ALL)


async def test_nobody_is_above_the_wall(walled: Walled) -> None:
    mighty = await walled.owner.fetch(
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 'hub%' AND (rolbypassrls OR rolsuper)"
    )
    member = await walled.owner.fetchval("SELECT pg_has_role('hub_app', 'hub_owner', 'MEMBER')")
    assert (mighty, member) == ([], False)


async def test_in_no_tenant_nothing_is_there(walled: Walled, app: "asyncpg.Connection[Any]") -> None:
    tables = sorted({table.name for table in METADATA.sorted_tables} - set(OPEN_TO_ALL))
    assert len(tables) >= 15
    for given in (None, "", str(uuid4())):
        if given is not None:
            await app.execute(f"SET {TENANT_SETTING} = '{given}'")
        assert {table: await app.fetchval(f"SELECT count(*) FROM {table}") for table in tables} == dict.fromkeys(
            tables, 0
        )
    assert await walled.owner.fetchval("SELECT count(*) FROM roles") > 5


async def test_nothing_can_be_written_for_another_tenant(walled: Walled, app: "asyncpg.Connection[Any]") -> None:
    await app.execute(f"SET {TENANT_SETTING} = '{DEFAULT_TENANT_ID}'")
    for statement in (
        "INSERT INTO roles (id, tenant_id, name, name_key, permissions, is_system, created_at, updated_at)"
        f" VALUES (gen_random_uuid(), '{OTHER}', 'x', 'x', '{{}}', false, now(), now())",
        f"UPDATE roles SET tenant_id = '{OTHER}'",
        f"INSERT INTO audit_events (id, tenant_id, occurred_at, action, resource_type, outcome)"
        f" VALUES (gen_random_uuid(), '{OTHER}', now(), 'x', 'x', 'success')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await app.execute(statement)
    before = await walled.owner.fetchval("SELECT count(*) FROM roles WHERE tenant_id = $1", OTHER)
    assert await app.execute(f"DELETE FROM roles WHERE tenant_id = '{OTHER}'") == "DELETE 0"
    assert await app.execute(f"UPDATE roles SET description = 'x' WHERE tenant_id = '{OTHER}'") == "UPDATE 0"
    assert await walled.owner.fetchval("SELECT count(*) FROM roles WHERE tenant_id = $1", OTHER) == before == 5


async def test_members_of_the_default_tenant_see_that_others_are_there(app: "asyncpg.Connection[Any]") -> None:
    for tenant_id, seen in ((DEFAULT_TENANT_ID, {DEFAULT_TENANT_ID, OTHER}), (OTHER, {OTHER})):
        await app.execute(f"SET {TENANT_SETTING} = '{tenant_id}'")
        assert {row["id"] for row in await app.fetch("SELECT id FROM tenants")} == seen


# --- the owner's functions ---


async def test_the_owners_functions_are_for_the_application_alone(walled: Walled) -> None:
    """Whoever could put something into their search path would have it run as the owner."""
    functions = await walled.owner.fetch(
        """SELECT oid::regprocedure::text AS name, prosecdef, proconfig, proowner::regrole::text AS owner, proacl::text[] AS acl
           FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prorettype <> 'trigger'::regtype
             AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid
                               AND deptype = 'e')"""
    )
    narrow = [function for function in functions if function["prosecdef"]]
    assert len(narrow) >= 20
    for function in narrow:
        assert "search_path=pg_catalog, pg_temp" in function["proconfig"], function["name"]
        assert function["owner"] == "hub_owner", function["name"]
        assert sorted(function["acl"]) == ["hub_app=X/hub_owner", "hub_owner=X/hub_owner"], function["name"]


# --- connections that tenants share ---


@pytest.fixture
async def reads(walled: Walled) -> AsyncIterator[Reads]:
    made = Reads(walled.app_url, pool_size=1, timeout_s=2)
    yield made
    made.close()


async def seen(reads: Reads, tenant_id: UUID | None) -> set[UUID]:
    """The tenants of all roles that the connection of these reads shows, with no predicate in the statement."""
    async with reads.connection("roles", tenant_id) as connection:
        return {row[0] for row in await connection.fetch("SELECT DISTINCT tenant_id FROM roles")}


async def assert_apart(reads: Reads) -> None:
    for tenant_id in (DEFAULT_TENANT_ID, OTHER, None, OTHER, OTHER, DEFAULT_TENANT_ID, None):
        assert await seen(reads, tenant_id) == ({tenant_id} if tenant_id else set())


async def test_tenants_take_turns_on_one_connection(reads: Reads) -> None:
    await assert_apart(reads)
    for tenant_id in (DEFAULT_TENANT_ID, OTHER) * 3:
        rows = await reads.rows(ROLES, {"tenant_id": tenant_id})
        assert (len(rows) == 5) is (tenant_id == OTHER)
        assert rows


async def test_a_connection_is_moved_only_where_it_is_elsewhere(reads: Reads, walled: Walled) -> None:
    """A round trip for each change of tenant, none for the same one again."""
    async with reads.connection(None, OTHER) as connection:
        moved: list[UUID | None] = []
        real = connection.enter

        async def enter(tenant_id: UUID | None) -> None:
            moved.append(tenant_id)
            await real(tenant_id)

        connection.enter = enter
    for tenant_id in (OTHER, OTHER, DEFAULT_TENANT_ID, DEFAULT_TENANT_ID, DEFAULT_TENANT_ID, OTHER):
        await reads.rows(ROLES, {"tenant_id": tenant_id})
    assert moved == [DEFAULT_TENANT_ID, OTHER]


async def test_of_several_connections_the_one_that_is_there_already_is_taken(walled: Walled) -> None:
    reads = Reads(walled.app_url, pool_size=2, timeout_s=2)
    try:
        async with reads.connection(None, OTHER) as theirs, reads.connection(None, DEFAULT_TENANT_ID) as ours:
            pass
        for tenant_id, own in ((DEFAULT_TENANT_ID, ours), (OTHER, theirs)) * 3:
            async with reads.connection(None, tenant_id) as connection:
                assert connection is own
    finally:
        reads.close()


async def test_nothing_leaks_after_a_statement_that_failed(reads: Reads) -> None:
    for tenant_id in (OTHER, DEFAULT_TENANT_ID):
        with pytest.raises(asyncpg.PostgresError):
            await reads.rows(select(text("1 / 0")).select_from(Role), {"tenant_id": tenant_id})
        await assert_apart(reads)
        with suppress(asyncpg.PostgresError):
            async with reads.connection(None, tenant_id) as connection:
                await connection.fetch("SELECT 1 / 0")
        await assert_apart(reads)


async def test_nothing_leaks_after_a_cancellation_at_any_moment(reads: Reads) -> None:
    """Also while the connection is moved: what the server has taken in is not known then."""
    for pause_ms in (0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
        for tenant_id in (OTHER, DEFAULT_TENANT_ID):
            asked = asyncio.create_task(seen(reads, tenant_id))
            await asyncio.sleep(pause_ms / 1000)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await assert_apart(reads)


async def test_nothing_leaks_after_a_move_that_failed(reads: Reads, walled: Walled) -> None:
    assert await seen(reads, OTHER) == {OTHER}
    async with reads.connection(None, OTHER) as connection:
        pid = connection.get_server_pid()
    ending = await asyncpg.connect(walled.app_url)
    await ending.execute(f"SELECT pg_terminate_backend({pid})")
    await ending.close()
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, INTERRUPTED, OSError):
        await seen(reads, DEFAULT_TENANT_ID)
    await assert_apart(reads)


async def test_nothing_leaks_after_a_time_out(reads: Reads) -> None:
    for tenant_id in (OTHER, DEFAULT_TENANT_ID):
        with suppress(Exception):
            await reads.rows(select(text("pg_sleep(5)")).select_from(Role), {"tenant_id": tenant_id})
        await assert_apart(reads)


async def test_what_is_no_id_names_no_tenant(reads: Reads) -> None:
    for name in ("'; RESET ROLE; --", 5, b""):
        with pytest.raises(TypeError, match="names no tenant"):
            await reads.rows(ROLES, {"tenant_id": name})
    await assert_apart(reads)


# --- transactions ---


@pytest.fixture
async def engine(walled: Walled) -> AsyncIterator[AsyncEngine]:
    made = create_engine(walled.app_url, pool_size=1, timeout_s=2)
    yield made
    await made.dispose()


async def seen_by(engine: AsyncEngine, tenant_id: UUID | None) -> set[UUID]:
    async with Sessions(engine)(tenant_id) as session:
        return set(await session.scalars(text("SELECT DISTINCT tenant_id FROM roles")))


async def assert_sessions_apart(engine: AsyncEngine) -> None:
    for tenant_id in (DEFAULT_TENANT_ID, OTHER, None, OTHER, OTHER, DEFAULT_TENANT_ID):
        assert await seen_by(engine, tenant_id) == ({tenant_id} if tenant_id else set())


async def test_tenants_take_turns_in_transactions_on_one_connection(engine: AsyncEngine) -> None:
    await assert_sessions_apart(engine)


async def test_a_connection_of_the_engines_own_is_in_no_tenant(engine: AsyncEngine) -> None:
    assert await seen_by(engine, OTHER) == {OTHER}
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM roles"))).scalar() == 0


@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_a_tenant_lasts_as_long_as_its_transaction(engine: AsyncEngine, ends: str) -> None:
    """And the next transaction of the session is in it again."""
    async with Sessions(engine)(OTHER) as session:
        for _ in range(2):
            assert set(await session.scalars(text("SELECT DISTINCT tenant_id FROM roles"))) == {OTHER}
            await getattr(session, ends)()
    await assert_sessions_apart(engine)


async def test_nothing_leaks_after_a_transaction_that_failed_was_cancelled_or_timed_out(engine: AsyncEngine) -> None:
    for statement in ("SELECT 1 / 0", "SELECT pg_sleep(5)"):
        with suppress(Exception):
            async with Sessions(engine).begin(OTHER) as session:
                await session.execute(text(statement))
        await assert_sessions_apart(engine)
    for pause_ms in (0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
        asked = asyncio.create_task(seen_by(engine, OTHER))
        await asyncio.sleep(pause_ms / 1000)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await assert_sessions_apart(engine)


async def test_a_transaction_begins_in_its_tenant_without_a_round_trip_more(engine: AsyncEngine) -> None:
    sent: list[str] = []
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
    driver.add_query_logger(lambda query: sent.append(query.query))
    assert await seen_by(engine, OTHER) == {OTHER}
    assert [query.split()[0] for query in sent] == ["BEGIN;SET", "ROLLBACK;"], (
        "beside the select itself, which is prepared"
    )
