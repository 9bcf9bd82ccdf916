"""Every fault of a body that its schema names, at a bounded price.

The schema is the one that msgspec writes for the type, which the OpenAPI document shows too. A general validator of
JSON Schema gathers whole trees of causes, and puts the value at fault into each message: for a body that was made for
it, that is without bound. Here lengths are looked at before what they are the lengths of, the search ends with the
last fault that will be told, and no message holds a value: it may be a secret.
"""

import re
from collections.abc import Callable, Mapping, Sized
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta

from app.core.error_codes import FaultCode
from app.core.errors import Fault

MAX_SHOWN_PATH = 1000
KNOWN_NAMES: set[str] = set()
"""Of fields that a map of free keys may hold: an answer may repeat them."""
_PLAIN = re.compile(r"[A-Za-z_']{1,14}")
"""A name that an answer may repeat though nothing has it: shorter than any password that the hub takes, and without a
digit."""
FORBIDDEN = re.compile("[\x00\ud800-\udfff]")

Schema = Mapping[str, Any]
Free = tuple[int, object]
"""A key that no schema names, with its place in the map, from 1."""
Path: TypeAlias = "tuple[Path, str | int | Free] | None"
"""The way to a value: what it stands in, and its key or index there. None is the whole."""
Check = Callable[[Any, Path, "Found"], None]

_KINDS: dict[type, tuple[str, ...]] = {
    type(None): ("null",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    str: ("string",),
    list: ("array",),
    dict: ("object",),
}
"""The types of JSON Schema that a decoded value is of."""
_FORMATS: dict[str, tuple[Any, str]] = {
    "uuid": (UUID, "must be a UUID such as 01934f6e-7c1a-7b55-9d3e-5f0c2a9b1e01"),
    "date-time": (
        Annotated[datetime, Meta(tz=True)],
        "must be an RFC 3339 time with its zone, such as 2030-01-31T18:00:00Z",
    ),
}
"""What a text of the format has to be readable as."""
_UNITS = {"Length": ("character", "characters"), "Items": ("item", "items"), "Properties": ("entry", "entries")}
"""What JSON Schema counts under `minLength`, `maxItems` and so on."""


class Full(Exception):
    """Enough faults were found."""


class Found:
    """The faults so far. The search ends by Full when there are as many as will be told."""

    def __init__(self, most: int, below: str = "") -> None:
        self._most, self._below = most, below
        self._by_place: dict[tuple[str, str], Fault] = {}

    def add(self, path: Path, code: FaultCode, message: str) -> None:
        place = joined(self._below, shown_path(path))
        self._by_place.setdefault((place, code), Fault(place, code, message))
        if len(self._by_place) >= self._most:
            raise Full

    def beside(self) -> "Found":
        return Found(self._most, self._below)

    def take(self, other: "Found") -> None:
        self._by_place = other._by_place | self._by_place
        if len(self._by_place) >= self._most:
            raise Full

    @property
    def faults(self) -> list[Fault]:
        return list(self._by_place.values())[: self._most]


def schema_faults(value: object, wanted: object, most: int, below: str = "") -> list[Fault]:
    """At most so many, their paths below this one, in the order in which they stand in the value."""
    found = Found(most, below)
    with suppress(Full):
        _check_of(wanted)(value, None, found)
    return found.faults


def joined(path: str, below: str) -> str:
    return f"{path}.{below}" if path and below and below[0] != "[" else path + below


def shown_name(name: object, place: int | str = "") -> str:
    """A key that the caller made up, as an answer may show it: a secret is put into the wrong place at times. In its
    stead stands a question mark, and which one of its map it is.
    """
    is_plain = isinstance(name, str) and (name in KNOWN_NAMES or _PLAIN.fullmatch(name) is not None)
    return str(name) if is_plain else f"?{place}"


def shown_path(path: Path) -> str:
    steps = []
    while path is not None:
        path, step = path
        steps.append(_shown_step(step))
    return "".join(reversed(steps)).removeprefix(".")[:MAX_SHOWN_PATH]


def _shown_step(step: str | int | Free) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if isinstance(step, str) else f".{shown_name(step[1], step[0])}"


@cache
def _check_of(wanted: object) -> Check:
    schema = msgspec.json.schema(wanted)
    return _Compiler(schema.get("$defs", {})).check(schema)


class _Compiler:
    """Makes one function of each part of a schema; those of named parts once, since they may refer to themselves."""

    def __init__(self, named: Mapping[str, Schema]) -> None:
        self._named = named
        self._names = {name for schema in named.values() for name in schema.get("properties", ())}
        self._made: dict[str, Check] = {}

    def check(self, schema: Schema) -> Check:
        if "$ref" in schema:
            return self._reference(schema["$ref"].removeprefix("#/$defs/"))
        if "discriminator" in schema:
            return self._tagged(schema["discriminator"])
        if "anyOf" in schema:
            return self._any_of(schema["anyOf"])
        return self._plain(schema)

    def _reference(self, name: str) -> Check:
        if name not in self._made:
            self._made[name] = lambda value, path, found: self._made[name](value, path, found)
            self._made[name] = self.check(self._named[name])
        return self._made[name]

    def _tagged(self, discriminator: Schema) -> Check:
        """Of Structs told apart by a tag the one that it names: its faults say more than "fits none of them"."""
        field: str = discriminator["propertyName"]
        variants = {tag: self.check({"$ref": ref}) for tag, ref in discriminator["mapping"].items()}
        names = ", ".join(variants)

        def check(value: object, path: Path, found: Found) -> None:
            if not isinstance(value, dict):
                found.add(path, "wrong_type", "must be object")
            elif field not in value:
                found.add((path, field), "required", "is required")
            elif not isinstance(value[field], str) or value[field] not in variants:
                found.add((path, field), "not_allowed", f"must be one of {names}")
            else:
                variants[value[field]](value, path, found)

        return check

    def _any_of(self, options: list[Schema]) -> Check:
        """The faults against the one option that is of the value's type; of several, against the one that fits best."""
        checks = [(self._types(option), self.check(option)) for option in options]
        wanted = " or ".join(dict.fromkeys(str(option.get("type") or "object") for option in options))

        def check(value: object, path: Path, found: Found) -> None:
            kinds = _kinds(value)
            fitting = [each for types, each in checks if types is None or not types.isdisjoint(kinds)]
            if not fitting:
                found.add(path, "wrong_type", f"must be {wanted}")
            elif len(fitting) == 1:
                fitting[0](value, path, found)
            else:
                _add_best(fitting, value, path, found)

        return check

    def _types(self, schema: Schema) -> frozenset[str] | None:
        """The types that a part of a schema lets through; None for any."""
        while "$ref" in schema:
            schema = self._named[schema["$ref"].removeprefix("#/$defs/")]
        if "type" in schema:
            return frozenset([schema["type"]] if isinstance(schema["type"], str) else schema["type"])
        if "enum" in schema:
            return frozenset(kind for each in schema["enum"] for kind in _kinds(each))
        return None

    def _plain(self, schema: Schema) -> Check:
        types = self._types(schema)
        wanted = " or ".join([schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", ()))
        further: dict[type, Check] = {
            str: _text_check(schema),
            int: _number_check(schema),
            float: _number_check(schema),
            list: self._list_check(schema),
            dict: self._map_check(schema),
        }
        allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)

        def check(value: object, path: Path, found: Found) -> None:
            if allowed is not None:
                if not any(value == each and type(value) is type(each) for each in allowed):
                    found.add(path, "not_allowed", f"must be one of {', '.join(map(str, allowed))}")
            elif types is not None and types.isdisjoint(_kinds(value)):
                found.add(path, "wrong_type", f"must be {wanted}")
            elif (more := further.get(type(value))) is not None:
                more(value, path, found)

        return check

    def _list_check(self, schema: Schema) -> Check:
        length = _length_check(schema, "Items")
        first = [self.check(each) for each in schema.get("prefixItems", ())]
        items = self.check(schema["items"]) if schema.get("items") else None

        def check(value: list[object], path: Path, found: Found) -> None:
            if not length(value, path, found):
                return
            for index, each in enumerate(first[: len(value)]):
                each(value[index], (path, index), found)
            if items is not None:
                for index in range(len(first), len(value)):
                    items(value[index], (path, index), found)

        return check

    def _map_check(self, schema: Schema) -> Check:
        length = _length_check(schema, "Properties")
        known = {name: self.check(each) for name, each in schema.get("properties", {}).items()}
        required: list[str] = schema.get("required", [])
        others = schema.get("additionalProperties", True)
        other = self.check(others) if isinstance(others, Mapping) and others else None
        names = self.check(schema["propertyNames"]) if schema.get("propertyNames") else None

        def check(value: dict[str, object], path: Path, found: Found) -> None:
            if not length(value, path, found):
                return
            for name in required:
                if name not in value:
                    found.add((path, name), "required", "is required")
            for place, (name, item) in enumerate(value.items(), 1):
                step: str | Free = name if name in self._names else (place, name)
                if names is not None:
                    names(name, (path, step), found)
                if (each := known.get(name, other)) is not None:
                    each(item, (path, step), found)
                elif others is False:
                    found.add((path, step), "unknown_field", "is not known here")

        return check


def _kinds(value: object) -> tuple[str, ...]:
    """None of them for what only MessagePack has: bytes, extensions, times."""
    kinds = _KINDS.get(type(value), ())
    return ("integer", "number") if type(value) is float and value.is_integer() else kinds


def _add_best(checks: list[Check], value: object, path: Path, found: Found) -> None:
    against = [found.beside() for _ in checks]
    for check, each in zip(checks, against, strict=True):
        with suppress(Full):
            check(value, path, each)
        if not each.faults:
            return
    found.take(min(against, key=lambda each: len(each.faults)))


def _text_check(schema: Schema) -> Check:
    length = _length_check(schema, "Length")
    pattern = re.compile(schema["pattern"]) if "pattern" in schema else None
    complaint = schema.get("patternErrorMessage", "does not have the form that is wanted here")
    wanted, shape = _FORMATS.get(schema.get("format", ""), (str, ""))

    def check(value: str, path: Path, found: Found) -> None:
        if not length(value, path, found):
            return
        if pattern is not None and not pattern.search(value):
            found.add(path, "wrong_form", complaint)
        elif not _is_readable(value, wanted):
            found.add(path, "invalid", shape)

    return check


def _is_readable(value: str, wanted: object) -> bool:
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError:
        return False
    return True


def _number_check(schema: Schema) -> Check:
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")

    def check(value: float, path: Path, found: Found) -> None:
        if (least is not None and value < least) or (above is not None and value <= above):
            found.add(path, "too_small", f"must be at least {above if least is None else least}")
        elif (most is not None and value > most) or (below is not None and value >= below):
            found.add(path, "too_large", f"must be at most {below if most is None else most}")

    return check


def _length_check(schema: Schema, of: str) -> Callable[[Sized, Path, Found], bool]:
    """Whether the length is one that is taken; what has another one is looked at no further."""
    least, most = schema.get(f"min{of}", 0), schema.get(f"max{of}")

    def check(value: Sized, path: Path, found: Found) -> bool:
        if len(value) < least:
            found.add(path, "too_short", f"must have at least {_counted(least, of)}")
        elif most is not None and len(value) > most:
            found.add(path, "too_long", f"must have at most {_counted(most, of)}")
        else:
            return True
        return False

    return check


def _counted(count: int, of: str) -> str:
    one, several = _UNITS[of]
    return f"{count:,} {one if count == 1 else several}"
