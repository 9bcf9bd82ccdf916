"""What a body of a megabyte costs the event loop, good or made for it: CPU of the decoding thread, in ms for each MB.

In this process, without a server: whatever the rest of a request costs does not grow with the body.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from statistics import median
from typing import Any

import msgspec

from app.core.bodies import decode, decode_part
from app.core.errors import BadRequest
from app.domain.auth.schemas import Login
from app.domain.sources.schemas import DataSourceCreate, DataSourcePatch, UnreadBulk
from bench.report import Bound

_GOOD_MS = 20.0
_ANY_MS = 60.0
_UNIT = "ms CPU for each MB"
_SIZE = 1_000_000
_ENCODERS: dict[str, Callable[[Any], bytes]] = {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode}


def cost(rounds: int) -> Iterator[Bound]:
    """A body smaller than a megabyte counts as one: what is bounded by number and not by size has no price for each."""
    for media_type in _ENCODERS:
        body = _bulk(media_type)
        took = median(_milliseconds(partial(_read_bulk, body, media_type)) for _ in range(rounds))
        yield Bound(f"a bulk request of 500 sources, {media_type}", took * 1e6 / len(body), _GOOD_MS, _UNIT)
    for name, (body, wanted, media_type) in _hostile().items():
        per_mb = _worst(body, wanted, media_type, rounds)
        yield Bound(f"a hostile body: {name}", per_mb, _ANY_MS, _UNIT)


def _bulk(media_type: str) -> bytes:
    config = {"host": "db.example.org", "database": "shop", "username": "reader"}
    source = {"type": "postgresql", "config": config, "secrets": {"password": "lanterns drift"}, "tags": ["a", "b"]}
    sources = [source | {"name": f"shop {number}", "description": "Orders, [new]. " * 110} for number in range(500)]
    return _ENCODERS[media_type]({"data_sources": sources})


def _read_bulk(body: bytes, media_type: str) -> None:
    bulk = decode(body, UnreadBulk, media_type)
    for raw in bulk.data_sources:
        decode_part(bytes(raw), DataSourceCreate, media_type, path="", most=20)


def _hostile() -> dict[str, tuple[bytes, Any, str]]:
    """The dearest that are known, and those that once stopped a worker."""
    keys = b",".join(b'"k%d":0' % number for number in range(49_000))
    names = _ENCODERS["msgpack"]({f"k{number:016}": 0 for number in range(49_000)})
    return {
        "a key repeated after 49,000": (b'{%s,"k0":0}' % keys, Login, "json"),
        "49,000 unknown fields, json": (b'{"config":{%s}}' % keys, DataSourcePatch, "json"),
        "49,000 unknown fields, msgpack": (names, DataSourcePatch, "msgpack"),
        "a million empty maps": (b"\xdd\x00\x0f\x42\x40" + b"\x80" * _SIZE, Login, "msgpack"),
        "500,000 numbers": (b'{"email":[%s1]}' % (b"1," * (_SIZE // 2)), Login, "json"),
        "depth": (b'{"email":' + b"[" * _SIZE, Login, "json"),
        "escapes": (b'{"email":"%s","password":5}' % (rb"\u0041" * (_SIZE // 6)), Login, "json"),
        "integers of 4,000 digits": (b'{"config":{"a":[%s1]}}' % ((b"7" * 4000 + b",") * 249), DataSourcePatch, "json"),
    }


def _worst(body: bytes, wanted: Any, media_type: str, rounds: int) -> float:
    def read() -> None:
        with suppress(BadRequest):
            decode(body, wanted, media_type)

    return median(_milliseconds(read) for _ in range(rounds)) * 1e6 / max(len(body), _SIZE)


def _milliseconds(call: Callable[[], None]) -> float:
    began = time.thread_time()
    call()
    return (time.thread_time() - began) * 1000
