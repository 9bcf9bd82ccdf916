"""Migrations beside traffic: nobody waits for a second for a lock of theirs, among 1,000,000 rows either."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from app.core import migrations
from app.core.embedded import EmbeddedPostgres
from app.core.schema_changes import LOCK_TIMEOUT_MS
from tests.postgres import create_database, drop_database

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

BEFORE = "0003"
"""Where 0.1.0 left the schema."""
LAST = "0013"
"""The last revision without a declared break: from the next one on no hub of before is at work."""
ROLES_ALTERED = "0014"
"""Makes a table that refers to roles, then alters data sources, and then roles."""
TENANT = "00000000-0000-7000-8000-000000000001"
PUBLIC = "00000000-0000-7000-8000-000000000102"
LONGEST_WAIT_S = 1.0
WAITS = """
SELECT max(extract(epoch FROM clock_timestamp() - waitstart))::float8 FROM pg_locks AS waiting
JOIN pg_stat_activity AS waiter ON waiter.pid = waiting.pid AND waiter.application_name = 'traffic'
WHERE NOT waiting.granted AND EXISTS (
  SELECT FROM unnest(pg_blocking_pids(waiting.pid)) AS blocking
  JOIN pg_stat_activity AS blocker ON blocker.pid = blocking AND blocker.application_name = 'hub migrate')"""
"""How long somebody waits who waits for the migration, or behind what it waits for."""

FILL = """
INSERT INTO users (id, tenant_id, email, email_key, first_name, last_name, is_active, created_at, updated_at)
  SELECT md5('u' || i)::uuid, '{tenant}', i || '@example.org', i || '@example.org', 'Ada', 'Of ' || i, true, now(), now()
  FROM generate_series(1, {rows}) AS i;
INSERT INTO user_roles (user_id, role_id, tenant_id, created_at)
  SELECT md5('u' || i)::uuid, '{public}', '{tenant}', now() FROM generate_series(1, {rows}) AS i;
INSERT INTO data_sources (id, tenant_id, name, name_key, type, category, config, tags, is_paused, status, created_at,
                          updated_at)
  SELECT md5('s' || i)::uuid, '{tenant}', 's' || i, 's' || i, 'rest', 'api', '{{}}', '{{shop,old}}', false, 'untested', now(),
    now()
  FROM generate_series(1, {rows} / 10) AS i;
INSERT INTO data_source_secrets (data_source_id, name, tenant_id, sealed, key_id, version, updated_at)
  SELECT md5('s' || i)::uuid, 'token', '{tenant}', '\\x00', 'k', 1, now() FROM generate_series(1, {rows} / 10) AS i;
INSERT INTO audit_events (id, tenant_id, occurred_at, action, resource_type, outcome)
  SELECT md5('a' || i)::uuid, '{tenant}', now(), 'role.create', 'role', 'success' FROM generate_series(1, {rows}) AS i;
"""
WORK = (
    "UPDATE users SET last_name = 'Of traffic', updated_at = now() WHERE id = md5('u' || $1::int)::uuid",
    "DELETE FROM user_roles WHERE user_id = md5('u' || $1::int)::uuid",
    f"""INSERT INTO user_roles (user_id, role_id, tenant_id, created_at)
        SELECT id, '{PUBLIC}', '{TENANT}', now() FROM users WHERE id = md5('u' || $1::int)::uuid""",
    "UPDATE data_sources SET status = 'passed', updated_at = now() WHERE id = md5('s' || ($1::int / 10))::uuid",
    "UPDATE data_sources SET tags = ARRAY['shop', $1::text], updated_at = now() WHERE id = md5('s' || ($1::int / 10))::uuid",
    "UPDATE data_source_secrets SET version = version + 1 WHERE data_source_id = md5('s' || ($1::int / 10))::uuid",
    f"""INSERT INTO audit_events (id, tenant_id, occurred_at, action, resource_type, outcome)
        SELECT gen_random_uuid(), '{TENANT}', now(), 'user.update', 'user', 'success' WHERE $1::int IS NOT NULL""",
    "SELECT count(*) FROM user_roles WHERE user_id = md5('u' || $1::int)::uuid",
)
"""What hubs of before do, as the database sees it."""


class Busy:
    """A database at `BEFORE`, with rows."""

    def __init__(self, server: EmbeddedPostgres, name: str, rows: int) -> None:
        self.owner_url, self.app_url = server.url("hub_owner", name), server.url("hub_app", name)
        self.superuser_url = server.url("postgres", name)
        self.rows = rows

    async def work(self, first: int, done: asyncio.Event) -> int:
        """Statement after statement, each on another row; answers how many."""
        connection = await asyncpg.connect(self.app_url, server_settings={"application_name": "traffic"})
        count = 0
        try:
            while not done.is_set():
                for statement in WORK:
                    with suppress(asyncpg.InvalidCachedStatementError):
                        await connection.fetch(statement, (first + count * 7919) % self.rows + 1)
                count += 1
        finally:
            await connection.close()
        return count

    async def longest_wait(self, done: asyncio.Event) -> float:
        """Seconds that anybody waited for the migration."""
        connection = await asyncpg.connect(self.superuser_url)
        longest = 0.0
        try:
            while not done.is_set():
                longest = max(longest, await connection.fetchval(WAITS) or 0.0)
                await asyncio.sleep(0.05)
        finally:
            await connection.close()
        return longest


@asynccontextmanager
async def busy(cluster: EmbeddedPostgres, rows: int) -> AsyncIterator[Busy]:
    name = await create_database(cluster)
    database = Busy(cluster, name, rows)
    await migrations.migrate(database.owner_url, target=BEFORE)
    owner = await asyncpg.connect(database.superuser_url)
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("INSERT INTO tenants VALUES ($1, 'default', 'Default', true, now(), now())", TENANT)
    await owner.execute(
        "INSERT INTO roles (id, tenant_id, name, name_key, permissions, is_system, created_at, updated_at)"
        f" VALUES ('{PUBLIC}', '{TENANT}', 'public', 'public', '{{}}', true, now(), now())"
    )
    await owner.execute(FILL.format(tenant=TENANT, public=PUBLIC, rows=rows))
    await owner.execute("VACUUM ANALYZE")
    await owner.close()
    yield database
    await drop_database(cluster, name)


async def migrated_under_traffic(database: Busy) -> tuple[float, int]:
    """The longest wait, and how much was done meanwhile."""
    done = asyncio.Event()
    working = [asyncio.create_task(database.work(first, done)) for first in (1, database.rows // 2)]
    waiting = asyncio.create_task(database.longest_wait(done))
    try:
        await migrations.migrate(database.owner_url, target=LAST)
    finally:
        done.set()
        counts = await asyncio.gather(*working)
        longest = await waiting
    return longest, sum(counts)


STRAY = """
SELECT (SELECT count(*) FROM user_roles JOIN users ON users.id = user_id
        WHERE (user_email_key, user_created_at, user_updated_at)
          IS DISTINCT FROM (users.email_key, users.created_at, users.updated_at))
     + (SELECT count(*)
        FROM (SELECT id, tag, created_at, updated_at, name_key FROM data_sources, unnest(tags) AS tag) AS source
        FULL JOIN data_source_tags AS kept ON (kept.data_source_id, kept.tag) = (source.id, source.tag)
        WHERE (source_created_at, source_updated_at, source_name_key)
          IS DISTINCT FROM (source.created_at, source.updated_at, source.name_key))
"""


async def stray_copies(database: Busy) -> Any:
    """How many differ from what they are copies of, are too many or are missing."""
    connection = await asyncpg.connect(database.owner_url)
    try:
        return await connection.fetchval(STRAY)
    finally:
        await connection.close()


@pytest.mark.parametrize("rows", [20_000, 1_000_000])
async def test_nobody_waits_long_for_a_migration(cluster: EmbeddedPostgres, rows: int) -> None:
    async with busy(cluster, rows) as database:
        longest, work = await migrated_under_traffic(database)
        assert await migrations.current(database.owner_url) == LAST
        assert work > 5, "without traffic there is nothing to be seen"
        assert longest < LONGEST_WAIT_S
        assert await stray_copies(database) == 0


async def test_a_table_that_somebody_holds_on_to_is_waited_for_out_of_the_way(cluster: EmbeddedPostgres) -> None:
    """Whoever comes behind the waiting migration is held up for less than a second, and it gets its turn in the end."""
    async with busy(cluster, 2_000) as database:
        holder = await asyncpg.connect(database.app_url)
        await holder.execute("BEGIN")
        await holder.execute("SELECT 1 FROM user_roles LIMIT 1")
        running = asyncio.create_task(migrated_under_traffic(database))
        await asyncio.sleep(4)
        assert not running.done()
        await holder.execute("COMMIT")
        await holder.close()
        longest, _ = await running
        assert 0 < longest < LOCK_TIMEOUT_MS / 1000 + 0.4
        assert await migrations.current(database.owner_url) == LAST


async def test_a_migration_that_deadlocks_with_traffic_is_begun_again(cluster: EmbeddedPostgres) -> None:
    """The traffic has read roles, and waits to write to them since the migration has made a table that refers to them;
    then the migration wants them for itself. PostgreSQL ends whoever comes last."""
    async with busy(cluster, 100) as database:
        await migrations.migrate(database.owner_url, target=LAST)
        reader, writer, watcher = [await asyncpg.connect(database.superuser_url) for _ in range(3)]
        for connection, table in ((reader, "data_sources"), (writer, "roles")):
            await connection.execute("BEGIN")
            await connection.execute(f"SELECT 1 FROM {table}")
        running = asyncio.create_task(migrations.migrate(database.owner_url, target=ROLES_ALTERED))
        await asyncio.wait_for(until_somebody_waits_for(watcher, "data_sources"), 60)
        writing = asyncio.create_task(writer.execute("UPDATE roles SET updated_at = now()"))
        await asyncio.wait_for(until_somebody_waits_for(watcher, "roles"), 60)
        await reader.execute("COMMIT")
        await asyncio.wait_for(writing, 60)
        await writer.execute("COMMIT")
        await asyncio.wait_for(running, 60)
        for connection in (reader, writer, watcher):
            await connection.close()
        assert await migrations.current(database.owner_url) == ROLES_ALTERED


async def until_somebody_waits_for(connection: asyncpg.Connection, table: str) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass"
    while not await connection.fetchval(waiting, table):
        await asyncio.sleep(0.005)


async def test_an_index_whose_build_was_cut_off_is_built_anew(cluster: EmbeddedPostgres) -> None:
    async with busy(cluster, 2_000) as database:
        await migrations.migrate(database.owner_url, target=LAST)
        superuser = await asyncpg.connect(database.superuser_url)
        await superuser.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'users_is_active_email_idx'::regclass"
        )
        await superuser.execute("UPDATE alembic_version SET version_num = '0005'")
        await migrations.migrate(database.owner_url, target="0006")
        invalid = await superuser.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
        await superuser.close()
        assert invalid == 0


async def test_who_waits_for_their_turn_to_migrate_is_in_nobodys_way(cluster: EmbeddedPostgres) -> None:
    """A statement that waits would hold a snapshot, and a concurrent index build waits for all of those."""
    async with busy(cluster, 100) as database:
        other = await asyncpg.connect(database.owner_url)
        await other.execute("SELECT pg_advisory_lock($1)", migrations.LOCK)
        waiting = asyncio.create_task(migrations.migrate(database.owner_url, target=LAST))
        await asyncio.sleep(1)
        await other.execute("CREATE INDEX CONCURRENTLY users_trial_idx ON users (last_name)")
        await other.execute("SELECT pg_advisory_unlock($1)", migrations.LOCK)
        await other.close()
        await asyncio.wait_for(waiting, 120)
        assert await migrations.current(database.owner_url) == LAST
