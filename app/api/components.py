"""The schemas of the OpenAPI document, from the Structs themselves.

Litestar's own generation drops `discriminator`, `extra_json_schema` and `additionalProperties: false`; msgspec's keeps
them. What msgspec leaves out is added here: the sentences under the attributes, the form of times, the type of
enumerations.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import inspect as types

from app.connectors.contract.config import portable
from app.core.errors import ERRORS
from app.core.lists.listing import Page

Schema = dict[str, Any]
WITHOUT_NUL = "^[^\\x00]*$"
PLACE = "#/components/schemas/"
_TIME = {"type": "string", "format": "date-time"}
_PAGE = re.compile(r"Page_(\w+?)_")


class Components:
    """The schemas of all types that an API speaks of; equal types share one."""

    def __init__(self, bodies: Iterable[object], answers: Iterable[object]) -> None:
        sent = list(dict.fromkeys(bodies))
        asked = list(dict.fromkeys([*sent, *answers, *(error.body_type for error in ERRORS)]))
        structs = list({info.cls: info for info in _structs(types.multi_type_info(asked))}.items())
        taken = {info.cls for info in _structs(types.multi_type_info(sent))}
        found, schemas = msgspec.json.schema_components(
            [*asked, *(cls for cls, _ in structs)], ref_template=PLACE + "{name}"
        )
        for (cls, info), reference in zip(structs, found[len(asked) :], strict=True):
            _complete(info, schemas[reference["$ref"].removeprefix(PLACE)], is_taken=cls in taken)
        naming = _Naming()
        self._references = {
            wanted: portable(naming.tidied(reference)) for wanted, reference in zip(asked, found, strict=False)
        }
        own = {_page_name(name): naming.named_schema(_page_name(name), schema) for name, schema in schemas.items()}
        self.schemas: dict[str, Schema] = dict(sorted(portable(own | naming.named).items()))

    def of(self, wanted: object) -> Schema:
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


def _complete(info: types.StructType, schema: Schema, *, is_taken: bool) -> None:
    """`is_taken`: in a body that comes in. What goes out has all its fields, but for those that are left unset."""
    sentences = _field_sentences(_plain_class(info.cls))
    for field in info.fields:
        described = schema["properties"][field.encode_name]
        _mark(field.type, described)
        if info.forbid_unknown_fields:
            _forbid_nul(described)
        if "description" not in described and field.name in sentences:
            described["description"] = sentences[field.name]
        _tell_default(described, is_taken=is_taken)
    if not is_taken and not _plain_class(info.cls).__struct_config__.omit_defaults:
        schema["required"] = [field.encode_name for field in info.fields if not _may_be_unset(field)]
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"]).replace("\n", " ")
    if _plain_class(info.cls) is Page:
        schema["description"] = "One page of a list."


def _may_be_unset(field: types.Field) -> bool:
    """msgspec tells neither the type nor the default of such a field, only that it may be missing."""
    return not field.required and field.default is field.default_factory is msgspec.NODEFAULT


def _tell_default(schema: Schema, *, is_taken: bool) -> None:
    """In words. As a keyword it would make some generators ask for what may be left out, and others send today's
    default for ever.
    """
    default = schema.pop("default", None)
    if is_taken and default not in (None, "", [], {}):
        sentence = f"Default: `{msgspec.json.encode(default).decode()}`."
        schema["description"] = " ".join(filter(None, (schema.get("description"), sentence)))


def _plain_class(cls: Any) -> type[msgspec.Struct]:
    plain: type[msgspec.Struct] = getattr(cls, "__origin__", cls)
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
    body = _class_bodies(cls.__module__).get(cls.__qualname__, [])
    pairs = pairwise(body)
    return {
        field.target.id: " ".join(inspect.cleandoc(text.value.value).split())
        for field, text in pairs
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


@cache
def _class_bodies(module: str) -> dict[str, list[ast.stmt]]:
    """Of the classes of a module, by qualified name. Each module is parsed once: `inspect.getsource` of a class parses
    the whole module for each of its classes, which was most of the time that the document took.
    """
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError, SyntaxError):  # made at run time, or installed without its source
        return {}
    return dict(_bodies_below(tree.body))


def _bodies_below(body: Sequence[ast.stmt], outside: str = "") -> Iterator[tuple[str, list[ast.stmt]]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield outside + node.name, node.body
            yield from _bodies_below(node.body, f"{outside}{node.name}.")


def _page_name(name: str) -> str:
    return _PAGE.sub(r"PageOf\1", name)


class _Naming:
    """Says what msgspec leaves unsaid, and gives names: to pages, to closed lists of texts, and to unions by type, so
    that a generated client has one type for each.
    """

    def __init__(self) -> None:
        self.named: dict[str, Schema] = {}
        """What got a name of its own."""

    def named_schema(self, name: str, schema: Schema) -> Schema:
        """Of a Struct; the lists of texts in it are named by their `Meta(title=...)`, else after Struct and field."""
        properties = {
            field: self.tidied(described, name + "".join(word.capitalize() for word in field.split("_")))
            for field, described in schema.get("properties", {}).items()
        }
        rest = {key: value for key, value in schema.items() if key != "properties"}
        return self.tidied(rest) | {"title": name} | ({"properties": properties} if properties else {})

    def tidied(self, schema: Schema, name: str = "") -> Schema:
        found = {key: self._inner(key, value, name) for key, value in schema.items()}
        if "$ref" in found:
            return found | {"$ref": _page_name(found["$ref"])}
        if "discriminator" in found:
            return self._union(found)
        if _is_of_texts(found.get("enum")):
            return self._choice({"type": "string"} | found, name)
        return {"items": {}} | found if found.get("type") == "array" else found

    def _inner(self, key: str, value: Any, name: str) -> Any:
        if key in ("items", "additionalProperties") and isinstance(value, dict):
            return self.tidied(value, name)
        return [self.tidied(variant, name) for variant in value] if key in ("anyOf", "prefixItems") else value

    def _union(self, schema: Schema) -> Schema:
        """One variant only can fit, since each has its own tag. Named after what their names end with."""
        variants = [variant["$ref"].removeprefix(PLACE) for variant in schema["anyOf"]]
        return self._reference(
            f"Any{_common_ending(variants)}", {"oneOf": schema["anyOf"], "discriminator": schema["discriminator"]}
        )

    def _choice(self, schema: Schema, name: str) -> Schema:
        if len(schema["enum"]) == 1 or not (name := schema.get("title", name)):
            return schema
        rest = {key: value for key, value in schema.items() if key not in ("enum", "title", "type")}
        return self._reference(name, {"type": "string", "enum": schema["enum"]}) | rest

    def _reference(self, name: str, schema: Schema) -> Schema:
        """Raises ValueError where two different schemas have one name."""
        if self.named.setdefault(name, schema) != schema:
            raise ValueError(f"there are two schemas named {name}")
        return {"$ref": PLACE + name}


def _common_ending(names: list[str]) -> str:
    first = names[0]
    endings = (first[start:] for start in range(len(first)))
    return next(ending for ending in endings if all(name.endswith(ending) for name in names))


def _is_of_texts(choices: object) -> bool:
    return isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)
