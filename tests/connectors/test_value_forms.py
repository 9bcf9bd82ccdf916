"""One value, one form: however deep it lies, in whichever source, and in CSV as in JSON."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import asyncpg
import duckdb
import pytest
from arro3.core import Array, DataType, Table
from arro3.io import write_parquet

from app.connectors.contract.objects import PreviewColumn, PreviewRequest, PreviewResult
from app.connectors.files.parquet_rows import read_parquet
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.values.arrow_values import arrow_type, values_of
from app.connectors.values.values import single_precision
from app.core.egress import EgressPolicy
from app.domain.source_work.tables import as_csv
from tests.connectors.contract import CANARY, Start
from tests.connectors.types import postgresql

pytestmark = [pytest.mark.anyio, pytest.mark.found("D11")]

BYTES = base64.b64encode(b"\x00\xff").decode()
BIG = "12345678901234567890.10"

# Name, type, value in SQL, and what it is in JSON.
NESTED: list[tuple[str, str, str, Any]] = [
    ("composite", "forms.part", r"ROW('\x00ff', 1.50, '2024-01-02 03:04:05+02', 0.1)", None),
    ("composites", "forms.part[]", r"ARRAY[ROW('\x00ff', 1.50, NULL, NULL), NULL]::forms.part[]", None),
    ("within", "forms.whole", r"""ROW(ROW('\x00ff', 2, NULL, NULL), ARRAY['\x00ff'::bytea], '"a"=>"1"')""", None),
    ("of_a_domain", "forms.raw", r"'\x00ff'", BYTES),
    ("domains", "forms.raw[]", r"ARRAY['\x00ff']::forms.raw[]", [BYTES]),
    ("square", "bytea[]", r"ARRAY[ARRAY['\x00ff'::bytea, NULL], ARRAY['\x'::bytea, '\x00'::bytea]]", None),
    ("decimals", "numeric[]", f"ARRAY[{BIG}, 1, 1.50, 'NaN']::numeric[]", [BIG, "1", "1.50", "NaN"]),
    ("moments", "timestamptz[]", "ARRAY['2024-01-02 03:04:05+02']::timestamptz[]", ["2024-01-02T01:04:05Z"]),
    ("clocks", "timetz[]", "ARRAY['03:04:05+02']::timetz[]", ["03:04:05+02:00"]),
    ("documents", "json[]", """ARRAY['{"x": 0.1, "big": 1e400}']::json[]""", [{"x": 0.1, "big": "1e400"}]),
    ("singles", "real[]", "ARRAY[0.1, 'Infinity', 16777216]::real[]", [0.1, "Infinity", 16777216]),
    ("doubles", "float8[]", "ARRAY[0.1, '-Infinity', 'NaN']::float8[]", [0.1, "-Infinity", "NaN"]),
    ("integers", "int8[]", "ARRAY[9007199254740993, 1]", ["9007199254740993", 1]),
    ("single", "real", "0.1", 0.1),
    ("low", "float8", "'-Infinity'", "-Infinity"),
    ("store", "forms.hstore", """'"a"=>"1", "b"=>NULL, "c d"=>"é"'""", {"a": "1", "b": None, "c d": "é"}),
    ("stores", "forms.hstore[]", """ARRAY['"a"=>"1"']::forms.hstore[]""", [{"a": "1"}]),
    ("nothing", "forms.part", "NULL", None),
]
PART = {"raw": BYTES, "amount": "1.50", "at": "2024-01-02T01:04:05Z", "ratio": 0.1}
EXPECTED: dict[str, Any] = {
    "composite": PART,
    "composites": [{**PART, "at": None, "ratio": None}, None],
    "within": {
        "inner_part": {"raw": BYTES, "amount": "2", "at": None, "ratio": None},
        "blobs": [BYTES],
        "store": {"a": "1"},
    },
    "square": [[BYTES, None], ["", base64.b64encode(b"\x00").decode()]],
}
SETUP = """
CREATE SCHEMA forms;
CREATE EXTENSION hstore SCHEMA forms;
CREATE DOMAIN forms.raw AS bytea;
CREATE TYPE forms.part AS (raw forms.raw, gone integer, amount numeric, at timestamptz, ratio real);
ALTER TYPE forms.part DROP ATTRIBUTE gone;
CREATE TYPE forms.whole AS (inner_part forms.part, blobs bytea[], store forms.hstore);
GRANT USAGE ON SCHEMA forms TO reader;
"""


@pytest.fixture(scope="module")
def server(start: Start) -> postgresql.PostgresServer:
    return start(postgresql.filled_postgres)


async def test_postgresql_shows_nested_values_as_it_shows_plain_ones(
    server: postgresql.PostgresServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    connection = await asyncpg.connect(server.url("shop"))
    try:
        await connection.execute(SETUP)
        columns = ", ".join(f"{name} {kind}" for name, kind, *_ in NESTED)
        await connection.execute(f"CREATE TABLE forms.t ({columns}); GRANT SELECT ON forms.t TO reader")
        await connection.execute(f"INSERT INTO forms.t VALUES ({', '.join(value for _, _, value, _ in NESTED)})")
        shown = await sandbox.preview(
            "postgresql",
            {"host": "localhost", "port": server.port, "database": "shop", "username": "reader"},
            {"password": f"pw-{CANARY}"},
            loopback,
            PreviewRequest(path=("forms", "t")),
        )
    finally:
        await connection.execute("DROP SCHEMA IF EXISTS forms CASCADE")
        await connection.close()
    (row,) = shown.rows
    found = dict(zip((column.name for column in shown.columns), row, strict=True))
    assert found == {name: EXPECTED.get(name, value) for name, _, _, value in NESTED}
    types = {column.name: column.type for column in shown.columns}
    assert (types["store"], types["composite"], types["stores"]) == ("object", "object", "array")


# Single precision ----------------------------------------------------------------------------------------------------

SINGLES = [0.1, 1.1, 16777216.0, 3.4028234663852886e38, 1e-45, -0.2, 0.0, 100.0, 123456.78]


def narrowed(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


@pytest.mark.parametrize("value", SINGLES)
def test_the_shortest_number_is_the_same_in_four_bytes(value: float) -> None:
    shown = single_precision(narrowed(value))
    assert struct.pack("f", shown) == struct.pack("f", value)
    assert len(repr(shown)) <= len(repr(narrowed(value)))
    assert single_precision(narrowed(0.1)) == 0.1


def test_what_is_no_number_stays_what_it_is() -> None:
    assert single_precision(float("-inf")) == float("-inf")
    assert single_precision(float("nan")) != single_precision(float("nan"))


async def test_files_show_single_precision_alike(tmp_path: Path, sandbox: ConnectorSandbox) -> None:
    policy = EgressPolicy(files_root=str(tmp_path))
    database = duckdb.connect(str(tmp_path / "a.duckdb"))
    database.execute("CREATE TABLE t AS SELECT 0.1::FLOAT AS x, [0.1::FLOAT] AS xs, {'y': 0.1::FLOAT} AS s, 0.1 AS d")
    database.execute("INSERT INTO t VALUES ('-inf'::FLOAT, ['nan'::FLOAT], {'y': NULL}, 1)")
    database.close()
    shown = await sandbox.preview("duckdb", {"path": "a.duckdb"}, {}, policy, PreviewRequest(path=("main", "t")))
    assert shown.rows[0][:3] == [0.1, [0.1], {"y": 0.1}]
    assert shown.rows[1][:3] == ["-Infinity", ["NaN"], {"y": None}]


async def test_parquet_shows_single_precision_alike(tmp_path: Path) -> None:
    """Local Delta tables, stores and HTTP read their files in this one way."""
    halves = Array([0.1, None, 2.0], type=DataType.float32()).cast(DataType.float16())
    table = Table.from_pydict({"x": Array([0.1, None, float("-inf")], type=DataType.float32()), "h": halves})
    assert values_of(table.column("x"), arrow_type(table.schema.field("x"))) == [0.1, None, "-Infinity"]
    assert values_of(table.column("h"), arrow_type(table.schema.field("h"))) == [0.1, None, 2.0]
    write_parquet(table.select(["x"]), str(tmp_path / "x.parquet"))
    content = (tmp_path / "x.parquet").read_bytes()

    async def read(start: int, end: int) -> bytes:
        return content[start:end]

    found = await read_parquet(len(content), read)
    assert [row[0] for row in found.rows] == [0.1, None, "-Infinity"]


# CSV -----------------------------------------------------------------------------------------------------------------


def test_an_infinite_number_is_no_formula_in_csv() -> None:
    columns = (PreviewColumn("x", "number"), PreviewColumn("t", "string"))
    values: list[list[Any]] = [["-Infinity", "-Infinity()"], ["Infinity", "x"], [-1.5, "-1e5"], ["NaN", "=1"]]
    lines = as_csv(PreviewResult(columns, values, False, 0.0)).decode().splitlines()
    assert lines == ["x,t", "-Infinity,'-Infinity()", "Infinity,x", "-1.5,-1e5", "NaN,'=1"]
