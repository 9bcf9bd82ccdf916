"""Numbers in JSON, wherever it comes from: none loses a digit, and none makes a text no JSON."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import graphql
import msgspec
import pytest
from arro3.core import Array, DataType
from hypothesis import given
from hypothesis import strategies as st

from app.connectors.contract.objects import DiscoveredObject, PreviewRequest
from app.connectors.files.text_rows import read
from app.connectors.types.graphql.connector import Graphql, GraphqlConfig, GraphqlSecrets
from app.connectors.types.rest.connector import Rest, RestConfig, RestSecrets
from app.connectors.values.arrow_values import ArrowType, values_of
from app.connectors.values.json_rows import fields_of
from app.connectors.values.json_text import decode_json, exact_number, read_json
from app.connectors.values.message_rows import read_bodies
from app.core.egress import EgressPolicy
from tests.connectors.servers.plain_answers import Answer, plain_answers

pytestmark = [pytest.mark.anyio, pytest.mark.found("D5")]

NUMBERS: dict[str, Any] = {
    "12345678901234567890.5": "12345678901234567890.5",
    "1e400": "1e400",
    "-1E400": "-1E400",
    "1e-400": "1e-400",
    "0.30000000000000000001": "0.30000000000000000001",
    "9007199254740993.0": "9007199254740993.0",
    "123456789012345678901234567890": "123456789012345678901234567890",
    "9" * 5000: "9" * 5000,
    "0.1": 0.1,
    "-0.0": -0.0,
    "5": 5,
    "1E3": 1000.0,
}
TEXT = "[" + ",".join(f'{{"v":{number}}}' for number in NUMBERS) + "]"
LINES = "\n".join(f'{{"v":{number}}}' for number in NUMBERS).encode() + b"\n"
SHOWN = [[value] for value in NUMBERS.values()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", TEXT.encode()),
        ("a.json", LINES),
        ("a.ndjson", LINES),
        ("a.jsonl.gz", gzip.compress(LINES)),
        ("a.json", TEXT.encode("utf-16")),
    ],
)
def test_files_keep_every_digit(name: str, content: bytes) -> None:
    table = read(name, content, is_whole=True)
    assert table.rows == SHOWN
    assert [(field.type, field.native_type) for field in table.fields] == [("decimal", "integer|number")]


@pytest.mark.parametrize(
    ("numbers", "portable"),
    [
        (["1e400"], "decimal"),
        (["1", "1e400"], "decimal"),
        (["1.5", "0.30000000000000000001", "null"], "decimal"),
        (["1", "1.5"], "number"),
        (["1e400", '"x"'], "json"),
        (["9007199254740993"], "integer"),
    ],
)
def test_a_field_with_more_digits_than_a_float_is_a_decimal(numbers: list[str], portable: str) -> None:
    (field,) = fields_of([{"v": decode_json(number)} for number in numbers])
    assert field.type == portable


def test_messages_keep_every_digit() -> None:
    bodies = read_bodies("value", [f'{{"v":{number},"in":[{number}]}}'.encode() for number in NUMBERS])
    assert [row["value.v"] for row in bodies.values] == list(NUMBERS.values())
    assert [row["value"]["in"] for row in bodies.values] == [[value] for value in NUMBERS.values()]
    assert [(name, portable) for name, portable, *_ in bodies.facts] == [
        ("value", "json"), ("value.v", "decimal"), ("value.in", "array"),
    ]  # fmt: skip


def test_json_columns_of_parquet_keep_every_digit() -> None:
    column = ArrowType("v", "u", True, (), None, "arrow.json")
    assert values_of(Array(list(NUMBERS), DataType.utf8()), column) == list(NUMBERS.values())


async def test_rest_keeps_every_digit(loopback: EgressPolicy) -> None:
    with plain_answers(lambda *_: Answer(TEXT.encode())) as port:
        config = msgspec.convert(
            {"base_url": f"http://localhost:{port}", "resources": [{"name": "x", "path": "x"}]}, RestConfig
        )
        shown = await Rest(config, RestSecrets(), loopback).preview(PreviewRequest(path=("x",)))
        found = [one async for batch in Rest(config, RestSecrets(), loopback).discover() for one in batch]
    assert (shown.rows, shown.columns[0].type) == (SHOWN, "decimal")
    assert fields(found) == {"x": [("v", "decimal")]}


async def test_graphql_keeps_every_digit(loopback: EgressPolicy) -> None:
    schema = graphql.build_schema("type Query { things: [Thing] } type Thing { v: Float any: Any } scalar Any")
    introspection = json.dumps({"data": graphql.introspection_from_schema(schema)}).encode()
    things = "[" + ",".join(f'{{"v":{number},"any":[{number}]}}' for number in NUMBERS) + "]"

    def answers(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        return Answer(introspection if b"__schema" in body else f'{{"data":{{"things":{things}}}}}'.encode())

    with plain_answers(answers) as port:
        connector = Graphql(GraphqlConfig(url=f"http://localhost:{port}/graphql"), GraphqlSecrets(), loopback)
        shown = await connector.preview(PreviewRequest(path=("things",)))
    assert shown.rows == [[value, [value]] for value in NUMBERS.values()]


def fields(found: list[DiscoveredObject]) -> dict[str, list[tuple[str, str]]]:
    return {one.name: [(field.name, field.type) for field in one.fields] for one in found}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NaN", "NaN"),
        ("[Infinity, -Infinity]", ["Infinity", "-Infinity"]),
        (b'"\xc3\xa9"', "é"),
        ('"\\ud83d\\ude00"', "😀"),
    ],
)
def test_what_tools_write_beside_the_standard_is_read_as_it_is_meant(text: str | bytes, value: Any) -> None:
    assert read_json(text) == value


@pytest.mark.parametrize("text", ["", "tru", "[1", "01", "1.", b"\xff", "{'a': 1}", "nan", "+1"])
def test_what_is_no_json_is_still_none(text: str | bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_json(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_written_as_a_number(value: float) -> None:
    found = exact_number(repr(value))
    assert type(found) is float
    assert math.copysign(1, found) == math.copysign(1, value)
    assert found == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None))
def test_whatever_is_no_float_keeps_its_digits(value: Any) -> None:
    text = str(value)
    found = read_json(f"[{text}]")[0]
    assert found == text if isinstance(found, str) else type(value)(repr(found)) == value
