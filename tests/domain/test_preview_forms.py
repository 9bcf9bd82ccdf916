"""The forms of a preview say the same: JSON, CSV and Arrow of the same rows, for all types and whatever values."""

from __future__ import annotations

import base64
import datetime as dt
import io
import json
import math
import os
import re
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from arro3.core import DataType
from arro3.io import read_ipc_stream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.connectors.contract.config import NoSecrets
from app.connectors.contract.objects import PortableType, PreviewColumn, PreviewRequest, PreviewResult
from app.connectors.types.sqlite import Sqlite, SqliteConfig
from app.core.egress import EgressPolicy
from app.domain.source_work.tables import as_arrow, as_csv

pytestmark = pytest.mark.found("D10")

TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [
        "",
        "=1+1",
        "'=1",
        "''",
        "-5",
        "-Infinity",
        "null",
        "true",
        "5",
        '"',
        "a,b\r\nc",
        "infinity",
        "aGk=",
        "abcd",
        "\x00",
    ]
)
FLOAT = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "1e400", "0.10000000000000000001"]
)
INTEGER = st.integers(-(2**53) + 1, 2**53 - 1) | st.integers(-(10**80), 10**80).map(str)
DECIMAL = (
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(lambda d: format(d, "f"))
    | st.integers(-(10**50), 10**50).map(str)
    | st.sampled_from(["NaN", "-Infinity", "1e400", "1E-30"])
)
DATE = st.dates().map(str) | st.sampled_from(["infinity", "+12024-01-01", "-0044-03-15", "0000-00-00", "2024-W01-1"])
ZONE = st.sampled_from(["Z", "+02:00", "-05:30"])
CLOCK = st.tuples(st.times(), st.sampled_from(["", ".1", ".123456", ".123456789", ".000000001"])).map(
    lambda it: it[0].isoformat("seconds") + it[1]
)
TIMESTAMP = st.tuples(st.dates(), CLOCK).map(lambda it: f"{it[0]}T{it[1]}") | st.sampled_from(
    ["infinity", "2024-01-01T23:59:60", "2024-01-01 00:00:00", "2024-01-01T10:30", "+12024-01-01T00:00:00"]
)
TIMESTAMP_TZ = st.tuples(st.dates(), CLOCK, ZONE).map(lambda it: f"{it[0]}T{it[1]}{it[2]}") | TIMESTAMP
EXAMPLES = 60 if os.environ.get("CI") else 20
"""Of each type: making them up is most of the time that they take."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | FLOAT | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
VALUES: dict[PortableType, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": INTEGER,
    "number": FLOAT,
    "decimal": DECIMAL,
    "string": TEXT,
    "binary": st.binary(max_size=9).map(lambda content: base64.b64encode(content).decode()) | TEXT,
    "date": DATE,
    "time": CLOCK,
    "timestamp": TIMESTAMP,
    "timestamp_tz": TIMESTAMP_TZ,
    "interval": st.sampled_from(["P1D", "-P1DT2.5S", "PT0S", "=1"]),
    "uuid": st.uuids().map(str),
    "json": JSON,
    "array": st.lists(JSON, max_size=3),
    "object": st.dictionaries(TEXT, JSON, max_size=3),
    "geometry": TEXT | st.dictionaries(TEXT, FLOAT, max_size=2),
    "unknown": JSON,
}


def column_of(portable: PortableType) -> st.SearchStrategy[tuple[PortableType, list[Any]]]:
    """Mostly what belongs into such a column, at times whatever a source without types may hold there."""
    cells = st.none() | VALUES[portable]
    odd = cells | st.sampled_from([True, 5, 0.5, "x", [1], {"a": 1}])
    return st.lists(cells, max_size=6).map(lambda found: (portable, found)) | st.lists(odd, max_size=4).map(
        lambda found: (portable, found)
    )


def test_every_type_has_values_here() -> None:
    assert set(VALUES) == set(get_args(PortableType))


@pytest.mark.parametrize("portable", get_args(PortableType))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_three_forms_say_the_same(portable: PortableType, data: st.DataObject) -> None:
    _, cells = data.draw(column_of(portable))
    preview = PreviewResult(
        (PreviewColumn("v", portable), PreviewColumn("n", "integer")), [[cell, 7] for cell in cells], False, 0.0
    )
    table = read_ipc_stream(io.BytesIO(as_arrow(preview))).read_all()
    assert (table.column_names, table.num_rows) == (["v", "n"], len(cells))
    lines = csv_lines(as_csv(preview).decode())
    assert lines[0] == ["v", "n"]
    assert [line[1] for line in lines[1:]] == ["7"] * len(cells)
    texts = [line[0] for line in lines[1:]]
    in_arrow = arrow_values(table["v"])
    for cell, text, value in zip(cells, texts, in_arrow, strict=True):
        wanted = meaning(portable, cell)
        assert from_text(portable, None if text is None else unguarded(text), cells) == wanted, (text, cell)
        if isinstance(value, str):
            assert from_text(portable, value, cells) == wanted, (value, cell)
        else:
            assert value == wanted or (value is None and cell is None), (value, cell)


# Meanings -------------------------------------------------------------------------------------------------------------


def meaning(portable: PortableType, cell: Any) -> Any:
    """What a JSON value says, so that it can be compared with the same in another form."""
    if cell is None or isinstance(cell, bool):
        return cell
    if portable in {"integer", "number", "decimal"} and isinstance(cell, int | float | str):
        return number(cell)
    if portable in {"timestamp", "timestamp_tz"} and isinstance(cell, str):
        return moment(cell, portable)
    if (
        portable == "date"
        and isinstance(cell, str)
        and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", cell)
        and cell != "0000-00-00"
    ):
        return ("date", cell)
    if portable == "binary" and isinstance(cell, str):
        return binary(cell)
    return frozen(cell)


def number(cell: Any) -> Any:
    if isinstance(cell, str) and not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", cell):
        return ("text", cell)
    return ("number", Decimal(cell if isinstance(cell, str) else repr(cell)).normalize() + 0)


def moment(cell: str, portable: PortableType) -> Any:
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d):(\d\d)(?::(\d\d))?(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?", cell)
    if found is None or found[4] == "60" or (found[6] is not None) is not (portable == "timestamp_tz"):
        return ("text", cell)
    whole = dt.datetime.fromisoformat(f"{found[1]}T{found[2]}:{found[3]}:{found[4] or '00'}")
    seconds = (whole - dt.datetime(1970, 1, 1)) // dt.timedelta(seconds=1)
    if found[6] not in {None, "Z"}:
        hours, minutes = int(found[6][1:3]), int(found[6][4:])
        seconds -= (1 if found[6][0] == "+" else -1) * (hours * 3600 + minutes * 60)
    return ("moment", seconds * 10**9 + int((found[5] or "").ljust(9, "0")))


def binary(cell: str) -> Any:
    try:
        content = base64.b64decode(cell, validate=True)
    except ValueError:
        return ("text", cell)
    return ("bytes", content) if base64.b64encode(content).decode() == cell else ("text", cell)


def frozen(cell: Any) -> Any:
    return ("json", json.dumps(cell, sort_keys=True)) if not isinstance(cell, str) else ("text", cell)


def from_text(portable: PortableType, text: str | None, cells: list[Any]) -> Any:
    """By the rules that README and specification give: JSON for nested types, and for columns that are not all texts."""
    if text is None:
        return None
    is_number = portable in {"integer", "number", "decimal"}
    is_mixed = (
        any(isinstance(cell, bool | dict | list) for cell in cells)
        if is_number
        else not all(cell is None or isinstance(cell, str) for cell in cells)
    )
    if portable in {"json", "array", "object"} or is_mixed:
        return meaning(portable, json.loads(text))
    return meaning(portable, text)


def arrow_values(column: Any) -> list[Any]:
    kind = column.type
    if DataType.is_timestamp(kind):
        unit = 1000 if "µs" in str(kind) else 1
        return [
            None if count is None else ("moment", count * unit) for count in column.cast(DataType.int64()).to_pylist()
        ]
    return [plain(value) for value in column.to_pylist()]


def plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return ("text", {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN"))
    if isinstance(value, int | float | Decimal):
        return number(str(value) if isinstance(value, Decimal) else value)
    if isinstance(value, bytes):
        return ("bytes", value)
    return ("date", str(value))


def unguarded(text: str) -> str:
    return text[1:] if re.match(r"''*[=+@\t\r＝＋＠－-]", text) else text


def csv_lines(text: str) -> list[list[str | None]]:
    """A reader that tells nothing from an empty text, as PostgreSQL's does and Python's does not."""
    lines: list[list[str | None]] = []
    place = 0
    while place < len(text):
        line: list[str | None] = []
        while True:
            if text[place] == '"':
                found = re.compile(r'"((?:[^"]|"")*)"').match(text, place)
                assert found is not None
                line.append(found[1].replace('""', '"'))
            else:
                found = re.compile(r'[^",\r\n]*').match(text, place)
                assert found is not None
                line.append(found[0] or None)
            place = found.end() + 1
            if text[place - 1] != ",":
                break
        assert text[place - 1 : place + 1] == "\r\n"
        place += 1
        lines.append(line)
    return lines


# Facts ----------------------------------------------------------------------------------------------------------------


def arrow(portable: PortableType, *cells: Any) -> Any:
    preview = PreviewResult((PreviewColumn("v", portable),), [[cell] for cell in cells], False, 0.0)
    return read_ipc_stream(io.BytesIO(as_arrow(preview))).read_all()["v"]


def test_an_object_without_columns_is_an_empty_table() -> None:
    preview = PreviewResult((), [[], []], False, 0.0)
    assert read_ipc_stream(io.BytesIO(as_arrow(preview))).read_all().column_names == []
    assert as_csv(preview).decode().replace('""', "").strip() == ""


def test_nanoseconds_are_kept() -> None:
    column = arrow("timestamp", "2024-01-02T03:04:05.123456789", None, "2024-01-02T03:04:05")
    assert "ns" in str(column.type)
    assert column.cast(DataType.int64()).to_pylist() == [1704164645123456789, None, 1704164645000000000]


def test_nanoseconds_beyond_their_range_are_texts() -> None:
    cells = ["0001-01-01T00:00:00.000000001", "2024-01-02T03:04:05"]
    assert arrow("timestamp", *cells).to_pylist() == cells


@pytest.mark.parametrize("cells", [["hello"], ["aGk=", "hello"], ["abcde"], ["QUJ"], ["ab=="]])
def test_text_in_a_column_of_bytes_is_no_other_bytes(cells: list[str]) -> None:
    assert arrow("binary", *cells).to_pylist() == cells


def test_a_json_text_and_a_json_value_are_told_apart() -> None:
    assert arrow("json", '{"a":1}', {"a": 1}, "5", 5, None).to_pylist() == [
        '"{\\"a\\":1}"',
        '{"a":1}',
        '"5"',
        "5",
        None,
    ]


@pytest.mark.found("D11")
@pytest.mark.parametrize(
    ("portable", "cell", "text"),
    [
        ("number", "-Infinity", "-Infinity"),
        ("decimal", "-Infinity", "-Infinity"),
        ("string", "-Infinity", "'-Infinity"),
        ("interval", "-P1DT2S", "-P1DT2S"),
        ("date", "-0044-03-15", "-0044-03-15"),
        ("date", "-0044-03-15+cmd", "'-0044-03-15+cmd"),
        ("date", "-infinity", "-infinity"),
        ("timestamp", "-infinity", "-infinity"),
        ("timestamp_tz", "-infinity", "-infinity"),
        ("interval", "-infinity", "-infinity"),
        ("time", "-838:59:59.000", "-838:59:59.000"),
        ("time", "-1+cmd", "'-1+cmd"),
        ("string", "'=1", "''=1"),
        ("string", "'quoted'", "'quoted'"),
    ],
)
def test_a_value_of_its_type_is_no_formula(portable: PortableType, cell: str, text: str) -> None:
    preview = PreviewResult((PreviewColumn("v", portable),), [[cell]], False, 0.0)
    assert as_csv(preview).decode() == f"v\r\n{text}\r\n"


def test_nothing_and_an_empty_text_are_told_apart_in_csv() -> None:
    preview = PreviewResult((PreviewColumn("a", "string"), PreviewColumn("b", "string")), [[None, ""]], False, 0.0)
    assert as_csv(preview) == b'a,b\r\n,""\r\n'


@pytest.mark.anyio
async def test_text_in_a_blob_column_of_sqlite_is_its_bytes_in_every_form(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE t (b BLOB)")
        connection.executemany("INSERT INTO t VALUES (?)", [("hello",), ("abcd",), (b"\x00\xff",), (None,)])
    connector = Sqlite(SqliteConfig(path="a.db"), NoSecrets(), EgressPolicy(files_root=str(tmp_path)))
    preview = await connector.preview(PreviewRequest(path=("t",)))
    assert preview.rows == [["aGVsbG8="], ["YWJjZA=="], ["AP8="], [None]]
    table = read_ipc_stream(io.BytesIO(as_arrow(preview))).read_all()
    assert table["b"].to_pylist() == [b"hello", b"abcd", b"\x00\xff", None]
    assert as_csv(preview) == b'b\r\naGVsbG8=\r\nYWJjZA==\r\nAP8=\r\n""\r\n'
