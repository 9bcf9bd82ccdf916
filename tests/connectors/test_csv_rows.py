"""Files of cells as people and tools write them: what stands above the header, lone quotes, and records of any length."""

from __future__ import annotations

import csv
import gzip
import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.files.csv_settings import CsvSettings
from app.connectors.files.reading import read_file
from app.connectors.files.sample import SAMPLE_BYTES
from app.connectors.files.table import Table
from app.connectors.files.text import MAX_TEXT_BYTES
from app.connectors.files.text_rows import read
from app.connectors.types.http_file.connector import HttpFileConfig
from app.connectors.types.s3.connector import S3Config
from app.connectors.types.sftp import SftpConfig
from tests.cpu_growth import CpuGrowth

pytestmark = pytest.mark.anyio


def whole(name: str, content: str | bytes, **settings: Any) -> Table:
    content = content.encode() if isinstance(content, str) else content
    return read(name, content, is_whole=True, settings=CsvSettings(**settings))


def names(table: Table) -> list[str]:
    return [field.name for field in table.fields]


async def stored(name: str, content: bytes, **settings: Any) -> tuple[Table, int]:
    """As from a store, and how many bytes were read there."""
    ranges: list[tuple[int, int]] = []

    async def read_range(start: int, end: int) -> bytes:
        ranges.append((start, end))
        return content[start:end]

    table = await read_file(name, len(content), read_range, settings=CsvSettings(**settings))
    return table, sum(min(end, len(content)) - start for start, end in ranges)


# Above the header -----------------------------------------------------------------------------------------------------

ROWS = "id,name\n1,x\n2,y\n"


@pytest.mark.found("D13")
@pytest.mark.parametrize(
    ("above", "note"),
    [
        ("# comment\n", "A line before the header, beginning with #, was passed over."),
        ("# one, two\n#\n\n# three\n", "4 lines before the header, beginning with #, were passed over."),
        ("# it's a \"lone quote\n", "A line before the header, beginning with #, was passed over."),
        ("Orders of the second quarter\n", "A line above the header was passed over."),
        ("Orders\n", "A line above the header was passed over."),
        ("2024-01-31\n", "A line above the header was passed over."),
        ('"Orders, 2024",\n', "A line above the header was passed over."),
        ("All orders\n\nof everybody\n\n", "4 lines above the header were passed over."),
        ("sep=,\n", "The first line names the delimiter: ','."),
        ("SEP=,\n", "The first line names the delimiter: ','."),
        ('"Sep=,"\n', "The first line names the delimiter: ','."),
    ],
)
def test_what_stands_above_the_header_is_passed_over_and_noted(above: str, note: str) -> None:
    for line_end in ("\n", "\r\n", "\r"):
        table = whole("a.csv", (above + ROWS).replace("\n", line_end))
        assert (names(table), table.rows, table.notes) == (["id", "name"], [[1, "x"], [2, "y"]], (note,))


@pytest.mark.found("D13")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("#id,name\n1,x\n2,y\n", ["#id", "name"]),
        ("# all\n#id\tname\n1\tx\n", ["#id", "name"]),
        ("#,name\n1,x\n", ["#", "name"]),
        ("a,b\nx,y\n", ["a", "b"]),
        ("a\n1,2\n3,4\n", ["a", "column_2"]),
        ("a b\n1,2\n3,4\n", ["a b", "column_2"]),
        ("text\nhello, world\nfoo, bar\n", ["text", "column_2"]),
        ("customer name\nMüller\nMeier\n", ["customer name"]),
        ("sep,x\n1,2\n", ["sep", "x"]),
        ("#\n#\n", ["#"]),
        ("id,name\n# no comment,x\n", ["id", "name"]),
    ],
)
def test_a_header_stays_a_header(content: str, expected: list[str]) -> None:
    name = "a.tsv" if "\t" in content else "a.csv"
    table = whole(name, content)
    assert names(table) == expected
    assert not any("above" in note for note in table.notes)


@pytest.mark.found("D13")
@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("id;amount\n1;2,5\n2;3,5\n", ";"),
        ("sep=;\nid;amount\n1;2,5\n", ";"),
        ('"sep=|"\nid|a,b;c\n1|2\n', "|"),
        ("id\tamount\n1\t2,5\n2\t3,5\n", "\t"),
        ("id|amount\n1|2,5\n2|3,5\n", "|"),
        ("All, really all of it\nid;amount\n1;2,5\n2;3,5\n", ";"),
    ],
)
def test_the_delimiter_is_found(content: str, delimiter: str) -> None:
    table = whole("a.csv", content)
    assert len(table.fields) == 2
    assert names(table)[0] == "id"
    assert any("divided" in note or repr(delimiter) in note for note in table.notes)


@pytest.mark.found("D13")
@pytest.mark.parametrize(
    ("content", "settings", "columns", "rows"),
    [
        ("x\ny\na|b\n1|2\n", {"skip_lines": 2}, ["a", "b"], [[1, 2]]),
        ("Orders of 2024\nid,name\n1,x\n", {"skip_lines": 0}, ["Orders of 2024", "column_2"], [["id", "name"], ["1", "x"]]),
        ("% no\na,b\n1,2\n% \"no\n3,4\n", {"comment": "%"}, ["a", "b"], [[1, 2], [3, 4]]),
        ("a,b\n1,\"x\n% yes\"\n", {"comment": "%"}, ["a", "b"], [[1, "x\n% yes"]]),
        ("# a,b\n1,2\n", {"comment": ""}, ["# a", "b"], [[1, 2]]),
        ("% x\nAll of it\n% y\na,b\n1,2\n", {"comment": "%"}, ["a", "b"], [[1, 2]]),
        ("a,b;c\n1,2;3\n", {"delimiter": ";"}, ["a,b", "c"], [["1,2", 3]]),
        ("sep=;\n1,2\n", {"delimiter": ","}, ["sep=;", "column_2"], [[1, 2]]),
        ("a~b\n1~2\n", {"delimiter": "~"}, ["a", "b"], [[1, 2]]),
        ("a,b\n'x,y',2\n", {"quote": "'"}, ["a", "b"], [["x,y", 2]]),
        ('a,b\n"x,2\n3,y"\n', {"quote": ""}, ["a", "b"], [['"x', "2"], ["3", 'y"']]),
        ("1,2\n3,4\n", {"header": False}, ["column_1", "column_2"], [[1, 2], [3, 4]]),
        ("1\n3,4\n", {"header": False}, ["column_1", "column_2"], [[1, None], [3, 4]]),
    ],
)  # fmt: skip
def test_settings_say_what_cannot_be_found(
    content: str, settings: dict[str, Any], columns: list[str], rows: list[Any]
) -> None:
    table = whole("a.csv", content, **settings)
    assert (names(table), table.rows) == (columns, rows)


@pytest.mark.found("D13")
@pytest.mark.parametrize(
    ("config", "needed"),
    [
        (S3Config, {"bucket": "abc"}),
        (SftpConfig, {"host": "h", "username": "u"}),
        (HttpFileConfig, {"url": "https://h.example/a.csv"}),
    ],
    ids=["s3", "sftp", "http_file"],
)
def test_types_that_read_text_files_have_the_settings(config: Any, needed: dict[str, Any]) -> None:
    settings = {"skip_lines": 3, "comment": "%", "delimiter": "\t", "quote": "'", "header": False}
    made = msgspec.convert({**needed, **settings}, config)
    assert {name: getattr(made, name) for name in settings} == settings
    for wrong in ({"delimiter": ",,"}, {"delimiter": "\n"}, {"quote": '""'}, {"skip_lines": -1}, {"header": None}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**needed, **wrong}, config)
    for wrong in ({"delimiter": "|", "quote": "|"}, {"delimiter": "#", "comment": "#!"}):
        with pytest.raises(msgspec.ValidationError) as caught:
            msgspec.convert({**needed, **wrong}, config)
        assert isinstance(caught.value.__cause__, InvalidField)


@pytest.mark.found("D13")
@pytest.mark.parametrize("header", [True, False])
def test_the_delimiter_may_be_named_behind_comments(header: bool) -> None:
    table = whole("a.csv", "# by a tool\nsep=~\nid~name\n1~x\n", header=header)
    assert table.rows == ([[1, "x"]] if header else [["id", "name"], ["1", "x"]])
    assert "A line above the header names the delimiter: '~'." in table.notes


@pytest.mark.found("D13")
@pytest.mark.parametrize(
    ("content", "rows", "is_noted"),
    [
        ("'id','name'\n'1','a,b'\n'2','it''s'\n", [[1, "a,b"], [2, "it's"]], True),
        ("id;name\n1;'a;b'\n2;'c'\n3;'d'\n4;'e\nf'\n5;'g'\n6;'h'\n", [[1, "a;b"], [2, "c"], [3, "d"], [4, "e\nf"], [5, "g"], [6, "h"]], True),
        ("id,name\n1,it's\n2,'tis\n3,the dogs'\n", [[1, "it's"], [2, "'tis"], [3, "the dogs'"]], False),
        ("id,name\n1,'a'\n2,b\n3,c\n4,d\n", [[1, "'a'"], [2, "b"], [3, "c"], [4, "d"]], False),
        ("id,name\n1,\"'a'\"\n2,\"'b'\"\n", [[1, "'a'"], [2, "'b'"]], False),
    ],
)  # fmt: skip
def test_single_quotes_are_found_where_cells_stand_in_them(content: str, rows: list[Any], is_noted: bool) -> None:
    table = whole("a.csv", content)
    assert (table.rows, "Cells stand in single quotes." in table.notes) == (rows, is_noted)


# Quotes ---------------------------------------------------------------------------------------------------------------

LONE: list[tuple[str, str, list[list[Any]]]] = [
    ("a.tsv", 'id\tname\n1\t"lone\n2\tb\n3\tc\n', [[1, '"lone'], [2, "b"], [3, "c"]]),
    ("a.tsv", 'id\tname\n1\t"lone\n2\tb\n3\tc"\n4\td\n', [[1, '"lone'], [2, "b"], [3, 'c"'], [4, "d"]]),
    ("a.tsv", 'id\tname\n"one\tx\n"other\ty\n3\tc\n', [['"one', "x"], ['"other', "y"], ["3", "c"]]),
    ("a.tsv", 'id\t"name\n1\tb\n', [[1, "b"]]),
    ("a.csv", 'id,name\n1,"lone\n2,b\n3,c\n', [[1, '"lone'], [2, "b"], [3, "c"]]),
    ("a.csv", 'id,name\n1,b\n2,"\n', [[1, "b"], [2, '"']]),
]


@pytest.mark.found("D13")
@pytest.mark.parametrize(("name", "content", "rows"), LONE)
def test_a_lone_quote_is_a_character_of_its_cell_and_noted(name: str, content: str, rows: list[Any]) -> None:
    table = whole(name, content)
    assert (table.rows, table.notes) == (rows, ("A quote that nothing closes was taken for a part of its cell.",))


@pytest.mark.found("D13")
async def test_a_lone_quote_swallows_nothing_of_a_large_file_either() -> None:
    lines = [f"{number}\tname {number}" for number in range(100_000)]
    lines[3] = '3\t"7 inches'
    table, _ = await stored("a.tsv", "\n".join(["id\tname", *lines, ""]).encode())
    assert [row[0] for row in table.rows] == list(range(1001))
    assert table.rows[3] == [3, '"7 inches']


@pytest.mark.found("D13")
def test_very_many_lone_quotes_cost_no_more_than_their_lines() -> None:
    growth = CpuGrowth(20_000, 40_000)
    for lines in growth.sizes():
        content = "id,name\n" + '1,"x"y\n2,"z\n' * lines
        with growth.look(lines):
            table = whole("a.csv", content)
        assert len(table.rows) >= 1001
    growth.assert_bounded()


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('id,name\n1,"two\nlines"\n2,b\n', [[1, "two\nlines"], [2, "b"]]),
        ('id,name\n1,"a, b\nc, d\ne, f"\n2,b\n', [[1, "a, b\nc, d\ne, f"], [2, "b"]]),
        ('id,text,x\n1,"a\n\nb",2\n', [[1, "a\n\nb", 2]]),
        ('id,name\n1,"a"b\n2,"c" \n', [[1, "ab"], [2, "c "]]),
        ('id,name\n1,"say ""hi"""\n', [[1, 'say "hi"']]),
        ('id,name\n1,5" pipe\n', [[1, '5" pipe']]),
        ('id,name,x\n"","","\r,,"\n', [[None, None, "\r,,"]]),
        ('id,name,x\n"1","a,b,c\nd,e,f\ng,h,i","2"\n', [[1, "a,b,c\nd,e,f\ng,h,i", 2]]),
    ],
)
def test_quotes_that_are_closed_are_quotes(content: str, rows: list[Any]) -> None:
    table = whole("a.csv", content)
    assert (table.rows, table.notes) == (rows, ())


CELL = st.text(st.sampled_from('ab ,;"\n\r#é'), max_size=6)


@given(st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=8))
def test_what_the_csv_module_writes_is_read_as_it_was(rows: list[list[str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["first", "second", "third"], *rows])
    table = read("a.csv", stream.getvalue().encode(), is_whole=True)
    assert names(table) == ["first", "second", "third"]
    assert table.rows == [[cell or None for cell in row] for row in rows]


# Long records ---------------------------------------------------------------------------------------------------------

LONG = "x" * 300_000


@pytest.mark.found("D6")
@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("a.csv", f"2,{LONG}\n"),
        ("a.csv", f'2,"{LONG}"\n'),
        ("a.csv", '2,"' + "line of text\n" * 40_000 + '"\n'),
        ("a.tsv", f"2\t{LONG}\n"),
        ("a.ndjson", f'{{"id":2,"name":"{LONG}"}}\n'),
        ("a.json", f'{{"id":2,"name":"{LONG}"}}\n'),
    ],
    ids=["cell", "quoted cell", "cell of lines", "tsv", "ndjson", "json lines"],
)
@pytest.mark.parametrize("before", [0, 1, 500])
async def test_a_record_longer_than_the_sample_hides_nothing(name: str, record: str, before: int) -> None:
    header, line = {
        "csv": ("id,name\n", "1,a\n"), "tsv": ("id\tname\n", "1\ta\n"),
    }.get(name[2:], ("", '{"id":1,"name":"a"}\n'))  # fmt: skip
    content = (header + line * before + record + line * 50).encode()
    for stored_name, stored_content in ((name, content), (f"{name}.gz", gzip.compress(content))):
        table, _ = await stored(stored_name, stored_content)
        assert [row[0] for row in table.rows] == [1] * before + [2] + [1] * 50
        assert len(table.rows[before][1]) >= 300_000
        assert table.is_whole


@pytest.mark.found("D6")
@pytest.mark.parametrize("name", ["a.csv", "a.ndjson"])
async def test_of_many_long_records_some_are_read_and_not_the_whole_file(name: str) -> None:
    line = f"1,{LONG}\n" if name == "a.csv" else f'{{"id":1,"name":"{LONG}"}}\n'
    content = (("id,name\n" if name == "a.csv" else "") + line * 100).encode()
    table, read_bytes = await stored(name, content)
    assert len(table.rows) >= 3
    assert not table.is_whole
    assert read_bytes <= 4 * 1024 * 1024


@pytest.mark.found("D6")
async def test_a_record_that_has_no_end_in_sight_ends_the_reading_with_a_note() -> None:
    content = b"id,name\n1,a\n2," + b"x" * (20 * 1024 * 1024) + b"\n3,c\n"
    table, read_bytes = await stored("a.csv", content)
    assert table.rows == [[1, "a"]]
    assert not table.is_whole
    assert table.notes == ("Records are so long that what stands behind the first 16 MiB was not read.",)
    assert read_bytes == MAX_TEXT_BYTES


async def test_of_an_ordinary_file_the_sample_is_read_once() -> None:
    _, read_bytes = await stored("a.csv", b"id,name\n" + b"1,some text of a name\n" * 100_000)
    assert read_bytes == SAMPLE_BYTES


# What is no text ------------------------------------------------------------------------------------------------------


@pytest.mark.found("D2")
@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"PK\x03\x04\x14\x00", "zip"),
        (b"PAR1\x15", "Parquet"),
        (bytes(300), "control"),
        (bytes(range(256)) * 40, "control"),
    ],
)
def test_what_is_no_text_is_said_to_be_none(content: bytes, part: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        whole("a.csv", content)
    assert caught.value.code == "response_invalid"
    assert part in caught.value.message


@pytest.mark.found("D2")
@pytest.mark.parametrize(
    ("content", "note"),
    [
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "The file is compressed with gzip, though its name does not say so."),
        ("a,b\n1,2\n".encode("utf-16-le"), "The file is in UTF-16, and has no byte order mark that says so."),
        ("a,b\n1,2\n".encode("utf-16-be"), "The file is in UTF-16, and has no byte order mark that says so."),
    ],
)
def test_what_is_text_in_another_dress_is_read_and_noted(content: bytes, note: str) -> None:
    table = whole("a.csv", content)
    assert (names(table), table.rows, table.notes) == (["a", "b"], [[1, 2]], (note,))


def test_a_stray_zero_byte_is_a_character() -> None:
    assert names(whole("a.csv", b"a\x00b,c\n1,2\n")) == ["a\x00b", "c"]


# Encodings ------------------------------------------------------------------------------------------------------------

BYTES_NOTE = ("Bytes that are no UTF-8 are shown as \\xNN.",)
WINDOWS_NOTE = ("The file does not say its encoding and is no UTF-8; it was read as Windows-1252.",)


@pytest.mark.found("D12")
@pytest.mark.parametrize(
    ("content", "rows", "notes"),
    [
        ("n\nMüller\n".encode() + b"caf\xe9\nx\n", [["Müller"], ["caf\\xe9"], ["x"]], BYTES_NOTE),
        ("n\nпривет\n".encode() + b"\xff\xfe\x80\n", [["привет"], ["\\xff\\xfe\\x80"]], BYTES_NOTE),
        ("n\nMüller\ncafé".encode()[:-1], [["Müller"], ["caf\\xc3"]], BYTES_NOTE),
        (b"n\ncaf\xc3", [["caf\\xc3"]], BYTES_NOTE),
        ("n\n5 €".encode()[:-1], [["5 \\xe2\\x82"]], BYTES_NOTE),
        (b"n\ncaf\xe9\n", [["café"]], WINDOWS_NOTE),
        (b"n\ncaf\xe9", [["café"]], WINDOWS_NOTE),
        (b"n\nM\xfcller, Stra\xdfe 5 \x80 \x81\n", [["Müller", " Straße 5 € \\x81"]], WINDOWS_NOTE),
        ("n\nMüller\ncafé\n".encode(), [["Müller"], ["café"]], ()),
    ],
)
def test_nothing_of_an_encoding_is_lost_without_a_sign(content: bytes, rows: list[Any], notes: tuple[str, ...]) -> None:
    table = whole("a.csv", content, delimiter=",")
    assert (table.rows, table.notes) == (rows, notes)


@pytest.mark.found("D12")
def test_bytes_that_are_no_utf_16_have_a_sign_too() -> None:
    table = whole("a.csv", b"\xff\xfe" + "n\nab\n".encode("utf-16-le") + b"\x00\xd8" + "x\n".encode("utf-16-le"))
    assert table.rows == [["ab"], ["\\x00\\xd8x"]]
    assert table.notes == ("Bytes that are no UTF-16 are shown as \\xNN.",)


@pytest.mark.found("D12")
@pytest.mark.parametrize("name", ["a.json", "a.ndjson"])
def test_a_bad_byte_in_json_does_not_make_it_no_json(name: str) -> None:
    table = whole(name, '{"n":"Müller"}\n{"n":"'.encode() + b'caf\xe9"}\n')
    assert (table.rows, table.notes) == ([["Müller"], ["caf\\xe9"]], BYTES_NOTE)


@pytest.mark.found("D12")
async def test_a_sample_that_ends_inside_a_character_says_nothing_of_it() -> None:
    for shift in range(3):
        content = ("n" + "x" * shift + "\n" + "€€€€€€€€€\n" * 60_000).encode()
        table, _ = await stored("a.csv", content)
        assert {row[0] for row in table.rows} == {"€€€€€€€€€"}
        assert table.notes == ()


@given(st.binary(max_size=60), st.booleans())
def test_no_content_of_any_kind_is_more_than_a_connector_error(content: bytes, is_whole: bool) -> None:
    for name in ("a.csv", "a.tsv", "a.json", "a.ndjson", "a.csv.gz"):
        try:
            table = read(name, content, is_whole=is_whole)
        except ConnectorError:
            continue
        assert all(len(row) == len(table.fields) for row in table.rows)
        assert len(set(names(table))) == len(table.fields)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40))
def test_every_text_survives_in_json_lines(text: str) -> None:
    table = whole("a.ndjson", msgspec.json.encode({"v": text}) + b"\n")
    assert table.rows == [[text]]


# JSON that is no object -----------------------------------------------------------------------------------------------


@pytest.mark.found("D14")
@pytest.mark.parametrize("name", ["a.json", "a.ndjson"])
@pytest.mark.parametrize(
    ("content", "portable", "rows"),
    [
        ("1\n2\n3\n", "integer", [[1], [2], [3]]),
        ('"a"\n"b"\n', "string", [["a"], ["b"]]),
        ("true\nnull\n", "boolean", [[True], [None]]),
        ("[1]\n[2,3]\n", "array", [[[1]], [[2, 3]]]),
        ('1\n"a"\n{"b":2}\n', "json", [[1, None], ["a", None], [None, 2]]),
        ("1.5\n1e400\n", "decimal", [[1.5], ["1e400"]]),
        ("null\n", "unknown", [[None]]),
    ],
)
def test_scalar_lines_are_a_column_value(name: str, content: str, portable: str, rows: list[Any]) -> None:
    table = whole(name, content)
    assert table.fields[0].name == "value"
    assert (table.fields[0].type, table.rows) == (portable, rows)


@pytest.mark.found("D14")
@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('{"a":1}{"a":2}', [[1], [2]]),
        ('{\n  "a": 1\n}\n{\n  "a": 1e400\n}\n', [[1], ["1e400"]]),
        ("1 2\n3", [[1], [2], [3]]),
        ('"a""b"', [["a"], ["b"]]),
    ],
)
def test_documents_one_behind_the_other_are_rows(content: str, rows: list[Any]) -> None:
    assert whole("a.json", content).rows == rows


@pytest.mark.found("D5")
def test_numbers_of_cells_keep_their_digits_too() -> None:
    table = whole("a.csv", "v\n1e400\n-1e-400\n0.12345678901234567890e1\n2.5e0\n")
    assert (table.fields[0].type, table.rows) == (
        "number", [["1e400"], ["-1e-400"], ["0.12345678901234567890e1"], [2.5]],
    )  # fmt: skip
