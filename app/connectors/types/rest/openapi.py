"""Lists that an OpenAPI document describes (3.0, 3.1, and Swagger 2.0), in JSON.

A document is what a stranger wrote: references that lead out of it are never followed, and whatever is not as the
specification has it is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import msgspec

from app.connectors.contract.objects import DiscoveredField, PortableType
from app.connectors.network.http import origin_of
from app.connectors.values.json_rows import BY_JSON_TYPE, ITEM_KEYS, at_pointer

Document = dict[str, Any]


class DescribedList(msgspec.Struct, frozen=True):
    path: tuple[str, ...]
    """Names of the document's path."""
    url: str
    pointer: str
    """Where the list is in the answer."""
    fields: tuple[DiscoveredField, ...] | None
    """None where the document does not say."""


_BY_FORMAT: Final[dict[str, PortableType]] = {
    "date-time": "timestamp_tz",
    "date": "date",
    "time": "time",
    "duration": "interval",
    "uuid": "uuid",
    "byte": "binary",
    "decimal": "decimal",
}


def as_document(answer: object) -> Document | None:
    """The answer, if it is an OpenAPI document."""
    if (
        isinstance(answer, dict)
        and isinstance(answer.get("paths"), dict)
        and ("openapi" in answer or "swagger" in answer)
    ):
        return answer
    return None


def described_lists(document: Document, base_url: str) -> Iterator[DescribedList]:
    """Every path without parameters of its own whose GET answers with a list in JSON."""
    prefix = _prefix(document, base_url)
    for path, item in document["paths"].items():
        schema = _answer_schema(document, _resolved(document, item)) if "{" not in path else None
        names = tuple(name for name in path.split("/") if name)
        if schema is None or not names or names[-1] == "openapi.json":
            continue
        pointer, row_schema = _row_schema(document, schema)
        if row_schema is not None:
            # Servers tell `/orders/` from `/orders`, and not all lead from one to the other.
            url = prefix + "/" + quote("/".join(names), safe="/") + ("/" if path.endswith("/") else "")
            yield DescribedList(names, url, pointer, _schema_fields(document, row_schema))


def _prefix(document: Document, base_url: str) -> str:
    """What paths are below: the first server of the document if that is below base_url, else base_url itself."""
    base = base_url.rstrip("/")
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers else {"url": document.get("basePath")}
    url = first.get("url") if isinstance(first, dict) else None
    if not isinstance(url, str) or "{" in url or len(url) > 2048:
        return base
    try:
        server = urljoin(base + "/", url).rstrip("/")
        is_below = origin_of(server) == origin_of(base) and (server + "/").startswith(base + "/")
    except ValueError:
        return base
    return urlunsplit(urlsplit(server)._replace(query="", fragment="")) if is_below else base


def _answer_schema(document: Document, item: Document | None) -> Document | None:
    operation = item.get("get") if item is not None else None
    if (
        item is None
        or not isinstance(operation, dict)
        or _needs_parameters(document, item)
        or _needs_parameters(document, operation)
    ):
        return None
    answers = operation.get("responses")
    answer = _resolved(document, answers.get("200", answers.get("2XX"))) if isinstance(answers, dict) else None
    if answer is None:
        return None
    if "swagger" in document:
        return _resolved(document, answer.get("schema"))
    content = answer.get("content")
    media = _json_of(content) if isinstance(content, dict) else None
    return _resolved(document, media.get("schema")) if isinstance(media, dict) else None


def _json_of(content: Document) -> object:
    """What is said of the answer in JSON. Some generators write `*/*` for whatever the server sends."""
    by_type = {name.partition(";")[0].strip().lower(): media for name, media in content.items()}
    likely = ("application/json", *(name for name in by_type if name.endswith("+json")), "application/*", "*/*")
    return next((by_type[name] for name in likely if name in by_type), None)


def _needs_parameters(document: Document, described: Mapping[str, object]) -> bool:
    parameters = described.get("parameters")
    found = [_resolved(document, one) for one in parameters] if isinstance(parameters, list) else []
    return any(one is not None and one.get("required") and one.get("in") != "header" for one in found)


def _row_schema(document: Document, schema: Document) -> tuple[str, Document | None]:
    """Where the rows are and what one looks like: a list by itself, or under a usual name; None for other answers."""
    if _schema_type(schema) == "array":
        return "", _resolved(document, schema.get("items"))
    properties, _ = _properties(document, schema)
    for key in ITEM_KEYS:
        inner = _resolved(document, properties.get(key))
        if inner and _schema_type(inner) == "array":
            return f"/{key}", _resolved(document, inner.get("items"))
    return "", None


def _schema_fields(document: Document, schema: Document) -> tuple[DiscoveredField, ...] | None:
    properties, required = _properties(document, schema)
    if not properties:
        return None
    return tuple(
        _schema_field(document, name, inner, position, is_required=name in required)
        for position, (name, inner) in enumerate(properties.items(), 1)
    )


def _properties(document: Document, schema: Document, depth: int = 0) -> tuple[Document, set[str]]:
    """Properties of a schema and of those it is made of (`allOf`), and which of them are required."""
    found: Document = {}
    required: set[str] = set()
    parts = schema.get("allOf")
    for part in parts[:64] if isinstance(parts, list) and depth < 8 else ():
        inner = _resolved(document, part)
        names, needed = _properties(document, inner, depth + 1) if inner else ({}, set[str]())
        found |= names
        required |= needed
    own, needs = schema.get("properties"), schema.get("required")
    found |= own if isinstance(own, dict) else {}
    required |= {name for name in needs if isinstance(name, str)} if isinstance(needs, list) else set()
    return found, required


def _schema_field(
    document: Document, name: str, schema: object, position: int, *, is_required: bool
) -> DiscoveredField:
    plain, is_nullable = _without_null(document, schema)
    kind, form = _schema_type(plain), plain.get("format")
    portable = BY_JSON_TYPE.get(kind, "json" if plain else "unknown")
    if kind == "string" and isinstance(form, str):
        portable = _BY_FORMAT.get(form, portable)
    native = f"{kind or 'any'}({form})" if isinstance(form, str) else kind or "any"
    return DiscoveredField(name, portable, native[:255], is_nullable or not is_required, position)


def _without_null(document: Document, schema: object) -> tuple[Document, bool]:
    """A schema and whether it allows null, in the ways of OpenAPI 3.0 (`nullable`) and 3.1."""
    plain = _resolved(document, schema) or {}
    variants = plain.get("anyOf") or plain.get("oneOf")
    if isinstance(variants, list):
        inner = [found for variant in variants if (found := _resolved(document, variant))]
        solid = [variant for variant in inner if variant.get("type") != "null"]
        return (solid[0] if len(solid) == 1 else {"anyOf": solid}), len(solid) < len(inner)
    types = plain.get("type")
    return plain, plain.get("nullable") is True or (isinstance(types, list) and "null" in types)


def _schema_type(schema: Mapping[str, object]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        solid = [item for item in kind if item != "null"]
        kind = solid[0] if len(solid) == 1 else ""
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in schema or "allOf" in schema else ""


def _resolved(document: Document, schema: object) -> Document | None:
    """Follows references inside the document; one that leads out of it is never fetched."""
    for _ in range(16):
        if not isinstance(schema, dict):
            return None
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        schema = at_pointer(document, reference[1:]) if reference.startswith("#/") else None
    return None
