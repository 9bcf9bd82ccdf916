"""Delta tables written by delta-rs, in a folder; both kinds of `delta_lake` show the same ones."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arro3.core import DataType, Field, Schema, Table
from arro3.io import read_json
from deltalake import DeltaTable, write_deltalake

_ORDERS = Schema(
    [
        Field("id", DataType.int64(), nullable=False),
        Field("name", DataType.string()),
        Field("total", DataType.decimal128(12, 2)),
        Field("at", DataType.timestamp("us", tz="UTC")),
        Field("local", DataType.timestamp("us")),
        Field("day", DataType.date32()),
        Field("ok", DataType.bool()),
        Field("ratio", DataType.float64()),
        Field("small", DataType.int8()),
        Field("raw", DataType.binary()),
        Field("tags", DataType.list(Field("element", DataType.string()))),
        Field("owner", DataType.struct([Field("id", DataType.int64()), Field("since", DataType.date32())])),
        Field(
            "prices",
            DataType.map(
                Field("key", DataType.string(), nullable=False), Field("value", DataType.decimal128(5, 2)), False
            ),
        ),
        Field("country", DataType.string()),
        Field("year", DataType.int32()),
    ]
)
_FIRST = {
    **{"id": 9007199254740993, "name": "Zoë 李雷 🦆", "total": "10.50", "at": "2024-01-02T01:04:05.678901Z"},
    **{"local": "2024-01-02T03:04:05", "day": "2024-01-02", "ok": True, "ratio": 0.1, "small": -5, "raw": "00ff"},
    **{"tags": ["a", None], "owner": {"id": 9007199254740993, "since": "2024-02-03"}, "prices": {"eur": "1.50"}},
    **{"country": "x y/ü", "year": 2024},
}

ORDERS_FIELDS = (
    ("id", "integer", "long", False),
    ("name", "string", "string", True),
    ("total", "decimal", "decimal(12,2)", True),
    ("at", "timestamp_tz", "timestamp", True),
    ("local", "timestamp", "timestamp_ntz", True),
    ("day", "date", "date", True),
    ("ok", "boolean", "boolean", True),
    ("ratio", "number", "double", True),
    ("small", "integer", "byte", True),
    ("raw", "binary", "binary", True),
    ("tags", "array", "array<string>", True),
    ("owner", "object", "struct<id:long,since:date>", True),
    ("prices", "object", "map<string,decimal(5,2)>", True),
    ("country", "string", "string", True),
    ("year", "integer", "integer", True),
)
ORDERS_ROWS: list[list[Any]] = [
    [
        *(
            "9007199254740993",
            "Zoë 李雷 🦆",
            "10.50",
            "2024-01-02T01:04:05.678901Z",
            "2024-01-02T03:04:05",
            "2024-01-02",
        ),
        *(True, 0.1, -5, "AP8=", ["a", None], {"id": "9007199254740993", "since": "2024-02-03"}, {"eur": "1.50"}),
        *("x y/ü", 2024),
    ],
    [2, *[None] * 14],
]
NUMBERS_FIELDS = (("n", "integer", "long", True), ("label", "string", "string", True))


def write_tables(folder: Path) -> None:
    """`orders` is partitioned, `numbers` has a checkpoint, a deletion and a column that came later, `empty` no file."""
    for row in (_FIRST, {"id": 2}):
        write_deltalake(str(folder / "orders"), table(_ORDERS, [row]), partition_by=["country", "year"], mode="append")
    write_numbers(folder / "old" / "numbers")
    DeltaTable.create(str(folder / "empty"), table(NUMBERS, []).schema)


NUMBERS = Schema([Field("n", DataType.int64())])
_LABELLED = Schema([Field("n", DataType.int64()), Field("label", DataType.string())])


def write_numbers(folder: Path) -> None:
    uri = str(folder)
    for start in (1, 3):
        write_deltalake(uri, table(NUMBERS, [{"n": start}, {"n": start + 1}]), mode="append")
    DeltaTable(uri).create_checkpoint()
    DeltaTable(uri).delete("n = 3")
    write_deltalake(uri, table(_LABELLED, [{"n": 5, "label": "five"}]), mode="append", schema_mode="merge")


def table(schema: Schema, rows: list[dict[str, Any]]) -> Table:
    lines = "\n".join(json.dumps(row) for row in rows)
    return read_json(io.BytesIO(lines.encode()), schema).read_all()


Action = dict[str, Any]

# By hand --------------------------------------------------------------------------------------------------------------


def rewrite(folder: Path, change: Callable[[Action], Any], version: int = 0) -> None:
    """Puts every action of a commit through a function; None leaves it out, a list stands for several."""
    commit = folder / "_delta_log" / f"{version:020d}.json"
    actions: list[Any] = []
    for line in commit.read_text().splitlines():
        changed = change(json.loads(line))
        actions += changed if isinstance(changed, list) else [] if changed is None else [changed]
    commit.write_text("\n".join(json.dumps(action) for action in actions) + "\n")


OBJECTS: dict[tuple[str, ...], tuple[str, tuple[tuple[str, str, str, bool], ...]]] = {
    ("orders",): ("table", ORDERS_FIELDS),
    ("old", "numbers"): ("table", NUMBERS_FIELDS),
    ("empty",): ("table", (("n", "integer", "long", True),)),
}
PREVIEWS: dict[tuple[str, ...], list[list[Any]]] = {
    ("orders",): ORDERS_ROWS,
    ("old", "numbers"): [[4, None], [5, "five"], [1, None], [2, None]],
    ("empty",): [],
}
TABLES = ["orders", "old/numbers", "empty"]
