"""GraphQL beyond the contract: pages, arguments, schemas of strangers, and what servers' own words mean."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import urlopen

import graphql as core
import msgspec
import pytest

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps
from app.connectors.types.graphql.connector import Graphql, GraphqlConfig, GraphqlSecrets
from app.connectors.types.graphql.schema import MAX_LEAVES, Listing, listings, query_for, rows_at, schema_of
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Start
from tests.connectors.types.graphql import NUMBERS, shop_graphql

pytestmark = pytest.mark.anyio

TOKEN = f"{CANARY}-rest"


@pytest.fixture
def port(start: Start) -> int:
    return start(shop_graphql)


def source(port: int, policy: EgressPolicy, path: str = "/graphql/", **more: Any) -> Graphql:
    values = {"url": f"http://localhost:{port}{path}", "auth": "bearer", **more}
    return Graphql(msgspec.convert(values, GraphqlConfig), GraphqlSecrets(token=TOKEN), policy)


async def preview(connector: Graphql, name: str, **more: Any) -> PreviewResult:
    return await connector.preview(PreviewRequest(path=(name,), **more))


async def discovered(connector: Graphql) -> list[DiscoveredObject]:
    return [item async for batch in connector.discover() for item in batch]


async def test_a_discovery_says_whether_it_has_every_list(
    port: int, loopback: EgressPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = source(port, loopback)
    names = [item.name for item in await discovered(whole)]
    assert whole.stopped_because is None
    monkeypatch.setattr("app.connectors.types.graphql.connector._MAX_OBJECTS", 2)
    cut = source(port, loopback)
    assert [item.name for item in await discovered(cut)] == names[:2]
    assert cut.stopped_because == "The schema has more than 2 lists; those beyond were left out."


# Pages and arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["numbers", "byOffset", "byLimit", "page"])
@pytest.mark.parametrize("limit", [0, 1, 10, 24, 25, 26])
async def test_a_preview_says_whether_there_are_more(port: int, loopback: EgressPolicy, name: str, limit: int) -> None:
    shown = await preview(source(port, loopback), name, limit=limit)
    assert shown.rows == NUMBERS[:limit]
    assert shown.truncated is (limit < 25)


@pytest.mark.parametrize(("name", "rows"), [("numbers", 25), ("byOffset", 25), ("byLimit", 7), ("page", 7)])
async def test_a_preview_goes_from_page_to_page_where_it_can(
    port: int, loopback: EgressPolicy, name: str, rows: int
) -> None:
    """By cursor, or by offset; the others show their first page, and that there may be more."""
    shown = await preview(source(port, loopback, page_size=7), name)
    assert shown.rows == NUMBERS[:rows]
    assert shown.truncated is (rows < 25)


async def test_a_field_that_needs_arguments_has_a_preview_when_they_are_given(
    port: int, loopback: EgressPolicy
) -> None:
    for name, missing in (("order", "id"), ("many", "above")):
        with pytest.raises(ConnectorError) as caught:
            await preview(source(port, loopback), name)
        assert caught.value.code == "unsupported"
        assert f"give {missing} in" in caught.value.message
    arguments = {"order": {"id": "o-1"}, "many": {"above": 20, "among": [1, 22, 24]}}
    connector = source(port, loopback, arguments=arguments)
    assert (await preview(connector, "order", columns=("name",))).rows == [["Zoë 李雷"]]
    assert (await preview(connector, "many")).rows == [NUMBERS[22], NUMBERS[24]]
    assert (await preview(source(port, loopback, arguments={"order": {"id": "none"}}), "order")).rows == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"many": {"above": 1, "nowhere": 2}}, "invalid_configuration"),
        ({"many": {"above": "} mutation { deleteEverything }"}}, "server_error"),
    ],
)
async def test_wrong_arguments_are_refused(
    port: int, loopback: EgressPolicy, arguments: dict[str, Any], code: str
) -> None:
    """They travel as variables: no text of theirs is ever part of a query."""
    with pytest.raises(ConnectorError) as caught:
        await preview(source(port, loopback, arguments=arguments), "many")
    assert caught.value.code == code


async def test_only_the_columns_asked_for_are_queried_and_never_a_mutation(port: int, loopback: EgressPolicy) -> None:
    connector = source(port, loopback)
    await connector.check(Steps())
    await discovered(connector)
    assert (await preview(connector, "orders", columns=("total", "id"))).rows == [["10.50", "o-1"], ["-0.1", "o-2"]]
    seen = json.loads(urlopen(f"http://localhost:{port}/seen").read())
    queries = [core.parse(body["query"]) for body in seen]
    assert seen[-1]["query"].split() == ["{", "orders", "{", "id", "total", "}", "}"]
    operations = [definition for query in queries for definition in query.definitions]
    assert {one.operation.value for one in operations if isinstance(one, core.OperationDefinitionNode)} == {"query"}


async def test_fields_can_be_included_and_excluded(port: int, loopback: EgressPolicy) -> None:
    connector = source(port, loopback, include_fields=["by*", "tags"], exclude_fields=["*Limit"])
    assert [item.name for item in await discovered(connector)] == ["tags", "byOffset"]
    with pytest.raises(ConnectorError) as caught:
        await preview(connector, "byLimit")
    assert caught.value.code == "not_found"


async def test_a_preview_ends_at_its_bytes(port: int, loopback: EgressPolicy) -> None:
    shown = await preview(source(port, loopback), "orders", max_bytes=1024, max_value_bytes=64)
    assert shown.truncated or len(shown.rows) == 2
    assert len(msgspec.json.encode(shown.rows)) < 1100


def test_arguments_are_bounded() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"url": "http://a", "arguments": {"a": {"b": "x" * 70_000}}}, GraphqlConfig)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path == ("arguments",)


# What servers say -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "error_code", "code"),
    [
        ("User is not authenticated", None, "authentication_failed"),
        ("xyzzy", "UNAUTHENTICATED", "authentication_failed"),
        ("xyzzy", "FORBIDDEN", "permission_denied"),
        ("You do not have permission", None, "permission_denied"),
        ("Query is too complex: 1000", None, "response_too_large"),
        ("exceeds the maximum depth", None, "response_too_large"),
        ("API rate limit exceeded", None, "rate_limited"),
        ("xyzzy", "THROTTLED", "rate_limited"),
        ("PersistedQueryOnly", None, "permission_denied"),
        ("something else", "INTERNAL_SERVER_ERROR", "server_error"),
    ],
)
async def test_errors_are_told_in_our_words(
    port: int, loopback: EgressPolicy, message: str, error_code: str | None, code: str
) -> None:
    arguments = {"refused": {"message": message, "code": error_code}}
    with pytest.raises(ConnectorError) as caught:
        await preview(source(port, loopback, "/open/", arguments=arguments), "refused")
    assert caught.value.code == code
    assert CANARY not in caught.value.message
    assert message not in caught.value.message


async def test_values_that_are_refused_are_null_beside_those_that_are_not(port: int, loopback: EgressPolicy) -> None:
    assert (await preview(source(port, loopback, "/open/"), "partly")).rows == [["a", None]]


# Schemas --------------------------------------------------------------------------------------------------------------


def listed(source_text: str) -> dict[str, Listing]:
    schema = core.build_schema(source_text)
    return {one.name: one for one in listings(schema_of(core.introspection_from_schema(schema)))}


def test_connections_are_seen_through_nodes_or_edges() -> None:
    found = listed(
        """
        type Query { a(first: Int!, after: String): A  b(limit: Int): B!  c: C  d: D }
        type A { nodes: [Row] edges: [AEdge] pageInfo: Info! }  type AEdge { node: Row }
        type B { edges: [AEdge!]! }
        type C { edges: [String] name: String }
        type D { data: [Row!] hasNextPage: Boolean! }
        type Info { hasNextPage: Boolean! endCursor: String }
        type Row { x: Int }
        """
    )
    facts = {one.name: (one.shape, one.row_path, one.has_cursor) for one in found.values()}
    assert facts == {
        "a": ("connection", ("nodes",), True),
        "b": ("connection", ("edges", "node"), False),
        "c": ("object", (), False),
        "d": ("list", ("data",), False),
    }
    query = " ".join(query_for(found["a"], ["x"], ["first"]).split())
    assert query == "query ($first: Int!) { a(first: $first) { nodes { x } pageInfo { hasNextPage endCursor } } }"


def test_a_union_shows_what_its_types_have_and_mean_alike() -> None:
    text = """
        type Query { hits: [Hit!]! }
        union Hit = User | Team | Nothing
        type User { id: ID! name: String! size: Int avatar(px: Int!): String team: Team }
        type Team { id: ID! name: String size: String }
        type Nothing { user: User }
        """
    hits = listed(text)["hits"]
    assert [(field.name, field.native_type, field.is_nullable) for field in hits.fields] == [
        ("__typename", "String!", False),
        ("id", "ID!", True),
    ]
    for columns, fragments in (
        (["__typename", "id"], "__typename ... on User { id } ... on Team { id }"),
        (["id"], "... on User { id } ... on Team { id }"),
        (["__typename"], "__typename"),
    ):
        query = query_for(hits, columns, [])
        assert " ".join(query.split()) == f"{{ hits {{ {fragments} }} }}"
        assert core.validate(core.build_schema(text), core.parse(query)) == []


def test_circles_of_types_and_wide_ones_end() -> None:
    wide = " ".join(f"f{number}: Int o{number}: T" for number in range(500))
    found = listed(f"type Query {{ all: [T] }} type T {{ {wide} }}")
    text = query_for(found["all"], [field.name for field in found["all"].fields], [])
    assert text.count("f") < 2 * MAX_LEAVES
    assert len(text) < 20_000


def test_every_query_is_valid_in_its_schema() -> None:
    text = """
        type Query { rows(limit: Int): [Row!]!  one: Any  some: [Some]  names: [[String]]  kinds: [Kind!]  none: Int }
        interface Any { id: ID! }  type Row implements Any { id: ID! next: Row paged(first: Int): [Row] kind: Kind
          need(x: Int!): Int  many: [[Row]]  some: Some  grid: [[Int]] }
        union Some = Row | Other  type Other { x: Int }  enum Kind { A B }
        """
    schema = core.build_schema(text)
    for one in listed(text).values():
        query = query_for(one, [field.name for field in one.fields], [])
        assert core.validate(schema, core.parse(query)) == [], query
    found = listed(text)
    assert list(found) == ["rows", "one", "some", "names", "kinds"]
    kinds = {field.name: field.type for field in found["rows"].fields}
    assert kinds == {
        "id": "string",
        "next": "object",
        "kind": "string",
        "many": "array",
        "some": "object",
        "grid": "array",
    }
    assert [field.type for field in found["names"].fields] == ["array"]


@pytest.mark.parametrize(
    ("value", "path", "rows"),
    [
        ([{"a": 1}, None], (), [{"a": 1}, None]),
        ({"nodes": [{"a": 1}, None]}, ("nodes",), [{"a": 1}, None]),
        ({"edges": [{"node": {"a": 1}}, None, {"node": None}]}, ("edges", "node"), [{"a": 1}, None, None]),
        ({"shop": None}, ("shop",), []),
        ({"edges": None}, ("edges", "node"), []),
        ({"edges": 5}, ("edges", "node"), []),
        ("text", ("edges",), []),
    ],
)
def test_rows_are_found_on_their_path(value: Any, path: tuple[str, ...], rows: list[Any]) -> None:
    assert rows_at(value, path) == rows


@pytest.mark.parametrize("broken", [None, {}, {"__schema": None}, {"__schema": {"types": 5}}, [], {"__schema": []}])
def test_a_schema_that_cannot_be_read_is_said_to_be(broken: Any) -> None:
    with pytest.raises(ConnectorError) as caught:
        schema_of(broken)
    assert caught.value.code == "response_invalid"
