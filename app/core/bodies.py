"""Request bodies: strict JSON or MessagePack into Structs, and on failure every fault at once.

msgspec stops at the first fault and takes the last of duplicate keys, so a body that decodes is still searched for
duplicates and for characters that no text may hold, and a body that does not is held against the JSON Schema of its
type.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from app.core.error_codes import FaultCode
from app.core.errors import BadRequest, Fault, UnsupportedMediaType
from app.core.exchange import JSON, MSGPACK_NAMES

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError as SchemaFault

FORM = "application/x-www-form-urlencoded"
MERGE_PATCH = "application/merge-patch+json"
MAX_FAULTS = 100
MAX_SHOWN_KEY = 200
"""Characters of a key that an answer repeats."""
_LOCATED = re.compile(r"^(?P<message>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")
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


def decode(body: bytes, wanted: Any, media_type: str) -> Any:
    """The body as the wanted type. Raises BadRequest with all faulty fields."""
    try:
        return _decode_strictly(body, wanted, media_type)
    except (RecursionError, ValueError, TypeError) as error:  # a TypeError where a map is a key of a map
        raise BadRequest(_unreadable(error), code="malformed_body") from None


def _decode_strictly(body: bytes, wanted: Any, media_type: str) -> Any:
    try:
        value, plain = _decode_json(body, wanted) if media_type == "json" else _decode_msgpack(body, wanted)
    except msgspec.ValidationError as error:
        plain = _plain(body, media_type)  # what follows the first fault was not read yet: it may be malformed
        refuse_forbidden_characters(plain)
        _refuse_each_fault(plain, wanted, error)
    if broken := list(islice(_broken_rules(plain, type(value)), MAX_FAULTS)):
        raise BadRequest(errors=broken)
    return value


def convert(value: Any, wanted: Any, *, path: str = "") -> Any:
    """A decoded value as the wanted type, strictly.

    Raises BadRequest with all faulty fields, their paths below `path`.
    """
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        _refuse_each_fault(value, wanted, error, path)


@cache
def _json_decoder(wanted: Any) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(wanted)


@cache
def _msgpack_decoder(wanted: Any) -> "msgspec.msgpack.Decoder[Any]":
    return msgspec.msgpack.Decoder(wanted)


def _decode_json(body: bytes, wanted: Any) -> tuple[Any, Any]:
    """The value, and what it was made of."""
    value = _json_decoder(wanted).decode(body)
    plain = json.loads(body, object_pairs_hook=_without_duplicates)
    if _SUSPECT.search(body):
        refuse_forbidden_characters(plain)
    return value, plain


def _decode_msgpack(body: bytes, wanted: Any) -> tuple[Any, Any]:
    value = _msgpack_decoder(wanted).decode(body)
    plain = msgspec.msgpack.decode(body)
    refuse_forbidden_characters(plain)
    _refuse_msgpack_duplicates(body, plain)
    return value, plain


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({_shown(name) for name in names if names.count(name) > 1})
        faults = [Fault(name, "duplicate", "is given more than once") for name in twice[:MAX_FAULTS]]
        raise BadRequest(code="duplicate_field", errors=faults)
    return found


def _refuse_msgpack_duplicates(body: bytes, plain: Any) -> None:
    """A map with a repeated key decodes into fewer entries than were sent: encoding it again comes out shorter."""
    if _count_values(plain) != _count_msgpack_values(body):
        raise BadRequest(code="duplicate_field")


def _count_values(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(1 + _count_values(item) for item in value.values())
    if isinstance(value, list):
        return 1 + sum(map(_count_values, value))
    return 1


def _count_msgpack_values(body: bytes) -> int:
    """Every value and key of an encoded message, by its headers (msgpack specification, `Formats`)."""
    count = position = 0
    while position < len(body):
        position += _msgpack_step(body, position)
        count += 1
    return count


_FIXED = {
    0xC0: 1,
    0xC2: 1,
    0xC3: 1,
    0xCA: 5,
    0xCB: 9,
    0xCC: 2,
    0xCD: 3,
    0xCE: 5,
    0xCF: 9,
    0xD0: 2,
    0xD1: 3,
    0xD2: 5,
    0xD3: 9,
}
_FIXED |= {0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18, 0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5}
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSIONS = (0xC7, 0xC8, 0xC9)


def _msgpack_step(body: bytes, position: int) -> int:
    """Bytes from one value's header to the next value's: containers are only their headers."""
    first = body[position]
    if 0xA0 <= first <= 0xBF:
        return 1 + (first & 0x1F)
    if first in _SIZED:
        width = _SIZED[first]
        return 1 + width + int.from_bytes(body[position + 1 : position + 1 + width]) + (first in _EXTENSIONS)
    return _FIXED.get(first, 1)


def refuse_forbidden_characters(value: Any) -> None:
    """Raises BadRequest for what no JSON text can hold or PostgreSQL cannot store.

    NUL, half of a surrogate pair, a number that is not finite, a key that is not text (MessagePack has the last two).
    """
    if faults := list(islice(_unstorable(value, ""), MAX_FAULTS)):
        raise BadRequest(errors=faults)


def _unstorable(value: Any, path: str) -> Iterator[Fault]:
    if isinstance(value, str):
        if _FORBIDDEN.search(value):
            yield Fault(path, "forbidden_character", "holds a character that no text may hold")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield Fault(path, "not_finite", "must be a finite number")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _unstorable_key(key, path)
            yield from _unstorable(item, _joined(path, _shown(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unstorable(item, f"{path}[{index}]")


def _unstorable_key(key: Any, path: str) -> Iterator[Fault]:
    if not isinstance(key, str):
        yield Fault(path, "wrong_type", "must have text as keys")
    elif _FORBIDDEN.search(key):
        yield Fault(_joined(path, _shown(key)), "forbidden_character", "holds a character that no text may hold")


def _shown(key: Any) -> str:
    """A key as an answer can show it."""
    return _FORBIDDEN.sub("?", str(key))[:MAX_SHOWN_KEY]


def _plain(body: bytes, media_type: str) -> Any:
    """The body without its type. Raises ValueError where it is malformed."""
    if media_type == "json":
        return json.loads(
            body.decode(),
            object_pairs_hook=_without_duplicates,
            parse_int=_bounded_int,
            parse_constant=_refuse_constant,
        )
    plain = msgspec.msgpack.decode(body)
    _refuse_msgpack_duplicates(body, plain)
    return plain


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


def _refuse_each_fault(value: Any, wanted: Any, error: msgspec.ValidationError, below: str = "") -> NoReturn:
    _refuse_unknown_tag(value, wanted, below)
    variant = _variant(value, wanted)
    found = _flattened(_validator(variant).iter_errors(value))
    each = islice((fault for one in found for fault in _faults(one, below)), 10 * MAX_FAULTS)
    faults = list({(fault.path, fault.code): fault for fault in each}.values()) or [_first_fault(error, below)]
    faults += _broken_rules(value, variant, below, faults)
    raise BadRequest(errors=faults[:MAX_FAULTS]) from None


def _broken_rules(value: Any, wanted: Any, below: str = "", known: Sequence[Fault] = ()) -> Iterator[Fault]:
    """By the rules that an Input has for its fields; not of fields that are known to be at fault already."""
    rules = getattr(wanted, "rules", {}) if isinstance(value, dict) else {}
    for name, rule in rules.items():
        path = _joined(below, name)
        is_known = any(fault.path == path or fault.path.startswith((f"{path}.", f"{path}[")) for fault in known)
        if value.get(name) is not None and not is_known:
            yield from rule(value[name], path)


def _variant(value: Any, wanted: Any) -> Any:
    """Of a union of tagged Structs the one that the tag names: its faults say more than "fits none of them"."""
    members = getattr(wanted, "__args__", ())
    for member in members:
        config = getattr(member, "__struct_config__", None)
        if config is not None and isinstance(value, dict) and value.get(config.tag_field) == config.tag:
            return member
    return wanted


def _refuse_unknown_tag(value: Any, wanted: Any, below: str) -> None:
    """Where the tag names no member there is one thing at fault; the faults against every member would bury it."""
    configs = [getattr(member, "__struct_config__", None) for member in getattr(wanted, "__args__", ())]
    tags = {config.tag: config.tag_field for config in configs if config is not None and config.tag is not None}
    if not tags or not isinstance(value, dict):
        return
    field = next(iter(tags.values()))
    if field not in value:
        raise BadRequest(errors=[Fault(_joined(below, field), "required", "is required")])
    if not isinstance(value[field], str) or value[field] not in tags:
        raise BadRequest(
            errors=[Fault(_joined(below, field), "not_allowed", f"must be one of {', '.join(map(str, tags))}")]
        )


@cache
def _validator(wanted: Any) -> "Draft202012Validator":
    from jsonschema import Draft202012Validator  # loaded with the first faulty body: the start need not wait for it

    return Draft202012Validator(msgspec.json.schema(wanted))


def _flattened(faults: Iterator["SchemaFault"]) -> Iterator["SchemaFault"]:
    """Optional fields are `anyOf [T, null]`: what is wrong with T is the fault."""
    for fault in faults:
        inner = [
            cause
            for cause in fault.context or ()
            if cause.validator != "type" or cause.absolute_path != fault.absolute_path
        ]
        if fault.validator in ("anyOf", "oneOf") and inner:
            yield from inner
        else:
            yield fault


def _faults(fault: "SchemaFault", below: str) -> Iterator[Fault]:
    """Never with the value: it may be a secret."""
    path = below
    for step in fault.absolute_path:
        path = f"{path}[{step}]" if isinstance(step, int) else _joined(path, _shown(step))
    if fault.validator == "additionalProperties":
        for name in sorted(set(fault.instance) - set(fault.schema.get("properties", {}))):
            yield Fault(_joined(path, _shown(name)), "unknown_field", "is not known here")
    elif fault.validator == "required":
        missing = re.findall(r"'([^']*)'", fault.message)[0]
        yield Fault(_joined(path, missing), "required", "is required")
    else:
        yield Fault(path, *_wording(fault))


def _wording(fault: "SchemaFault") -> tuple[FaultCode, str]:
    limit = fault.validator_value
    match fault.validator:
        case "type" | "anyOf" | "oneOf":
            return "wrong_type", f"must be {_type_names(fault)}"
        case "enum" | "const":
            allowed = limit if isinstance(limit, list) else [limit]
            return "not_allowed", f"must be one of {', '.join(map(str, allowed))}"
        case "minLength" | "minItems":
            return "too_short", f"must have at least {limit}"
        case "maxLength" | "maxItems":
            return "too_long", f"must have at most {limit}"
        case "minimum" | "exclusiveMinimum":
            return "too_small", f"must be at least {limit}"
        case "maximum" | "exclusiveMaximum":
            return "too_large", f"must be at most {limit}"
        case "pattern":
            return "wrong_form", "does not have the form that is wanted here"
    return "invalid", "is not valid"


def _type_names(fault: "SchemaFault") -> str:
    if fault.validator == "type":
        wanted = fault.validator_value
        return " or ".join(wanted) if isinstance(wanted, list) else str(wanted)
    options = (option.get("type") or "object" for option in fault.validator_value)
    return " or ".join(dict.fromkeys(map(str, options)))


def _first_fault(error: msgspec.ValidationError, below: str) -> Fault:
    """What msgspec says, for rules that no JSON Schema carries (`__post_init__`, UUIDs, times)."""
    located = _LOCATED.match(str(error))
    assert located is not None
    path = (located["path"] or "").removeprefix("$").removeprefix(".")
    for name in getattr(error.__cause__, "path", ()):  # a rule between fields says itself which one is at fault
        path = _joined(path, str(name))
    return Fault(_joined(below, path) if path else below, "invalid", located["message"])


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
