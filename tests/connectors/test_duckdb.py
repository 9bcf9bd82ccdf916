"""What DuckDB asks for beyond the contract: views that reach out, files in use, and values that Python would get wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest, PreviewResult
from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY
from tests.connectors.servers.starting import say_nothing, scripted_server
from tests.connectors.types.duckdb import KEY, make

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def policy(root: Path) -> EgressPolicy:
    return EgressPolicy(files_root=str(root))


async def shown(
    sandbox: ConnectorSandbox, policy: EgressPolicy, path: str, request: PreviewRequest, **config: Any
) -> PreviewResult:
    return await sandbox.preview("duckdb", {"path": path, **config}, {}, policy, request)


async def rows(sandbox: ConnectorSandbox, policy: EgressPolicy, path: str, table: str = "t", **config: Any) -> Any:
    return (await shown(sandbox, policy, path, PreviewRequest(path=("main", table)), **config)).rows


async def code(sandbox: ConnectorSandbox, policy: EgressPolicy, path: str, table: str, **config: Any) -> str:
    with pytest.raises(ConnectorError) as caught:
        await rows(sandbox, policy, path, table, **config)
    assert CANARY not in caught.value.message
    return caught.value.code


# Views that reach out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "SELECT * FROM read_csv('/etc/passwd', sep = ':', header = false)",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/proc/self/environ')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM '{beside}'",
        "SELECT * FROM read_text('{beside}')",
        "SELECT * FROM read_text('{itself}')",
        "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
        "SELECT nextval('counter')",
    ],
)
async def test_a_view_that_reaches_out_is_refused_and_hides_no_other(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path, body: str
) -> None:
    (root / "beside.csv").write_text("a,b\n1,2\n")
    body = body.format(beside=root / "beside.csv", itself=root / "evil.duckdb")
    script = "CREATE TABLE t AS SELECT 1 AS a; CREATE SEQUENCE counter;"
    make(root / "evil.duckdb", f"{script} CREATE VIEW v AS {body}")
    assert await code(sandbox, policy, "evil.duckdb", "v") == "unsupported"
    assert (await sandbox.check("duckdb", {"path": "evil.duckdb"}, {}, policy)).status == "passed"
    found = [item async for batch in sandbox.discover("duckdb", {"path": "evil.duckdb"}, {}, policy) for item in batch]
    assert [(item.path, item.kind) for item in found] == [(("main", "t"), "table"), (("main", "v"), "view")]
    assert await rows(sandbox, policy, "evil.duckdb") == [[1]]


async def test_a_view_onto_a_url_dials_nobody(sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path) -> None:
    visits: list[Any] = []

    def note(connection: Any) -> None:
        visits.append(connection)
        say_nothing(connection)

    with scripted_server(note) as port:
        url = f"http://127.0.0.1:{port}/x.csv"
        make(
            root / "evil.duckdb",
            f'CREATE TABLE "{url}" (a INT); CREATE VIEW v AS SELECT a FROM "{url}"; DROP TABLE "{url}"',
        )
        assert await code(sandbox, policy, "evil.duckdb", "v") == "unsupported"
    assert visits == []


async def test_a_view_without_end_is_interrupted(sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path) -> None:
    body = "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) AS n FROM r WHERE n < 0"
    make(root / "long.duckdb", f"CREATE VIEW v AS {body}")
    assert await code(sandbox, policy, "long.duckdb", "v", read_timeout_s=0.5) == "timeout"


async def test_a_view_that_eats_memory_is_stopped(sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path) -> None:
    make(root / "big.duckdb", "CREATE VIEW v AS SELECT list(repeat('x', 1000) || n) AS l FROM range(10000000) r (n)")
    assert await code(sandbox, policy, "big.duckdb", "v") == "out_of_memory"


# Files in use ---------------------------------------------------------------------------------------------------------

_CRASHING_WRITER = """
import duckdb, os, sys
database = duckdb.connect(sys.argv[1])
database.execute("CREATE TABLE t AS SELECT 1 AS a; CHECKPOINT; INSERT INTO t VALUES (2)")
os._exit(0)
"""


async def test_changes_that_are_only_in_the_wal_file_are_read_and_left_there(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    subprocess.run([sys.executable, "-c", _CRASHING_WRITER, str(root / "shop.duckdb")], check=True)
    before = {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in root.iterdir()}
    assert set(before) == {"shop.duckdb", "shop.duckdb.wal"}
    assert await rows(sandbox, policy, "shop.duckdb") == [[1], [2]]
    assert {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in root.iterdir()} == before


async def test_a_wal_file_that_leads_outside_is_refused(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    make(root / "shop.duckdb", "CREATE TABLE t AS SELECT 1 AS a")
    (root / "shop.duckdb.wal").symlink_to("/etc/passwd")
    assert await code(sandbox, policy, "shop.duckdb", "t") == "egress_refused"


async def test_a_lock_that_is_given_back_in_time_is_waited_for(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    script = "import duckdb, sys, time; d = duckdb.connect(sys.argv[1]); print(flush=True); time.sleep(0.7); d.close()"
    make(root / "shop.duckdb", "CREATE TABLE t AS SELECT 1 AS a")
    with subprocess.Popen([sys.executable, "-c", script, str(root / "shop.duckdb")], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert await rows(sandbox, policy, "shop.duckdb", lock_timeout_s=8) == [[1]]


async def test_an_encrypted_file_opens_with_its_key(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    make(root / "secret.duckdb", "CREATE TABLE t AS SELECT 1 AS a", KEY)
    config, secrets = {"path": "secret.duckdb"}, {"encryption_key": KEY}
    result = await sandbox.check("duckdb", config, secrets, policy)
    assert [step.status for step in result.steps] == ["passed", "passed", "skipped", "passed", "passed"]
    assert result.server["encryption"] == "AES"
    shown = await sandbox.preview("duckdb", config, secrets, policy, PreviewRequest(path=("main", "t")))
    assert shown.rows == [[1]]
    assert await code(sandbox, policy, "secret.duckdb", "t") == "authentication_failed"


@pytest.mark.parametrize("name", ["memory.duckdb", "system.db", "a b.c'd.duckdb", ".duckdb", 'Zoë "x"', "1.duckdb"])
async def test_every_file_name_will_do(sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path, name: str) -> None:
    make(root / "plain.duckdb", "CREATE TABLE t AS SELECT 1 AS a")
    shutil.copy(root / "plain.duckdb", root / name)
    assert await rows(sandbox, policy, name) == [[1]]


# Previews and discovery -----------------------------------------------------------------------------------------------


async def test_long_values_are_cut_and_said_to_be(sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path) -> None:
    make(
        root / "long.duckdb",
        "CREATE TABLE t AS SELECT repeat('ü', 100000) AS a, repeat('x', 100000)::BLOB AS b, range(100000) AS c, "
        "{'x': repeat('y', 100000)} AS d, MAP {'k': 1} AS e, to_json(repeat('z', 100000)) AS f",
    )
    request = PreviewRequest(path=("main", "t"), max_value_bytes=64)
    result = await shown(sandbox, policy, "long.duckdb", request)
    (row,) = result.rows
    assert [len(str(value).encode()) for value in row[:4]] == [64] * 4
    assert row[4] == {"k": 1}
    assert row[2].startswith("[0, 1, 2")
    assert result.truncated


async def test_nested_values_keep_what_they_hold(sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path) -> None:
    make(
        root / "deep.duckdb",
        """CREATE TABLE t AS SELECT
            [{'at': TIMESTAMP_NS '2024-01-02 03:04:05.123456789', 'n': 9007199254740993, 'h': 1::HUGEINT}] AS a,
            MAP {[1, 2]: INTERVAL '1 year', [3]: NULL} AS b,
            [TIMESTAMPTZ '2024-01-02 03:04:05+02', NULL] AS c,
            {'a "b" c': [DATE '2024-01-02', 'infinity']} AS d,
            [[0.10, NULL], [], NULL] AS e, row(1, INTERVAL '1 day') AS f, ['nan'::DOUBLE] AS g""",
    )
    assert await rows(sandbox, policy, "deep.duckdb") == [
        [
            [{"at": "2024-01-02T03:04:05.123456789", "n": "9007199254740993", "h": 1}],
            {"[1, 2]": "P1Y", "[3]": None},
            ["2024-01-02T01:04:05Z", None],
            {'a "b" c': ["2024-01-02", "infinity"]},
            [["0.10", None], [], None],
            [1, "P1D"],
            ["NaN"],
        ]
    ]


async def test_included_and_excluded_schemas_hold_for_previews_too(
    sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path
) -> None:
    schemas = ("a_1", "a_2", "ab1", "b")
    make(root / "many.duckdb", "".join(f"CREATE SCHEMA {name}; CREATE TABLE {name}.t (x INT);" for name in schemas))
    config = {"path": "many.duckdb", "include_schemas": ["a_*"], "exclude_schemas": ["*2"]}
    found = [item async for batch in sandbox.discover("duckdb", config, {}, policy) for item in batch]
    assert [item.path for item in found] == [("a_1", "t")]
    for path in (("a_2", "t"), ("b", "t"), ("information_schema", "tables"), ("main", "duckdb_settings")):
        with pytest.raises(ConnectorError) as caught:
            await sandbox.preview("duckdb", config, {}, policy, PreviewRequest(path=path))
        assert caught.value.code == "not_found"


async def test_many_tables_come_in_batches(sandbox: ConnectorSandbox, policy: EgressPolicy, root: Path) -> None:
    make(root / "many.duckdb", "".join(f"CREATE TABLE t{n:04} (a INT, b INT, c INT);" for n in range(1000)))
    batches = [batch async for batch in sandbox.discover("duckdb", {"path": "many.duckdb"}, {}, policy)]
    assert [item.name for batch in batches for item in batch] == [f"t{n:04}" for n in range(1000)]
    assert max(len(batch) for batch in batches) <= 250
    assert {len(item.fields) for batch in batches for item in batch} == {3}
