"""IN0: whatever a body holds, it holds the event loop for a small, linear time, on every route, in both formats."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import pytest

from app.core.bodies import decode
from app.core.body_limits import MAX_DEPTH, MAX_VALUES
from app.core.errors import BadRequest
from tests.conftest import Hub
from tests.cpu_growth import CpuGrowth
from tests.domain.sources import registered

pytestmark = [pytest.mark.anyio, pytest.mark.found("A1", "A2")]

SIZE = 480_000
"""Bytes of the smaller of the two bodies that are compared; the other one is just below the limit."""
CEILING_S = 1.0
"""Wide on purpose: the aim is 0.06 s for each megabyte, and quadratic work took ten seconds and more."""
FLOOR_S = 0.05
"""The smaller counts as at least this much. Tens of thousands of small texts fit into a core's own cache at half the size
and not at the whole: where neighbours are busy in the caches that cores share, linear work of 0.02 s was seen to take
0.09 s at twice the size."""

JSON_TYPE, MSGPACK_TYPE = "application/json", "application/msgpack"


# What bodies are made of: each function makes about so many bytes ------------------------------------------------------


def _joined(item: bytes, size: int) -> bytes:
    return b",".join([item] * (size // (len(item) + 1)))


def _fields(size: int, value: bytes = b"0") -> bytes:
    count = size // (11 + len(value))
    return b",".join(b'"k%07d":%s' % (index, value) for index in range(count))


def _few(size: int, most: int = MAX_VALUES - 5_000) -> int:
    """So many items as a body may just hold at full size, half of it at half the size."""
    return most * size // (2 * SIZE)


JSON_SHAPES: dict[str, Callable[[int], bytes]] = {
    "one key repeated": lambda size: b"{%s}" % _joined(b'"k":0', size),
    "many keys, one repeated": lambda size: b'{%s,"k0000000":0}' % _fields(size),
    "few enough keys, one repeated": lambda size: b'{%s,"k0000000":0}' % _fields(_few(size) * 12),
    "few enough keys, each twice": lambda size: b"{%s,%s}" % ((_fields(_few(size) * 6),) * 2),
    "many objects, each with a key repeated": lambda size: b"[%s]" % _joined(b'{"a":1,"a":2}', size),
    "unknown fields": lambda size: b"{%s}" % _fields(size),
    "unknown fields, few enough": lambda size: b"{%s}" % _fields(_few(size) * 12),
    "unknown fields of long names": lambda size: (
        b"{%s}" % b",".join(b'"%s%d":1' % (b"x" * 1000, index) for index in range(size // 1010))
    ),
    "numbers": lambda size: b"[%s]" % _joined(b"1", size),
    "numbers, few enough": lambda size: b"[%s]" % _joined(b"1", _few(size) * 2),
    "empty objects": lambda size: b"[%s]" % _joined(b"{}", size),
    "empty objects, few enough": lambda size: b"[%s]" % _joined(b"{}", _few(size) * 3),
    "nulls": lambda size: b"[%s]" % _joined(b"null", size),
    "empty texts": lambda size: b"[%s]" % _joined(b'""', size),
    "texts, few enough": lambda size: b"[%s]" % _joined(b'"' + b"a" * 15 + b'"', _few(size) * 18),
    "lists of everything": lambda size: b"[%s]" % _joined(b'[1,"a",null,{"b":[true]}]', size),
    "objects of everything, few enough": lambda size: (
        b"[%s]" % _joined(b'{"port":"x","host":[],"n":1e5,"o":{"p":[{}]}}', _few(size, 8_000) * 47)
    ),
    "depth": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "depth of objects": lambda size: b'{"a":' * (size // 6) + b"1" + b"}" * (size // 6),
    "depth cut off": lambda size: b"[" * size,
    "depth, few enough": lambda size: b"[" * _few(size) + b"]" * _few(size),
    "depth at the limit, many times": lambda size: b"[%s]" % _joined(b"[" * 50 + b"]" * 50, _few(size) * 2),
    "closing brackets": lambda size: b"]" * size,
    "escapes": lambda size: b'"%s"' % (rb"\u0041" * (size // 6)),
    "backslashes": lambda size: b'"%s"' % (b"\\\\" * (size // 2)),
    "escaped quotes": lambda size: b'"%s"' % (b'\\"' * (size // 2)),
    "escaped NULs": lambda size: b'"%s"' % (rb"\u0000" * (size // 6)),
    "many texts with NULs": lambda size: b"[%s]" % _joined(rb'"\u0000"', _few(size) * 9),
    "halves of pairs": lambda size: b"[%s]" % _joined(rb'"\udc00"', _few(size) * 9),
    "keys with NULs": lambda size: b"{%s}" % b",".join(rb'"\u0000%d":1' % index for index in range(_few(size))),
    "commas and brackets in a text": lambda size: b'"%s"' % (b",[{" * (size // 3)),
    "combining marks": lambda size: b'"a%s"' % ("\u0300\u0316".encode() * (size // 4)),
    "what folds to eighteen letters": lambda size: b'"%s"' % ("\ufdfa".encode() * (size // 3)),
    "white space": lambda size: b" " * size + b"1",
    "an integer": lambda size: b"9" * size,
    "integers of 4,000 digits": lambda size: b"[%s]" % _joined(b"7" * 4000, size),
    "fractions": lambda size: b"[%s]" % _joined(b"0." + b"3" * 700, size),
    "a fraction": lambda size: b"0." + b"7" * size,
    "exponents": lambda size: b"[%s]" % _joined(b"1e-400", size),
    "texts of digits": lambda size: b"[%s]" % _joined(b'"12"', size),
    "not UTF-8": lambda size: b'"%s"' % (b"\xff" * size),
}


def _msgpack_list(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


def _msgpack_map(count: int) -> bytes:
    return b"\xdf" + count.to_bytes(4, "big")


def _pairs(count: int, key: Callable[[int], bytes], value: bytes = b"\x00") -> bytes:
    return _msgpack_map(count) + b"".join(key(index) + value for index in range(count))


def _text_key(index: int) -> bytes:
    return b"\xa8k%07d" % index


MSGPACK_SHAPES: dict[str, Callable[[int], bytes]] = {
    "empty maps": lambda size: _msgpack_list(size) + b"\x80" * size,
    "empty maps, few enough": lambda size: _msgpack_list(_few(size)) + b"\x80" * _few(size),
    "nulls": lambda size: _msgpack_list(size) + b"\xc0" * size,
    "numbers, few enough": lambda size: _msgpack_list(_few(size)) + b"\x01" * _few(size),
    "one key repeated": lambda size: _pairs(size // 3, lambda _: b"\xa1k"),
    "many keys, one repeated": lambda size: _pairs(_few(size), lambda index: _text_key(max(index, 1))),
    "few enough keys, each twice": lambda size: _pairs(_few(size), lambda index: _text_key(index // 2)),
    "unknown fields": lambda size: _pairs(size // 10, _text_key),
    "unknown fields, few enough": lambda size: _pairs(_few(size), _text_key),
    "depth": lambda size: b"\x91" * size + b"\xc0",
    "depth of maps": lambda size: b"\x81\xa1a" * (size // 3) + b"\xc0",
    "depth, few enough": lambda size: b"\x91" * _few(size) + b"\xc0",
    "lists as keys": lambda size: _pairs(_few(size), lambda index: b"\x92\xce%s\x00" % index.to_bytes(4, "big")),
    "numbers as keys": lambda size: _pairs(_few(size), lambda index: b"\xcf%s" % (index << 45).to_bytes(8, "big")),
    "bytes as keys": lambda size: _pairs(_few(size), lambda index: b"\xc4\x04%s" % index.to_bytes(4, "big")),
    "NaN as keys": lambda size: _pairs(_few(size), lambda _: b"\xcb\x7f\xf8" + b"\x00" * 6),
    "bytes": lambda size: b"\xc6" + size.to_bytes(4, "big") + b"x" * size,
    "extensions": lambda size: _msgpack_list(_few(size)) + b"\xd4\x05\x00" * _few(size),
    "times": lambda size: _msgpack_list(_few(size)) + b"\xd6\xff\x00\x00\x00\x00" * _few(size),
    "numbers that are none": lambda size: _msgpack_list(_few(size)) + (b"\xcb\x7f\xf8" + b"\x00" * 6) * _few(size),
    "a text of NULs": lambda size: b"\xdb" + size.to_bytes(4, "big") + b"\x00" * size,
    "many texts of NUL": lambda size: _msgpack_list(_few(size)) + b"\xa1\x00" * _few(size),
    "a list that lies": lambda size: _msgpack_list(2**32 - 1) + b"\xc0" * size,
    "lists that lie": lambda size: _msgpack_list(2**31) * (size // 5),
    "maps that lie": lambda size: (_msgpack_map(2**31) + b"\xa1a") * (size // 7),
    "texts that lie": lambda size: _msgpack_list(size // 5) + b"\xdb\x7f\xff\xff\xff" * (size // 5),
    "extensions that lie": lambda size: _msgpack_list(size // 6) + b"\xc9\x7f\xff\xff\xff\x05" * (size // 6),
    "the byte that is never used": lambda size: _msgpack_list(_few(size)) + b"\xc1" * _few(size),
    "bodies behind the body": lambda size: b"\x80" * size,
    "combining marks": lambda size: (
        b"\xdb" + (1 + size // 4 * 4).to_bytes(4, "big") + b"a" + "\u0300\u0316".encode() * (size // 4)
    ),
}


# Where they are put ---------------------------------------------------------------------------------------------------


@cache
def made(make: Callable[[int], bytes], size: int) -> bytes:
    return make(size)


@dataclass(frozen=True)
class Place:
    """A field of a route's body; without a name the whole body."""

    method: str
    path: str
    field: str = ""
    others: tuple[tuple[str, Any], ...] = ()
    inside: str = ""
    is_open: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.field}{self.inside and '.' + self.inside}".strip()

    def body(self, part: bytes, media_type: str) -> bytes:
        if not self.field:
            return part
        encode = msgspec.json.encode if media_type == JSON_TYPE else msgspec.msgpack.encode
        value: Any = {self.inside: msgspec.Raw(part)} if self.inside else msgspec.Raw(part)
        return encode(dict(self.others) | {self.field: value})


LOGIN, REGISTER = "/auth/login", "/auth/register"
SHOP = (("name", "shop"), ("type", "postgresql"), ("config", {"host": "db.invalid", "database": "a", "username": "b"}))
OPEN_PLACES = [
    Place("POST", LOGIN, is_open=True),
    Place("POST", LOGIN, "email", (("password", "x"),), is_open=True),
    Place("POST", LOGIN, "password", (("email", "a@example.org"),), is_open=True),
    Place("POST", LOGIN, "tenant", (("email", "a@example.org"), ("password", "x")), is_open=True),
    Place("POST", LOGIN, "colour", (("email", 5),), is_open=True),
    Place("POST", REGISTER, is_open=True),
    Place("POST", REGISTER, "first_name", (("email", "a@example.org"), ("password", "x")), is_open=True),
    Place("POST", "/auth/refresh", is_open=True),
    Place("POST", "/auth/refresh", "refresh_token", is_open=True),
]
SIGNED_PLACES = [
    Place("POST", "/auth/logout"),
    Place("POST", "/auth/change-password", "new_password", (("current_password", "x"),)),
    Place("POST", "/users", "email"),
    Place("POST", "/roles", "permissions", (("name", "r"),)),
    Place("POST", "/roles", "name"),
    Place("POST", "/data-sources", "tags", SHOP),
    Place("POST", "/data-sources", "secrets", SHOP),
    Place("POST", "/data-sources", "config", SHOP[:2], inside="password"),
    Place("POST", "/data-sources/bulk", "data_sources"),
    Place("POST", "/data-sources/bulk", "dry_run"),
    Place("PATCH", "/data-sources/{source}", "config"),
    Place("PATCH", "/data-sources/{source}", "config", inside="host"),
    Place("PATCH", "/data-sources/{source}", "secrets"),
    Place("PATCH", "/data-sources/{source}", "secrets", inside="password"),
    Place("PATCH", "/data-sources/{source}", "description"),
    Place("POST", "/data-sources/test", "config", SHOP[1:2]),
    Place("POST", "/data-sources/{source}/test", "config"),
    Place("POST", "/data-sources/{source}/preview", "columns", (("object", "public.orders"),)),
    Place("POST", "/data-sources/{source}/preview", "object"),
]
SHAPES = [(JSON_TYPE, name, make) for name, make in JSON_SHAPES.items()]
SHAPES += [(MSGPACK_TYPE, name, make) for name, make in MSGPACK_SHAPES.items()]
SAMPLED = {
    *("one key repeated", "many keys, one repeated", "few enough keys, each twice", "unknown fields, few enough"),
    *("numbers, few enough", "empty maps", "objects of everything, few enough", "depth", "escapes", "lists as keys"),
    *("many texts with NULs", "integers of 4,000 digits", "numbers that are none", "texts that lie"),
}
SAMPLE = [(media_type, name, make) for media_type, name, make in SHAPES if name in SAMPLED]


@pytest.fixture(scope="module")
async def source(hub: Hub) -> str:
    made = await registered(hub)
    return str(made["id"])


async def assert_bounded(
    hub: Hub, place: Place, source: str, media_type: str, make: Callable[[int], bytes], name: str = ""
) -> None:
    """What the loop's thread takes until the answer, which says that the body is not accepted."""
    client = hub.client() if place.is_open else hub.admin
    path = f"/api/v1{place.path}".replace("{source}", source)
    growth = CpuGrowth(SIZE, 2 * SIZE, floor_s=FLOOR_S, at_most_s=CEILING_S)
    for size in growth.sizes():
        body = place.body(made(make, size), media_type)
        with growth.look(size):
            answer = await client.request(place.method, path, content=body, headers={"Content-Type": media_type})
        assert 400 <= answer.status_code < 500, answer.text[:300]
        assert len(answer.content) < 300_000
    growth.assert_bounded(f"{media_type} {name}")


@pytest.mark.parametrize(("media_type", "name", "make"), SAMPLE, ids=[name for _, name, _ in SAMPLE])
async def test_no_body_holds_the_loop_of_a_login(
    hub: Hub, media_type: str, name: str, make: Callable[[int], bytes]
) -> None:
    await assert_bounded(hub, OPEN_PLACES[1], "", media_type, make)


@pytest.mark.slow
@pytest.mark.parametrize("place", OPEN_PLACES + SIGNED_PLACES, ids=str)
async def test_no_body_holds_the_loop_of_any_route(hub: Hub, source: str, place: Place) -> None:
    for media_type, name, make in SHAPES:
        await assert_bounded(hub, place, source, media_type, make, name)


# Forms, and the limits themselves -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        (b"&".join([b"token=a"] * 21), 400, "too_many_values"),
        (b"token=" + b"a" * 70_000, 413, "too_large"),
        (b"token=" + b"%41" * 9_000, 400, "invalid_request"),
        (b"token=a&token=b", 400, "invalid_request"),
    ],
)
async def test_a_form_has_few_fields_and_is_short(hub: Hub, form: bytes, status: int, code: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await hub.admin.post("/api/v1/auth/introspect", content=form, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_form_is_read_as_before(hub: Hub) -> None:
    answer = await hub.admin.post("/api/v1/auth/introspect", data={"token": "a b+c", "token_type_hint": "access_token"})
    assert answer.json() == {"active": False}


ENCODERS = {JSON_TYPE: msgspec.json.encode, MSGPACK_TYPE: msgspec.msgpack.encode}


@pytest.mark.parametrize("media_type", ENCODERS)
@pytest.mark.parametrize("items", [["a"], [[]], [{}], [{"a": 1}], [1, "a,[{", None], [["\\"], ['"']]])
def test_values_are_counted_alike_in_both_formats(media_type: str, items: list[Any]) -> None:
    """The whole is one; what is within a text or is a name counts for nothing."""
    each = sum(1 + (len(item) if isinstance(item, list | dict) else 0) for item in items)
    fewer = items * ((MAX_VALUES - 1) // each)
    whole = fewer + items
    short = media_type.rpartition("/")[2]
    with pytest.raises(BadRequest) as caught:
        decode(ENCODERS[media_type](whole), Any, short)
    assert caught.value.code == "too_many_values"
    assert decode(ENCODERS[media_type](fewer), Any, short) == fewer


@pytest.mark.parametrize("media_type", ENCODERS)
@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}, lambda value: [[], value, {}]])
def test_a_body_has_so_many_levels(media_type: str, wrap: Callable[[Any], Any]) -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = wrap(value)
    short = media_type.rpartition("/")[2]
    assert decode(ENCODERS[media_type](value), Any, short) == value
    with pytest.raises(BadRequest):
        decode(ENCODERS[media_type](wrap(value)), Any, short)


async def test_the_largest_bulk_of_good_sources_is_taken(hub: Hub) -> None:
    """Five hundred, each with all the tags that it may have."""
    tags = [f"tag {index}" for index in range(50)]
    each = [dict(SHOP) | {"name": f"shop {index}", "tags": tags} for index in range(500)]
    for media_type, encode in ENCODERS.items():
        body = encode({"dry_run": True, "data_sources": each})
        headers = {"Content-Type": media_type}
        answer = await hub.admin.post("/api/v1/data-sources/bulk", content=body, headers=headers)
        assert answer.status_code == 200, answer.text[:300]
