"""Migrations: up and down, in step with the models, and an application role that owns nothing (MT1's ground, AU3)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import String, Text
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app.core import migrations
from app.core.database import TransactionId
from app.core.embedded import EmbeddedPostgres
from app.domain.models import METADATA
from tests.postgres import create_database, drop_database

pytestmark = pytest.mark.anyio

RIGHTS = {
    "audit_events": (True, True, False, False),
    "rights_history": (True, True, False, False),
    "outbox_ends": (True, False, False, False),
}
"""To select, insert, update and delete, where the application role may not do all of it."""
ischema_names["xid8"] = TransactionId


OF_THE_SCHEMA = {"alembic_version", "schema_breaks"}
"""Tables about the schema itself: nobody's data, written by migrations and read by hubs."""


class Database:
    def __init__(self, server: EmbeddedPostgres, name: str) -> None:
        self.owner_url = server.url("hub_owner", name)
        self.app_url = server.url("hub_app", name)

    async def fetch(self, sql: str, *values: Any, as_owner: bool = True) -> list[Any]:
        connection = await asyncpg.connect(self.owner_url if as_owner else self.app_url)
        try:
            return list(await connection.fetch(sql, *values))
        finally:
            await connection.close()

    async def tables(self) -> set[str]:
        rows = await self.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {row[0] for row in rows} - OF_THE_SCHEMA

    async def schema(self) -> list[Any]:
        columns = await self.fetch(
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY 1, 2"
        )
        indexes = await self.fetch("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
        rights = await self.fetch(
            "SELECT table_name, privilege_type FROM information_schema.role_table_grants WHERE grantee = 'hub_app' ORDER BY 1, 2"
        )
        return [*columns, *indexes, *rights]


@pytest.fixture
async def empty(cluster: EmbeddedPostgres) -> AsyncIterator[Database]:
    name = await create_database(cluster)
    yield Database(cluster, name)
    await drop_database(cluster, name)


@pytest.fixture
async def database(cluster: EmbeddedPostgres, migrated: str) -> AsyncIterator[Database]:
    name = await create_database(cluster, migrated)
    yield Database(cluster, name)
    await drop_database(cluster, name)


@pytest.mark.fault("FT10")
async def test_up_down_and_up_again_is_the_same(empty: Database) -> None:
    assert await migrations.current(empty.owner_url) is None
    await migrations.migrate(empty.owner_url)
    first = await empty.schema()
    assert await migrations.current(empty.owner_url) == migrations.head()
    await migrations.migrate(empty.owner_url, "down", "base")
    assert await empty.tables() == set()
    assert await migrations.current(empty.owner_url) is None
    await migrations.migrate(empty.owner_url)
    assert await empty.schema() == first


async def test_migrating_twice_changes_nothing(database: Database) -> None:
    before = await database.fetch("SELECT id, version, updated_at FROM roles ORDER BY id")
    await migrations.migrate(database.owner_url)
    assert await database.fetch("SELECT id, version, updated_at FROM roles ORDER BY id") == before


@pytest.mark.found("A12")
async def test_names_of_before_are_compared_single_spaced(database: Database) -> None:
    """Whoever asks for such a name finds it; two that differ in blanks only stay two."""
    await migrations.migrate(database.owner_url, "down", "0009")
    names = ("a b", "a  b", "a   b", "c \u2028d", "c\u3000\u3000d", "e f", "g\u1680h")
    for name in names:
        await database.fetch(
            "INSERT INTO roles (id, tenant_id, name, name_key, permissions, is_system, created_at, updated_at, version)"
            " SELECT gen_random_uuid(), min(tenant_id::text)::uuid, $1, $1, '{}', false, now(), now(), 1 FROM roles",
            name,
        )
    await migrations.migrate(database.owner_url)
    found = {row[0]: row[1] for row in await database.fetch("SELECT name, name_key FROM roles WHERE NOT is_system")}
    assert set(found) == set(names)
    assert len(set(found.values())) == len(names)
    assert {name: found[name] for name in ("a b", "e f", "g\u1680h")} == {"a b": "a b", "e f": "e f", "g\u1680h": "g h"}
    assert [found["c \u2028d"], found["c\u3000\u3000d"]].count("c d") == 1


async def test_hubs_that_start_together_migrate_once(empty: Database) -> None:
    await asyncio.gather(*(migrations.migrate(empty.owner_url) for _ in range(4)))
    assert await migrations.current(empty.owner_url) == migrations.head()
    assert [row[0] for row in await empty.fetch("SELECT count(*) FROM roles WHERE is_system")] == [2]


def test_the_head_is_alembics_head() -> None:
    script = ScriptDirectory.from_config(migrations.alembic_config())
    assert script.get_heads() == [migrations.head()]
    assert [revision.revision for revision in script.walk_revisions()] == sorted(
        (revision.revision for revision in script.walk_revisions()), reverse=True
    )


async def test_models_and_migrations_describe_one_database(database: Database) -> None:
    engine = create_async_engine(make_url(database.owner_url).set(drivername="postgresql+asyncpg"))

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection, opts={"compare_type": _types_differ, "include_object": _is_compared}
        )
        return list(compare_metadata(context, METADATA))

    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()
    assert found == []


def _types_differ(context: Any, in_table: Any, in_model: Any, table_type: Any, model_type: Any) -> bool | None:
    """`String` without a length and `text` are one type; PostgreSQL stores both alike."""
    return False if isinstance(table_type, String | Text) and isinstance(model_type, String | Text) else None


def _is_compared(thing: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
    """Indexes live in the migrations only: models do not need to know them."""
    return kind != "index" and name not in OF_THE_SCHEMA


# --- what the application role may not ---


async def test_the_application_role_owns_nothing_and_is_nobodys_member(database: Database) -> None:
    owned = await database.fetch("SELECT relname FROM pg_class WHERE relowner = 'hub_app'::regrole")
    schemas = await database.fetch("SELECT nspname FROM pg_namespace WHERE nspowner = 'hub_app'::regrole")
    member = await database.fetch("SELECT 1 FROM pg_auth_members WHERE member = 'hub_app'::regrole")
    assert (owned, schemas, member) == ([], [], [])
    (role,) = await database.fetch(
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = 'hub_app'"
    )
    assert not any(role)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET outcome = 'success'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "ALTER TABLE audit_events DISABLE TRIGGER ALL",
        "ALTER TABLE users ADD COLUMN x int",
        "DROP TABLE audit_events",
        "TRUNCATE users CASCADE",
        "CREATE TABLE mine (x int)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE RULE r AS ON INSERT TO audit_events DO INSTEAD NOTHING",
        "UPDATE alembic_version SET version_num = '9999'",
        "SET ROLE hub_owner",
        "ALTER SEQUENCE audit_events_sequence_seq RESTART WITH 1",
        "INSERT INTO audit_events (sequence) OVERRIDING SYSTEM VALUE VALUES (1)",
        "CREATE SCHEMA mine",
        "COPY users TO PROGRAM 'cat'",
        "COPY users FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/passwd')",
        "ALTER ROLE hub_app SUPERUSER",
        "CREATE EXTENSION vector",
    ],
)
async def test_the_application_role_may_not(database: Database, statement: str) -> None:
    connection = await asyncpg.connect(database.app_url)
    try:
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.NotNullViolationError)) as caught:
            await connection.execute(statement)
    finally:
        await connection.close()
    assert isinstance(caught.value, asyncpg.InsufficientPrivilegeError) or "OVERRIDING" in statement


async def test_the_application_role_may_do_its_work_on_every_table(database: Database) -> None:
    for table in await database.tables():
        (rights,) = await database.fetch(
            f"SELECT has_table_privilege('hub_app', '{table}', 'SELECT'), has_table_privilege('hub_app', '{table}', 'INSERT'),"
            f" has_table_privilege('hub_app', '{table}', 'UPDATE'), has_table_privilege('hub_app', '{table}', 'DELETE')"
        )
        assert tuple(rights) == RIGHTS.get(table, (True,) * 4), table


async def test_every_row_of_a_tenant_says_whose_it_is(database: Database) -> None:
    for table in await database.tables() - {"tenants", "upkeep"}:
        (found,) = await database.fetch(
            f"SELECT count(*) FROM information_schema.columns WHERE table_name = '{table}' AND column_name = 'tenant_id' AND is_nullable = 'NO'"
        )
        assert found[0] == 1, table


async def test_a_seeded_role_follows_the_seeds(database: Database) -> None:
    """A new permission reaches the admins of a hub that is there already."""
    await database.fetch("UPDATE roles SET permissions = '{users:read}' WHERE name = 'admin'")
    await migrations.migrate(database.owner_url)
    (role,) = await database.fetch("SELECT permissions, version FROM roles WHERE name = 'admin'")
    assert (role["permissions"], role["version"]) == (sorted(migrations.permissions()), 2)
