"""Objects are looked into one by one: what cannot be read hides nothing else, and a server that fails is no empty one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import duckdb
import pytest

from app.connectors.contract.config import NoSecrets
from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.contract.objects import DiscoveredField, DiscoveredObject, PreviewRequest
from app.connectors.types.clickhouse import _object as clickhouse_object
from app.connectors.types.delta_lake.connector import DeltaLake, DeltaLakeConfig, DeltaLakeSecrets
from app.connectors.types.duckdb import Duckdb, DuckdbConfig, DuckdbSecrets
from app.connectors.types.duckdb import _object as duckdb_object
from app.connectors.types.mysql.catalog import Catalog
from app.connectors.types.snowflake import _object as snowflake_object
from app.connectors.types.sqlite import Sqlite, SqliteConfig
from app.connectors.values.describing import MAX_BORNE, NO_COLUMNS, Describer, Description, described_row, together
from app.core.egress import EgressPolicy

pytestmark = [pytest.mark.anyio, pytest.mark.found("D2")]

FIELD = DiscoveredField("x", "string", "text", True, 1)


async def good() -> Description:
    return Description([FIELD], ["a guess"])


async def bad(error: Exception) -> Description:
    raise error


async def described(describer: Describer, *errors: Exception | None) -> list[DiscoveredObject]:
    return await together(
        describer.describe((str(place),), "file", good if error is None else partial(bad, error))
        for place, error in enumerate(errors)
    )


@pytest.mark.parametrize(
    "code",
    [
        "response_invalid",
        "response_too_large",
        "permission_denied",
        "not_found",
        "unsupported",
        "driver_missing",
        "timeout",
    ],
)
async def test_an_object_that_cannot_be_read_is_there_with_the_reason(code: Code) -> None:
    found = await described(Describer(4), None, ConnectorError(code, "It is so."), None)
    assert [(one.fields, one.notes) for one in found] == [
        ((FIELD,), ("a guess",)), ((), ("It is so.",)), ((FIELD,), ("a guess",)),
    ]  # fmt: skip


async def test_a_fault_of_the_hub_hides_no_others_either() -> None:
    found = await described(Describer(), OverflowError("secret"), None)
    assert found[0].notes == ("The connector stopped on an unexpected OverflowError.",)
    assert found[1].fields == (FIELD,)


@pytest.mark.parametrize("code", ["connection_lost", "authentication_failed", "egress_refused"])
async def test_a_connection_that_is_gone_ends_the_discovery(code: Code) -> None:
    with pytest.raises(ConnectorError):
        await described(Describer(), None, ConnectorError(code, "Gone."))


async def test_a_server_that_fails_again_and_again_ends_the_discovery() -> None:
    failures = [ConnectorError("server_error", "No.")] * MAX_BORNE
    assert len(await described(Describer(), *failures, None)) == MAX_BORNE + 1
    with pytest.raises(ConnectorError):
        await described(Describer(), *failures, *failures)
    assert await described(Describer(most_borne=100), *failures, *failures)


async def test_the_only_object_has_nothing_to_hide() -> None:
    with pytest.raises(ConnectorError):
        await described(Describer(is_only_one=True), ConnectorError("not_found", "Gone."))


async def test_a_broken_view_of_sqlite_says_why_it_has_no_fields(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.executescript(
            "CREATE TABLE t (a); CREATE TABLE u (b); CREATE VIEW v AS SELECT a FROM t; DROP TABLE t;"
        )
    connector = Sqlite(SqliteConfig(path="a.db"), NoSecrets(), EgressPolicy(files_root=str(tmp_path)))
    found = {one.name: one for one in [one async for batch in connector.discover() for one in batch]}
    assert found["u"].fields
    assert found["v"].fields == ()
    assert "not there" in found["v"].notes[0]


async def test_a_folder_that_is_no_delta_table_says_so_beside_others(tmp_path: Path) -> None:
    (tmp_path / "lake" / "empty").mkdir(parents=True)
    config = DeltaLakeConfig(location="lake", tables=("empty", "gone"))
    connector = DeltaLake(config, DeltaLakeSecrets(), EgressPolicy(files_root=str(tmp_path)))
    found = [one async for batch in connector.discover() for one in batch]
    assert [(one.name, one.fields) for one in found] == [("empty", ()), ("gone", ())]
    assert all(one.notes for one in found)


def test_a_row_of_a_catalogue_that_cannot_be_understood_hides_no_others() -> None:
    def odd() -> list[DiscoveredField]:
        raise KeyError("secret")

    assert described_row(("a",), "table", lambda: [FIELD]).notes == ()
    assert described_row(("a",), "table", odd).notes == ("The connector stopped on an unexpected KeyError.",)
    assert described_row(("a",), "view", lambda: []).notes == (NO_COLUMNS,)
    assert described_row(("a",), "table", lambda: [], may_have_none=True).notes == ()
    with pytest.raises(MemoryError):
        described_row(("a",), "table", _no_memory)


def _no_memory() -> list[DiscoveredField]:
    raise MemoryError


def test_an_odd_row_of_every_sql_catalogue_is_there_with_the_reason() -> None:
    """A type that is no text, where the catalogue promises one."""
    mysql = Catalog()
    rows = [
        *(("s", name, "0", "0", None, "BASE TABLE", None, None, None) for name in ("good", "odd", "views")),
        ("s", "good", "2", "1", "x", None, "int", "int(11)", "NO"),
        ("s", "odd", "2", "1", "x", None, None, None, "NO"),
    ]
    found = [item for row in rows for item in mysql.add(row)] + list(mysql.rest())
    found += [duckdb_object([("s", "good", "table", "x", "INTEGER", True)])]
    found += [duckdb_object([("s", "odd", "table", "x", 7, True)])]
    found += [duckdb_object([("s", "views", "view", None, None, None)])]
    found += [snowflake_object([("s", "good", "BASE TABLE", "x", "TEXT", None, None, 3, "YES")])]
    found += [snowflake_object([("s", "odd", "BASE TABLE", "x", [7], None, None, None, "YES")])]
    row = {"database": "s", "engine": "Memory"}
    found += [clickhouse_object({**row, "name": "good", "hub_names": ["x"], "hub_types": ["UInt8"]})]
    found += [clickhouse_object({**row, "name": "odd", "hub_names": ["x"], "hub_types": [7]})]
    found += [clickhouse_object({**row, "name": "views", "hub_names": [], "hub_types": []})]
    assert [(item.name, len(item.fields)) for item in found if item.name == "good"] == [("good", 1)] * 4
    odd = [item for item in found if item.name == "odd"]
    assert len(odd) == 4
    assert all(not item.fields and "unexpected" in item.notes[0] for item in odd)
    assert {item.notes for item in found if item.name == "views"} == {(NO_COLUMNS,)}


async def test_a_table_of_duckdb_whose_name_holds_nul_is_listed_and_read(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "a.duckdb")) as database:
        database.execute('CREATE TABLE "n\0x" AS SELECT 1 AS "c\0d"')
        database.execute("CREATE TABLE good AS SELECT 1 AS x")
    source = Duckdb(DuckdbConfig(path="a.duckdb"), DuckdbSecrets(), EgressPolicy(files_root=str(tmp_path)))
    assert {item.path[1] for page in [page async for page in source.discover()] for item in page} == {"n\0x", "good"}
    shown = await source.preview(PreviewRequest(path=("main", "n\0x")))
    assert (shown.columns[0].name, shown.rows) == ("c\0d", [[1]])
