"""Migrations and seeds: how a database gets its tables, its two roles and what is built in.

The owner role (`hub_owner`) migrates and owns every table; the application role (`hub_app`) owns nothing and holds only
what the migrations grant it. Alembic and SQLAlchemy are imported when a migration has to run, and only then: a start on
an up-to-date database asks one question by asyncpg.
"""

import asyncio
import json
import time
from collections import defaultdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import UUID

import asyncpg

from app.core.tenancy import DEFAULT_SLUG, DEFAULT_TENANT_ID

OWNER_ROLE = "hub_owner"
APP_ROLE = "hub_app"
LOCK = 0x68756201
"""Advisory lock: hubs that start together migrate one after the other."""
TURN_POLL_S = 0.1
NO_LOCK = {asyncpg.LockNotAvailableError.sqlstate, asyncpg.DeadlockDetectedError.sqlstate}
LOCK_PATIENCE_S = 300.0
"""For a table that others hold on to: as long is a migration begun again and again."""
LOCK_PAUSE_S = 1.0
EXTENSIONS = ("pg_trgm",)
"""Trusted ones, so that the owner of the database may create them (PostgreSQL manual, F: contrib)."""
CANNOT_CREATE = (asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError, asyncpg.UndefinedFileError)


class ExtensionMissing(Exception):
    """The database lacks an extension, and this role may not create it."""


class TablesBusy(Exception):
    """A migration did not get the lock that it needs for as long as it tried."""


def db_folder() -> Path:
    """`db/` beside the package in a checkout, `app/_db` inside an installed wheel."""
    package = Path(__file__).parents[1]
    installed = package / "_db"
    return installed if installed.is_dir() else package.parent / "db"


def head() -> str:
    """The newest revision: file names start with their revision, and revisions count upwards."""
    return max(path.name.split("_")[0] for path in (db_folder() / "migrations" / "versions").glob("[0-9]*.py"))


def permissions() -> dict[str, str]:
    """Every permission with its sentence."""
    found: dict[str, str] = json.loads((db_folder() / "seeds" / "permissions.json").read_text(encoding="utf-8"))
    return found


def operator_permissions() -> frozenset[str]:
    """Those that exist in the default tenant alone, whose members operate the hub."""
    return frozenset(json.loads((db_folder() / "seeds" / "operator_permissions.json").read_text(encoding="utf-8")))


class BuiltInRole(NamedTuple):
    id: UUID
    name: str
    description: str
    permissions: list[str]


def built_in_roles(tenant_id: UUID) -> list[BuiltInRole]:
    """The roles that each tenant is born with. Their ids follow from the tenant's (`roles.built_in`)."""
    every = permissions().keys() - (() if tenant_id == DEFAULT_TENANT_ID else operator_permissions())
    roles = json.loads((db_folder() / "seeds" / "roles.json").read_text(encoding="utf-8"))
    return [
        BuiltInRole(
            UUID(int=UUID(role["id"]).int ^ DEFAULT_TENANT_ID.int ^ tenant_id.int),
            role["name"],
            role["description"],
            sorted(every if role["permissions"] == "all" else role["permissions"]),
        )
        for role in roles
    ]


async def current(url: str) -> str | None:
    """The revision that the database is at; None where no migration has run. Raises asyncpg's errors."""
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await revision_of(connection)
    finally:
        await connection.close()


async def mighty_role(connection: asyncpg.Connection) -> str | None:
    """The role of this connection, where it is above row-level security or may become so: it owns tables, may take the
    owner's place, or is held to no policy at all. None for one that sees its tenant's rows alone."""
    role, is_mighty = await connection.fetchrow(
        """SELECT current_user::text,
             (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user)
               OR EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND pg_has_role(current_user, oid, 'MEMBER'))
               OR EXISTS (SELECT FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
                            AND pg_has_role(current_user, relowner, 'MEMBER'))""",
        OWNER_ROLE,
    )
    return role if is_mighty else None


MIGHTY = (
    "{role} is the owner of tables, or may become it, so that nothing in the database keeps tenants apart: give "
    f"HUB_DATABASE_URL a login role that is a member of {APP_ROLE} only, "
    "and HUB_OWNER_DATABASE_URL the one that migrates"
)


class SchemaProblem(NamedTuple):
    """Why this release cannot work with a database."""

    code: Literal["schema_outdated", "schema_too_new"]
    sentence: str


BREAK = "SELECT reason FROM schema_breaks WHERE revision > $1 ORDER BY revision LIMIT 1"


async def schema_problem(connection: asyncpg.Connection) -> SchemaProblem | None:
    """None where this release can work with the database. Raises asyncpg's errors.

    An older schema lacks what the statements need. A newer one is made so that the release before can go on with it
    (`schema_changes`), unless a migration declared a break: a row of `schema_breaks` says from where on, and why.
    """
    found, wanted = await revision_of(connection), newest_revision()
    if found is None or found < wanted:
        return SchemaProblem("schema_outdated", "The database has not been migrated to this version.")
    reason = await connection.fetchval(BREAK, wanted) if found > wanted else None
    if reason is None:
        return None
    sentence = f"The database was migrated to {found}, with which this release ({wanted}) cannot work: {reason}"
    return SchemaProblem("schema_too_new", sentence)


@cache
def newest_revision() -> str:
    """The head, as it was when this process first asked: a release may be replaced on disk while it runs."""
    return head()


async def connected_hubs(connection: asyncpg.Connection) -> int:
    """How many connections hubs and workers hold to this database, whoever else is connected."""
    found: int = await connection.fetchval(
        """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND application_name LIKE 'hub%' AND application_name <> 'hub migrate'"""
    )
    return found


async def state_before_down(url: str) -> tuple[str | None, int]:
    """The revision that `down` would leave, and how many connections hubs and workers hold. Raises asyncpg's errors."""
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await revision_of(connection), await connected_hubs(connection)
    finally:
        await connection.close()


def losses_of(revision: str) -> tuple[str, ...]:
    """What is lost with the schema of this revision: sentences' objects, as in "how often sources are tested"."""
    from alembic.script import ScriptDirectory

    found = ScriptDirectory.from_config(alembic_config()).get_revision(revision)
    return tuple(getattr(found.module, "loses", ("everything in the database",)))


async def revision_of(connection: asyncpg.Connection) -> str | None:
    try:
        found: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    return found


async def migrate(owner_url: str, direction: Literal["up", "down"] = "up", target: str | None = None) -> None:
    """Bring the database to `target` (default: the head, or one revision down) and write the seeds.

    Raises ExtensionMissing, TablesBusy, and asyncpg's and Alembic's errors; each migration runs in a transaction of its
    own.
    """
    lock = await asyncpg.connect(owner_url, timeout=5)
    try:
        await _wait_for_turn(lock)
        await _ensure_extensions(lock)
        await ensure_roles(lock)
        await _run_patiently(owner_url, direction, target)
        if await revision_of(lock) == head():
            await _seed(lock)
    finally:
        await lock.close()


async def _wait_for_turn(connection: asyncpg.Connection) -> None:
    """By asking again: a statement that waits for the lock would be a transaction, for whose end the concurrent index
    builds of the one who has the lock would wait."""
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):  # noqa: ASYNC110 - of other processes
        await asyncio.sleep(TURN_POLL_S)


async def _run_patiently(owner_url: str, direction: Literal["up", "down"], target: str | None) -> None:
    """What has run stays; the migration that did not get its lock, because somebody held it for long or they waited for
    each other, is begun again."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            await asyncio.to_thread(_run_alembic, owner_url, direction, target)
            return
        except Exception as error:
            if getattr(getattr(error, "orig", None), "sqlstate", None) not in NO_LOCK:
                raise
            if time.monotonic() > deadline:
                raise TablesBusy(
                    f"A table was in use for {LOCK_PATIENCE_S:.0f} s, so that the migration could not change it. End "
                    f"what holds it (pg_stat_activity shows long transactions), and migrate again."
                ) from error
        await asyncio.sleep(LOCK_PAUSE_S)


async def _ensure_extensions(connection: asyncpg.Connection) -> None:
    """As whoever migrates, before the owner role is taken on: that one need not own the database."""
    for name in EXTENSIONS:
        if await connection.fetchval("SELECT 1 FROM pg_extension WHERE extname = $1", name):
            continue
        try:
            await connection.execute(f"CREATE EXTENSION IF NOT EXISTS {name}")
        except CANNOT_CREATE as error:
            raise ExtensionMissing(
                f"The database needs the extension {name}, which this role cannot create ({error}). "
                f"Have somebody who may run `CREATE EXTENSION {name}` in it, once."
            ) from None


async def ensure_roles(connection: asyncpg.Connection) -> None:
    """Both roles exist, and whoever migrates is a member of them.

    Where they were made beforehand no right is needed.
    """
    for role in (OWNER_ROLE, APP_ROLE):
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
            await connection.execute(f"CREATE ROLE {role} NOLOGIN")
        if not await connection.fetchval("SELECT pg_has_role(current_user, $1, 'MEMBER')", role) and role == OWNER_ROLE:
            await connection.execute(f"GRANT {role} TO CURRENT_USER")
    if not await connection.fetchval("SELECT has_schema_privilege($1, 'public', 'CREATE')", OWNER_ROLE):
        await connection.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {OWNER_ROLE}")
    if not await connection.fetchval("SELECT has_schema_privilege($1, 'public', 'USAGE')", APP_ROLE):
        await connection.execute(f"GRANT USAGE ON SCHEMA public TO {APP_ROLE}")
    await connection.execute(f"SET ROLE {OWNER_ROLE}")


def _run_alembic(owner_url: str, direction: Literal["up", "down"], target: str | None) -> None:
    """In a thread: Alembic is synchronous, and runs an event loop of its own around the asynchronous driver."""
    asyncio.run(_upgrade_or_downgrade(owner_url, direction, target))


async def _upgrade_or_downgrade(owner_url: str, direction: Literal["up", "down"], target: str | None) -> None:
    from alembic import command
    from sqlalchemy.engine import Connection, make_url
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    from app.core.schema_changes import LOCK_TIMEOUT_MS

    settings = {
        "role": OWNER_ROLE,
        "application_name": "hub migrate",
        "lock_timeout": str(LOCK_TIMEOUT_MS),
    }
    url = make_url(owner_url).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, poolclass=NullPool, connect_args={"server_settings": settings})
    run = command.upgrade if direction == "up" else command.downgrade

    def with_connection(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        run(config, target or ("head" if direction == "up" else "-1"))

    try:
        async with engine.connect() as connection:
            await connection.run_sync(with_connection)
            await connection.commit()
    finally:
        await engine.dispose()


def alembic_config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(db_folder() / "migrations").replace("%", "%%"))
    return config


async def _seed(connection: asyncpg.Connection) -> None:
    """The default tenant and the built-in roles of every tenant, brought up to date; a second run changes nothing."""
    now = datetime.now(UTC)
    await connection.execute(
        """INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at)
           VALUES ($1, $2, 'Default', true, $3, $3) ON CONFLICT DO NOTHING""",
        DEFAULT_TENANT_ID,
        DEFAULT_SLUG,
        now,
    )
    await connection.execute(
        """INSERT INTO tenant_settings (id, tenant_id, max_key_days, is_admin_requestable, created_at, updated_at)
           VALUES ($1, $1, 366, false, $2, $2) ON CONFLICT DO NOTHING""",
        DEFAULT_TENANT_ID,
        now,
    )
    tenants = await connection.fetch("SELECT id FROM tenants WHERE deleted_at IS NULL")
    registered = await _registered_permissions(connection)
    await connection.executemany(
        """INSERT INTO roles
             (id, tenant_id, name, name_key, description, permissions, is_system, created_at, updated_at)
           VALUES ($1, $2, $3, $3, $4, $5, true, $6, $6)
           ON CONFLICT (id) DO UPDATE SET permissions = EXCLUDED.permissions, description = EXCLUDED.description,
             version = roles.version + 1, updated_at = EXCLUDED.updated_at
           WHERE roles.permissions <> EXCLUDED.permissions OR roles.description <> EXCLUDED.description""",
        [
            (role.id, tenant["id"], role.name, role.description, _brought_by(role, registered[tenant["id"]]), now)
            for tenant in tenants
            for role in built_in_roles(tenant["id"])
        ],
    )


async def _registered_permissions(connection: asyncpg.Connection) -> dict[UUID, set[str]]:
    """Those of other services, by tenant."""
    found: dict[UUID, set[str]] = defaultdict(set)
    for tenant_id, name in await connection.fetch("SELECT tenant_id, name FROM permissions"):
        found[tenant_id].add(name)
    return found


def _brought_by(role: BuiltInRole, registered: set[str]) -> list[str]:
    return sorted({*role.permissions, *registered}) if role.name == "admin" else role.permissions
