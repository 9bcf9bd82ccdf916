"""An example of a data source for each type, from the examples that its own config and secrets say of their fields.

It has what the type cannot do without, the choices that the type has examples of, or else the usual secret. What config
and secrets ask of each other is found by asking the type: where its rules refuse the example, the field that they name
gets a value. A new type needs no line here.
"""

import base64
from collections.abc import Iterator
from functools import cache
from typing import Any

from app.connectors import registry
from app.connectors.contract.config import config_schema, secrets_schema
from app.core.bodies import convert
from app.core.errors import BadRequest
from app.domain.sources.secrets.given import check_together

FIRST = "postgresql"
"""The type that all other examples of the document speak of, too."""
PHRASE = "a phrase that only I know"
ROUNDS = 10
Values = dict[str, Any]


@cache
def example_sources() -> tuple[tuple[str, Values], ...]:
    """Label, and `type`, `config` and `secrets`, of each type. Types whose rules no example pleases are left out;
    rehearsals are last.
    """
    connectors = sorted(registry.all(), key=lambda each: (each.type != FIRST, each.is_rehearsal, each.type))
    found = ((connector.label, example_source(connector)) for connector in connectors)
    return tuple((label, example) for label, example in found if example is not None)


def example_source(connector: registry.AnyConnector) -> Values | None:
    schema = config_schema(connector.config_type)
    needed = {name: _example_of(schema["properties"][name], schema) for name in schema.get("required", ())}
    choices = {
        name: what["examples"][0]
        for name, what in schema["properties"].items()
        if "enum" in what and what.get("examples") and name not in needed
    }
    config = needed | choices
    for usual in [{}] if choices else [*_usual_secret(connector), {}]:
        if pleasing := _until_pleased(connector, dict(config), dict(usual)):
            return {"type": connector.type, **pleasing}
    return None


def _usual_secret(connector: registry.AnyConnector) -> Iterator[Values]:
    """The first one that a type names is the one that most sources of it have."""
    for name in list(secrets_schema(connector.secrets_type).get("properties", ()))[:1]:
        yield {name: PHRASE}


def _until_pleased(connector: registry.AnyConnector, config: Values, secrets: Values) -> Values | None:
    tried: Values = {}
    for _ in range(ROUNDS):
        try:
            check_together(connector, convert(config, connector.config_type, path="config"), secrets)
        except BadRequest as error:
            if not _mend(connector, error.errors[0].path, config, secrets, tried):
                return None
        else:
            return {"config": config} | ({"secrets": secrets} if secrets else {})
    return None


def _mend(connector: registry.AnyConnector, path: str, config: Values, secrets: Values, tried: Values) -> bool:
    """Give the field at fault its next value. False where it has no other."""
    group, _, rest = path.partition(".")
    name = rest.partition(".")[0]
    values, schema = (
        (config, config_schema(connector.config_type))
        if group == "config"
        else (secrets, secrets_schema(connector.secrets_type))
    )
    if name not in schema.get("properties", {}):
        return False
    offered = list(_offered(schema["properties"][name], schema, name, connector, is_secret=values is secrets))
    place = tried.get(path, -1) + 1
    if place >= len(offered):
        return False
    tried[path] = place
    values[name] = offered[place]
    return True


def _offered(
    schema: Values, root: Values, name: str, connector: registry.AnyConnector, *, is_secret: bool
) -> Iterator[object]:
    yield from _said(schema, root)
    if is_secret:
        yield PHRASE
        yield base64.b64encode(PHRASE.encode()).decode()
        yield {"ref": f"file:{connector.type}/{name}"}  # too long for an example: kept where the hub runs
    else:
        yield _example_of(schema, root)


def _said(schema: Values, root: Values) -> Iterator[object]:
    """What a field says itself, or the first choice that it has."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    yield from schema.get("examples", ())
    yield from schema.get("enum", ())[:1]
    for variant in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _said(variant, root)


def _example_of(schema: Values, root: Values) -> object:
    return next(_said(schema, root), "example")
