"""What a preview may take: names, types and values share one number of bytes, whatever kind of source they come from."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import pytest
from arro3.core import Array, DataType, Table
from arro3.io import write_parquet

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredField, PreviewRequest, PreviewResult
from app.connectors.files.tables import preview_of
from app.connectors.values.preview import MAX_COLUMNS, Preview

pytestmark = [pytest.mark.anyio, pytest.mark.found("A4")]


def fields(*names: str) -> list[DiscoveredField]:
    return [DiscoveredField(name, "string", "text", True, position) for position, name in enumerate(names, 1)]


def begun(*names: str, **limits: Any) -> Preview:
    preview = Preview(PreviewRequest(path=("x",), **limits))
    preview.choose(fields(*names))
    return preview


def wire_bytes(result: PreviewResult) -> int:
    return len(msgspec.json.encode([result.columns, result.rows]))


def test_of_too_many_columns_the_first_are_shown() -> None:
    result = begun(*(f"c{number}" for number in range(100_000))).result()
    assert [column.name for column in result.columns] == [f"c{number}" for number in range(MAX_COLUMNS)]
    assert result.truncated
    assert result.notes == ("Only the first 2,000 of 100,000 columns are shown.",)


def test_as_many_columns_as_there_may_be_are_all_shown() -> None:
    result = begun(*(f"c{number}" for number in range(MAX_COLUMNS))).result()
    assert (len(result.columns), result.truncated, result.notes) == (MAX_COLUMNS, False, ())


@pytest.mark.parametrize("letter", ["x", "ä", "\x01", '"', "\U0001f600", "\u2028"])
@pytest.mark.parametrize("max_bytes", [1024, 20_000, 1024 * 1024])
def test_long_names_leave_room_for_rows_and_both_keep_to_the_bytes(letter: str, max_bytes: int) -> None:
    preview = begun(*(f"{number}{letter * 150}" for number in range(1500)), max_bytes=max_bytes, limit=1000)
    while preview.add([letter * 150 for _ in preview.columns]):
        pass
    result = preview.result()
    assert result.truncated
    assert max_bytes // 9 < wire_bytes(result) <= max_bytes
    assert result.columns
    assert result.rows or max_bytes == 1024


@pytest.mark.parametrize(
    "value", ["\x01" * 400, '"\\' * 200, -1.2345678901234567e-100, [0.1] * 100, {"k" * 50: {"k": ["\x1f" * 9] * 9}}]
)
def test_rows_are_counted_as_they_are_sent(value: Any) -> None:
    preview = begun("a", "b", limit=1000, max_bytes=30_000)
    while preview.add([value, value]):
        pass
    assert len(preview.rows) == 1000 or preview.truncated
    assert wire_bytes(preview.result()) <= 30_000
    assert len(preview.rows) == 1000 or wire_bytes(preview.result()) > 25_000


def test_columns_that_were_asked_for_come_in_that_order_and_unknown_ones_are_named() -> None:
    assert [field.name for field in begun("a", "b", "c", columns=("c", "a")).columns] == ["c", "a"]
    with pytest.raises(ConnectorError) as caught:
        begun("a", "b", columns=("x", "a", "y"))
    assert (caught.value.code, caught.value.unknown_columns) == ("not_found", ("x", "y"))


def test_half_of_a_character_is_shown_as_what_it_is() -> None:
    preview = begun("a")
    preview.add(["\ud800x"])
    preview.add([{"\udfff": ["\ud800"]}])
    assert preview.result().rows == [["\\ud800x"], [{"\\udfff": ["\\ud800"]}]]
    assert msgspec.json.encode(preview.result())


class Shelf:
    """A file in memory, that counts what is read of it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.bytes_read = 0

    async def read(self, key: str, start: int, end: int) -> bytes:
        self.bytes_read += end - start
        return self.content[start:end]


def wide_csv() -> bytes:
    return ",".join(f"c{number}" for number in range(30_000)).encode() + b"\n" + b",".join([b"1"] * 30_000) + b"\n"


def wide_json() -> bytes:
    return json.dumps([{f"c{number}": 1 for number in range(100_000)}]).encode()


def wide_parquet() -> bytes:
    columns: dict[str, Any] = {f"c{number}": Array([number] * 3, DataType.int32()) for number in range(3_000)}
    stream = io.BytesIO()
    write_parquet(Table.from_pydict(columns), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", wide_csv()), ("a.json", wide_json()), ("year=2024/a.parquet", wide_parquet())],
    ids=["csv", "json", "parquet"],
)
async def test_files_of_very_many_columns_keep_to_the_limits(name: str, content: bytes) -> None:
    shelf = Shelf(content)
    result = await preview_of(shelf, name, len(content), Preview(PreviewRequest(path=(name,))))
    assert (len(result.columns), result.truncated) == (MAX_COLUMNS, True)
    assert all(len(row) == MAX_COLUMNS for row in result.rows)
    assert result.rows
    assert wire_bytes(result) < 1024 * 1024


async def test_of_columns_that_are_not_shown_nothing_is_read() -> None:
    shelf = Shelf(wide_parquet())
    await preview_of(shelf, "a.parquet", len(shelf.content), Preview(PreviewRequest(path=("a.parquet",), limit=1)))
    everything = Shelf(shelf.content)
    request = PreviewRequest(path=("a.parquet",), limit=1, columns=tuple(f"c{number}" for number in range(2_999)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.connectors.values.preview.MAX_COLUMNS", 3_000)
        await preview_of(everything, "a.parquet", len(shelf.content), Preview(request))
    assert shelf.bytes_read < everything.bytes_read
