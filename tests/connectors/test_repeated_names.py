"""Names that a document says twice: RFC 8259, BSON and field tables let them, and none of the values is lost."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import bson
import bson.raw_bson
import msgspec
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st

from app.connectors.contract.objects import DiscoveredField
from app.connectors.files.text_rows import read
from app.connectors.types.clickhouse import _row
from app.connectors.types.mongodb.bson_values import Document, FieldTypes, plain
from app.connectors.types.postgresql.values import Shape, value_of
from app.connectors.types.redis.values import _entry, _value
from app.connectors.values.bad_bytes import ByteTexts
from app.connectors.values.json_rows import rows_in
from app.connectors.values.json_text import decode_decimals, decode_digits, decode_json, read_json
from app.connectors.values.message_rows import read_bodies
from app.connectors.values.names import members_of
from tests.cpu_growth import CpuGrowth

pytestmark = pytest.mark.found("D4")


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ('{"a":1,"a":2}', {"a": 1, "a_2": 2}),
        ('{"a" : 1,\n"b": {"c": 1, "c": [{"d": 0, "d": 0}]}}', {"a": 1, "b": {"c": 1, "c_2": [{"d": 0, "d_2": 0}]}}),
        ('{"a":1,"\\u0061":2}', {"a": 1, "a_2": 2}),
        ('{"a":1,"a":2,"x":"\\u003a"}', {"a": 1, "a_2": 2, "x": ":"}),
        ('{"a":1,"a":2,"x":"\\u003A"}', {"a": 1, "a_2": 2, "x": ":"}),
        ('{"a":1,"a":2,"a_2":3}', {"a": 1, "a_2": 2, "a_2_3": 3}),
        ('{"":1,"":2}', {"": 1, "_2": 2}),
        ('{"a":1,"a":2,"x":"a:b:c"}', {"a": 1, "a_2": 2, "x": "a:b:c"}),
        ('{"\\ud800":1,"\\ud800":2}', {"\\ud800": 1, "\\ud800_2": 2}),
        ('{"\\ud800":1,"\\\\ud800":2}', {"\\ud800": 1, "\\ud800_2": 2}),
        ('{"a":{"b":1},"a":{"b":2}}', {"a": {"b": 1}, "a_2": {"b": 2}}),
    ],
)
def test_both_are_there_in_every_way_of_reading_json(text: str, members: dict[str, Any]) -> None:
    for decode in (decode_json, decode_digits, decode_decimals):
        assert decode(text) == decode(text.encode()) == members
    assert read("a.json", text.encode(), is_whole=True).rows == [list(members.values())]
    assert read("a.ndjson", text.replace("\n", "").encode(), is_whole=True).rows == [list(members.values())]
    (message,) = read_bodies("value", [text.encode()]).values
    assert message["value"] == members
    assert rows_in(decode_json(f'{{"items":[{text}]}}'), None) == [members]


@given(st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=3), max_leaves=5))
def test_what_says_each_name_once_stays_as_it_is(value: Any) -> None:
    for written in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value, indent=1)):
        try:
            written.encode()
        except UnicodeEncodeError:
            continue
        again = json.loads(written)
        if isinstance(again, dict) and "\\ud" not in written:
            assert decode_json(written) == again


@given(st.lists(st.tuples(st.sampled_from(["a", "a_2", "a_3", "b", ""]), st.integers())))
def test_nothing_is_lost_whatever_the_names_are(pairs: list[tuple[str, int]]) -> None:
    assert list(members_of(pairs).values()) == [value for _, value in pairs]
    written = "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in pairs) + "}"
    assert decode_json(written) == members_of(pairs)


def test_a_number_stays_as_it_is_read_where_a_name_is_there_twice() -> None:
    text = '{"a":0.10,"a":1e400,"b":12345678901234567890.5}'
    assert read_json(text) == {"a": 0.1, "a_2": "1e400", "b": "12345678901234567890.5"}
    assert decode_decimals(text)["a"] == Decimal("0.10")
    assert decode_digits(text)["a"] == "0.10"


def test_what_is_no_json_is_none_though_a_name_is_there_twice() -> None:
    for text in ('{"a":1,"a":2', '{"a":1,"a":2}}', "{'a':1,'a':2}"):
        with pytest.raises(msgspec.DecodeError):
            decode_json(text)


def test_columns_of_databases_that_hold_json_keep_both() -> None:
    column, text = DiscoveredField("j", "json", "json", True, 1), '{"a":1,"a":2}'
    assert value_of(column, Shape("json"), text, 1_000) == {"a": 1, "a_2": 2}
    assert value_of(
        DiscoveredField("j", "array", "json[]", True, 1), Shape("", item=Shape("json")), f"[{text}]", 1_000
    ) == [{"a": 1, "a_2": 2}]
    assert _row(b'{"m":{"k":1.50,"k":2}}', ByteTexts()) == {"m": {"k": Decimal("1.50"), "k_2": 2}}


def test_an_entry_of_a_redis_stream_has_a_field_twice() -> None:
    entry = _entry([b"a", b"1", b"a", b"2", b"\xff", b"3"])
    assert _value(entry, False, ByteTexts()) == {"a": "1", "a_2": "2", "\\xff": "3"}


def test_a_bson_document_has_a_field_twice() -> None:
    options: CodecOptions[dict[str, Any]] = CodecOptions(document_class=Document)
    inner = bson.encode({"x": 1, "y": 2}).replace(b"\x10y\x00", b"\x10x\x00")
    content = bson.encode({"a": 1, "b": 2, "c": bson.raw_bson.RawBSONDocument(inner)})
    document = bson.decode(content.replace(b"\x10b\x00", b"\x10a\x00"), options)
    assert plain(document) == {"a": 1, "a_2": 2, "c": {"x": 1, "x_2": 2}}


def test_the_types_of_a_repeated_field_are_two_fields() -> None:
    types = FieldTypes()
    types.add([("a", "int"), ("b", "int")])
    assert not types.has_repeats
    types.add([("a", "int"), ("a", "string")])
    assert types.has_repeats
    assert [(one.name, one.type, one.is_nullable) for one in types.fields()] == [
        ("a", "integer", False),
        ("b", "integer", True),
        ("a_2", "string", True),
    ]


def test_many_repeats_take_linear_time() -> None:
    growth = CpuGrowth(20_000, 40_000)
    for count in growth.sizes():
        text = "{" + ",".join(['"k":0'] * count) + "}"
        with growth.look(count):
            decode_json(text)
    growth.assert_bounded()
