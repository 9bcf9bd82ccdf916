"""The search for faults says of every input type what a general validator of JSON Schema says of its schema."""

import random
from datetime import datetime
from itertools import compress
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from msgspec import Meta, Struct

from app.core.faults import schema_faults
from app.core.schemas import Input
from app.domain.source_work.schemas import Connection
from app.domain.sources.schemas import DataSourceBulk, DataSourceCreate

pytestmark = pytest.mark.found("A2")

SEEDS = range(20)
UUID_WANTED = "must be a UUID such as 01934f6e-7c1a-7b55-9d3e-5f0c2a9b1e01"
MOMENT_WANTED = "must be an RFC 3339 time with its zone, such as 2030-01-31T18:00:00Z"
FORMATS = FormatChecker(())
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    2.0,
    10**9,
    "",
    "a",
    "x" * 5000,
    [],
    ["a", 1],
    {},
    {"a": 1},
    [None],
    {"ref": "env:A"},
]


def _is_uuid(value: object) -> bool:
    return not isinstance(value, str) or bool(UUID(value))


def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


FORMATS.checks("uuid", ValueError)(_is_uuid)
FORMATS.checks("date-time", ValueError)(_is_moment)


def _inputs(base: type[Struct]) -> list[Any]:
    return [each for one in base.__subclasses__() for each in (one, *_inputs(one))]


KNOWN = [*dict.fromkeys(_inputs(Input)), DataSourceCreate, Connection, DataSourceBulk]


def _named(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return schema


def _sample(schema: dict[str, Any], whole: dict[str, Any], chance: random.Random) -> Any:
    """A value that may fit, with something wrong in it here and there."""
    schema = _named(schema, whole)
    if chance.random() < 0.08:
        return chance.choice(ODD)
    if "anyOf" in schema:
        return _sample(chance.choice(schema["anyOf"]), whole, chance)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    match schema.get("type"):
        case "object":
            return _map_sample(schema, whole, chance)
        case "array":
            length = schema.get("minItems", 0) + chance.choice((0, 0, 1, 3))
            items = [_sample(schema.get("items", {}), whole, chance) for _ in range(length)]
            # Which of them comes twice is told by a rule (`each_once`), where their places are known.
            is_new = [item not in items[:place] for place, item in enumerate(items)]
            return list(compress(items, is_new)) if schema.get("uniqueItems") else items
        case "string":
            return chance.choice(schema.get("examples", ["abc"]))
        case "integer" | "number":
            return schema.get("minimum", 1) + chance.choice((0, 1, -1))
        case "boolean":
            return chance.random() < 0.5
    return None


def _map_sample(schema: dict[str, Any], whole: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    fields = schema.get("properties", {})
    required = set(schema.get("required", ()))
    kept = [name for name in fields if chance.random() < (0.97 if name in required else 0.3)]
    made = {name: _sample(fields[name], whole, chance) for name in kept}
    return made | ({"colour": 1} if chance.random() < 0.05 else {})


@pytest.mark.parametrize("wanted", KNOWN, ids=lambda each: getattr(each, "__name__", str(each))[:60])
def test_it_agrees_with_a_general_validator(wanted: Any) -> None:
    whole = msgspec.json.schema(wanted)
    general = Draft202012Validator(whole, format_checker=FORMATS)
    for seed in SEEDS:
        value = _sample(whole, whole, random.Random(seed))
        assert bool(schema_faults(value, wanted, 100)) != general.is_valid(value), (seed, value)


def test_what_is_looked_for_ends_with_the_last_that_is_told() -> None:
    class Names(Struct, forbid_unknown_fields=True):
        items: list[int]

    value = {"items": ["x"] * 1000}
    assert [fault.path for fault in schema_faults(value, Names, 3)] == ["items[0]", "items[1]", "items[2]"]
    assert [fault.path for fault in schema_faults(value, Names, 1, "data[3]")] == ["data[3].items[0]"]


@pytest.mark.parametrize(
    ("wanted", "value", "message"),
    [
        (Annotated[str, Meta(min_length=1)], "", "must have at least 1 character"),
        (Annotated[str, Meta(min_length=3)], "ab", "must have at least 3 characters"),
        (Annotated[str, Meta(max_length=1000)], "é" * 1001, "must have at most 1,000 characters"),
        (Annotated[list[int], Meta(min_length=1)], [], "must have at least 1 item"),
        (Annotated[list[int], Meta(max_length=2)], [1, 2, 3], "must have at most 2 items"),
        (Annotated[dict[str, int], Meta(min_length=1)], {}, "must have at least 1 entry"),
        (Annotated[dict[str, int], Meta(max_length=0)], {"a": 1}, "must have at most 0 entries"),
    ],
)
def test_a_length_is_told_with_what_is_counted(wanted: Any, value: Any, message: str) -> None:
    (fault,) = schema_faults(value, wanted, 3)
    assert fault.message == message


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        ({"id": "ada", "until": "2030-01-31"}, [UUID_WANTED, MOMENT_WANTED]),
        ({"id": 5, "until": "2030-01-31T18:00:00"}, ["must be string", MOMENT_WANTED]),
        ({"id": "01934f6e-7c1a-7b55-9d3e-5f0c2a9b1e01", "until": "2030-01-31T18:00:00+01:00"}, []),
    ],
)
def test_ids_and_moments_are_told_as_they_have_to_be(value: Any, messages: list[str]) -> None:
    class Loan(Struct):
        id: UUID
        until: Annotated[datetime, Meta(tz=True)] | None

    assert [fault.message for fault in schema_faults(value, Loan, 3)] == messages
