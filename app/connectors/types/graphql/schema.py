"""What a GraphQL schema has to show: the fields of its query type that give out objects, and the query for each.

Queries are built as syntax trees from the introspected schema and printed; only queries are built, never mutations. A
nested list that can be paged is data of its own and is left out; other nested objects are followed to a small depth,
which also ends every circle of types. Of a union the plain values of each of its types are shown side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredField, PortableType
from app.connectors.values.json_rows import ITEM_KEYS

if TYPE_CHECKING:
    import graphql

Shape = Literal["list", "connection", "object"]

MAX_DEPTH: Final = 2
"""Of objects inside the rows."""
MAX_LEAVES: Final = 400
"""Values that one query asks for in each row."""
_SIZE_ARGUMENTS: Final = ("first", "limit", "take", "pageSize", "perPage", "page_size", "per_page", "size", "top")
_OFFSET_ARGUMENTS: Final = ("offset", "skip")
_COUNTS: Final = frozenset({"totalCount", "total", "count", "pageInfo", "hasNextPage", "nextToken", "total_count"})
"""Fields that a page of a list has beside the list."""
_BY_SCALAR: Final[dict[str, PortableType]] = {
    **dict.fromkeys(("int", "bigint", "long", "int64", "biginteger", "unsignedint"), "integer"),
    **dict.fromkeys(("float", "double"), "number"),
    **dict.fromkeys(("decimal", "bigdecimal"), "decimal"),
    **dict.fromkeys(("string", "id", "url", "uri", "email", "emailaddress", "html", "slug"), "string"),
    **dict.fromkeys(("datetime", "timestamptz", "offsetdatetime", "instant"), "timestamp_tz"),
    **dict.fromkeys(("localdatetime", "naivedatetime"), "timestamp"),
    **dict.fromkeys(("date", "localdate"), "date"),
    **dict.fromkeys(("time", "localtime"), "time"),
    **dict.fromkeys(("uuid", "guid"), "uuid"),
    **dict.fromkeys(("json", "jsonobject", "map", "genericscalar"), "json"),
    **dict.fromkeys(("base64", "bytes", "byte"), "binary"),
    "boolean": "boolean",
    "duration": "interval",
}
"""Names of scalars in lower case: those of the specification, and what people call their own."""


class Selected(msgspec.Struct, frozen=True):
    """A field of a row, and what is asked for inside of it."""

    facts: DiscoveredField
    inside: tuple[Selected, ...] = ()
    members: tuple[str, ...] = ()
    """Of a union: the types that have the field. Empty for what every row has."""


class Listing(msgspec.Struct, frozen=True):
    """A field of the query type that gives out rows."""

    name: str
    shape: Shape
    row_path: tuple[str, ...]
    """Names from the field's value to its rows, through objects and lists of them."""
    selected: tuple[Selected, ...]
    """Of each row; empty where the rows are plain values."""
    value: DiscoveredField | None
    """The only field of rows that are plain values."""
    arguments: Mapping[str, str]
    """Name to type, as in `ID!`."""
    required: frozenset[str]
    """Arguments without a default that may not be null."""
    has_page_info: bool

    @property
    def fields(self) -> tuple[DiscoveredField, ...]:
        return (self.value,) if self.value else tuple(one.facts for one in self.selected)

    @property
    def size_argument(self) -> str | None:
        return self._integer_among(_SIZE_ARGUMENTS)

    @property
    def offset_argument(self) -> str | None:
        return self._integer_among(_OFFSET_ARGUMENTS)

    @property
    def has_cursor(self) -> bool:
        return self.has_page_info and "after" in self.arguments

    def _integer_among(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if self.arguments.get(name, "").rstrip("!") == "Int"), None)


def schema_of(introspection: Any) -> graphql.GraphQLSchema:
    """Raises `response_invalid`."""
    import graphql

    try:
        return graphql.build_client_schema(introspection)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError, graphql.GraphQLError):
        raise ConnectorError("response_invalid", "The server's description of its schema cannot be read.") from None


def listings(schema: graphql.GraphQLSchema) -> Iterator[Listing]:
    """In the order of the schema. Fields that give out a single plain value are no data sets."""
    for name, field in schema.query_type.fields.items() if schema.query_type else ():
        rows = _rows(field.type)
        if rows is not None:
            shape, row_path, row_type, has_page_info = rows
            yield _listing(name, field, shape, row_path, row_type, has_page_info=has_page_info)


def _listing(
    name: str,
    field: graphql.GraphQLField,
    shape: Shape,
    row_path: tuple[str, ...],
    row_type: graphql.GraphQLOutputType,
    *,
    has_page_info: bool,
) -> Listing:
    import graphql

    named = graphql.get_named_type(row_type)
    is_plain = graphql.is_leaf_type(named)
    return Listing(
        name,
        shape,
        row_path,
        () if is_plain else _selected(named, 0, _Budget(MAX_LEAVES)),
        _facts("value", row_type, 1) if is_plain else None,
        {argument: str(one.type) for argument, one in field.args.items()},
        frozenset(argument for argument, one in field.args.items() if graphql.is_required_argument(one)),
        has_page_info,
    )


# Where the rows are ---------------------------------------------------------------------------------------------------


def _rows(value: graphql.GraphQLOutputType) -> tuple[Shape, tuple[str, ...], graphql.GraphQLOutputType, bool] | None:
    """The shape, the way to the rows, their type, and whether there is a `pageInfo`."""
    import graphql

    plain = graphql.get_nullable_type(value)
    if graphql.is_list_type(plain):
        return "list", (), plain.of_type, False
    inner = _fields(plain)
    if (connection := _connection(inner)) is not None:
        return "connection", *connection, _has_page_info(inner)
    if (page := _page(inner)) is not None:
        return "list", *page, False
    return ("object", (), plain, False) if graphql.is_composite_type(plain) else None


def _page(fields: Mapping[str, graphql.GraphQLField]) -> tuple[tuple[str], graphql.GraphQLOutputType] | None:
    """The list in an object that is one page of it: the only thing there beside counts and the like. An order with its
    items and its total has more than that."""
    import graphql

    inner = {name: graphql.get_nullable_type(field.type) for name, field in fields.items() if name != "pageInfo"}
    solid = [name for name, value in inner.items() if not graphql.is_leaf_type(value)]
    if len(solid) != 1 or solid[0] not in ITEM_KEYS or not fields.keys() & _COUNTS:
        return None
    value = inner[solid[0]]
    if graphql.is_list_type(value) and graphql.is_composite_type(graphql.get_named_type(value)):
        return (solid[0],), value.of_type
    return None


def _connection(
    fields: Mapping[str, graphql.GraphQLField],
) -> tuple[tuple[str, ...], graphql.GraphQLOutputType] | None:
    """Relay's "GraphQL Cursor Connections Specification". The shortcut `nodes` is common beside `edges`."""
    import graphql

    edges = fields.get("edges")
    if edges is None or not graphql.is_list_type(graphql.get_nullable_type(edges.type)):
        return None
    node = _fields(graphql.get_named_type(edges.type)).get("node")
    if node is None or not graphql.is_composite_type(graphql.get_named_type(node.type)):
        return None
    return ("nodes",) if "nodes" in fields else ("edges", "node"), node.type


def _has_page_info(fields: Mapping[str, graphql.GraphQLField]) -> bool:
    import graphql

    info = _fields(graphql.get_named_type(fields["pageInfo"].type)) if "pageInfo" in fields else {}
    return {"hasNextPage", "endCursor"} <= info.keys()


def _fields(value: Any) -> Mapping[str, graphql.GraphQLField]:
    import graphql

    has_fields = graphql.is_object_type(value) or graphql.is_interface_type(value)
    return value.fields if has_fields else {}


# What a row has -------------------------------------------------------------------------------------------------------


class _Budget:
    def __init__(self, leaves: int) -> None:
        self.left = leaves

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


def _selected(row: graphql.GraphQLNamedType, depth: int, budget: _Budget) -> tuple[Selected, ...]:
    """Plain values first have what the budget gives, then objects; both in the order of the schema in the end."""
    import graphql

    if graphql.is_union_type(row):
        return _of_union(row, budget)
    found: dict[str, tuple[Selected, ...]] = {}
    usable = _usable(row)
    for name, field in usable.items():
        if graphql.is_leaf_type(graphql.get_named_type(field.type)) and budget.take():
            found[name] = ()
    for name, field in usable.items() if depth < MAX_DEPTH else ():
        if budget.left <= 0:
            break
        named = graphql.get_named_type(field.type)
        if not graphql.is_leaf_type(named) and not _is_data_of_its_own(field):
            inside = _selected(named, depth + 1, budget)
            if inside:
                found[name] = inside
    kept = [name for name in usable if name in found]
    return tuple(
        Selected(_facts(name, usable[name].type, position), found[name]) for position, name in enumerate(kept, 1)
    )


def _usable(row: graphql.GraphQLNamedType) -> dict[str, graphql.GraphQLField]:
    """Fields that can be asked for without knowing what for."""
    import graphql

    return {
        name: field
        for name, field in _fields(row).items()
        if not any(map(graphql.is_required_argument, field.args.values()))
    }


def _of_union(union: graphql.GraphQLUnionType, budget: _Budget) -> tuple[Selected, ...]:
    """The name of the type, and plain values of the types that it may be. One name can be asked for of several types
    only where all of them mean the same by it (GraphQL, section "Field Selection Merging")."""
    import graphql

    declared: dict[str, dict[str, graphql.GraphQLOutputType]] = {}
    for member in union.types:
        for name, field in _usable(member).items():
            declared.setdefault(name, {})[member.name] = field.type
    found = [Selected(DiscoveredField("__typename", "string", "String!", False, 1))]
    for name, types in declared.items():
        value, *others = types.values()
        is_one = all(str(other) == str(value) for other in others)
        if is_one and graphql.is_leaf_type(graphql.get_named_type(value)) and budget.take():
            facts = _facts(name, value, len(found) + 1)
            is_nullable = facts.is_nullable or len(types) < len(union.types)
            found.append(Selected(msgspec.structs.replace(facts, is_nullable=is_nullable), members=tuple(types)))
    return tuple(found)


def _is_data_of_its_own(field: graphql.GraphQLField) -> bool:
    return bool(field.args.keys() & {*_SIZE_ARGUMENTS, *_OFFSET_ARGUMENTS}) or (
        (rows := _rows(field.type)) is not None and rows[0] == "connection"
    )


def _facts(name: str, value: graphql.GraphQLOutputType, position: int) -> DiscoveredField:
    import graphql

    return DiscoveredField(name, _portable(value), str(value)[:255], not graphql.is_non_null_type(value), position)


def _portable(value: graphql.GraphQLOutputType) -> PortableType:
    import graphql

    plain = graphql.get_nullable_type(value)
    if graphql.is_list_type(plain):
        return "array"
    if graphql.is_enum_type(plain):
        return "string"
    if graphql.is_scalar_type(plain):
        return _BY_SCALAR.get(plain.name.lower(), "unknown")
    return "object"


# Queries --------------------------------------------------------------------------------------------------------------


def query_for(listing: Listing, columns: Sequence[str], arguments: Sequence[str]) -> str:
    """Asks for some fields of the rows; each of `arguments` is a variable of the same name."""
    from graphql import language as ast

    chosen = [one for one in listing.selected if one.facts.name in columns]
    inner = _selection(chosen) or ([] if listing.value else [_field("__typename")])
    for name in reversed(listing.row_path):
        inner = [_field(name, inner)]
    if listing.has_page_info:
        inner.append(_field("pageInfo", [_field("hasNextPage"), _field("endCursor")]))
    variables = {name: ast.VariableNode(name=ast.NameNode(value=name)) for name in arguments}
    given = tuple(ast.ArgumentNode(name=variable.name, value=variable) for variable in variables.values())
    operation = ast.OperationDefinitionNode(
        operation=ast.OperationType.QUERY,
        name=None,
        directives=(),
        variable_definitions=tuple(
            ast.VariableDefinitionNode(
                variable=variable, type=ast.parse_type(listing.arguments[name]), default_value=None, directives=()
            )
            for name, variable in variables.items()
        ),
        selection_set=ast.SelectionSetNode(selections=(_field(listing.name, inner, given),)),
    )
    return ast.print_ast(operation)


def _selection(chosen: Sequence[Selected]) -> list[graphql.SelectionNode]:
    """Fields, and for those that only some types of a union have a fragment for each type."""
    from graphql import language as ast

    def fields(those: Sequence[Selected]) -> list[graphql.SelectionNode]:
        return [_field(one.facts.name, _selection(one.inside)) for one in those]

    members = dict.fromkeys(member for one in chosen for member in one.members)
    fragments = [
        ast.InlineFragmentNode(
            type_condition=ast.NamedTypeNode(name=ast.NameNode(value=member)),
            directives=(),
            selection_set=ast.SelectionSetNode(
                selections=tuple(fields([one for one in chosen if member in one.members]))
            ),
        )
        for member in members
    ]
    return [*fields([one for one in chosen if not one.members]), *fragments]


def _field(
    name: str, inside: Sequence[graphql.SelectionNode] = (), arguments: Sequence[graphql.ArgumentNode] = ()
) -> graphql.FieldNode:
    from graphql import language as ast

    return ast.FieldNode(
        alias=None,
        name=ast.NameNode(value=name),
        arguments=tuple(arguments),
        directives=(),
        selection_set=ast.SelectionSetNode(selections=tuple(inside)) if inside else None,
    )


def rows_at(value: Any, row_path: Sequence[str]) -> list[object]:
    """The rows of an answer: lists on the way are gone through. An item that is null is a row that is null, and so is
    one that holds null where the row should be; a list that is null has none."""
    is_listed = isinstance(value, list)
    found = value if is_listed else [value]
    for name in row_path:
        inner = [item.get(name) if isinstance(item, dict) else None for item in found]
        if any(isinstance(one, list) for one in inner):
            found, is_listed = [item for one in inner for item in (one if isinstance(one, list) else ())], True
        else:
            found = inner if is_listed else [one for one in inner if one is not None]
    return found
