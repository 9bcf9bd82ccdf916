"""What lies in the buckets of the object store tests, and what the hub is to find there."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.connectors.contract import FieldFacts

BUCKET = "shop-data"
FORBIDDEN_BUCKET = "other-data"
MISSING_BUCKET = "missing-data"
ODD_BUCKET = "odd-keys"

ODD_PARTS = ("a//b.csv", "/leading.csv", "//twice.csv", "x/../y.csv", "x/./y.csv", "../up.csv", "./here.csv")
"""Keys that are no paths."""
ODD_CONTROLS = ("control\x01.csv", "form\x0cfeed.csv", "none\uffff.csv")
"""Keys with characters that XML has no place for."""
ODD_MARKS = (
    *("trailing/", "percent%2F.csv", "%2e%2e/percent.csv", "plus+and space.csv", "tab\t.csv", "delete\x7f.csv"),
    *("marks&<>\"'.csv", "~(all)*!;=,@$:[]^`{|}.csv", "accent\u0301.csv", "smile\U0001f600.csv", "?query#.csv"),
)


def odd_content(*keys: str) -> dict[str, bytes]:
    """Each key with a file of one row, which tells it from all others."""
    return {key: f"key\n{key.encode().hex()}x\n".encode() for key in keys}


_PARQUET = """COPY (SELECT * FROM (VALUES
    (9007199254740993::BIGINT, 'Zoë 李雷', 10.50::DECIMAL(12, 2), TIMESTAMPTZ '2024-01-02 03:04:05+02',
     [1, NULL]::INT[], {'a': 1, 'b': 'x'}, '\\x00\\xFF'::BLOB, true, 'NaN'::DOUBLE, DATE '2024-01-02'),
    (2, NULL, -0.10, NULL, [], NULL, NULL, NULL, NULL, NULL)
) AS rows(id, name, total, "at", lines, pair, raw, ok, ratio, day)) TO '{path}' (FORMAT parquet)"""


@cache
def content() -> dict[str, bytes]:
    """Keys and files; markers and tools' own files between them."""
    return {
        "customers.csv": "id,name,joined,balance\n1,Zoë,2024-01-02,10.50\n2,李雷,2024-02-03,\n".encode(),
        "clicks/part-00000.json": b"",  # of a tool that writes each of its parts, with rows or without
        "clicks/part-00001.json": b'{"on": "Zo\xc3\xab"}\n{"on": null}\n',
        "events/2024/01/part-0001.ndjson": b'{"id": 9007199254740993, "tags": ["a"], "who": null}\n',
        "events/2024/02/part-0002.ndjson": b'{"id": 2, "tags": [], "who": {"x": 1}}\n',
        "odd names/50% über #1?.csv": b"n\n1\n",
        "orders/day=2024-01-02/0.parquet": _parquet(),
        "orders/day=2024-01-03/1.parquet": _parquet(),
        "sales/year=2023/part-1.csv": b"amount\n1\n",
        "sales/year=2024/part-1.csv": b"amount\n2\n",
        "empty.csv": b"",
        "photo.jpg": b"\xff\xd8\xff",
        "sales/_SUCCESS": b"",
        "sales/_delta_log/00000000000000000000.json": b"{}\n",
    }


def _parquet() -> bytes:
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "orders.parquet"
        duckdb.connect().execute(_PARQUET.replace("{path}", str(path)))
        return path.read_bytes()


OBJECTS: dict[tuple[str, ...], tuple[str, tuple[FieldFacts, ...]]] = {
    ("customers.csv",): (
        "file",
        (
            ("id", "integer", "text", False),
            ("name", "string", "text", False),
            ("joined", "date", "text", False),
            ("balance", "decimal", "text", True),
        ),
    ),
    ("clicks", "part-*.json"): ("dataset", (("on", "string", "string", True),)),
    ("empty.csv",): ("file", ()),
    ("events", "*", "*", "part-*.ndjson"): (
        "dataset",
        (
            ("id", "integer", "integer", False),
            ("tags", "array", "array", False),
            ("who", "unknown", "null", True),
        ),
    ),
    ("odd names", "50% über #1?.csv"): ("file", (("n", "integer", "text", False),)),
    ("orders", "day=*", "*.parquet"): (
        "dataset",
        (
            ("id", "integer", "int64", True),
            ("name", "string", "string", True),
            ("total", "decimal", "decimal128(12, 2)", True),
            ("at", "timestamp_tz", "timestamp[us, UTC]", True),
            ("lines", "array", "list<int32>", True),
            ("pair", "object", "struct<a: int32, b: string>", True),
            ("raw", "binary", "binary", True),
            ("ok", "boolean", "bool", True),
            ("ratio", "number", "float64", True),
            ("day", "date", "date32", True),
        ),
    ),
    ("photo.jpg",): ("file", ()),
    ("sales", "year=*", "part-*.csv"): (
        "dataset",
        (("amount", "integer", "text", False), ("year", "string", "partition", False)),
    ),
}

PREVIEWS: dict[tuple[str, ...], list[list[Any]]] = {
    ("customers.csv",): [[1, "Zoë", "2024-01-02", "10.50"], [2, "李雷", "2024-02-03", None]],
    ("clicks", "part-*.json"): [["Zoë"], [None]],
    ("events", "*", "*", "part-*.ndjson"): [["9007199254740993", ["a"], None]],
    ("odd names", "50% über #1?.csv"): [[1]],
    ("orders", "day=*", "*.parquet"): [
        [
            "9007199254740993",
            "Zoë 李雷",
            "10.50",
            "2024-01-02T01:04:05Z",
            [1, None],
            {"a": 1, "b": "x"},
            "AP8=",
            True,
            "NaN",
            "2024-01-02",
        ],
        [2, None, "-0.10", None, [], *[None] * 5],
    ],
    ("sales", "year=*", "part-*.csv"): [[1, "2023"]],
    ("empty.csv",): [],
}
