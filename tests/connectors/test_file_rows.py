"""Rows of text files as people and tools write them: encodings, line ends, quotes, compression, and JSON in lines."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from app.connectors.contract.failures import ConnectorError
from app.connectors.files.reading import read_file
from app.connectors.files.sample import SAMPLE_BYTES
from app.connectors.files.table import Table
from app.connectors.files.text_rows import MAX_DOCUMENT_BYTES, read

pytestmark = pytest.mark.anyio


def whole(name: str, content: bytes) -> Table:
    return read(name, content, is_whole=True)


def names(table: Table) -> list[str]:
    return [field.name for field in table.fields]


async def from_store(name: str, content: bytes) -> Table:
    async def read_range(start: int, end: int) -> bytes:
        return content[start:end]

    return await read_file(name, len(content), read_range)


# CSV ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "windows-1252", "latin-1"], ids=lambda name: str(name)
)
def test_a_csv_file_is_read_in_the_encoding_that_it_has(encoding: str) -> None:
    table = whole("people.csv", "näme,city\nMüller,Orléans\n".encode(encoding))
    assert names(table) == ["näme", "city"]
    assert table.rows == [["Müller", "Orléans"]]


def test_big_endian_files_say_so_by_their_mark() -> None:
    assert whole("a.tsv", b"\xfe\xff" + "ä\tb\n1\t2\n".encode("utf-16-be")).rows == [[1, 2]]


def test_a_character_that_is_cut_does_not_change_the_encoding() -> None:
    table = read("a.csv", "größe\nfünf\nsechs\nnö".encode()[:-1], is_whole=False)
    assert (names(table), table.rows) == (["größe"], [["fünf"], ["sechs"]])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
def test_lines_end_in_any_way(end: str) -> None:
    assert whole("a.csv", end.join(["a,b", "1,2", "3,4", ""]).encode()).rows == [[1, 2], [3, 4]]


def test_of_a_file_that_goes_on_the_last_line_is_left_out_even_where_it_has_line_ends_of_its_own() -> None:
    table = read("a.csv", b'a,b\n1,"x\ny"\n2,"not\nthe\nend', is_whole=False)
    assert (table.rows, table.is_whole) == ([[1, "x\ny"]], False)


def test_what_is_quoted_in_the_header_tells_nothing_of_the_delimiter() -> None:
    table = whole("a.csv", b'"last, first, title";age\n"Doe, Jane, Dr";41\n')
    assert (names(table), table.rows) == (["last, first, title", "age"], [["Doe, Jane, Dr", 41]])


@pytest.mark.parametrize(
    ("cell", "portable", "shown"),
    [
        ("2024-01-15 10:30:00+00", "timestamp_tz", "2024-01-15T10:30:00Z"),
        ("2024-01-15 10:30:00.5-05", "timestamp_tz", "2024-01-15T10:30:00.5-05:00"),
        ("2024-01-15T10:30:00+0530", "timestamp_tz", "2024-01-15T10:30:00+05:30"),
        ("2024-01-15 10:30:00 UTC", "timestamp_tz", "2024-01-15T10:30:00Z"),
        ("2024-01-15T10:30Z", "timestamp_tz", "2024-01-15T10:30:00Z"),
        ("2024-01-15 10:30", "timestamp", "2024-01-15T10:30:00"),
        ("2024-01-15 10:30:00.123456789", "timestamp", "2024-01-15T10:30:00.123456789"),
        ("2024-01-15 ::::::", "string", "2024-01-15 ::::::"),
    ],
)
def test_times_are_shown_as_rfc_3339_has_them(cell: str, portable: str, shown: str) -> None:
    table = whole("a.csv", f"at\n{cell}\n".encode())
    assert (table.fields[0].type, table.rows) == (portable, [[shown]])


def test_short_lines_have_nulls_and_long_ones_further_columns() -> None:
    table = whole("a.csv", b"a,b\n1\n\n2,3,4\n5,6,,7\n")
    assert [field.name for field in table.fields] == ["a", "b", "column_3", "column_4"]
    assert table.rows == [[1, None, None, None], [2, 3, 4, None], [5, 6, None, 7]]


def test_a_delimiter_at_the_end_of_a_line_is_no_further_column() -> None:
    table = whole("a.csv", b"a,b\n1,2,\n3,4,,\n")
    assert ([field.name for field in table.fields], table.rows) == (["a", "b"], [[1, 2], [3, 4]])


def test_lines_far_longer_than_the_first_are_no_table() -> None:
    with pytest.raises(ConnectorError) as caught:
        whole("a.csv", b"a,b\n" + b"1," * 10_000 + b"1\n")
    assert caught.value.code == "response_invalid"


def test_a_column_without_a_name_has_one_of_its_own() -> None:
    assert [field.name for field in whole("a.csv", b"column_2,,a,a,a_4\n").fields] == [
        "column_2", "column_2_", "a", "a_4", "a_4_5",
    ]  # fmt: skip


# gzip -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [b"", gzip.compress(b"")], ids=["two members", "an empty one between"])
def test_all_members_of_a_gzip_file_are_read(between: bytes) -> None:
    table = whole("a.csv.gz", gzip.compress(b"a\n1\n") + between + gzip.compress(b"2\n3\n"))
    assert (table.rows, table.is_whole) == ([[1], [2], [3]], True)


def test_padding_behind_a_gzip_file_is_no_data() -> None:
    assert whole("a.csv.gz", gzip.compress(b"a\n1\n") + bytes(512)).is_whole


@pytest.mark.parametrize("content", [b"", gzip.compress(b"")], ids=["no byte", "no content"])
def test_an_empty_compressed_file_has_no_rows(content: bytes) -> None:
    assert whole("a.csv.gz", content) == Table((), [], True)


def test_a_gzip_file_of_which_the_beginning_is_known_is_not_whole() -> None:
    compressed = gzip.compress(b"a\n1\n2\n") + gzip.compress(b"3\n4\n")
    table = read("a.csv.gz", compressed[:-12], is_whole=False)
    assert table.rows[:1] == [[1]]
    assert not table.is_whole


def test_a_damaged_gzip_file_is_said_to_be() -> None:
    with pytest.raises(ConnectorError) as caught:
        whole("a.csv.gz", b"a\n1\n")
    assert caught.value.code == "response_invalid"


# JSON -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["a.json", "a.ndjson"])
def test_json_may_start_with_a_byte_order_mark(name: str, encoding: str) -> None:
    assert whole(name, '{"städte":3}\n'.encode(encoding)).rows == [[3]]


def lines_of(count: int, end: str = "\n") -> bytes:
    return end.join(json.dumps({"n": number, "pad": "x" * 100}) for number in range(count)).encode() + b"\n"


def test_a_json_file_may_hold_an_object_in_each_line() -> None:
    table = whole("part-0000.json", b'{"n":1,"to":"a"}\n{"n":2}\n')
    assert (names(table), table.rows, table.is_whole) == (["n", "to"], [[1, "a"], [2, None]], True)


async def test_of_a_large_json_file_with_lines_the_beginning_is_read() -> None:
    content = lines_of(MAX_DOCUMENT_BYTES // 100)
    assert len(content) > MAX_DOCUMENT_BYTES
    table = await from_store("part-0000.json", content)
    assert len(table.rows) == 1001
    assert not table.is_whole
    table = await from_store("part-0000.json.gz", gzip.compress(content))
    assert len(table.rows) == 1001


@pytest.mark.parametrize("indent", [None, 2])
async def test_a_json_document_above_the_cap_is_too_large(indent: int | None) -> None:
    content = json.dumps([{"n": "x" * 1000}] * (MAX_DOCUMENT_BYTES // 1000), indent=indent).encode()
    for name, stored in (("a.json", content), ("a.json.gz", gzip.compress(content))):
        with pytest.raises(ConnectorError) as caught:
            await from_store(name, stored)
        assert caught.value.code == "response_too_large"


def test_an_empty_json_file_has_no_rows() -> None:
    assert whole("a.json", b" \n") == whole("a.ndjson", b"") == Table((), [], True)


@pytest.mark.parametrize("content", [b"[1, 2", b'{"a":1}\n{"a":', b"plain text\n", b"\xff\xff"])
def test_what_is_no_json_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(ConnectorError) as caught:
        whole("a.json", content)
    assert caught.value.code == "response_invalid"


def test_empty_lines_are_no_rows_and_hide_none() -> None:
    table = whole("a.ndjson", lines_of(700, end="\n\n"))
    assert (len(table.rows), table.is_whole) == (700, True)
    assert len(lines_of(1500, end="\n\n")) < SAMPLE_BYTES
    table = whole("a.ndjson", lines_of(1500, end="\n\n"))
    assert (len(table.rows), table.is_whole) == (1001, False)


@pytest.mark.parametrize(
    ("value", "shown"), [("9007199254740993", "9007199254740993"), ("1e3", 1000.0), ("[1,{}]", [1, {}]), ("null", None)]
)
def test_values_are_as_in_json(value: str, shown: Any) -> None:
    assert whole("a.ndjson", f'{{"v":{value}}}\n'.encode()).rows == [[shown]]
