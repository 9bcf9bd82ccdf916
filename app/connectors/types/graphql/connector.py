"""GraphQL over HTTP, through httpx and graphql-core.

What there is comes from introspection (see `graphql_schema`); how the hub signs in stands in `http_auth.py`. Requests
are POSTs of queries in JSON, and no redirect of one is followed. Servers say what went wrong in `errors`, in words of
their own that are searched for what they mean and never shown.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from app.connectors.contract.base import Connector
from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.contract.objects import (
    DiscoveredObject,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import Steps
from app.connectors.network.http import MAX_BODY_BYTES, HttpClient, HttpUrl, Response, check_url, origin_of
from app.connectors.network.http_auth import (
    HTTP_DESTINATION_FIELDS,
    HttpSourceConfig,
    HttpSourceSecrets,
    SignedIn,
    Word,
    check_secrets,
    refuse_unless_ok,
    refuse_unless_signed_in,
)
from app.connectors.types.graphql.schema import Listing, listings, query_for, rows_at, schema_of
from app.connectors.values.batches import slices
from app.connectors.values.json_text import decode_json
from app.connectors.values.preview import Preview
from app.connectors.values.values import json_safe
from app.connectors.values.wildcards import is_shown

FieldPattern = Annotated[str, Meta(min_length=1, max_length=255)]

_MAX_OBJECTS: Final = 5_000
_MAX_PAGES: Final = 50
_MAX_SCHEMA_BYTES: Final = 16 * 1024 * 1024
_JSON: Final = "application/json"
_ACCEPT: Final = "application/graphql-response+json, application/json;q=0.9"


class GraphqlConfig(HttpSourceConfig, frozen=True):
    """Not `kw_only`, which puts these fields before those that all HTTP sources have."""

    url: Annotated[HttpUrl, Meta(description="Where queries are sent.", examples=["https://api.example.com/graphql"])]
    include_fields: Annotated[
        tuple[FieldPattern, ...],
        Meta(
            max_length=200, description="Fields of the query type to show; `*` stands for any characters. Empty: all."
        ),
    ] = ()
    exclude_fields: Annotated[
        tuple[FieldPattern, ...], Meta(max_length=200, description="Fields to leave out; wins over the included.")
    ] = ()
    arguments: Annotated[
        dict[Word, dict[Word, Any]],
        Meta(
            max_length=200,
            description="Arguments to give to fields, by the name of the field. Those that a field requires are needed "
            "for its preview.",
            examples=[{"orders": {"shopId": "7"}}],
        ),
    ] = {}
    page_size: Annotated[
        int, Meta(ge=1, le=1000, description="Rows to ask for at once, where a field takes such an argument.")
    ] = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_url("url", self.url)
        if len(msgspec.json.encode(self.arguments)) > 65_536:
            raise InvalidField(("arguments",), "The arguments are longer than 64 KiB.")

    def shows(self, name: str) -> bool:
        return is_shown(name, self.include_fields, self.exclude_fields)


class GraphqlSecrets(HttpSourceSecrets, frozen=True, kw_only=True):
    """Those of every HTTP source."""


class Graphql(Connector[GraphqlConfig, GraphqlSecrets]):
    type = "graphql"
    label = "GraphQL API"
    category = "api"
    description = "Lists, connections and objects of a GraphQL schema, found by introspection."
    config_type = GraphqlConfig
    secrets_type = GraphqlSecrets
    driver = "graphql"
    warm_modules = ("httpx", "httpcore", "anyio._backends._asyncio", "app.connectors.network.http")
    extra = "graphql"
    verified_with = ("Strawberry 0.341 on uvicorn",)
    destination_fields = HTTP_DESTINATION_FIELDS | {"url"}

    @classmethod
    def validate(cls, config: GraphqlConfig, secrets: GraphqlSecrets) -> None:
        check_secrets(config, secrets)

    async def check(self, steps: Steps) -> None:
        async with HttpClient.of(self.network, self.config, self.secrets) as client:
            await client.reach(steps, self.config.url)
            with steps.step("authenticate", self._signed_in()):
                session = await self._session(client)
                response = await session.ask("{ __typename }")
            if "server" in response.headers:
                steps.server["product"] = response.headers["server"][:100]
            with steps.step("list", "The schema can be read."):
                await session.listings()

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with HttpClient.of(self.network, self.config, self.secrets) as client:
            found = await (await self._session(client)).listings()
        if len(found) > _MAX_OBJECTS:
            self.stopped_because = f"The schema has more than {_MAX_OBJECTS:,} lists; those beyond were left out."
            del found[_MAX_OBJECTS:]
        for some in slices(found):
            yield [DiscoveredObject.at((one.name,), one.shape, one.fields) for one in some]

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)
        async with HttpClient.of(self.network, self.config, self.secrets) as client:
            session = await self._session(client)
            listing = next((one for one in await session.listings() if (one.name,) == request.path), None)
            if listing is None:
                raise ConnectorError("not_found", "The schema has no such list.")
            columns = preview.choose(listing.fields, "list")
            found = await session.rows(listing, [column.name for column in columns], request.limit + 1)
        for row in found.rows:
            if not preview.add([json_safe(row.get(column.name)) for column in columns]):
                break
        return preview.result(has_more=found.has_more, notes=found.notes)

    def _signed_in(self) -> str:
        return "The server answers without credentials." if self.config.auth == "none" else "The credentials are good."

    async def _session(self, client: HttpClient) -> Session:
        own_origin = origin_of(self.config.url)
        return Session(await SignedIn(client, self.config, self.secrets, own_origin).sign_in(), self.config)


class Rows(msgspec.Struct, frozen=True):
    rows: list[dict[str, object]]
    has_more: bool
    notes: tuple[str, ...]


class _Page(msgspec.Struct, frozen=True):
    rows: list[dict[str, object]]
    cursor: str | None
    """Where the next page starts, if the server says that there is one."""
    has_next: bool
    notes: tuple[str, ...]


class Session:
    """One endpoint, seen by a client that is signed in."""

    def __init__(self, client: SignedIn, config: GraphqlConfig) -> None:
        self._client = client
        self._config = config

    async def ask(
        self, query: str, variables: Mapping[str, object] | None = None, max_bytes: int = MAX_BODY_BYTES
    ) -> Response:
        """An answer that has data."""
        content = msgspec.json.encode({"query": query, "variables": variables or {}})
        response = await self._client.request(
            "POST", self._config.url, content=content, content_type=_JSON, accept=_ACCEPT, max_bytes=max_bytes
        )
        _refuse_without_data(response)
        return response

    async def listings(self) -> list[Listing]:
        """The fields of the query type that the source shows."""
        from graphql import get_introspection_query

        response = await self.ask(get_introspection_query(descriptions=False), max_bytes=_MAX_SCHEMA_BYTES)
        return [one for one in listings(schema_of(response.json(decode_json)["data"])) if self._config.shows(one.name)]

    async def rows(self, listing: Listing, columns: Sequence[str], wanted: int) -> Rows:
        """Goes from page to page where the field can be asked for the next one."""
        variables = self._variables(listing)
        size = min(self._config.page_size, wanted)
        can_go_on = listing.size_argument is not None and (listing.has_cursor or listing.offset_argument is not None)
        rows: list[dict[str, object]] = []
        notes: list[str] = []
        for _ in range(_MAX_PAGES):
            paging = _paging(listing, size, len(rows)) | variables
            page = await self._page(listing, columns, paging)
            rows += page.rows
            notes += page.notes
            has_more = page.has_next if listing.has_page_info else not _is_short(listing, page, size)
            is_stuck = listing.has_page_info and page.cursor is None
            if not has_more or is_stuck or not can_go_on or len(rows) >= wanted:
                break
            if listing.has_cursor:
                variables["after"] = page.cursor
        return Rows(rows, has_more, tuple(dict.fromkeys(notes)))

    async def _page(self, listing: Listing, columns: Sequence[str], variables: Mapping[str, object]) -> _Page:
        response = await self.ask(query_for(listing, columns, list(variables)), variables)
        answer = response.json(decode_json)
        value = answer["data"].get(listing.name)
        found = [] if value is None else rows_at(value, listing.row_path)
        notes: tuple[str, ...] = (_PARTIAL,) if answer.get("errors") else ()
        if listing.value is not None:
            return _Page([{"value": item} for item in found], None, False, notes)
        if any(item is None for item in found):
            notes += (_NULL_ROWS,)
        rows = [item if isinstance(item, dict) else {} for item in found]
        return _Page(rows, *_next_page(value), notes)

    def _variables(self, listing: Listing) -> dict[str, object]:
        """What the configuration gives to the field. Raises `unsupported` if that is not all that it needs."""
        given = dict(self._config.arguments.get(listing.name, {}))
        if unknown := sorted(given.keys() - listing.arguments.keys()):
            raise ConnectorError(
                "invalid_configuration", f"{listing.name} has no argument {', '.join(unknown)[:200]}; see `arguments`."
            )
        if missing := sorted(listing.required - given.keys() - {listing.size_argument}):
            raise ConnectorError(
                "unsupported",
                f"{listing.name} has no preview without its arguments: give {', '.join(missing)[:200]} in `arguments`.",
            )
        return given


def _paging(listing: Listing, size: int, skipped: int) -> dict[str, object]:
    paging: dict[str, object] = {}
    if listing.size_argument is not None:
        paging[listing.size_argument] = size
    if listing.offset_argument is not None and not listing.has_cursor and skipped:
        paging[listing.offset_argument] = skipped
    return paging


def _is_short(listing: Listing, page: _Page, size: int) -> bool:
    """A list that takes no size is whole."""
    return listing.size_argument is None or len(page.rows) < size


def _next_page(value: object) -> tuple[str | None, bool]:
    """Its cursor, and whether the server says that there is one: it may say so and give no cursor."""
    info = value.get("pageInfo") if isinstance(value, dict) else None
    has_next = isinstance(info, dict) and info.get("hasNextPage") is True
    cursor = info.get("endCursor") if isinstance(info, dict) and has_next else None
    return (cursor if isinstance(cursor, str) else None), has_next


_PARTIAL: Final = "The server told of errors beside its data: values that it could not give are null here."
_NULL_ROWS: Final = "The server gave null in place of some rows; they are shown as rows of nulls."


# Refusals -------------------------------------------------------------------------------------------------------------

_MEANINGS: Final[tuple[tuple[re.Pattern[str], Code, str], ...]] = (
    (
        re.compile("introspection"),
        "permission_denied",
        "The server does not let its schema be asked for (introspection), so that nothing is known of it.",
    ),
    (
        re.compile("persisted"),
        "permission_denied",
        "The server answers only queries that it knows beforehand.",
    ),
    (
        re.compile(r"rate.?limit|throttl|too.many|quota"),
        "rate_limited",
        "The server takes no more requests for now.",
    ),
    (
        re.compile(
            r"unauthenticated|not.authenticated|authentication|unauthorized|not.logged.in|log.?in|invalid.token"
        ),
        "authentication_failed",
        "The server did not accept the credentials.",
    ),
    (
        re.compile(r"forbidden|permission|access.denied|not.authorized|not.allowed"),
        "permission_denied",
        "The server knows the credentials and does not let them read this.",
    ),
    (
        re.compile(r"complexity|too.complex|depth|cost|too.large|node.limit"),
        "response_too_large",
        "The server finds the query too large.",
    ),
)
"""What words in an error's code or message mean; the first that matches counts."""


def _refuse_without_data(response: Response) -> None:
    """GraphQL over HTTP: an answer of status 200, or of any other if it is one of GraphQL, has `data` or `errors`. Data
    counts, errors beside it do not: they are of single values, which are null then."""
    answer = _answer(response)
    if answer is None:
        if response.status not in {405, 501}:
            refuse_unless_signed_in(response)
        if response.status < 400 or response.status in {404, 410}:
            refuse_unless_ok(response)
        raise ConnectorError("protocol_mismatch", "What answers at the URL does not speak GraphQL.")
    data, errors = answer.get("data"), answer.get("errors")
    if isinstance(data, dict) and any(value is not None for value in data.values()):
        return
    if isinstance(errors, list) and errors:
        raise _explained(response, errors)
    if not isinstance(data, dict):
        raise ConnectorError("response_invalid", "The server answered without data.")


def _answer(response: Response) -> dict[str, object] | None:
    """The body, if it is one of GraphQL."""
    try:
        answer = response.json(decode_json)
    except ConnectorError:
        return None
    is_graphql = isinstance(answer, dict) and (isinstance(answer.get("errors"), list) or "data" in answer)
    return answer if is_graphql else None


def _explained(response: Response, errors: list[object]) -> ConnectorError:
    """By the status where that says enough, then by the code and the message of the first error."""
    try:
        refuse_unless_signed_in(response)
    except ConnectorError as refusal:
        if refusal.code != "server_error":
            return refusal
    first = errors[0] if isinstance(errors[0], dict) else {}
    extensions = first.get("extensions")
    code = extensions.get("code") if isinstance(extensions, dict) else None
    for text in (code, first.get("message")):
        words = text[:2000].lower() if isinstance(text, str) else ""
        for pattern, meaning, sentence in _MEANINGS:
            if pattern.search(words):
                return ConnectorError(meaning, sentence)
    return ConnectorError("server_error", "The server could not answer the query.")
