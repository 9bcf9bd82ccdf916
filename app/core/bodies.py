"""Request bodies: strict JSON or MessagePack into Structs, and on failure every fault at once.

Values are counted before they are decoded (`body_limits`). msgspec stops at the first fault and takes the last of
duplicate keys, so a body that decodes is still searched for duplicates and for characters that no text may hold, and a
body that does not is held against the JSON Schema of its type (`faults`).
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import msgspec

from app.core.body_limits import MAX_DUPLICATES, duplicates, members_in, refuse_oversized
from app.core.errors import BadRequest, Fault, UnsupportedMediaType
from app.core.exchange import JSON, MSGPACK_NAMES
from app.core.faults import FORBIDDEN, joined, schema_faults, shown_name
from app.core.slices import give_way

FORM = "application/x-www-form-urlencoded"
MERGE_PATCH = "application/merge-patch+json"
MAX_FAULTS = 100
MAX_FORM_FIELDS = 20
LONG_BYTES = 50_000
_LOCATED = re.compile(r"^(?P<message>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_SUSPECT = re.compile(rb"\\u(0000|[dD][89a-fA-F])")


def media_type_of(content_type: str | None, method: str = "POST") -> str:
    """`json` or `msgpack`; in a PATCH a merge patch is JSON by another name (RFC 7396 section 4).

    Raises UnsupportedMediaType for anything else, a missing header included.
    """
    name, _, parameters = (content_type or "").partition(";")
    name = name.strip().lower()
    if name in MSGPACK_NAMES:
        return "msgpack"
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if (name == JSON or (name == MERGE_PATCH and method == "PATCH")) and charset in ("", "utf-8", "utf8"):
        return "json"
    raise UnsupportedMediaType


def require_form(content_type: str | None) -> None:
    """Raises UnsupportedMediaType for anything but an HTML form."""
    if (content_type or "").partition(";")[0].strip().lower() != FORM:
        raise UnsupportedMediaType(f"Send the body as {FORM}.")


def form_fields(body: bytes) -> dict[str, Any]:
    """The texts of an HTML form by name; for one that comes twice a list. Raises BadRequest for too many.

    Litestar's own parser has no limit, and remembers the last thousand bodies.
    """
    try:
        pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        raise BadRequest(f"The form has more than {MAX_FORM_FIELDS} fields.", code="too_many_values") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return {name: values if len(values) > 1 else values[0] for name, values in fields.items()}


async def decode_in_turns(body: bytes, wanted: object, media_type: str) -> Any:
    """As `decode`. To count a long body takes a millisecond or two, and so does to read it, and to read it again: after
    each it is the others' turn."""
    with _malformed_is_refused():
        refuse_oversized(body, media_type)
        await _give_way_within(body)
        value = _typed(body, wanted, media_type)
        await _give_way_within(body)
        _refuse_broken_rules(_storable(body, media_type), type(value), MAX_FAULTS)
        await _give_way_within(body)
        return value


async def _give_way_within(body: bytes) -> None:
    if len(body) > LONG_BYTES:
        await give_way()


def decode(body: bytes, wanted: object, media_type: str) -> Any:
    """The body as the wanted type. Raises BadRequest with all faulty fields."""
    with _malformed_is_refused():
        refuse_oversized(body, media_type)
        value = _typed(body, wanted, media_type)
        _refuse_broken_rules(_storable(body, media_type), type(value), MAX_FAULTS)
        return value


@contextmanager
def _malformed_is_refused() -> Iterator[None]:
    try:
        yield
    except (RecursionError, ValueError, TypeError, IndexError) as error:
        raise BadRequest(_unreadable(error), code="malformed_body") from None


def _typed(body: bytes, wanted: object, media_type: str) -> Any:
    try:
        return _decoder(wanted, media_type).decode(body)
    except msgspec.ValidationError as error:  # what follows the first fault was not read yet: it may be malformed
        _refuse_each_fault(_plain(body, media_type), wanted, error, MAX_FAULTS)


def convert(value: object, wanted: object, *, path: str = "") -> Any:
    """A decoded value as the wanted type, strictly.

    Raises BadRequest with all faulty fields, their paths below `path`.
    """
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        _refuse_each_fault(value, wanted, error, MAX_FAULTS, path)


def decode_part(raw: bytes, wanted: object, media_type: str, *, path: str, most: int) -> Any:
    """A part of a body whose whole was decoded already, so that it is neither malformed nor too much.

    Raises BadRequest with at most so many faulty fields, their paths below `path`.
    """
    try:
        value = _decoder(wanted, media_type).decode(raw)
        plain = _decoder(Any, media_type).decode(raw)
    except msgspec.ValidationError as error:
        _refuse_each_fault(_plain(raw, media_type), wanted, error, most, path)
    _refuse_broken_rules(plain, type(value), most, path)
    return value


def _refuse_broken_rules(value: object, wanted: object, most: int, below: str = "") -> None:
    if broken := list(islice(_broken_rules(value, wanted, below), most)):
        raise BadRequest(errors=broken)


@cache
def _decoder(wanted: object, media_type: str) -> "msgspec.json.Decoder[Any] | msgspec.msgpack.Decoder[Any]":
    return (msgspec.json.Decoder if media_type == "json" else msgspec.msgpack.Decoder)(wanted)


def _storable(body: bytes, media_type: str) -> object:
    """The body without its type, which it has. Raises BadRequest for keys that come twice, and for characters that
    cannot be stored; ValueError for what only a reading of the whole shows to be malformed."""
    plain = _plain_json(body) if media_type == "json" else _decoder(Any, media_type).decode(body)
    if _SUSPECT.search(body) if media_type == "json" else not _is_storable(plain):
        refuse_forbidden_characters(plain)
    return plain


def _plain_json(body: bytes) -> object:
    """msgspec reads in a sixth of the time of the standard library, whose hook for each object is Python; but it takes
    the last of several values of a key. Then there are fewer of them than in the body, and both show what is wrong."""
    try:
        plain: object = _decoder(Any, "json").decode(body)
        if _members_of(plain) == members_in(body):
            return plain
    except ValueError:
        pass
    return _PLAIN.decode(body.decode())


def _members_of(value: object) -> int:
    """How many names and values the objects in it have together."""
    count, containers = 0, [value] if isinstance(value, _CONTAINERS) else []
    while containers:
        container = containers.pop()
        if isinstance(container, dict):
            count += len(container)
            containers += [item for item in container.values() if isinstance(item, _CONTAINERS)]
        else:
            containers += [item for item in container if isinstance(item, _CONTAINERS)]
    return count


_CONTAINERS = (dict, list)


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                twice.add(name)
                if len(twice) == MAX_DUPLICATES:
                    break
            seen.add(name)
        raise duplicates([shown_name(name) for name in twice])
    return found


_PLAIN = json.JSONDecoder(object_pairs_hook=_without_duplicates)
"""`json.loads` makes one each time."""


def _is_storable(value: object) -> bool:
    """Whether all is well with decoded MessagePack, seen without building a path to every value of it. Its texts are
    UTF-8, so that NUL is all that they can hold of what is forbidden."""
    containers = [value] if isinstance(value, dict | list) else []
    leaves: list[object] = [] if containers else [value]
    while containers:
        container = containers.pop()
        if isinstance(container, dict):
            leaves += container
        for item in container.values() if isinstance(container, dict) else container:
            (containers if isinstance(item, dict | list) else leaves).append(item)
    return not any(
        ("\x00" in leaf) if type(leaf) is str else (type(leaf) is float and not math.isfinite(leaf)) for leaf in leaves
    )


def refuse_forbidden_characters(value: object) -> None:
    """Raises BadRequest for what no JSON text can hold or PostgreSQL cannot store.

    NUL, half of a surrogate pair, a number that is not finite, a key that is not text (MessagePack has the last two).
    """
    if faults := list(islice(_unstorable(value, ""), MAX_FAULTS)):
        raise BadRequest(errors=faults)


def _unstorable(value: object, path: str) -> Iterator[Fault]:
    if isinstance(value, str):
        if FORBIDDEN.search(value):
            yield Fault(path, "forbidden_character", "holds a character that no text may hold")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield Fault(path, "not_finite", "must be a finite number")
    elif isinstance(value, dict):
        for place, (key, item) in enumerate(value.items(), 1):
            below = joined(path, shown_name(key, place))
            yield from _unstorable_key(key, path, below)
            yield from _unstorable(item, below)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unstorable(item, f"{path}[{index}]")


def _unstorable_key(key: object, path: str, below: str) -> Iterator[Fault]:
    if not isinstance(key, str):
        yield Fault(path, "wrong_type", "must have text as keys")
    elif FORBIDDEN.search(key):
        yield Fault(below, "forbidden_character", "holds a character that no text may hold")


def _plain(body: bytes, media_type: str) -> Any:
    """The body without its type. Raises ValueError where it is malformed."""
    if media_type == "json":
        return json.loads(
            body.decode(),
            object_pairs_hook=_without_duplicates,
            parse_int=_bounded_int,
            parse_constant=_refuse_constant,
        )
    return msgspec.msgpack.decode(body)


def _bounded_int(digits: str) -> int | float:
    return int(digits) if len(digits) < 40 else float("inf")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _unreadable(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "The body is not UTF-8."
    if isinstance(error, RecursionError):
        return "The body is nested too deeply."
    return "The body could not be read: it is malformed or cut off."


def _refuse_each_fault(
    value: object, wanted: object, error: msgspec.ValidationError, most: int, below: str = ""
) -> NoReturn:
    faults = schema_faults(value, wanted, most, below) or [_first_fault(error, below)]
    if len(faults) < most:  # or else what was not looked at any more may not be what the rules expect
        faults += islice(_broken_rules(value, _variant(value, wanted), below, faults), most - len(faults))
    raise BadRequest(errors=faults) from None


def _broken_rules(value: object, wanted: object, below: str = "", known: Sequence[Fault] = ()) -> Iterator[Fault]:
    """By the rules that an Input has for its fields; not of fields that are known to be at fault already."""
    if not isinstance(value, dict):
        return
    for name, rule in getattr(wanted, "rules", {}).items():
        path = joined(below, name)
        is_known = any(fault.path == path or fault.path.startswith((f"{path}.", f"{path}[")) for fault in known)
        if value.get(name) is not None and not is_known:
            yield from rule(value[name], path)


def _variant(value: Any, wanted: object) -> Any:
    """Of a union of tagged Structs the one that the tag names: its faults say more than "fits none of them"."""
    members = getattr(wanted, "__args__", ())
    for member in members:
        config = getattr(member, "__struct_config__", None)
        if config is not None and isinstance(value, dict) and value.get(config.tag_field) == config.tag:
            return member
    return wanted


def _first_fault(error: msgspec.ValidationError, below: str) -> Fault:
    """What msgspec says, for rules that no JSON Schema carries (`__post_init__`, UUIDs, times)."""
    located = _LOCATED.match(str(error))
    assert located is not None
    path = (located["path"] or "").removeprefix("$").removeprefix(".")
    for name in getattr(error.__cause__, "path", ()):  # a rule between fields says itself which one is at fault
        path = joined(path, str(name))
    return Fault(joined(below, path), "invalid", located["message"])
