"""Parquet files of several writers, read in ranges; and files that are none."""

from __future__ import annotations

import asyncio
import io
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest
from arro3.core import Array, DataType, Field, Schema, Table
from arro3.io import read_json, write_parquet

from app.connectors.contract.failures import ConnectorError
from app.connectors.files import parquet_rows
from app.connectors.files.parquet_footer import Footer
from app.connectors.files.parquet_rows import read_parquet
from app.connectors.files.reading import read_file
from app.connectors.files.table import Choose, every_column, those_named
from app.connectors.files.table import Table as FileTable
from app.connectors.values.values import MAX_SAFE_INTEGER


class Remote:
    """A file elsewhere, that counts what is read of it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ranges: list[tuple[int, int]] = []

    async def read(self, start: int, end: int) -> bytes:
        await asyncio.sleep(0)
        self.ranges.append((start, end))
        return self.content[start:end]

    @property
    def bytes_read(self) -> int:
        return sum(end - start for start, end in self.ranges)


def chosen(names: tuple[str, ...] | None) -> Choose:
    return every_column if names is None else those_named(names)


def table_of(content: bytes | Remote, columns: tuple[str, ...] | None = None, limit: int = 1000) -> FileTable:
    remote = content if isinstance(content, Remote) else Remote(content)
    return asyncio.run(read_file("x.parquet", len(remote.content), remote.read, chosen(columns), limit))


def by_duckdb(folder: Path, select: str, options: str = "") -> bytes:
    path = folder / "x.parquet"
    duckdb.connect().execute(f"SET TimeZone = 'UTC'; COPY ({select}) TO '{path}' (FORMAT parquet{options})")
    return path.read_bytes()


def by_arrow(schema: Schema, rows: str, **options: Any) -> bytes:
    file = io.BytesIO()
    write_parquet(read_json(io.BytesIO(rows.encode()), schema).read_all(), file, **options)
    return file.getvalue()


def facts(table: FileTable) -> list[tuple[str, str, str, bool]]:
    return [(field.name, field.type, field.native_type, field.is_nullable) for field in table.fields]


# Values ---------------------------------------------------------------------------------------------------------------

_DUCKDB_VALUES = {
    "true": ("boolean", "bool", True),
    "200::UTINYINT": ("integer", "uint8", 200),
    "-5::TINYINT": ("integer", "int8", -5),
    "9007199254740993::BIGINT": ("integer", "int64", "9007199254740993"),
    "18446744073709551615::UBIGINT": ("integer", "uint64", "18446744073709551615"),
    "0.1::DOUBLE": ("number", "float64", 0.1),
    "0.5::FLOAT": ("number", "float32", 0.5),
    "'-Infinity'::DOUBLE": ("number", "float64", "-Infinity"),
    "-0.10::DECIMAL(5, 2)": ("decimal", "decimal128(5, 2)", "-0.10"),
    "12345678901234567890123456789.123456789::DECIMAL(38, 9)": (
        "decimal",
        "decimal128(38, 9)",
        "12345678901234567890123456789.123456789",
    ),
    "'Zoë 李雷 🦆'": ("string", "string", "Zoë 李雷 🦆"),
    "''": ("string", "string", ""),
    "'\\x00\\xFF'::BLOB": ("binary", "binary", "AP8="),
    "DATE '0001-01-01'": ("date", "date32", "0001-01-01"),
    "DATE '12345-01-02'": ("date", "date32", "+12345-01-02"),
    "DATE '0045-03-15 (BC)'": ("date", "date32", "-0044-03-15"),
    "TIME '23:59:59.000001'": ("time", "time64[us]", "23:59:59.000001"),
    "TIMESTAMP '2024-01-02 03:04:05.678901'": ("timestamp", "timestamp[us]", "2024-01-02T03:04:05.678901"),
    "TIMESTAMP_S '1969-12-31 23:59:59'": ("timestamp", "timestamp[us]", "1969-12-31T23:59:59"),
    "TIMESTAMP_NS '2024-01-02 03:04:05.123456789'": ("timestamp", "timestamp[ns]", "2024-01-02T03:04:05.123456789"),
    "TIMESTAMPTZ '2024-01-02 03:04:05+02'": ("timestamp_tz", "timestamp[us, UTC]", "2024-01-02T01:04:05Z"),
    "[1, NULL, 3]": ("array", "list<int32>", [1, None, 3]),
    "[DATE '2024-01-02', NULL]": ("array", "list<date32>", ["2024-01-02", None]),
    "[]::INT[]": ("array", "list<int32>", []),
    "[[1.50::DECIMAL(5, 2)], []]": ("array", "list<list<decimal128(5, 2)>>", [["1.50"], []]),
    "{'a': 9007199254740993, 'b': {'c': TIMESTAMPTZ '2024-01-02 03:04:05Z', 'd': NULL::INT}}": (
        "object",
        "struct<a: int64, b: struct<c: timestamp[us, UTC], d: int32>>",
        {"a": "9007199254740993", "b": {"c": "2024-01-02T03:04:05Z", "d": None}},
    ),
    "MAP {'k': DATE '2024-01-02', 'l': NULL}": ("object", "map<string, date32>", {"k": "2024-01-02", "l": None}),
    "MAP {DATE '2024-01-02': 1}": ("object", "map<date32, int32>", {"2024-01-02": 1}),
    "MAP {7: true}": ("object", "map<int32, bool>", {"7": True}),
    "[MAP {'k': [DATE '2024-01-02']}]": (
        "array",
        "list<map<string, list<date32>>>",
        [{"k": ["2024-01-02"]}],
    ),
    "'x'::ENUM('x', 'y')": ("string", "string", "x"),
}


@pytest.mark.parametrize("expression", _DUCKDB_VALUES)
def test_values_of_duckdb(tmp_path: Path, expression: str) -> None:
    portable, native, value = _DUCKDB_VALUES[expression]
    select = f"SELECT 1 AS i, x FROM (SELECT {expression} AS x UNION ALL SELECT NULL) ORDER BY x IS NULL"
    content = by_duckdb(tmp_path, select)
    table = table_of(content)
    assert facts(table)[1] == ("x", portable, native, True)
    assert table.rows == [[1, value], [1, None]]
    assert table_of(content, ("x",)).rows == [[value], [None]]


def test_ids_and_documents_of_duckdb(tmp_path: Path) -> None:
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    table = table_of(by_duckdb(tmp_path, f"SELECT '{uuid}'::UUID AS id, '{{\"a\": 1}}'::JSON AS doc"))
    assert [(field.name, field.type) for field in table.fields] == [("id", "uuid"), ("doc", "json")]
    assert table.rows == [[uuid, {"a": 1}]]


_ARROW_VALUES = [
    (DataType.timestamp("ms", tz="Europe/Berlin"), '"2024-01-02T01:04:05.5Z"', "2024-01-02T01:04:05.500000Z"),
    (DataType.timestamp("ns", tz="+05:30"), '"2024-01-02T01:04:05.000000001Z"', "2024-01-02T01:04:05.000000001Z"),
    (DataType.timestamp("s"), '"2024-01-02T01:04:05"', "2024-01-02T01:04:05"),
    (DataType.date64(), '"2024-01-02"', "2024-01-02"),
    (DataType.time32("ms"), '"01:02:03.004"', "01:02:03.004000"),
    (DataType.time64("ns"), '"01:02:03.000000004"', "01:02:03.000000004"),
    (DataType.duration("ms"), "90061500", "P1DT3661.5S"),
    (DataType.duration("ns"), "-1", "-PT0.000000001S"),
    (DataType.duration("s"), "0", "PT0S"),
    (DataType.large_string(), '"x"', "x"),
    (DataType.string_view(), '"x"', "x"),
    (DataType.binary(2), '"00ff"', "AP8="),
    (DataType.large_binary(), '"00ff"', "AP8="),
    (DataType.binary_view(), '"00ff"', "AP8="),
    (DataType.decimal256(60, 3), '"-1.5"', "-1.500"),
    (DataType.float16(), "1.5", 1.5),
    (DataType.uint64(), str(2**64 - 1), str(2**64 - 1)),
    (DataType.int64(), str(-MAX_SAFE_INTEGER), -MAX_SAFE_INTEGER),
    (DataType.large_list(Field("item", DataType.timestamp("us", tz="UTC"))), '["2024-01-02T00:00:00Z", null]', None),
    (DataType.list(Field("item", DataType.date32()), 2), '["2024-01-02", null]', ["2024-01-02", None]),
]


@pytest.mark.parametrize(
    ("kind", "text", "value"), _ARROW_VALUES, ids=[str(kind).strip() for kind, *_ in _ARROW_VALUES]
)
def test_values_of_arrow(kind: DataType, text: str, value: Any) -> None:
    """With all columns Arrow's own schema is obeyed, with some of them it is put back by a cast."""
    schema = Schema([Field("i", DataType.int64(), nullable=False), Field("x", kind)])
    content = by_arrow(schema, f'{{"i": 1, "x": {text}}}\n{{"i": 2, "x": null}}\n')
    expected = ["2024-01-02T00:00:00Z", None] if value is None else value
    table = table_of(content)
    assert table.rows == [[1, expected], [2, None]]
    assert facts(table)[0][3] is False
    assert table_of(content, ("x",)).rows == [[expected], [None]]
    without_arrow_schema = by_arrow(schema, f'{{"i": 1, "x": {text}}}\n', skip_arrow_metadata=True)
    assert len(table_of(without_arrow_schema).rows) == 1


def test_dictionaries_are_their_values() -> None:
    words = Array(["a", "b", None, "a"], DataType.string()).cast(
        DataType.dictionary(DataType.int32(), DataType.string())
    )
    file = io.BytesIO()
    write_parquet(Table.from_arrays([words, words], names=["x", "y"]), file)
    for columns in (None, ("x", "y"), ("y",)):
        table = table_of(file.getvalue(), columns)
        assert [row[-1] for row in table.rows] == ["a", "b", None, "a"]
        assert facts(table)[0][1:] == ("string", "dictionary<string>", True)


# Columns, rows and bytes ----------------------------------------------------------------------------------------------


def test_columns_are_those_that_the_file_has_in_its_order(tmp_path: Path) -> None:
    content = by_duckdb(tmp_path, "SELECT 1 AS a, {'x': 2, 'y': [3]} AS b, 4 AS c, [5] AS d")
    table = table_of(content, ("d", "b", "nowhere"))
    assert [field.name for field in table.fields] == ["b", "d"]
    assert table.rows == [[{"x": 2, "y": [3]}, [5]]]
    assert table_of(content, ("nowhere",)).rows == [[]]
    assert table_of(content, ()).rows == [[]]


@pytest.mark.parametrize(
    ("limit", "is_whole"), [(0, False), (1, False), (100, False), (101, False), (250, True), (999, True)]
)
def test_rows_go_across_row_groups_up_to_the_limit(limit: int, is_whole: bool) -> None:
    file = io.BytesIO()
    write_parquet(
        Table.from_arrays([Array(list(range(250)), DataType.int64())], names=["n"]), file, max_row_group_size=50
    )
    for columns in (None, ("n",)):
        table = table_of(file.getvalue(), columns, limit)
        assert table.rows == [[n] for n in range(min(limit, 250))]
        assert table.is_whole is is_whole


def test_an_empty_file_has_fields_and_no_rows(tmp_path: Path) -> None:
    table = table_of(by_duckdb(tmp_path, "SELECT 1 AS a, 'x' AS b WHERE false"))
    assert [field.name for field in table.fields] == ["a", "b"]
    assert table.rows == []
    assert table.is_whole


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Twelve columns of 300,000 numbers that do not compress, in one row group."""
    columns = ", ".join(f"hash(range + {place}) AS c{place}" for place in range(12))
    folder = tmp_path_factory.mktemp("large")
    return by_duckdb(folder, f"SELECT {columns} FROM range(300000)", ", ROW_GROUP_SIZE 1000000")


def test_fields_cost_the_footer_only(large: bytes) -> None:
    remote = Remote(large)
    assert len(table_of(remote, limit=0).fields) == 12
    assert remote.bytes_read <= 64 * 1024


def test_a_column_costs_its_first_pages_only(large: bytes) -> None:
    remote = Remote(large)
    assert len(table_of(remote, ("c7",), 10).rows) == 10
    assert remote.bytes_read < len(large) / 10


def test_what_would_cost_too_much_is_refused(large: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "MAX_BYTES_READ", 4 * 1024 * 1024)
    assert refusal(large) == "response_too_large"
    assert len(table_of(large, ("c7",), 10).rows) == 10


def test_rows_of_large_values_are_cut_off(tmp_path: Path) -> None:
    """A dictionary makes a file of any size from one value."""
    content = by_duckdb(tmp_path, "SELECT repeat('x', 1000000) AS t FROM range(1000)")
    table = table_of(content)
    assert 1 <= len(table.rows) < 30
    assert not table.is_whole


# Sparse reading -------------------------------------------------------------------------------------------------------


def test_sparse_reading_finds_the_rows_that_hold_something(tmp_path: Path) -> None:
    select = "SELECT CASE WHEN range % 40000 = 39999 THEN {'n': range} END AS a, range AS b FROM range(100000)"
    remote = Remote(by_duckdb(tmp_path, select))

    async def read(limit: int, *columns: str) -> FileTable:
        return await read_parquet(len(remote.content), remote.read, chosen(columns), limit, is_sparse=True)

    found = asyncio.run(read(10, "a"))
    assert found.rows == [[{"n": 39999}], [{"n": 79999}]]
    assert found.is_whole
    assert not asyncio.run(read(1, "a")).is_whole
    assert asyncio.run(read(10, "nowhere")).rows == []


# Files that are none --------------------------------------------------------------------------------------------------


def refusal(content: bytes | Remote, columns: tuple[str, ...] | None = None) -> str:
    with pytest.raises(ConnectorError) as caught:
        table_of(content, columns)
    return caught.value.code


@pytest.fixture
def small(tmp_path: Path) -> bytes:
    return by_duckdb(tmp_path, "SELECT range AS a, 'x' || range AS b FROM range(100)")


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"PAR1PAR1", b"id,name\n1,x\n", b"PAR1" + bytes(100), b"PAR1" + struct.pack("<I", 2**31) + b"PAR1"],
)
def test_what_is_no_parquet_file_is_said_to_be_none(content: bytes) -> None:
    assert refusal(content) == "response_invalid"


def test_an_encrypted_file_is_unsupported(small: bytes) -> None:
    assert refusal(small[:-4] + b"PARE") == "unsupported"


def test_a_file_that_was_cut_off_is_damaged(small: bytes) -> None:
    assert refusal(small[:-9]) == "response_invalid"
    assert refusal(small[:20] + small[-8:]) == "response_invalid"


def test_a_file_that_ends_early_while_it_is_read_is_damaged(small: bytes) -> None:
    remote = Remote(small)
    with pytest.raises(ConnectorError) as caught:
        asyncio.run(read_parquet(len(small) + 100, remote.read))
    assert caught.value.code == "response_invalid"


@pytest.mark.parametrize("flipped", [0xFF, 0x01])
def test_no_byte_of_a_footer_crashes_the_reading(small: bytes, flipped: int) -> None:
    """Each is changed in turn; what can be read then is a table. Pages are left to the sandbox: there the decoder's
    native code may end the process."""
    (length,) = struct.unpack("<I", small[-8:-4])
    for place in range(len(small) - 8 - length, len(small)):
        broken = bytearray(small)
        broken[place] ^= flipped
        for columns in (None, ("b",)):
            with suppress(ConnectorError):
                table_of(bytes(broken), columns)


def test_a_huge_footer_is_refused() -> None:
    class Huge(Remote):
        async def read(self, start: int, end: int) -> bytes:
            return bytes(end - start - 8) + struct.pack("<I", 100 * 1024 * 1024) + b"PAR1"

    async def read() -> None:
        await read_parquet(10**10, Huge(b"").read)

    with pytest.raises(ConnectorError) as caught:
        asyncio.run(read())
    assert caught.value.code == "response_too_large"


def test_a_failure_of_the_source_is_told_as_it_is(large: bytes) -> None:
    class Failing(Remote):
        async def read(self, start: int, end: int) -> bytes:
            if len(self.ranges) >= 1 and start < 1_000_000:
                raise ConnectorError("connection_lost", "The server hung up.")
            return await super().read(start, end)

    assert refusal(Failing(large)) == "connection_lost"


# The footer -----------------------------------------------------------------------------------------------------------


def test_a_footer_is_written_as_it_was_read(small: bytes, large: bytes) -> None:
    for content in (small, large):
        (length,) = struct.unpack("<I", content[-8:-4])
        footer = Footer.parse(content[-8 - length : -8], 10**9)
        again = Footer.parse(footer.thrift(), 10**9)
        assert (again.schema, again.row_groups) == (footer.schema, footer.row_groups)
        assert footer.has_all_row_groups
