"""Request bodies: MA1, MA2, MA3, IN1 where they are decoded, in JSON and in MessagePack alike."""

import json
import struct
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from app.core.bodies import convert, decode, media_type_of, refuse_forbidden_characters
from app.core.errors import BadRequest, UnsupportedMediaType


class Inner(Struct, forbid_unknown_fields=True):
    port: Annotated[int, Meta(ge=1, le=65535)]
    hosts: list[str] = []


class Outer(Struct, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, Meta(min_length=2, max_length=5)]
    ratio: float = 0.0
    flag: bool = False
    inner: Inner | None = None
    free: dict[str, Any] = {}
    owner: UUID | None = None
    since: datetime | None = None
    kind: Literal["a", "b"] = "a"


def refusal_of(body: bytes, wanted: Any = Outer, media_type: str = "json") -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        decode(body, wanted, media_type)
    msgspec.json.encode([caught.value.detail, caught.value.errors])  # what cannot be encoded would become a 500
    return caught.value


def paths_of(body: bytes, media_type: str = "json") -> dict[str, str]:
    return {fault.path: fault.code for fault in refusal_of(body, media_type=media_type).errors}


PLAIN = {"name": "abc", "ratio": 1.5, "inner": {"port": 5, "hosts": ["x"]}, "free": {"k": [1, {"m": None}]}}


@pytest.mark.parametrize("encode", [msgspec.json.encode, msgspec.msgpack.encode], ids=["json", "msgpack"])
def test_a_body_is_the_same_in_both_forms(encode: Any) -> None:
    media_type = "json" if encode is msgspec.json.encode else "msgpack"
    assert decode(encode(PLAIN), Outer, media_type) == msgspec.convert(PLAIN, Outer)


# --- MA1, MA2: what the schema does not say is refused, all faults at once ---

FAULTY: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"name": "abc", "colour": 1}, {"colour": "unknown_field"}),
    ({"name": "abc", "b_extra": 1, "a_extra": 2}, {"a_extra": "unknown_field", "b_extra": "unknown_field"}),
    ({"name": "abc", "inner": {"port": 1, "x": 1}}, {"inner.x": "unknown_field"}),
    ({}, {"name": "required"}),
    ({"name": "abc", "inner": {}}, {"inner.port": "required"}),
    ({"name": 5, "ratio": "1.5", "flag": 0}, {"name": "wrong_type", "ratio": "wrong_type", "flag": "wrong_type"}),
    ({"name": "abc", "inner": {"port": "5"}}, {"inner.port": "wrong_type"}),
    ({"name": "abc", "inner": {"port": 5.0001}}, {"inner.port": "wrong_type"}),
    ({"name": "abc", "inner": {"port": True}}, {"inner.port": "wrong_type"}),
    ({"name": "abc", "inner": {"port": 65536}}, {"inner.port": "too_large"}),
    (
        {"name": "abc", "inner": {"port": 0, "hosts": ["x", 1]}},
        {"inner.port": "too_small", "inner.hosts[1]": "wrong_type"},
    ),
    ({"name": "a"}, {"name": "too_short"}),
    ({"name": "abcdef", "kind": "c"}, {"name": "too_long", "kind": "not_allowed"}),
    ({"name": None}, {"name": "wrong_type"}),
    ({"name": "abc", "it's": 1}, {"it's": "unknown_field"}),
]


@pytest.mark.parametrize(("body", "faults"), FAULTY, ids=[json.dumps(body)[:60] for body, _ in FAULTY])
@pytest.mark.parametrize("media_type", ["json", "msgpack"])
def test_every_fault_is_named_at_once(body: dict[str, Any], faults: dict[str, str], media_type: str) -> None:
    encoded = msgspec.json.encode(body) if media_type == "json" else msgspec.msgpack.encode(body)
    assert paths_of(encoded, media_type) == faults


@pytest.mark.parametrize("body", [{"name": "abc", "owner": "not a uuid"}, {"name": "abc", "since": "yesterday"}])
def test_rules_that_no_schema_carries_are_faults_of_their_field(body: dict[str, Any]) -> None:
    assert len(paths_of(msgspec.json.encode(body))) == 1
    assert "" not in paths_of(msgspec.json.encode(body))


@pytest.mark.parametrize("secret", ["hunter2-hunter2", 918273645])
def test_no_answer_repeats_a_value(secret: Any) -> None:
    error = refusal_of(msgspec.json.encode({"name": secret, "kind": secret, "flag": secret}))
    assert str(secret) not in str(msgspec.to_builtins(error.errors)) + error.detail


@pytest.mark.parametrize("body", [b"[]", b'"abc"', b"5", b"null", b"true"])
def test_a_body_of_another_shape_is_refused(body: bytes) -> None:
    assert refusal_of(body).errors[0].code == "wrong_type"


def test_faults_are_capped() -> None:
    assert len(refusal_of(msgspec.json.encode({"name": "abc"} | {f"x{n}": 1 for n in range(500)})).errors) == 100


# --- MA3: duplicates ---


@pytest.mark.parametrize(
    "body",
    [
        b'{"name":"abc","name":"abd"}',
        b'{"name":"abc","n\\u0061me":"abd"}',
        b'{"name":"abc","inner":{"port":1,"port":1}}',
        b'{"name":"abc","free":{"a":{"b":1,"b":2}}}',
        b'{"name":"abc","free":{"a":[{"b":1,"b":null}]}}',
        b'{"name":5,"name":6}',
    ],
)
def test_a_key_that_comes_twice_is_refused(body: bytes) -> None:
    assert refusal_of(body).code == "duplicate_field"


class Pairs(list[tuple[str, Any]]):
    """An object as it is written: names may come twice."""


def written(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(name)} : {written(item)}" for name, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def has_duplicates(value: Any) -> bool:
    if isinstance(value, Pairs):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(has_duplicates(item) for _, item in value)
    return isinstance(value, list) and any(map(has_duplicates, value))


TEXTS = st.text(st.sampled_from('ab:"\\{},[]ä😀'), max_size=3)
VALUES = st.recursive(
    TEXTS | st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(TEXTS, inner), max_size=3).map(Pairs),
)


@given(VALUES)
def test_a_key_that_comes_twice_is_found_whatever_texts_hold(value: Any) -> None:
    body = f'{{"name":"abc","free":{{"value":{written(value)}}}}}'.encode()
    if has_duplicates(value):
        assert refusal_of(body).code == "duplicate_field"
    else:
        assert decode(body, Outer, "json").free == {"value": json.loads(written(value))}


def test_names_of_duplicates_with_half_a_surrogate_can_be_answered() -> None:
    refusal_of(b'{"x":1,"\\ud83d":1,"\\ud83d":2}')


@pytest.mark.parametrize(
    "body",
    [
        b"\x82\xa4name\xa3abc\xa4name\xa3abd",
        b"\x82\xa4name\xa3abc\xd9\x04name\xa3abd",
        b"\xde\x00\x02\xa4name\xa3abc\xda\x00\x04name\xa3abd",
        b"\x82\xa4name\xa3abc\xa4free\x82\xa1a\x01\xa1a\x02",
        b"\x82\xa4name\xa3abc\xa4free\x81\xa1a\x91\x82\xa1b\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xa1b\xc0",
    ],
)
def test_a_key_that_comes_twice_in_messagepack_is_refused(body: bytes) -> None:
    assert refusal_of(body, media_type="msgpack").code == "duplicate_field"


EVERY_FORMAT = {
    "name": "abc",
    "free": {
        "ints": [0, 127, 128, 255, 256, 65535, 65536, 2**32, 2**63, -1, -32, -33, -128, -129, -32769, -(2**31) - 1],
        "texts": ["", "a" * 31, "a" * 32, "a" * 255, "a" * 256, "a" * 65536, "ü" * 40],
        "floats": [0.5, -1e300],
        "plain": [None, True, False],
        "lists": [[], list(range(15)), list(range(16)), list(range(256))],
        "maps": [{}, {str(n): n for n in range(16)}],
        "bytes": [b"", b"\x81\xa1", b"x" * 256, b"x" * 65536],
        "extensions": [msgspec.msgpack.Ext(5, b"x" * size) for size in (0, 1, 2, 3, 4, 8, 16, 17, 256, 65536)],
    },
}


def test_no_format_of_messagepack_is_mistaken_for_a_duplicate() -> None:
    assert decode(msgspec.msgpack.encode(EVERY_FORMAT), Outer, "msgpack").name == "abc"


@pytest.mark.parametrize("value", [b"\xdd\x00\x00\x00\x02\x01\x02", b"\xdf\x00\x00\x00\x01\xdb\x00\x00\x00\x01a\x02"])
def test_the_longest_headers_of_messagepack_are_taken_for_short_values_too(value: bytes) -> None:
    assert decode(b"\x82\xa4name\xa3abc\xa4free\x81\xa1x" + value, Outer, "msgpack").name == "abc"


# --- IN1: what cannot be read ---

UNREADABLE = {
    "nothing": b"",
    "cut off": b'{"name": "ab',
    "a trailing comma": b'{"name": "abc",}',
    "two bodies": b'{"name": "abc"}{"name": "abc"}',
    "single quotes": b"{'name': 'abc'}",
    "a comment": b'{"name": "abc"} // x',
    "a byte order mark": b'\xef\xbb\xbf{"name": "abc"}',
    "UTF-16": '{"name": "abc"}'.encode("utf-16"),
    "latin-1": '{"name": "äöü"}'.encode("latin-1"),
    "overlong UTF-8": b'{"name": "\xc0\xafab"}',
    "UTF-8 surrogates": b'{"name": "\xed\xa0\x80"}',
    "beyond Unicode": b'{"name": "\xf5\x80\x80\x80"}',
    "a raw NUL": b'{"name": "a\x00c"}',
    "a raw line break": b'{"name": "a\nc"}',
    "an escaped NUL": b'{"name": "a\\u0000c"}',
    "half a pair": b'{"name": "a\\ud800c"}',
    "the other half": b'{"name": "a\\uDFffc"}',
    "a pair the wrong way": b'{"name": "\\udc00\\ud800"}',
    "NUL in a key": b'{"name": "abc", "free": {"a\\u0000b": 1}}',
    "half a pair in a key": b'{"name": "abc", "free": {"\\udead": 1}}',
    "half a pair in an unknown key": b'{"x": 1, "\\udead": 1}',
    "NaN": b'{"name": "abc", "ratio": NaN}',
    "Infinity": b'{"name": "abc", "ratio": -Infinity}',
    "a number past a double": b'{"name": "abc", "ratio": 1e999}',
    "a long number past a double": b'{"name": "abc", "ratio": ' + b"9" * 400 + b"}",
    "an integer of 5,000 digits": b'{"name": "abc", "inner": {"port": ' + b"1" * 5000 + b"}}",
    "a free integer of 5,000 digits": b'{"name": "abc", "free": {"n": ' + b"1" * 5000 + b"}}",
    "a leading zero": b'{"name": "abc", "ratio": 01}',
    "hexadecimal": b'{"name": "abc", "ratio": 0x10}',
    "deep lists": b'{"name": "abc", "free": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "deep objects": b'{"name": "abc", "free": ' + b'{"x":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    "deep and unknown": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep and cut off": b'{"x": ' + b"[" * 100_000,
    "a fault before the cut": b'{"name": 5, "ratio": ',
    "a fault before bad UTF-8": b'{"name": 5, "kind": "\xff"}',
    "a fault before nonsense": b'{"x": 1,, }',
    "a fault before NaN": b'{"name": 5, "ratio": NaN}',
    "a fault before a huge number": b'{"name": 5, "ratio": 1e999, "free": {"n": ' + b"7" * 10_000 + b"}}",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_a_bad_request(body: bytes) -> None:
    refusal_of(body)


@pytest.mark.parametrize("depth", [150, 300, 450, 700, 900])
def test_any_depth_is_read_or_refused(depth: int) -> None:
    for body in (b'{"name": 5, "free": {"x": %s}}', b'{"name": "abc", "free": {"x": %s, "\\u0061": 1}}'):
        try:
            decode(body % (b"[" * depth + b"]" * depth), Outer, "json")
        except BadRequest:
            continue


UNREADABLE_MSGPACK = {
    "nothing": b"",
    "cut off": b"\x82\xa4name\xa3ab",
    "a length past the end": b"\x81\xa4name\xdb\xff\xff\xff\xffabc",
    "a map of 4 billion": b"\xdf\xff\xff\xff\xff\xa1a\x01",
    "a list of 4 billion": b"\x82\xa4name\xa3abc\xa4free\x81\xa1a\xdd\xff\xff\xff\xff",
    "two bodies": b"\x81\xa4name\xa3abc\x81\xa4name\xa3abc",
    "the byte that is never used": b"\x81\xa4name\xc1",
    "JSON": b'{"name": "abc"}',
    "bad UTF-8": b"\x81\xa4name\xa3\xff\xfe\xfd",
    "surrogates": b"\x81\xa4name\xa3\xed\xa0\x80",
    "NUL": b"\x81\xa4name\xa3a\x00b",
    "NUL in a key": b"\x82\xa4name\xa3abc\xa4free\x81\xa3a\x00b\x01",
    "a number as key": b"\x82\xa4name\xa3abc\x01\x02",
    "a number as key and a fault": b"\x83\xa4name\x05\x01\x02\xa1x\x01",
    "mixed keys": b"\x84\xa4name\xa3abc\x01\x02\xa1x\x01\xc0\x01",
    "a list as key": b"\x82\xa4name\xa3abc\x91\x01\x02",
    "a map as key": b"\x82\xa4name\xa3abc\x81\x01\x02\x02",
    "bytes as key": b"\x82\xa4name\xa3abc\xc4\x01\xff\x02",
    "a number as key within": b"\x82\xa4name\xa3abc\xa4free\x81\x01\x02",
    "bytes as text": b"\x81\xa4name\xc4\x03abc",
    "an extension as text": b"\x81\xa4name\xd4\x05\x00",
    "a time as text": b"\x81\xa4name\xd6\xff\x00\x00\x00\x00",
    "NaN": b"\x82\xa4name\xa3abc\xa5ratio\xcb" + struct.pack(">d", float("nan")),
    "infinity": b"\x82\xa4name\xa3abc\xa5ratio\xcb" + struct.pack(">d", float("inf")),
    "infinity within": b"\x82\xa4name\xa3abc\xa4free\x81\xa1x\xcb" + struct.pack(">d", float("-inf")),
    "deep": b"\x82\xa4name\xa3abc\xa4free\x81\xa1x" + b"\x91" * 100_000 + b"\xc0",
    "deep and unknown": b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0",
    "a fault before the cut": b"\x82\xa4name\x05\xa4free",
}


@pytest.mark.parametrize("body", UNREADABLE_MSGPACK.values(), ids=UNREADABLE_MSGPACK)
def test_what_cannot_be_read_as_messagepack_is_a_bad_request(body: bytes) -> None:
    refusal_of(body, media_type="msgpack")


@pytest.mark.parametrize("body", [b'{"name": "a\\u0000c", "free": {"k": ["\\u0000"]}}'])
def test_forbidden_characters_are_named_where_they_are(body: bytes) -> None:
    assert paths_of(body) == {"name": "forbidden_character", "free.k[0]": "forbidden_character"}


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert decode(b'{"name": "\\ud83d\\ude00\\ud83d\\ude00"}', Outer, "json").name == "😀😀"


def test_backslashes_before_a_u_are_text() -> None:
    assert decode(b'{"name": "\\\\u0000", "free": {}}'.replace(b"0000", b"00"), Outer, "json").name == "\\u00"


def test_values_that_were_decoded_elsewhere_are_held_to_the_same_rules() -> None:
    with pytest.raises(BadRequest) as caught:
        convert({"port": "5", "x": 1}, Inner, path="config")
    assert {fault.path for fault in caught.value.errors} == {"config.port", "config.x"}
    with pytest.raises(BadRequest):
        refuse_forbidden_characters({"a": ["\udc00"]})


# --- IN3: content types ---


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("application/json", "json"),
        ("Application/JSON; Charset=UTF-8", "json"),
        ('application/json;charset="utf-8"', "json"),
        ("application/msgpack", "msgpack"),
        ("application/X-MsgPack", "msgpack"),
        ("application/vnd.msgpack; v=1", "msgpack"),
    ],
)
def test_the_media_types_that_are_taken(given: str, found: str) -> None:
    assert media_type_of(given) == found


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/jsonp",
        "application/json; charset=latin-1",
        "application/json;charset=utf-16",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "*/*",
        "application/*",
        "json",
        "application/merge-patch+xml",
        "application/json, application/json",
        "application/octet-stream",
        "\udcff/json",
    ],
)
def test_every_other_media_type_is_refused(given: str | None) -> None:
    with pytest.raises(UnsupportedMediaType):
        media_type_of(given)
