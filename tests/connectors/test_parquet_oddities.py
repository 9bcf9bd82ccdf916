"""Parquet files without rows, and with names that are there twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.connectors.files.reading import read_file
from app.connectors.files.table import Table, those_named
from tests.connectors.servers.pyarrow_files import by_pyarrow


def table_of(name: str, limit: int = 1000, columns: tuple[str, ...] | None = None) -> Table:
    content = by_pyarrow(name)

    async def read_range(start: int, end: int) -> bytes:
        return content[start:end]

    if columns is None:
        return asyncio.run(read_file("x.parquet", len(content), read_range, limit=limit))
    return asyncio.run(read_file("x.parquet", len(content), read_range, those_named(columns), limit))


ROWS = [[1, "a"], [2, "b"]]


@pytest.mark.found("D3")
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("no_rows_default", []),
        ("no_rows_plain", []),
        ("only_empty_groups", []),
        ("empty_first", ROWS),
        ("empty_between", [*ROWS, *ROWS]),
    ],
)
def test_row_groups_without_rows_are_no_damage(name: str, rows: list[Any]) -> None:
    for limit in (1, 2, 3, 1000):
        table = table_of(name, limit)
        assert [(field.name, field.type) for field in table.fields] == [("id", "integer"), ("name", "string")]
        assert table.rows == rows[:limit]
        assert table.is_whole is (limit >= len(rows))
        assert table_of(name, limit, ("name",)).rows == [[row[1]] for row in rows[:limit]]
    assert table_of(name, 0).fields == table.fields


@pytest.mark.found("D4")
@pytest.mark.parametrize(
    ("name", "names", "rows"),
    [
        ("twice", ["colA", "colA_2"], [[1, "x"], [2, "y"]]),
        ("twice_in_struct", ["s"], [[{"colA": 1, "colA_2": "x"}], [{"colA": 2, "colA_2": "y"}]]),
        ("twice_in_list", ["l"], [[[{"colA": 1, "colA_2": "x"}]], [[{"colA": 2, "colA_2": "y"}]]]),
        ("map_twice", ["m"], [[{"k": 1, "k_2": 2}], [{"a": 3}]]),
    ],
)
def test_names_that_are_there_twice_are_told_apart(name: str, names: list[str], rows: list[Any]) -> None:
    table = table_of(name)
    assert ([field.name for field in table.fields], table.rows) == (names, rows)


@pytest.mark.found("D4")
def test_each_of_two_columns_can_be_asked_for() -> None:
    assert table_of("twice", columns=("colA_2",)).rows == [["x"], ["y"]]
    assert table_of("twice", columns=("colA",)).rows == [[1], [2]]
