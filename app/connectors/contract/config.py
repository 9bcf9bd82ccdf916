"""What the configs and secrets of types are made of, and their JSON Schemas."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import Meta, Struct

from app.connectors.contract import pem

_PEM_MEDIA_TYPE: Final = "application/x-pem-file"

Host = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=253,
        description="Host name or address, without scheme or port.",
        examples=["db.example.org"],
    ),
]
Port = Annotated[int, Meta(ge=1, le=65535)]
Pem = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=65_536,
        description="Certificates in PEM form.",
        extra_json_schema={"contentMediaType": _PEM_MEDIA_TYPE},
    ),
]
SecretText = Annotated[str, Meta(min_length=1, max_length=16_384, extra_json_schema={"writeOnly": True})]
TimeoutS = Annotated[float, Meta(ge=0.1, le=60, description="Seconds.")]
ConnectTimeoutS = Annotated[TimeoutS, Meta(description="Seconds for each step of connecting.")]
AnswerTimeoutS = Annotated[TimeoutS, Meta(description="Seconds for each answer of the server.")]
SilenceS = Annotated[TimeoutS, Meta(description="Seconds without a byte from the server.")]
StatementTimeoutS = Annotated[
    float, Meta(ge=0.1, le=600, description="Seconds after which the server stops a preview or a listing.")
]


class InvalidField(ValueError):
    """A value that its type allows and its neighbours do not. `path` leads to the field from the config's or the
    secrets' root; msgspec wraps this into a `ValidationError`, whose `__cause__` it then is."""

    def __init__(self, path: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.path = tuple(path)
        self.message = message


_LINE_END = re.compile(r"[\r\n]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Searched for by the thousand in a bulk request: character by character in Python it takes twenty times as long."""


class ConnectorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every config Struct: no control characters in any text, except the line ends of PEM fields, and no
    private key in those."""

    def __post_init__(self) -> None:
        certificates = _pem_fields(type(self))
        for name, text in _texts(self):
            if name in certificates:
                _judge_pem(name, text)
            elif _LINE_END.search(text):
                raise InvalidField((name,), f"{name} holds a line break.")
            if _CONTROL.search(text):
                raise InvalidField((name,), f"{name} holds a control character.")


class ConnectorSecrets(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every secrets Struct. Every field is optional; `Connector.validate` says which ones a config needs."""

    def __post_init__(self) -> None:
        for name, text in _texts(self):
            if "\x00" in text:
                raise InvalidField((name,), f"{name} holds a NUL character.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<hidden>)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


class NoSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    """For types that have none."""


@cache
def _pem_fields(struct: type[Struct]) -> frozenset[str]:
    return frozenset(field.name for field in msgspec.structs.fields(struct) if _is_pem(field.type))


def _is_pem(annotation: object) -> bool:
    """`Pem`, or one that may be missing, or is described further."""
    metas = [item for item in get_args(annotation) if isinstance(item, Meta)]
    if any((meta.extra_json_schema or {}).get("contentMediaType") == _PEM_MEDIA_TYPE for meta in metas):
        return True
    return any(_is_pem(inner) for inner in get_args(annotation) if not isinstance(inner, Meta))


def _judge_pem(name: str, text: str) -> None:
    """Words may stand around the blocks (RFC 7468, section 2). Whether the blocks are any good, a test shows."""
    if pem.BEGIN not in text and _LINE_END.search(text):
        raise InvalidField((name,), f"{name} is not in PEM form: it has no line that starts with -----BEGIN.")
    if pem.holds_private_key(text):
        raise InvalidField((name,), f"{name} holds a private key, which is a secret and belongs into a field of those.")


_HOLDERS: Final = (Struct, list, tuple, frozenset, dict)


def _texts(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Struct):
        for field in value.__struct_fields__:
            inner, path = getattr(value, field), f"{name}.{field}" if name else field
            if isinstance(inner, str):
                yield path, inner
            elif isinstance(inner, _HOLDERS):
                yield from _texts(inner, path)
    elif isinstance(value, list | tuple | frozenset):
        for item in value:
            yield from _texts(item, name)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key, name)
            yield from _texts(item, name)


# Schemas --------------------------------------------------------------------------------------------------------------


def config_schema(struct: type[Struct]) -> dict[str, Any]:
    """JSON Schema 2020-12 of a config or secrets Struct; references stay inside it, under `$defs`. A type's own fields
    come before those that it shares with others."""
    (schema,), components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    root = components.pop(struct.__name__, schema)
    document: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **root}
    if properties := document.get("properties"):
        document["properties"] = {name: properties[name] for name in _own_first(struct)}
    if components:
        document["$defs"] = components
    published: dict[str, Any] = portable(document)
    return published


def portable(schema: Any) -> Any:
    """With patterns as JSON Schema has them (ECMA-262). A pattern of ours ends with `\\Z`, because Python's `$` lets a
    line feed pass behind it, which that of ECMA-262 does not."""
    if isinstance(schema, list):
        return [portable(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: portable(value) for name, value in schema.items()}
    if isinstance(pattern := made.get("pattern"), str) and pattern.endswith(r"\Z"):
        made["pattern"] = pattern.removesuffix(r"\Z") + "$"
    return made


def _own_first(struct: type[Struct]) -> list[str]:
    names = dict.fromkeys(name for base in struct.__mro__ for name in inspect.get_annotations(base))
    return [name for name in names if name in struct.__struct_fields__]


def secrets_schema(struct: type[Struct]) -> dict[str, Any]:
    """As `config_schema`, every field marked as one that can be written and never read."""
    document = config_schema(struct)
    for field in document.get("properties", {}).values():
        field["writeOnly"] = True
    return document
