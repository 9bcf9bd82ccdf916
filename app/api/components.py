"""The schemas of the OpenAPI document, from the Structs themselves.

Litestar's own generation drops `discriminator`, `extra_json_schema` and `additionalProperties: false`; msgspec's keeps
them. What msgspec leaves out is added here: the sentences under the attributes, the form of times, the type of
enumerations.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect as types

from app.core.errors import ERRORS
from app.core.listing import Page

Schema = dict[str, Any]
WITHOUT_NUL = "^[^\\x00]*$"
PLACE = "#/components/schemas/"
_TIME = {"type": "string", "format": "date-time"}
_PAGE = re.compile(r"Page_(\w+?)_")


class Components:
    """The schemas of all types that an API speaks of; equal types share one."""

    def __init__(self, wanted: Iterable[Any]) -> None:
        asked = list(dict.fromkeys([*wanted, *(error.body_type for error in ERRORS)]))
        structs = list({info.cls: info for info in _structs(types.multi_type_info(asked))}.items())
        found, schemas = msgspec.json.schema_components(
            [*asked, *(cls for cls, _ in structs)], ref_template=PLACE + "{name}"
        )
        for (_, info), reference in zip(structs, found[len(asked) :], strict=True):
            _complete(info, schemas[reference["$ref"].removeprefix(PLACE)])
        self._references = {wanted: _renamed(reference) for wanted, reference in zip(asked, found, strict=False)}
        self.schemas: dict[str, Schema] = _with_named_choices(
            {_page_name(name): _renamed(schema) for name, schema in sorted(schemas.items())}
        )

    def of(self, wanted: Any) -> Schema:
        """The schema of one of the types, most often a reference."""
        return dict(self._references[wanted])

    def resolve(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self.schemas[schema["$ref"].removeprefix(PLACE)]
        return schema


def _structs(found: Iterable[types.Type]) -> Iterator[types.StructType]:
    """Every Struct below these types, each once. msgspec describes a recursive type by one and the same object."""
    waiting, seen = list(found), set()
    while waiting:
        info = waiting.pop()
        if id(info) in seen:
            continue
        seen.add(id(info))
        if isinstance(info, types.StructType):
            yield info
            waiting += [field.type for field in info.fields]
        waiting += _inner(info)


def _inner(info: types.Type) -> list[types.Type]:
    match info:
        case types.UnionType():
            return list(info.types)
        case types.Metadata():
            return [info.type]
        case types.DictType():
            return [info.key_type, info.value_type]
        case types.TupleType():
            return list(info.item_types)
        case types.CollectionType():
            return [info.item_type]
    return []


def _complete(info: types.StructType, schema: Schema) -> None:
    sentences = _field_sentences(_plain_class(info.cls))
    for field in info.fields:
        described = schema["properties"][field.encode_name]
        _mark(field.type, described)
        if info.forbid_unknown_fields:
            _forbid_nul(described)
        if "description" not in described and field.name in sentences:
            described["description"] = sentences[field.name]
    if _plain_class(info.cls) is Page:
        schema["description"] = "One page of a list."


def _plain_class(cls: Any) -> type:
    plain: type = getattr(cls, "__origin__", cls)
    return plain


def _mark(info: types.Type, schema: Schema) -> None:
    """Add the form of times, wherever in the schema of a field they are."""
    match info:
        case types.Metadata():
            _mark(info.type, schema)
        case types.DateTimeType():
            schema.update(_TIME)
        case types.UnionType():
            _mark_variants(info, schema)
        case types.DictType() if isinstance(schema.get("additionalProperties"), dict):
            _mark(info.value_type, schema["additionalProperties"])
        case types.CollectionType() if "items" in schema:
            _mark(info.item_type, schema["items"])


def _forbid_nul(schema: Schema) -> None:
    """No text that comes in may hold NUL (PostgreSQL stores none); where nothing else is said of its form, this is."""
    is_free = schema.get("type") == "string" and not schema.keys() & {"pattern", "enum", "const"}
    if is_free and schema.get("format") not in ("uuid", "date-time"):
        schema["pattern"] = WITHOUT_NUL
    inner = [*schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties")]
    for each in inner:
        if isinstance(each, dict):
            _forbid_nul(each)


def _mark_variants(info: types.UnionType, schema: Schema) -> None:
    times = any(isinstance(_bare(member), types.DateTimeType) for member in info.types)
    for variant in schema.get("anyOf", ()):
        if times and variant == {"type": "string"}:
            variant.update(_TIME)
        for member in info.types:
            if isinstance(_bare(member), types.CollectionType) and "items" in variant:
                _mark(_bare(member), variant)


def _bare(info: types.Type) -> types.Type:
    while isinstance(info, types.Metadata):
        info = info.type
    return info


@cache
def _field_sentences(cls: type) -> dict[str, str]:
    """The strings under the attributes of a class and its bases, read from the source where there is one."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] == "app":
            found |= _own_sentences(base)
    return found


def _own_sentences(cls: type) -> dict[str, str]:
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except (OSError, TypeError, SyntaxError):  # made at run time, or installed without its source
        return {}
    assert isinstance(body, ast.ClassDef)
    pairs = zip(body.body, body.body[1:], strict=False)
    return {
        field.target.id: " ".join(inspect.cleandoc(text.value.value).split())
        for field, text in pairs
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _page_name(name: str) -> str:
    return _PAGE.sub(r"PageOf\1", name)


def _renamed(value: Any) -> Any:
    """The same schema with readable names of generic types in its references; enumerations of texts say their type."""
    if isinstance(value, dict):
        if _is_of_texts(value.get("enum")):
            value = {"type": "string"} | value
        return {key: _page_name(item) if key == "$ref" else _renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    return value


def _is_of_texts(choices: Any) -> bool:
    return isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)


def _with_named_choices(schemas: dict[str, Schema]) -> dict[str, Schema]:
    """Each closed list of texts as a schema of its own, so that a generated client has one type for it: named by its
    `Meta(title=...)`, else after the Struct and the field.
    """
    choices: dict[str, Schema] = {}
    for struct, schema in schemas.items():
        for field, described in schema.get("properties", {}).items():
            name = struct + "".join(word.capitalize() for word in field.split("_"))
            schema["properties"][field] = _by_name(described, name, choices)
    return dict(sorted((schemas | choices).items()))


def _by_name(schema: Schema, name: str, choices: dict[str, Schema]) -> Schema:
    """Raises ValueError where two different lists have one name."""
    if _is_of_texts(schema.get("enum")) and len(schema["enum"]) > 1:
        name, found = schema.get("title", name), {"type": "string", "enum": schema["enum"]}
        if choices.setdefault(name, found) != found:
            raise ValueError(f"there are two lists of choices named {name}")
        return {"$ref": PLACE + name} | {key: schema[key] for key in schema if key not in ("enum", "title", "type")}
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            schema[inner] = _by_name(schema[inner], name, choices)
    if "anyOf" in schema:
        schema["anyOf"] = [_by_name(variant, name, choices) for variant in schema["anyOf"]]
    return schema
