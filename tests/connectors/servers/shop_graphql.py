"""The shop as a GraphQL API on Strawberry, relay connections and all, and some endpoints with bad manners.

`/graphql` wants the token; `/open` answers anybody and refuses in its fields; `/closed` answers no introspection.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterable
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, NewType

import strawberry
from graphql import GraphQLError
from graphql.validation import NoSchemaIntrospectionCustomRule
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from strawberry import relay
from strawberry.asgi import GraphQL
from strawberry.extensions import AddValidationRules
from strawberry.scalars import JSON
from strawberry.schema.config import StrawberryConfig

from tests.connectors.servers.shop_api import SECRET, token

SEEN: list[dict[str, Any]] = []
"""Bodies of all requests, for `/seen`."""
BigInt = NewType("BigInt", int)


@strawberry.enum
class State(Enum):
    NEW = "new"
    PAID = "paid"


@strawberry.type
class Address:
    city: str
    country: Country | None = None


@strawberry.type
class Country:
    code: str
    capital: Address | None = None


@strawberry.type
class Item:
    sku: str
    count: int


@strawberry.type
class Customer:
    name: str | None
    address: Address | None

    @strawberry.field
    def orders(self, first: int = 10) -> list[Order]:
        return []

    @strawberry.field
    def greeting(self, language: str) -> str:
        return "hello"


@strawberry.type
class Order:
    id: strawberry.ID
    number: BigInt
    name: str | None
    total: Decimal
    ratio: float | None
    is_paid: bool
    state: State | None
    at: dt.datetime | None
    day: dt.date | None
    key: uuid.UUID | None
    notes: JSON | None
    lines: list[int]
    customer: Customer | None
    items: list[Item]
    parent: Order | None = None


ORDERS = [
    Order(
        id=strawberry.ID("o-1"),
        number=BigInt(9007199254740993),
        name="Zoë 李雷",
        total=Decimal("10.50"),
        ratio=0.1,
        is_paid=True,
        state=State.PAID,
        at=dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        day=dt.date(2024, 1, 2),
        key=uuid.UUID(int=1),
        notes=JSON({"a": [1, None]}),
        lines=[1, 2],
        customer=Customer(name=None, address=Address(city="Łódź", country=Country(code="PL"))),
        items=[Item(sku="x", count=1)],
    ),
    Order(
        id=strawberry.ID("o-2"),
        number=BigInt(2),
        name=None,
        total=Decimal("-0.1"),
        ratio=None,
        is_paid=False,
        state=None,
        at=None,
        day=None,
        key=None,
        notes=None,
        lines=[],
        customer=None,
        items=[],
    ),
]


@strawberry.type
class Number(relay.Node):
    n: relay.NodeID[int]
    half: float

    @classmethod
    def resolve_nodes(cls, *, info: strawberry.Info, node_ids: Iterable[str], required: bool = False) -> Any:
        return [Number(n=int(node_id), half=int(node_id) / 2) for node_id in node_ids]


NUMBERS = [Number(n=n, half=n / 2) for n in range(25)]


@strawberry.type
class NumberPage:
    items: list[Number]
    total_count: int


@strawberry.type
class Summary:
    orders: int
    best: Order | None


Found = Annotated[Customer | Item, strawberry.union("Found")]


@strawberry.type
class Query:
    version: str = "1"

    @strawberry.field
    def orders(self) -> list[Order]:
        return ORDERS

    @strawberry.field
    def empty(self) -> list[Order] | None:
        return None

    @strawberry.field
    def holes(self) -> list[Item | None]:
        return [Item(sku="x", count=1), None]

    @strawberry.field
    def order(self, id: strawberry.ID) -> Order | None:
        return next((order for order in ORDERS if order.id == id), None)

    @strawberry.field
    def tags(self) -> list[str | None]:
        return ["new", None, "ü"]

    @strawberry.field
    def summary(self) -> Summary:
        return Summary(orders=2, best=None)

    @strawberry.field
    def found(self) -> list[Found]:
        return [Item(sku="x", count=1), Customer(name="Zoë", address=None)]

    @strawberry.field
    def by_offset(self, limit: int = 10, offset: int = 0) -> list[Number]:
        return NUMBERS[offset : offset + limit]

    @strawberry.field
    def by_limit(self, limit: int) -> list[Number]:
        return NUMBERS[:limit]

    @strawberry.field
    def page(self, page_size: int = 10) -> NumberPage:
        return NumberPage(items=NUMBERS[:page_size], total_count=len(NUMBERS))

    @relay.connection(relay.ListConnection[Number])  # type: ignore[untyped-decorator]
    def numbers(self) -> Iterable[Number]:
        return NUMBERS

    @strawberry.field
    def many(self, above: int, among: list[int] | None = None) -> list[Number]:
        return [number for number in NUMBERS if number.n > above and (among is None or number.n in among)]


@strawberry.type
class Mutation:
    @strawberry.mutation
    def delete_everything(self) -> bool:
        return True


@strawberry.type
class OpenQuery:
    """Refuses in its fields, as servers do whose endpoint is open."""

    @strawberry.field
    def refused(self, message: str, code: str | None = None) -> list[Item]:
        raise GraphQLError(f"{message} {SECRET}", extensions={"code": code} if code else None)

    @strawberry.field
    def partly(self) -> list[Partly]:
        return [Partly(name="a")]


@strawberry.type
class Partly:
    name: str

    @strawberry.field
    def secret(self) -> str | None:
        raise GraphQLError("not yours")


CONFIG = StrawberryConfig(scalar_map={BigInt: strawberry.scalar(name="BigInt", serialize=int, parse_value=int)})


class SignedInOnly(GraphQL[Any, Any]):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        given = request.headers.get("authorization")
        if given not in {f"Bearer {SECRET}", "Bearer token-of-the-client"}:
            await JSONResponse({"errors": [{"message": SECRET}]}, 401)(scope, receive, send)
            return
        body = await request.body()
        SEEN.append(json.loads(body))

        async def again() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        await super().__call__(scope, again, send)


async def seen(request: Request) -> Response:
    return JSONResponse(SEEN)


async def elsewhere(request: Request) -> Response:
    return RedirectResponse("/graphql", 307)


async def not_graphql(request: Request) -> Response:
    return JSONResponse({"detail": SECRET}, int(request.query_params.get("status", 200)))


async def without_data(request: Request) -> Response:
    return JSONResponse({"data": None})


async def broken_schema(request: Request) -> Response:
    return JSONResponse({"data": {"__typename": "Query", "__schema": {"types": [{"kind": "OBJECT"}] * 3}}})


def _schema(**more: Any) -> strawberry.Schema:
    return strawberry.Schema(query=Query, mutation=Mutation, config=CONFIG, **more)


app = Starlette(
    routes=[
        Route("/token", token, methods=["POST"]),
        Route("/seen", seen),
        Route("/elsewhere", elsewhere, methods=["POST", "HEAD"]),
        Route("/not-graphql", not_graphql, methods=["POST"]),
        Route("/without-data", without_data, methods=["POST"]),
        Route("/broken-schema", broken_schema, methods=["POST"]),
        Mount("/graphql", SignedInOnly(_schema())),
        Mount("/open", GraphQL(strawberry.Schema(query=OpenQuery))),
        Mount("/closed", GraphQL(_schema(extensions=[AddValidationRules([NoSchemaIntrospectionCustomRule])]))),
    ]
)
