"""What SQLite asks for beyond the contract: no trace beside the file in any of its states, and schemas that mean harm."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest, PreviewResult
from app.connectors.contract.steps import TestResult
from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def policy(root: Path) -> EgressPolicy:
    return EgressPolicy(files_root=str(root))


def made(path: Path, script: str = "", journal: str = "delete") -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.executescript(script or "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'), (2, 'y');")
    return connection


def traces(root: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in root.iterdir()}


async def rows(sandbox: ConnectorSandbox, policy: EgressPolicy, path: str, table: str = "t", **config: Any) -> Any:
    return (await shown(sandbox, policy, path, PreviewRequest(path=(table,)), **config)).rows


async def shown(
    sandbox: ConnectorSandbox, policy: EgressPolicy, path: str, request: PreviewRequest, **config: Any
) -> PreviewResult:
    return await sandbox.preview("sqlite", {"path": path, **config}, {}, policy, request)


async def check(sandbox: ConnectorSandbox, policy: EgressPolicy, path: str) -> TestResult:
    return await sandbox.check("sqlite", {"path": path}, {}, policy)


async def code(sandbox: ConnectorSandbox, policy: EgressPolicy, path: str, table: str, **config: Any) -> str:
    with pytest.raises(ConnectorError) as caught:
        await rows(sandbox, policy, path, table, **config)
    return caught.value.code


# States of a file -----------------------------------------------------------------------------------------------------


@pytest.fixture
def live(root: Path) -> Iterator[sqlite3.Connection]:
    """In WAL mode and open elsewhere, with a change that is only in the `-wal` file so far."""
    with closing(made(root / "live.db", journal="wal")) as connection:
        yield connection


@pytest.mark.usefixtures("live")
async def test_a_database_that_is_open_elsewhere_is_read_with_its_latest_changes(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    before = traces(root)
    assert await rows(sandbox, policy, "live.db") == [[1, "x"], [2, "y"]]
    assert {name: size for name, (size, _) in traces(root).items()} == {
        name: size for name, (size, _) in before.items()
    }


async def test_a_copy_with_its_wal_file_is_read_with_the_changes_in_it(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path, live: sqlite3.Connection
) -> None:
    for suffix in ("", "-wal"):
        shutil.copy(root / f"live.db{suffix}", root / f"copy.db{suffix}")
    live.close()
    before = traces(root)
    assert await rows(sandbox, policy, "copy.db") == [[1, "x"], [2, "y"]]
    assert traces(root) == before


async def test_a_stale_shm_file_is_no_hindrance(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path, live: sqlite3.Connection
) -> None:
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(root / f"live.db{suffix}", root / f"crashed.db{suffix}")
    live.close()
    before = traces(root)
    assert await rows(sandbox, policy, "crashed.db") == [[1, "x"], [2, "y"]]
    assert traces(root) == before


async def test_a_database_in_wal_mode_at_rest_gets_no_files_beside_it(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    made(root / "rest.db", journal="wal").close()
    before = traces(root)
    assert list(before) == ["rest.db"]
    assert await rows(sandbox, policy, "rest.db") == [[1, "x"], [2, "y"]]
    assert traces(root) == before


async def test_a_change_that_was_broken_off_is_left_for_others_to_undo(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    with closing(made(root / "shop.db", journal="persist")) as connection:
        connection.execute("PRAGMA cache_spill = 1")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("UPDATE t SET b = zeroblob(100000)")
        for suffix in ("", "-journal"):
            shutil.copy(root / f"shop.db{suffix}", root / f"broken.db{suffix}")
        connection.execute("ROLLBACK")
    before = traces(root)
    result = await check(sandbox, policy, "broken.db")
    assert [(step.name, step.code) for step in result.steps if step.status == "failed"] == [
        ("connect", "response_invalid")
    ]
    assert traces(root) == before


async def test_an_empty_file_is_a_database_without_tables(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    (root / "new.db").touch()
    assert (await check(sandbox, policy, "new.db")).status == "passed"
    assert traces(root)["new.db"][0] == 0


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
async def test_a_companion_that_leads_outside_is_refused(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path, suffix: str
) -> None:
    made(root / "shop.db", journal="wal").close()
    target = root.parent / "target"
    target.write_bytes(b"theirs")
    (root / f"shop.db{suffix}").symlink_to(target)
    assert await code(sandbox, policy, "shop.db", "t") == "egress_refused"
    assert target.read_bytes() == b"theirs"


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
async def test_other_encodings_come_as_text(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path, encoding: str
) -> None:
    made(
        root / "wide.db", f"PRAGMA encoding = '{encoding}'; CREATE TABLE t (a); INSERT INTO t VALUES ('Zoë 李')"
    ).close()
    assert await rows(sandbox, policy, "wide.db") == [["Zoë 李"]]


@pytest.mark.parametrize("name", ["a?mode=rwc.db", "a#b%41.db", "sub folder/Zoë.db", "'quoted\".db"])
async def test_a_name_is_no_part_of_a_uri(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path, name: str
) -> None:
    (root / "sub folder").mkdir()
    made(root / name).close()
    assert await rows(sandbox, policy, name) == [[1, "x"], [2, "y"]]


# Schemas that mean harm -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("SELECT load_extension('/tmp/x.so') AS a", "unsupported"),
        ("SELECT fts3_tokenizer('simple') AS a", "unsupported"),
        ("SELECT * FROM dbstat", "unsupported"),
        ("SELECT * FROM pragma_database_list", "unsupported"),
        ("SELECT * FROM missing", "unsupported"),
        ("SELECT no_such_function(1) AS a", "unsupported"),
        ("SELECT zeroblob(900000000) AS a", "response_too_large"),
        ("WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) AS a FROM r", "timeout"),
        (
            "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n, zeroblob(1000000) AS z FROM r "
            "ORDER BY 2, 1 DESC",
            "out_of_memory",
        ),
    ],
)
async def test_a_view_that_means_harm_ends_by_itself_and_hides_no_other(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path, body: str, expected: str
) -> None:
    made(root / "evil.db", f"CREATE TABLE t (a); INSERT INTO t VALUES (1); CREATE VIEW v AS {body}").close()
    impatient = {"read_timeout_s": 4 if expected == "out_of_memory" else 0.5}
    assert await code(sandbox, policy, "evil.db", "v", **impatient) == expected
    assert (await check(sandbox, policy, "evil.db")).status == "passed"
    found = [item async for batch in sandbox.discover("sqlite", {"path": "evil.db"}, {}, policy) for item in batch]
    assert [item.path for item in found] == [("t",), ("v",)]
    assert await rows(sandbox, policy, "evil.db") == [[1]]


async def test_a_table_of_an_unknown_module_is_listed_without_fields(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    with closing(made(root / "odd.db")) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "INSERT INTO sqlite_schema VALUES ('table', 'm', 'm', 0, 'CREATE VIRTUAL TABLE m USING nothing_known(a)')"
        )
    found = [item async for batch in sandbox.discover("sqlite", {"path": "odd.db"}, {}, policy) for item in batch]
    assert [(item.name, item.kind, len(item.fields)) for item in found] == [
        ("m", "virtual_table", 0),
        ("t", "table", 2),
    ]
    assert await code(sandbox, policy, "odd.db", "m") == "unsupported"


async def test_a_schema_that_is_no_sql_is_damaged(sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path) -> None:
    with closing(made(root / "odd.db")) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE t (('")
    result = await check(sandbox, policy, "odd.db")
    assert [step.code for step in result.steps if step.status == "failed"] == ["response_invalid"]


# Previews and discovery -----------------------------------------------------------------------------------------------


async def test_long_values_are_cut_and_said_to_be(sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path) -> None:
    made(
        root / "long.db", "CREATE TABLE t (a, b); INSERT INTO t VALUES (hex(zeroblob(1000000)), zeroblob(2000000))"
    ).close()
    request = PreviewRequest(path=("t",), max_value_bytes=64)
    result = await shown(sandbox, policy, "long.db", request)
    assert result.rows == [["0" * 64, "A" * 64]]
    assert result.truncated


async def test_rows_stop_where_the_bytes_are_used_up(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    made(root / "long.db", "CREATE TABLE t (a)").close()
    with closing(sqlite3.connect(root / "long.db")) as connection, connection:
        connection.executemany("INSERT INTO t VALUES (?)", [["x" * 500]] * 100)
    result = await shown(sandbox, policy, "long.db", PreviewRequest(path=("t",), max_bytes=1100))
    assert (len(result.rows), result.truncated) == (2, True)
    assert len(msgspec.json.encode([result.columns, result.rows])) <= 1100
    result = await shown(sandbox, policy, "long.db", PreviewRequest(path=("t",), limit=0))
    assert (len(result.rows), result.truncated) == (0, True)


async def test_included_and_excluded_tables_hold_for_previews_too(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    made(
        root / "many.db", "CREATE TABLE a_1 (x); CREATE TABLE a_2 (x); CREATE TABLE ab1 (x); CREATE TABLE b (x)"
    ).close()
    config = {"path": "many.db", "include_tables": ["a_*"], "exclude_tables": ["*2"]}
    found = [item async for batch in sandbox.discover("sqlite", config, {}, policy) for item in batch]
    assert [item.name for item in found] == ["a_1"]
    for table in ("a_2", "b", "sqlite_schema"):
        with pytest.raises(ConnectorError) as caught:
            await sandbox.preview("sqlite", config, {}, policy, PreviewRequest(path=(table,)))
        assert caught.value.code == "not_found"


async def test_many_tables_come_in_batches(sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path) -> None:
    made(root / "many.db", "BEGIN;" + "".join(f"CREATE TABLE t{n:04} (a, b);" for n in range(1000)) + "COMMIT").close()
    sizes = [len(batch) async for batch in sandbox.discover("sqlite", {"path": "many.db"}, {}, policy)]
    assert sum(sizes) == 1000
    assert max(sizes) <= 250
