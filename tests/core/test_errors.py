"""What failures of a real PostgreSQL mean to the caller: by SQLSTATE, through both drivers (IN2, RL6)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.change_pool import ChangePool
from app.core.database import create_engine, explain
from app.core.deadlines import Deadlines
from app.core.embedded import EmbeddedPostgres
from app.core.errors import HubError, InternalError
from tests.postgres import create_database, drop_database

pytestmark = pytest.mark.anyio

SETUP = """
CREATE TABLE parents (id int PRIMARY KEY, name varchar(5) UNIQUE, size smallint, CHECK (size > 0));
CREATE TABLE children (id int PRIMARY KEY, parent_id int NOT NULL REFERENCES parents);
INSERT INTO parents VALUES (1, 'one', 1);
INSERT INTO children VALUES (1, 1);
CREATE FUNCTION deep(n int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN deep(n + 1); END';
"""

CASES: dict[str, tuple[str, int, str]] = {
    "a duplicate": ("INSERT INTO parents VALUES (2, 'one', 1)", 409, "already_exists"),
    "a missing parent": ("INSERT INTO children VALUES (2, 9)", 409, "still_in_use"),
    "a parent in use": ("DELETE FROM parents", 409, "still_in_use"),
    "no value": ("INSERT INTO children VALUES (3, NULL)", 400, "constraint_violation"),
    "a broken check": ("INSERT INTO parents VALUES (3, 'x', 0)", 400, "constraint_violation"),
    "a text that is too long": ("INSERT INTO parents VALUES (4, 'longer', 1)", 400, "value_not_storable"),
    "a number that is too large": ("INSERT INTO parents VALUES (5, 'x', 40000)", 400, "value_not_storable"),
    "a division by nothing": ("SELECT 1 / (size - 1) FROM parents", 400, "value_not_storable"),
    "a text that is no number": ("SELECT name::int FROM parents", 400, "value_not_storable"),
    "a date that there is not": ("SELECT '2025-02-30'::date", 400, "value_not_storable"),
    "a time beyond all": ("SELECT '294277-01-01'::timestamptz", 400, "value_not_storable"),
    "a character that there is not": ("SELECT chr(0)", 400, "too_complex"),
    "a broken pattern": ("SELECT 'x' ~ '('", 400, "value_not_storable"),
    "broken JSON": ("SELECT '{'::jsonb", 400, "value_not_storable"),
    "endless recursion": ("SELECT deep(1)", 400, "too_complex"),
    "a statement that takes too long": ("SELECT pg_sleep(5)", 503, "database_timeout"),
    "a read-only database": ("SET TRANSACTION READ ONLY; DELETE FROM children", 503, "database_read_only"),
    "a table that there is not": ("SELECT * FROM nothing", 503, "schema_outdated"),
    "nonsense": ("SELEKT", 500, "internal_error"),
    "a right that is missing": ("CREATE TABLE x (y int)", 500, "internal_error"),
    "the end of the connection": ("SELECT pg_terminate_backend(pg_backend_pid())", 503, "database_unavailable"),
}


class Database:
    def __init__(self, url: str, engine: AsyncEngine) -> None:
        self.url = url
        self.engine = engine


@pytest.fixture(scope="module")
async def database(cluster: EmbeddedPostgres) -> AsyncIterator[Database]:
    name = await create_database(cluster)
    owner = await asyncpg.connect(cluster.url("hub_owner", name))
    await owner.execute(SETUP)
    await owner.execute("GRANT USAGE ON SCHEMA public TO hub_app; GRANT ALL ON ALL TABLES IN SCHEMA public TO hub_app")
    await owner.close()
    url = cluster.url("hub_app", name)
    engine = create_engine(url, pool_size=3, timeout_s=0.5)
    yield Database(url, engine)
    await engine.dispose()
    await drop_database(cluster, name)


def explained(error: BaseException) -> HubError:
    found = explain(error)
    assert found is not None, error
    for word in ("SELECT", "INSERT", "parents", "longer", "40000"):
        assert word not in found.detail
    assert found.status != 503 or found.headers["Retry-After"].isdigit()
    return found


async def by_asyncpg(database: Database, statement: str, *arguments: Any) -> HubError:
    connection = await asyncpg.connect(database.url, server_settings={"statement_timeout": "300"})
    try:
        if "; " in statement:
            before, statement = statement.split("; ")
            await connection.execute(f"BEGIN; {before}")
        await connection.fetch(statement, *arguments)
    except BaseException as error:
        return explained(error)
    finally:
        connection.terminate()
    raise AssertionError("nothing failed")


async def by_sqlalchemy(database: Database, statement: str, **parameters: Any) -> HubError:
    try:
        async with database.engine.begin() as connection:
            await connection.execute(text("SET LOCAL statement_timeout = 300"))
            for each in statement.split("; "):
                await connection.execute(text(each), parameters)
    except BaseException as error:
        return explained(error)
    raise AssertionError("nothing failed")


@pytest.mark.parametrize(("statement", "status", "code"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("driver", [by_asyncpg, by_sqlalchemy])
async def test_a_failure_means_the_same_through_both_drivers(
    database: Database, driver: Any, statement: str, status: int, code: str
) -> None:
    if "SET TRANSACTION" in statement and driver is by_sqlalchemy:
        statement = statement.replace(
            "SET TRANSACTION READ ONLY", "SELECT set_config('transaction_read_only', 'on', true)"
        )
    found = await driver(database, statement)
    assert (found.status, found.code) == (status, code)


@pytest.mark.parametrize("value", [2**31, -(2**63), 2**70, "text", UUID(int=2**127)], ids=str)
async def test_a_value_that_the_driver_refuses_to_send_is_a_bad_request(database: Database, value: Any) -> None:
    assert (await by_asyncpg(database, "SELECT * FROM parents WHERE id = $1::int", value)).status == 400
    assert (await by_sqlalchemy(database, "SELECT * FROM parents WHERE id = cast(:v as int)", v=value)).status == 400


@pytest.mark.parametrize("value", ["a\x00b", "\ud800"], ids=ascii)
async def test_text_that_cannot_be_sent_is_a_bad_request(database: Database, value: str) -> None:
    assert (await by_asyncpg(database, "SELECT $1::text", value)).status == 400
    assert (await by_sqlalchemy(database, "SELECT cast(:v as text)", v=value)).status == 400


async def test_a_deadlock_asks_to_try_again(database: Database) -> None:
    one, two = await asyncpg.connect(database.url), await asyncpg.connect(database.url)
    await one.execute("BEGIN; SELECT pg_advisory_xact_lock(1)")
    await two.execute("BEGIN; SELECT pg_advisory_xact_lock(2)")
    waiting = asyncio.create_task(one.execute("SELECT pg_advisory_xact_lock(2)"))
    await asyncio.sleep(0.05)
    results = await asyncio.gather(waiting, two.execute("SELECT pg_advisory_xact_lock(1)"), return_exceptions=True)
    (error,) = [result for result in results if isinstance(result, BaseException)]
    assert (explained(error).status, explained(error).code) == (409, "concurrent_change")
    one.terminate()
    two.terminate()


async def test_a_lock_that_is_held_too_long_asks_to_try_again(database: Database) -> None:
    holder = await asyncpg.connect(database.url)
    await holder.execute("BEGIN; LOCK TABLE children IN ACCESS EXCLUSIVE MODE")
    found = await by_sqlalchemy(database, "SET LOCAL lock_timeout = 50; SELECT * FROM children")
    assert found.code in ("concurrent_change", "database_timeout")
    holder.terminate()


async def test_a_serialization_failure_asks_to_try_again(database: Database) -> None:
    one, two = await asyncpg.connect(database.url), await asyncpg.connect(database.url)
    for connection in (one, two):
        await connection.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        await connection.fetch("SELECT sum(size) FROM parents")
    await one.execute("INSERT INTO parents VALUES (10, 'a', 1)")
    await two.execute("INSERT INTO parents VALUES (11, 'b', 1)")
    await one.execute("COMMIT")
    try:
        await two.execute("COMMIT")
    except asyncpg.PostgresError as error:
        assert (explained(error).status, explained(error).code) == (409, "concurrent_change")
    finally:
        one.terminate()
        two.terminate()


async def test_a_pool_that_stays_empty_is_a_503(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine(database.url, pool_size=1, timeout_s=1)
    assert isinstance(engine.pool, ChangePool)
    monkeypatch.setattr(engine.pool.places, "_waits", Deadlines(0.05))
    async with engine.connect():
        with pytest.raises(Exception) as caught:  # noqa: PT011
            async with engine.connect():
                pass
    await engine.dispose()
    assert (explained(caught.value).status, explained(caught.value).code) == (503, "database_busy")


async def test_a_server_that_is_not_there_is_a_503() -> None:
    engine = create_engine("postgresql://u:p@127.0.0.1:1/x", pool_size=1, timeout_s=1)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        async with engine.connect():
            pass
    assert (explained(caught.value).status, explained(caught.value).code) == (503, "database_unavailable")


async def test_too_many_connections_are_a_503(cluster: EmbeddedPostgres, database: Database) -> None:
    name = database.url.rpartition("/")[2]
    superuser = await asyncpg.connect(cluster.superuser_url)
    await superuser.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')
    try:
        with pytest.raises(asyncpg.TooManyConnectionsError) as caught:
            await asyncpg.connect(database.url)
    finally:
        await superuser.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1')
        await superuser.close()
    assert explained(caught.value).code == "database_busy"


async def test_a_table_that_changed_under_a_prepared_statement_asks_to_try_again(
    cluster: EmbeddedPostgres, database: Database
) -> None:
    owner = await asyncpg.connect(cluster.url("hub_owner", database.url.rpartition("/")[2]))
    engine = create_engine(database.url, pool_size=1, timeout_s=1)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT * FROM children"))
        await owner.execute("ALTER TABLE children ADD COLUMN added int")
        found: HubError | None = None
        try:
            async with engine.begin() as connection:
                await connection.execute(text("SELECT * FROM children"))
        except Exception as error:
            found = explained(error)
        assert found is None or (found.status, found.headers["Retry-After"]) == (503, "1")
        async with engine.begin() as connection:
            await connection.execute(text("SELECT * FROM children"))
    finally:
        await owner.close()
        await engine.dispose()


def test_what_is_no_database_failure_is_not_explained() -> None:
    assert explain(KeyError("x")) is None
    assert explain(ValueError()) is None


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        OSError(),
        asyncpg.InternalClientError(),
    ],
)
def test_lost_connections_are_a_503(error: Exception) -> None:
    assert explained(error).status == 503
    assert not isinstance(explained(error), InternalError)
