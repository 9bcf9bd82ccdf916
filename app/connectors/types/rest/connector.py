"""JSON over HTTP, through httpx.

Resources are taken from the configuration and from the server's OpenAPI document, if it has one; fields come from the
document, or from the first page of a list. How addresses are pinned and redirects are followed stands in `http.py`,
how the hub signs in in `http_auth.py`, how it goes from page to page in `http_pages.py`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Final
from urllib.parse import unquote, urlsplit

from msgspec import Meta, Struct

from app.connectors.contract.base import Connector
from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import (
    DiscoveredField,
    DiscoveredObject,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import Steps
from app.connectors.network.http import HttpClient, HttpUrl, Response, check_url, origin_of
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
from app.connectors.types.rest.openapi import Document, as_document, described_lists
from app.connectors.types.rest.pages import (
    NothingThere,
    PaginationMode,
    Paging,
    Rows,
    content_of,
    first_page,
    judged_next_pointer,
    read_rows,
    refuse_nothing_at,
)
from app.connectors.values.batches import batches
from app.connectors.values.json_rows import fields_of
from app.connectors.values.preview import Preview
from app.connectors.values.values import json_safe

Pointer = Annotated[str, Meta(max_length=512, pattern=r"^(/.*)?\Z")]

_BATCH: Final = 100
_SAMPLE_ROWS: Final = 100
_MAX_RESOURCES: Final = 5_000
_MAX_JUDGED: Final = 20
_OF_ONE_LIST: Final = frozenset(
    {
        "invalid_configuration",
        "not_found",
        "permission_denied",
        "response_invalid",
        "response_too_large",
        "server_error",
    }
)
_DOCUMENT_PLACES: Final = ("openapi.json",)
_POSITION_PARAMETERS: Final[dict[PaginationMode, str]] = {"page": "page", "offset": "offset", "cursor": "cursor"}


class RestResource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One list of things that the server gives out."""

    name: Annotated[str, Meta(min_length=1, max_length=255, description="What the resource is called here.")]
    path: Annotated[str, Meta(min_length=1, max_length=1024, description="Path below base_url; may have a query.")]
    items_pointer: Annotated[
        Pointer | None,
        Meta(description="Where the list is in the answer (JSON Pointer, RFC 6901). Unset: found by looking."),
    ] = None


class RestConfig(HttpSourceConfig, frozen=True):
    """Not `kw_only`, which puts these fields before those that all HTTP sources have."""

    base_url: Annotated[HttpUrl, Meta(description="What every path is below.", examples=["https://api.example.com/v1"])]
    resources: Annotated[tuple[RestResource, ...], Meta(max_length=200, description="Lists to show by name.")] = ()
    openapi_url: Annotated[
        Annotated[str, Meta(min_length=1, max_length=2048)] | None,
        Meta(description="Where the OpenAPI document is, absolute or below base_url. Unset: openapi.json is tried."),
    ] = None
    pagination: Annotated[PaginationMode, Meta(description="How the server cuts lists into pages.")] = "none"
    page_parameter: Annotated[
        Word | None,
        Meta(description="Query parameter for the page, the offset or the cursor. Unset: `page`, `offset`, `cursor`."),
    ] = None
    first_page: Annotated[int, Meta(ge=0, le=1, description="For `page`: the number of the first one.")] = 1
    page_size_parameter: Annotated[Word | None, Meta(description="Query parameter for the size of a page.")] = None
    page_size: Annotated[int, Meta(ge=1, le=1000, description="Rows to ask for at once.")] = 100
    next_pointer: Annotated[
        Pointer | None, Meta(description="For `cursor`: where the next cursor, or the next page's URL, is.")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_url("base_url", self.base_url)
        check_url("openapi_url", _absolute(self.openapi_url))
        if urlsplit(self.base_url).query or urlsplit(self.base_url).fragment:
            raise InvalidField(("base_url",), "base_url has no query and no fragment.")
        if self.pagination == "cursor" and not self.next_pointer:
            raise InvalidField(("next_pointer",), "next_pointer is needed for pagination cursor.")
        names = [resource.name for resource in self.resources]
        if len(set(names)) < len(names):
            raise InvalidField(("resources",), "Two resources have one name.")
        if any(_climbs(resource.path) for resource in self.resources):
            raise InvalidField(("resources",), "A path is below base_url: it has no `..`.")


class RestSecrets(HttpSourceSecrets, frozen=True, kw_only=True):
    """Those of every HTTP source."""


def _climbs(path: str) -> bool:
    """Whether it leads above where it begins, in any spelling that a client or a server takes for `..`: secrets were
    given for what is below base_url, and another path of the same host may be somebody else's."""
    plain = unquote(unquote(re.split("[?#]", path, maxsplit=1)[0])).replace("\\", "/")
    return any(part.partition(";")[0].strip() == ".." for part in plain.split("/"))


def _absolute(url: str | None) -> str | None:
    return url if url is not None and re.match("https?://", url) else None


class Endpoint(Struct, frozen=True):
    """A list that can be asked for."""

    path: tuple[str, ...]
    """As a discovered object's."""
    url: str
    pointer: str | None
    fields: tuple[DiscoveredField, ...] | None
    """None where only a sample can tell."""
    is_configured: bool = False


class Rest(Connector[RestConfig, RestSecrets]):
    type = "rest"
    label = "REST API"
    category = "api"
    description = "Lists of JSON objects over HTTP, described by an OpenAPI document or by hand."
    config_type = RestConfig
    secrets_type = RestSecrets
    driver = "httpx"
    warm_modules = ("httpcore", "anyio._backends._asyncio", "app.connectors.network.http")
    verified_with = ("Starlette 1.10 on uvicorn",)
    destination_fields = HTTP_DESTINATION_FIELDS | {"base_url", "openapi_url"}

    @classmethod
    def validate(cls, config: RestConfig, secrets: RestSecrets) -> None:
        check_secrets(config, secrets)

    async def check(self, steps: Steps) -> None:
        async with self._client() as client:
            await client.reach(steps, self.config.base_url)
            endpoints: list[Endpoint] = []
            with steps.step("authenticate", self._signed_in()):
                session = await self._sign_in(client)
                endpoints = await session.endpoints()
                response = await session.first_answer(endpoints[0] if endpoints else None)
                refuse_unless_signed_in(response)
            if "server" in response.headers:
                steps.server["product"] = response.headers["server"][:100]
            if not endpoints:
                steps.skip("list", "No resources are configured, and no OpenAPI document was found.")
                return
            told = [f"{len(endpoints)} resources are known."]
            with steps.step("list", lambda: " ".join(told)):
                told += await session.judge(endpoints, response)

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._client() as client:
            session = await self._sign_in(client)
            endpoints = await session.endpoints()
            if len(endpoints) > _MAX_RESOURCES:
                self.stopped_because = f"There are more than {_MAX_RESOURCES:,} lists; those beyond were left out."
            is_only = len(endpoints) == 1
            known = endpoints[:_MAX_RESOURCES]
            async for batch in batches((await session.described(one, is_only=is_only) for one in known), _BATCH):
                yield batch

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        """As many pages as the limit asks for, and one row more where the server has it."""
        preview = Preview(request)
        async with self._client() as client:
            session = await self._sign_in(client)
            endpoint = next((found for found in await session.endpoints() if found.path == request.path), None)
            if endpoint is None:
                raise ConnectorError("not_found", "There is no such resource.")
            found = await session.rows(endpoint, request.limit + 1)
        columns = preview.choose(endpoint.fields or _sampled(found), "resource")
        for row in found.rows:
            if not preview.add([json_safe(row.get(column.name)) for column in columns]):
                break
        return preview.result(has_more=found.has_more)

    def _signed_in(self) -> str:
        return "The server answers without credentials." if self.config.auth == "none" else "The credentials are good."

    def _client(self) -> HttpClient:
        return HttpClient.of(self.network, self.config, self.secrets)

    async def _sign_in(self, client: HttpClient) -> Session:
        own_origin = origin_of(self.config.base_url)
        return Session(await SignedIn(client, self.config, self.secrets, own_origin).sign_in(), self.config)


class Session:
    """What one server has, seen by a client that is signed in."""

    def __init__(self, client: SignedIn, config: RestConfig) -> None:
        self._client = client
        self._config = config
        self._paging = Paging(
            mode=config.pagination,
            position_parameter=config.page_parameter or _POSITION_PARAMETERS.get(config.pagination, ""),
            first_page=config.first_page,
            size_parameter=config.page_size_parameter,
            next_pointer=config.next_pointer,
        )

    async def endpoints(self) -> list[Endpoint]:
        """What is configured, then what the document has beside it; each path once."""
        configured = [
            Endpoint((resource.name,), self._below(resource.path), resource.items_pointer, None, is_configured=True)
            for resource in self._config.resources
        ]
        document = None if configured and self._config.openapi_url is None else await self._document()
        described = [
            Endpoint(found.path, found.url, found.pointer, found.fields)
            for found in (described_lists(document, self._config.base_url) if document else ())
        ]
        known = {endpoint.path for endpoint in configured} | {(endpoint.url,) for endpoint in configured}
        fresh = [found for found in described if found.path not in known and (found.url,) not in known]
        return [*configured, *fresh]

    async def first_answer(self, endpoint: Endpoint | None) -> Response:
        """Of base_url itself where there is no endpoint."""
        if endpoint is None:
            return await self._get(self._config.base_url)
        return await first_page(self._get, endpoint.url, self._paging, self._config.page_size)

    async def judge(self, endpoints: Sequence[Endpoint], first: Response) -> list[str]:
        """Raises what the first list, and those that are configured with a pointer to judge, say against being read.
        The sentences are what may be wrong and need not be."""
        doubts: list[str] = []
        for number, endpoint in enumerate(endpoints[:_MAX_JUDGED]):
            has_pointer = endpoint.pointer or self._paging.mode == "cursor"
            if number and not (endpoint.is_configured and has_pointer):
                continue
            answer = await self.first_answer(endpoint) if number else first
            refuse_unless_signed_in(answer)
            refuse_unless_ok(answer)
            with _pointed_at(endpoint):
                refuse_nothing_at(endpoint.pointer, answer)
            doubts += await self._judge_next_pointer(endpoint, answer)
        return doubts

    async def _judge_next_pointer(self, endpoint: Endpoint, answer: Response) -> list[str]:
        """It leads to a cursor, to null, or nowhere in an answer that is the last page. Where an answer does not say
        which it is, a list of several rows that comes one by one has a next page, and a way to it."""
        paging = self._paging
        rows, _ = content_of(answer, endpoint.pointer)
        judged = judged_next_pointer(answer, paging, rows)
        if judged.leads_somewhere or not rows:
            return []
        missing = f"There is nothing at {paging.next_pointer} (next_pointer) in the first answer of {endpoint.path[0]}"
        if paging.mode != "cursor":
            return [f"{missing}; it is used for pagination cursor only."]
        if judged.more:
            message = f"{missing}, which says that there is more: see {judged.more}."
            raise ConnectorError("invalid_configuration", message)
        if not paging.size_parameter or len(rows) < 2:
            return [f"{missing}, which is right only if that is its last page."]
        single = await first_page(self._get, endpoint.url, paging, 1)
        found, _ = content_of(single, endpoint.pointer)
        if len(found) == 1 and not judged_next_pointer(single, paging, found).leads_somewhere:
            raise ConnectorError(
                "invalid_configuration",
                f"There is nothing at {paging.next_pointer} (next_pointer) in an answer that has a next page.",
            )
        return []

    async def rows(self, endpoint: Endpoint, wanted: int) -> Rows:
        """Where only a sample tells the fields, the first page has the same size whatever is wanted: the fields then
        are the same, too."""
        size = min(self._config.page_size, wanted) if endpoint.fields else self._config.page_size
        with _pointed_at(endpoint):
            return await read_rows(self._get, endpoint.url, endpoint.pointer, self._paging, size=size, wanted=wanted)

    async def described(self, endpoint: Endpoint, *, is_only: bool) -> DiscoveredObject:
        """Without fields and with the reason for a list that cannot be read beside others; if it is the only one, that
        is the failure."""
        fields, notes = endpoint.fields or (), list[str]()
        try:
            fields = fields or _sampled(await self.rows(endpoint, 1))
        except ConnectorError as error:
            if is_only or error.code not in _OF_ONE_LIST:
                raise
            notes.append(error.message)
        return DiscoveredObject.at(endpoint.path, "resource", fields, notes)

    async def _get(self, url: str) -> Response:
        return await self._client.request("GET", url)

    async def _document(self) -> Document | None:
        """The OpenAPI document. One that is configured has to be there; one that is only hoped for need not."""
        wanted = self._config.openapi_url
        for place in (wanted,) if wanted else _DOCUMENT_PLACES:
            response = await self._get(place if _absolute(place) else self._below(place))
            if wanted:
                refuse_unless_signed_in(response)
                refuse_unless_ok(response)
            found = _as_document(response)
            if found is not None:
                return found
            if wanted:
                raise ConnectorError("response_invalid", "What openapi_url leads to is no OpenAPI document in JSON.")
        return None

    def _below(self, path: str) -> str:
        """Below base_url, always: a path cannot lead to another origin."""
        return self._config.base_url.rstrip("/") + "/" + path.lstrip("/")


@contextmanager
def _pointed_at(endpoint: Endpoint) -> Iterator[None]:
    """A pointer that leads nowhere is a mistake of whoever configured it, or of the document."""
    try:
        yield
    except NothingThere as error:
        if not endpoint.is_configured:
            raise
        message = f"{error.message} See items_pointer of {endpoint.path[0]}."
        raise ConnectorError("invalid_configuration", message) from error


def _as_document(response: Response) -> Document | None:
    try:
        return as_document(response.json()) if response.status == 200 else None
    except ConnectorError:
        return None


def _sampled(found: Rows) -> tuple[DiscoveredField, ...]:
    return fields_of(found.rows[: min(found.in_first_page, _SAMPLE_ROWS)])
