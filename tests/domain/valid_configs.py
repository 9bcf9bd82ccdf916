"""Configs and secrets of any type that its own rules let pass, found by trying: a new type needs no line here.

Values come from the JSON Schema of a field, and from a list of what fields commonly hold. Where a rule between fields
refuses a value, the field that it names is given its next one, until the rules are content.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from app.connectors import registry
from app.connectors.contract.config import config_schema, secrets_schema
from app.connectors.contract.identity import destination
from app.connectors.registry import AnyConnector
from app.core.errors import BadRequest
from app.domain.sources.secrets.given import check_together
from tests.connectors.servers.certificates import Authority

ABSENT = object()
MAX_CANDIDATES = 12
Values = dict[str, Any]


@cache
def texts() -> tuple[str, ...]:
    """What text fields commonly hold; the first ones are no address of anything."""
    (one, key), (other, other_key) = (
        tuple(part.decode() for part in Authority("Tests").certificate_for(host)) for host in ("a.invalid", "b.invalid")
    )
    account = {
        "type": "service_account",
        "private_key": key,
        "client_email": "reader@shop.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.invalid/token",
    }
    return (
        *("shop-data", "other-data", "shop", "other", "a.invalid", "b.invalid", "s3://shop/data", "s3://other/data"),
        *("https://a.invalid/x", "https://b.invalid/y", "http://a.invalid", "http://b.invalid"),
        *("a.invalid:9092", "b.invalid:9092", "a/b.csv", "c/d.csv", "/shop", one, other, key, other_key),
        *(json.dumps(account), "c2hvcA==" * 8, "bW9yZQ==" * 8, "SHA256:" + "A" * 43, "SHA256:" + "B" * 43),
        *("0b8f6c1e-6f0c-4d56-9d0f-3f4b3c0a7b11", "5d3f2a90-2f0e-4a58-8f43-9d1f0c6b7e22"),
    )


def candidates(schema: Values, root: Values) -> list[Any]:
    """Values that the schema of one field lets pass, different ones first."""
    fits = Draft202012Validator({**schema, "$defs": root.get("$defs", {})})
    found: list[Any] = []
    for value in _offered(schema, root):
        if value is not None and value not in found and fits.is_valid(value):
            found.append(value)
    return found


def _offered(schema: Values, root: Values) -> Iterator[Any]:
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    yield from schema.get("examples", ())
    yield from schema.get("enum", ())
    if "const" in schema:
        yield schema["const"]
    for variant in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _offered(variant, root)
    match schema.get("type"):
        case "string":
            yield from texts()
        case "integer" | "number":
            low = schema.get("minimum", 1)
            yield from (low + 7, low + 8, low)
        case "boolean":
            yield from (True, False)
        case "array":
            inner = candidates(schema.get("items", {}), root)[:4] if "items" in schema else []
            yield from ([value] for value in inner)
            yield from ([one, other] for one, other in itertools.pairwise(inner))
        case "object":
            yield from _objects(schema, root)


def _objects(schema: Values, root: Values) -> Iterator[Values]:
    needed = {name: candidates(schema["properties"][name], root) for name in schema.get("required", ())}
    for place in range(2):
        yield {name: found[min(place, len(found) - 1)] for name, found in needed.items() if found}


@dataclass
class Attempt:
    """A config and secrets, and which candidate each field has come to."""

    connector: AnyConnector
    config: Values = field(default_factory=dict)
    secrets: Values = field(default_factory=dict)
    pinned: frozenset[str] = frozenset()
    tried: dict[str, int] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """Paths of the fields at fault, none where the rules are content."""
        try:
            config = msgspec.convert(self.config, self.connector.config_type)
        except msgspec.ValidationError as error:
            path = ".".join(getattr(error.__cause__, "path", ())) or _missing(str(error))
            return [f"config.{path}"]
        try:
            check_together(self.connector, config, self.secrets)
        except BadRequest as error:
            return [fault.path for fault in error.errors]
        return []

    def mend(self, path: str) -> bool:
        """Give the field at fault its next value. False where it is pinned or has no other."""
        group, _, rest = path.partition(".")
        name = rest.partition(".")[0]
        values, options = (self.config, config_options) if group == "config" else (self.secrets, secret_options)
        found = options(self.connector).get(name)
        if not found or (group == "config" and name in self.pinned):
            return False
        place = self.tried.get(path, -1) + 1
        if place > len(found):
            return False
        self.tried[path] = place
        values.pop(name, None)
        if place < len(found):
            values[name] = found[place]
        return True

    def settle(self) -> bool:
        for _ in range(80):
            faults = self.faults()
            if not faults:
                return True
            if not self.mend(faults[0]):
                return False
        return False


def _missing(message: str) -> str:
    """msgspec names a missing or wrong field in its sentence."""
    return message.rpartition("`$.")[2].rstrip("`") if "`$." in message else message.split("`")[1]


@cache
def config_options(connector: AnyConnector) -> dict[str, list[Any]]:
    return _options(config_schema(connector.config_type))


@cache
def secret_options(connector: AnyConnector) -> dict[str, list[Any]]:
    return _options(secrets_schema(connector.secrets_type))


def _options(schema: Values) -> dict[str, list[Any]]:
    properties = schema.get("properties", {})
    return {
        name: sorted(candidates(what, schema), key=lambda value: not _is_likely(name, value))[:MAX_CANDIDATES]
        for name, what in properties.items()
    }


LIKELY = {"url": "://", "endpoint": "://", "uri": "://", "certificate": "CERTIFICATE", "key": "KEY", "account": "{"}


def _is_likely(name: str, value: Any) -> bool:
    """Whether a text is of the kind that the field's name promises."""
    marks = [mark for word, mark in LIKELY.items() if word in name.split("_")]
    return not isinstance(value, str) or (any(mark in value for mark in marks) if marks else True)


def settled(connector: AnyConnector, given: Values) -> Attempt | None:
    """With these fields as given, and the fewest others."""
    needed = config_schema(connector.config_type).get("required", ())
    options = config_options(connector)
    secrets = {name: found[0] for name, found in secret_options(connector).items() if found}
    for companions in _companions(connector, given):
        config = {name: options[name][0] for name in needed if options[name]} | companions | given
        attempt = Attempt(connector, config, dict(secrets), frozenset(given) | frozenset(companions))
        if attempt.settle():
            return attempt
    return None


def _companions(connector: AnyConnector, given: Values) -> Iterator[Values]:
    """None; then each other field with each of its values, for those that go only with another one; then pairs."""
    others = {name: found for name, found in config_options(connector).items() if name not in given}
    yield {}
    single = [{name: value} for name, found in others.items() for value in found]
    yield from single
    choices = [each for each in single if isinstance(next(iter(each.values())), bool | str)]
    for one, other in itertools.combinations(choices, 2):
        if not one.keys() & other.keys():
            yield one | other


@dataclass
class Move:
    """One field of a valid config, and another value that is as valid and leads the secrets elsewhere."""

    config: Values
    secrets: Values
    to: Any
    """None to go without."""


def move_of(type_name: str, name: str) -> Move | None:
    """A change of one destination field of a source that has secrets."""
    connector = registry.get(type_name)
    for value in config_options(connector)[name]:
        if (base := settled(connector, {name: value})) is None or not base.secrets:
            continue
        before = _as_stored(connector, base.config)
        for other in (*config_options(connector)[name], ABSENT):
            config = {key: each for key, each in (base.config | {name: other}).items() if each is not ABSENT}
            moved = Attempt(connector, config, base.secrets)
            if moved.faults():
                continue
            if destination(_as_stored(connector, config)[name]) != destination(before[name]):
                return Move(base.config, base.secrets, None if other is ABSENT else other)
    return None


def _as_stored(connector: AnyConnector, config: Values) -> Values:
    plain: Values = msgspec.to_builtins(msgspec.convert(config, connector.config_type))
    return plain


def some_source(type_name: str) -> Attempt:
    """Any config of the type with all the secrets that go with it."""
    found = settled(registry.get(type_name), {})
    assert found is not None, f"no config of {type_name} was found that its rules let pass"
    return found
