"""What Redis keys of one type hold, as columns and rows.

| type           | a row is    | columns                                               |
|----------------|-------------|-------------------------------------------------------|
| string         | a key       | `key, value, ttl_s`                                   |
| hash           | a key       | `key`, the fields of the hash, `ttl_s`                |
| hash, large    | a field     | `key, field, value, ttl_s`                            |
| list           | an element  | `key, index, value, ttl_s`                            |
| set            | a member    | `key, member, ttl_s`                                  |
| zset           | a member    | `key, member, score, ttl_s`                           |
| stream         | an entry    | `key, id, fields, ttl_s`                              |
| json           | a key       | `key, value, ttl_s` (the JSON module)                 |
| anything else  | a key       | `key, ttl_s`                                          |

Text is what is UTF-8; a column that holds anything else in its samples is `binary`. Sizes are asked for before values
are, where a command tells them; what is too long nevertheless ends as `TooLong` (`redis_session`).
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final

import msgspec

from app.connectors.contract.objects import DiscoveredField, PortableType
from app.connectors.types.redis.session import MAX_REPLY_BYTES, Command, Session, TooLong
from app.connectors.values.bad_bytes import ByteTexts
from app.connectors.values.json_text import read_json
from app.connectors.values.names import members_of
from app.connectors.values.values import json_safe

MAX_COLUMNS: Final = 100
"""A hash of more fields is a table of fields, not one of columns."""
_SAMPLE_BYTES: Final = 1_024
_CHUNK: Final = 16
_MAX_ROW_BYTES: Final = MAX_REPLY_BYTES // 2

_ELEMENTS: Final[dict[str, tuple[str, ...]]] = {
    "hash": ("field", "value"),
    "list": ("index", "value"),
    "set": ("member",),
    "zset": ("member", "score"),
    "stream": ("id", "fields"),
}
_KNOWN: Final[dict[str, tuple[PortableType, str]]] = {
    "index": ("integer", "index"),
    "score": ("number", "double"),
    "id": ("string", "stream id"),
    "fields": ("object", "entry"),
}
_LENGTHS: Final = {"hash": "HLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "stream": "XLEN"}
_PLAIN_KINDS: Final = frozenset({"string", *_ELEMENTS})

Row = dict[str, object]


def kind_of(reply: object) -> str | None:
    """The kind of object for the answer of TYPE; None for a key that is gone or may not be looked at."""
    if not isinstance(reply, bytes) or reply == b"none":
        return None
    name = reply.decode("ascii", "replace")
    if name in _PLAIN_KINDS:
        return name
    return "json" if name == "ReJSON-RL" else "other"


KINDS: Final = frozenset({*_PLAIN_KINDS, "json", "other"})


class Shape(msgspec.Struct, frozen=True):
    """How the keys of one pattern are shown."""

    kind: str
    fields: tuple[DiscoveredField, ...]
    hash_fields: dict[str, bytes] = {}
    """Column to field, for hashes that are shown as rows of their own."""

    @property
    def elements(self) -> tuple[str, ...]:
        """Columns of a row that is a part of a key; empty if a row is a key."""
        return () if self.hash_fields else _ELEMENTS.get(self.kind, ())


async def shape_of(kind: str, samples: Iterable[tuple[Session, bytes]]) -> Shape:
    """From the first few keys of a pattern. What may not be read is left out."""
    samples = list(samples)
    if kind == "hash" and (names := await _hash_fields(samples)) is not None:
        return await _shape_of_hashes(names, samples)
    if kind in _ELEMENTS:
        return Shape(kind, _framed(await _element_columns(kind, samples)))
    if kind == "string":
        heads = [await session.ask(("GETRANGE", key, 0, _SAMPLE_BYTES - 1)) for session, key in samples]
        return Shape(kind, _framed([("value", *_text_type(head for (head,) in heads), False)]))
    return Shape(kind, _framed([("value", "json", "json", False)] if kind == "json" else []))


Column = tuple[str, PortableType, str, bool]


def _framed(columns: Iterable[Column]) -> tuple[DiscoveredField, ...]:
    every: list[Column] = [("key", "string", "key", False), *columns, ("ttl_s", "integer", "ttl", True)]
    return tuple(DiscoveredField(*column, position) for position, column in enumerate(every, 1))


def _text_type(values: Iterable[object]) -> tuple[PortableType, str]:
    is_binary = any(isinstance(value, bytes) and not _is_text(value) for value in values)
    return ("binary", "bytes") if is_binary else ("string", "string")


def _is_text(value: bytes) -> bool:
    """What was cut off may end within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(value, final=len(value) < _SAMPLE_BYTES)
    except UnicodeDecodeError:
        return False
    return True


async def _hash_fields(samples: Sequence[tuple[Session, bytes]]) -> list[bytes] | None:
    """Names of fields in the order in which they first appear; None if they are too many for columns."""
    names: dict[bytes, None] = {}
    for session, key in samples:
        (length,) = await session.ask(("HLEN", key))
        if isinstance(length, int) and length > MAX_COLUMNS:
            return None
        (found,) = await session.ask(("HKEYS", key))
        if isinstance(found, TooLong):
            return None
        names |= dict.fromkeys(found if isinstance(found, list) else [])
    return list(names) if 0 < len(names) <= MAX_COLUMNS else None


async def _shape_of_hashes(names: Sequence[bytes], samples: Sequence[tuple[Session, bytes]]) -> Shape:
    values = [await _hash_values(session, key, names, _SAMPLE_BYTES) for session, key in samples]
    columns: dict[str, bytes] = {}
    for name in names:
        text = name.decode("utf-8", "backslashreplace")
        columns[f"{text} (field)" if text in {"key", "ttl_s", *columns} else text] = name
    described = [
        (column, *_text_type(row.get(name) for row in values), any(row.get(name) is None for row in values))
        for column, name in columns.items()
    ]
    return Shape("hash", _framed(described), columns)


async def _hash_values(session: Session, key: bytes, names: Sequence[bytes], max_bytes: int) -> dict[bytes, object]:
    """Values by field; `TooLong` for one of more than `max_bytes`, and for those that no longer fit into a row."""
    lengths = await session.ask(*(("HSTRLEN", key, name) for name in names))
    wanted: list[bytes] = []
    left = _MAX_ROW_BYTES
    values: dict[bytes, object] = {}
    for name, length in zip(names, lengths, strict=True):
        size = length if isinstance(length, int) else 0  # Unknown to servers before 3.2.
        if size > max_bytes or size > left:
            values[name] = TooLong()
        else:
            wanted.append(name)
            left -= size
    if wanted:
        (found,) = await session.ask(("HMGET", key, *wanted))
        values |= dict(zip(wanted, found if isinstance(found, list) else [TooLong()] * len(wanted), strict=True))
    return values


async def _element_columns(kind: str, samples: Sequence[tuple[Session, bytes]]) -> list[Column]:
    seen: list[tuple[object, ...]] = []
    for session, key in samples:
        try:
            async for element in _elements(session, key, kind):
                seen.append(element)
                if len(seen) % _CHUNK == 0:
                    break
        except TooLong:
            continue
    return [
        (name, *(_KNOWN.get(name) or _text_type(element[place] for element in seen)), False)
        for place, name in enumerate(_ELEMENTS[kind])
    ]


# Rows -----------------------------------------------------------------------------------------------------------------


async def rows_of(
    session: Session,
    keys: Sequence[bytes],
    shape: Shape,
    columns: Sequence[str],
    max_value_bytes: int,
    texts: ByteTexts,
) -> AsyncIterator[Row | None]:
    """Rows of these keys, of which no other columns are needed. None stands for something that was too long to be
    read, whole or in part. `texts` learns whether what stands in a column of texts was none."""
    binary = {field.name for field in shape.fields if field.type == "binary"}
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        lives = await session.ask(*(("TTL", key) for key in chunk))
        for key, life in zip(chunk, lives, strict=True):
            frame = {"key": texts.shown(key), "ttl_s": life if isinstance(life, int) and life >= 0 else None}
            async for row in _rows_of_key(session, key, shape, columns, max_value_bytes):
                yield row if row is None else {**frame, **_written(row, binary, texts)}


async def _rows_of_key(
    session: Session, key: bytes, shape: Shape, columns: Sequence[str], max_value_bytes: int
) -> AsyncIterator[Row | None]:
    if shape.elements:
        try:
            async for element in _elements(session, key, shape.kind):
                yield dict(zip(shape.elements, element, strict=True))
        except TooLong:
            yield None
        return
    row: Row = {}
    if shape.kind == "hash":
        names = [name for column, name in shape.hash_fields.items() if column in columns]
        values = await _hash_values(session, key, names, max_value_bytes) if names else {}
        row = {column: values[name] for column, name in shape.hash_fields.items() if name in values}
    elif shape.kind == "string":
        (value,) = await session.ask(("GETRANGE", key, 0, max_value_bytes))
        if not isinstance(value, bytes):
            return
        if len(value) > max_value_bytes:
            value = _whole(value[:max_value_bytes])
            yield None
        row = {"value": value}
    elif shape.kind == "json":
        row = {"value": await _json(session, key)}
    if any(isinstance(value, TooLong) for value in row.values()):
        yield None
        row = {name: None if isinstance(value, TooLong) else value for name, value in row.items()}
    yield row


async def _json(session: Session, key: bytes) -> object:
    usage, _ = await _weight(session, key, "json")
    if usage > MAX_REPLY_BYTES:
        return TooLong()
    (value,) = await session.ask(("JSON.GET", key))
    if not isinstance(value, bytes):
        return value if isinstance(value, TooLong) else None
    try:
        return read_json(value)
    except (msgspec.DecodeError, RecursionError):
        return text(value)


async def _elements(session: Session, key: bytes, kind: str) -> AsyncIterator[tuple[object, ...]]:
    """Parts of a key as `_ELEMENTS` names them, a few at a time. Raises `TooLong` before or while it reads what would
    be too much."""
    usage, length = await _weight(session, key, kind)
    mean = usage // max(1, length)
    if mean > MAX_REPLY_BYTES:
        raise TooLong
    count = max(1, min(_CHUNK, MAX_REPLY_BYTES // 2 // max(1, mean)))
    place: object = "-" if kind == "stream" else 0
    while True:
        (reply,) = await session.ask(_piece(key, kind, place, count))
        if isinstance(reply, TooLong):
            raise reply
        if not isinstance(reply, list):
            return
        elements, place = _read_piece(reply, kind, place)
        for element in elements:
            yield element
        if place is None or (not elements and kind not in {"set", "hash"}):
            return


async def _weight(session: Session, key: bytes, kind: str) -> tuple[int, int]:
    """About how many bytes a key takes, and its length; nothing of what the server does not tell."""
    asked: list[Command] = [("MEMORY", "USAGE", key)]
    if kind in _LENGTHS:
        asked.append((_LENGTHS[kind], key))
    usage, *length = [reply if isinstance(reply, int) else 0 for reply in await session.ask(*asked)]
    return usage, length[0] if length else 1


def _piece(key: bytes, kind: str, place: Any, count: int) -> Command:
    if kind == "list":
        return ("LRANGE", key, place, place + count - 1)
    if kind == "zset":
        return ("ZRANGE", key, place, place + count - 1, "WITHSCORES")
    if kind == "stream":
        return ("XRANGE", key, place, "+", "COUNT", count)
    return ("HSCAN" if kind == "hash" else "SSCAN", key, place, "COUNT", count)


def _read_piece(reply: list[Any], kind: str, place: Any) -> tuple[list[tuple[Any, ...]], Any]:
    """Elements, and the place to go on from; None at the end."""
    if kind == "list":
        return [(place + offset, value) for offset, value in enumerate(reply)], place + len(reply)
    if kind == "zset":
        pairs = list(zip(reply[::2], reply[1::2], strict=True))
        return [(member, float(score)) for member, score in pairs], place + len(pairs)
    if kind == "stream":
        entries = [(text(name), _entry(fields or [])) for name, fields in reply]
        return entries, _after(entries[-1][0]) if entries else None
    cursor, found = reply
    elements = [(it,) for it in found] if kind == "set" else list(zip(found[::2], found[1::2], strict=True))
    return elements, None if int(cursor) == 0 else int(cursor)


def _entry(fields: list[bytes]) -> list[tuple[bytes, bytes]]:
    """An entry of a stream may have a field twice."""
    return list(zip(fields[::2], fields[1::2], strict=True))


def _after(entry: str) -> str:
    """The first id that can follow: servers before 6.2 know no open intervals."""
    milliseconds, _, number = entry.partition("-")
    return f"{milliseconds}-{int(number) + 1}"


def _written(row: Row, binary: set[str], texts: ByteTexts) -> Row:
    return {name: _value(value, name in binary, texts) for name, value in row.items()}


def _value(value: object, is_binary: bool, texts: ByteTexts) -> object:
    """The fields of a stream's entry are texts in any case: their names are no columns."""
    if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value):
        return members_of((texts.shown(name), texts.shown(item)) for name, item in value)
    if isinstance(value, bytes) and not is_binary:
        return texts.shown(value)
    return json_safe(value)


def text(value: bytes) -> str:
    """As redis-cli writes it: bytes that are no UTF-8 as `\\xNN`."""
    return value.decode("utf-8", "backslashreplace")


def _whole(value: bytes) -> bytes:
    """Without the first half of a character at its end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(value)
    return value[: len(value) - len(decoder.getstate()[0])]
