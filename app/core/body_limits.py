"""What is looked at before a body is decoded: how many values it holds and how deeply they are nested.

Whatever a body holds, it holds the event loop for a time that is linear in its size and small: JSON is counted by
operations on bytes that run in C, MessagePack by its headers, and the walk ends with the first value too many.
"""

from itertools import accumulate

from app.core.errors import BadRequest, Fault
from app.core.faults import shown_name

MAX_VALUES = 50_000
"""Of one body: items, and values of fields, and what holds them; the names of fields do not count. Five hundred data
sources with fifty tags each have room."""
MAX_DEPTH = 64
MAX_DUPLICATES = 100
"""Repeated keys that one answer names."""

_WHITE_SPACE = b" \t\r\n"
_BRACKETS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def refuse_oversized(body: bytes, media_type: str) -> None:
    """Raises BadRequest for more values or levels than a body may have; of MessagePack also for keys that are not text
    or come twice, and ValueError where it is cut off.
    """
    if media_type == "json":
        _measure_json(body)
    else:
        _walk_msgpack(body)


def duplicates(names: list[str]) -> BadRequest:
    """The error for keys that a map has more than once, each named once."""
    faults = [Fault(name, "duplicate", "is given more than once") for name in sorted(names)]
    return BadRequest(code="duplicate_field", errors=faults)


def _too_many() -> BadRequest:
    return BadRequest(f"The body holds more than {MAX_VALUES:,} values.", code="too_many_values")


def _too_deep() -> BadRequest:
    return BadRequest(f"The body is nested more than {MAX_DEPTH} levels deep.", code="malformed_body")


# JSON -----------------------------------------------------------------------------------------------------------------


def _measure_json(body: bytes) -> None:
    opened = body.count(b"[") + body.count(b"{")
    if opened <= MAX_DEPTH and opened + body.count(b",") < MAX_VALUES:
        return  # a bound from above, since texts hold some of these too: most bodies need no closer look
    outside = _outside_texts(body)
    if 1 + outside.count(b",") + outside.count(b"[") + outside.count(b"{") > MAX_VALUES:
        raise _too_many()  # each value but the first of its list or object follows a comma
    brackets = outside.translate(_BRACKETS, _NO_BRACKETS)
    if max(accumulate(memoryview(brackets).cast("b")), default=0) > MAX_DEPTH:
        raise _too_deep()


def members_in(body: bytes) -> int:
    """How many names and values the objects of a JSON text have together, which is well formed; each as often as it is
    given."""
    return _outside_texts(body).count(b":")


def _outside_texts(body: bytes) -> bytes:
    """What stands outside of texts, without white space; of each text a quotation mark is left, and of each empty list
    or object, which is a value as any other, a number.

    Raises BadRequest where the texts alone are more than names and values may be.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if body.count(b'"') > 4 * MAX_VALUES:
        raise _too_many()
    outside = b'"'.join(body.split(b'"')[::2]).translate(None, _WHITE_SPACE)
    return outside.replace(b"[]", b"0").replace(b"{}", b"0")


# MessagePack ----------------------------------------------------------------------------------------------------------

_WHOLE = [1] * 256
"""By first byte (MessagePack specification, `Formats`): how long the whole value is; 0 where its header says more."""
for _first, _length in {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5}.items():
    _WHOLE[_first] = _length
for _first, _length in {0xD3: 9, 0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}.items():
    _WHOLE[_first] = _length
for _size in range(32):
    _WHOLE[0xA0 + _size] = 1 + _size
for _first in (*range(0x81, 0x90), *range(0x91, 0xA0), *range(0xC4, 0xCA), *range(0xD9, 0xE0)):
    _WHOLE[_first] = 0

_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)} | {
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
"""Of bytes, extensions and texts: how many bytes say the length, and how many more stand before the content."""
_TEXTS = frozenset((*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB))


def _walk_msgpack(body: bytes) -> None:
    """A key of a map has to be text before it is decoded: anybody can make lists whose hashes collide."""
    values = position = 0
    left, keys = 1, None  # what the innermost container still has to come: items, or pairs where it is a map
    outer: list[tuple[int, set[bytes] | None]] = []
    twice: set[bytes] = set()
    while True:
        while left == 0:
            if not outer:
                return _end_walk(body, position, twice)
            left, keys = outer.pop()
        left -= 1
        if keys is not None:
            start, position = _key(body, position)
            name = body[start:position]
            if name in keys and len(twice) < MAX_DUPLICATES:
                twice.add(name)
            keys.add(name)
        values += 1
        if values > MAX_VALUES:
            raise _too_many()
        first = body[position]
        if length := _WHOLE[first]:
            position += length
        elif first in _SIZED:
            position = sum(_sized(body, position, first))
        else:
            outer.append((left, keys))
            if len(outer) > MAX_DEPTH:
                raise _too_deep()
            position, left, is_map = _container(body, position, first)
            keys = set() if is_map else None


def _end_walk(body: bytes, position: int, twice: set[bytes]) -> None:
    if position != len(body):
        raise ValueError("the body is cut off, or goes on behind its end")
    if twice:
        raise duplicates([shown_name(name.decode(errors="replace")) for name in twice])


def _key(body: bytes, position: int) -> tuple[int, int]:
    """Where a key's text begins and ends."""
    first = body[position]
    if 0xA0 <= first <= 0xBF:
        return position + 1, position + 1 + (first & 0x1F)
    if first not in _TEXTS:
        raise BadRequest(errors=[Fault("", "wrong_type", "must have text as keys")])
    start, length = _sized(body, position, first)
    return start, start + length


def _sized(body: bytes, position: int, first: int) -> tuple[int, int]:
    """Where the content begins, and how long it is."""
    width, more = _SIZED[first]
    start = position + 1 + width
    return start + more, int.from_bytes(body[position + 1 : start])


def _container(body: bytes, position: int, first: int) -> tuple[int, int, bool]:
    """Where the first item of a list or map stands, how many there are, and whether it is a map."""
    if first < 0xA0:
        return position + 1, first & 0x0F, first < 0x90
    width = 2 if first in (0xDC, 0xDE) else 4
    start = position + 1 + width
    return start, int.from_bytes(body[position + 1 : start]), first >= 0xDE
