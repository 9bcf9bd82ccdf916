"""JSON over HTTP, through httpx.

Resources are taken from the configuration and from the server's OpenAPI document, if it has one; fields come from the
document, or from a sample. How addresses are pinned and redirects are followed stands in `http.py`.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from msgspec import Meta, Struct

from app.connectors.base import (
    Connector,
    ConnectorConfig,
    ConnectorSecrets,
    DiscoveredField,
    DiscoveredObject,
    InvalidField,
    Pem,
    PortableType,
    PreviewColumn,
    PreviewRequest,
    PreviewResult,
    SecretText,
    Steps,
    TimeoutS,
    elapsed_ms,
)
from app.connectors.failures import ConnectorError
from app.connectors.http import HttpClient, Origin, Response, origin_of
from app.connectors.json_rows import BY_JSON_TYPE, ITEM_KEYS, at_pointer, fields_of, rows_in
from app.connectors.values import RowBudget, json_safe

AuthMode = Literal["none", "basic", "bearer", "api_key_header", "api_key_query", "oauth2_client_credentials"]
PaginationMode = Literal["none", "page", "offset", "cursor", "link_header"]
HttpUrl = Annotated[str, Meta(min_length=8, max_length=2048, pattern="^https?://")]
Word = Annotated[str, Meta(min_length=1, max_length=128)]
Pointer = Annotated[str, Meta(max_length=512, pattern="^(/.*)?$")]

_BATCH: Final = 100
_SAMPLE_ROWS: Final = 100
_MAX_RESOURCES: Final = 5_000
_DOCUMENT_PLACES: Final = ("openapi.json",)
_OWN_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "host", "content-length", "transfer-encoding", "connection"}
    | {"accept-encoding", "upgrade", "te", "trailer", "x-api-key"}
)


class RestResource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One list of things that the server gives out."""

    name: Annotated[str, Meta(min_length=1, max_length=255, description="What the resource is called here.")]
    path: Annotated[str, Meta(min_length=1, max_length=1024, description="Path below base_url; may have a query.")]
    items_pointer: Annotated[
        Pointer | None,
        Meta(description="Where the list is in the answer (JSON Pointer, RFC 6901). Unset: found by looking."),
    ] = None


class RestConfig(ConnectorConfig, frozen=True, kw_only=True):
    base_url: Annotated[HttpUrl, Meta(description="What every path is below.", examples=["https://api.example.com/v1"])]
    resources: Annotated[tuple[RestResource, ...], Meta(max_length=200, description="Lists to show by name.")] = ()
    openapi_url: Annotated[
        Annotated[str, Meta(min_length=1, max_length=2048)] | None,
        Meta(description="Where the OpenAPI document is, absolute or below base_url. Unset: openapi.json is tried."),
    ] = None
    auth: Annotated[AuthMode, Meta(description="How the hub signs in.")] = "none"
    username: Annotated[Word | None, Meta(description="For `basic`.")] = None
    api_key_name: Annotated[Word | None, Meta(description="Header or query parameter that carries the key.")] = None
    token_url: Annotated[HttpUrl | None, Meta(description="For OAuth2: where tokens are given out.")] = None
    client_id: Annotated[Word | None, Meta(description="For OAuth2.")] = None
    scope: Annotated[Annotated[str, Meta(max_length=1024)] | None, Meta(description="For OAuth2.")] = None
    pagination: Annotated[PaginationMode, Meta(description="How the server cuts lists into pages.")] = "none"
    page_size_parameter: Annotated[Word | None, Meta(description="Query parameter for the size of a page.")] = None
    next_pointer: Annotated[Pointer | None, Meta(description="For `cursor`: where the next cursor is.")] = None
    headers: Annotated[
        dict[Word, Annotated[str, Meta(max_length=1024)]],
        Meta(max_length=32, description="Sent with every request. Not for secrets."),
    ] = {}
    verify_tls: Annotated[bool, Meta(description="Whether the server's certificate is checked.")] = True
    ca_certificate: Annotated[Pem | None, Meta(description="CA to trust instead of the system's.")] = None
    connect_timeout_s: Annotated[TimeoutS, Meta(description="Seconds for each step of connecting.")] = 5.0
    read_timeout_s: Annotated[TimeoutS, Meta(description="Seconds without a byte from the server.")] = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, url in (
            ("base_url", self.base_url),
            ("token_url", self.token_url),
            ("openapi_url", _absolute(self.openapi_url)),
        ):
            _check_url(name, url)
        if urlsplit(self.base_url).query or urlsplit(self.base_url).fragment:
            raise InvalidField(("base_url",), "base_url has no query and no fragment.")
        self._check_auth()
        self._check_headers()
        names = [resource.name for resource in self.resources]
        if len(set(names)) < len(names):
            raise InvalidField(("resources",), "Two resources have one name.")

    def _check_auth(self) -> None:
        needed = {
            "basic": ("username",),
            "api_key_header": ("api_key_name",),
            "api_key_query": ("api_key_name",),
            "oauth2_client_credentials": ("token_url", "client_id"),
        }
        for name in needed.get(self.auth, ()):
            if getattr(self, name) is None:
                raise InvalidField((name,), f"{name} is needed for auth {self.auth}.")
        if self.auth == "api_key_header" and not _TOKEN.fullmatch(self.api_key_name or ""):
            raise InvalidField(("api_key_name",), "api_key_name is not the name of a header.")

    def _check_headers(self) -> None:
        for name, value in self.headers.items():
            if not _TOKEN.fullmatch(name) or not value.isascii():
                raise InvalidField(("headers", name), "A header has an ASCII name and value.")
            if name.lower() in _OWN_HEADERS:
                raise InvalidField(("headers", name), f"{name} is set by the hub; secrets belong into auth.")


class RestSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="For `basic`.")] = None
    token: Annotated[SecretText | None, Meta(description="For `bearer`.")] = None
    api_key: Annotated[SecretText | None, Meta(description="For `api_key_header` and `api_key_query`.")] = None
    client_secret: Annotated[SecretText | None, Meta(description="For OAuth2.")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("token", "api_key"):
            if not all("\x21" <= character <= "\x7e" for character in getattr(self, name) or ""):
                raise InvalidField((name,), f"{name} holds a character that no header can carry.")


_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SECRET_OF: Final = {
    "basic": "password",
    "bearer": "token",
    "api_key_header": "api_key",
    "api_key_query": "api_key",
    "oauth2_client_credentials": "client_secret",
}


def _check_url(name: str, url: str | None) -> None:
    if url is None:
        return
    try:
        origin_of(url)
    except ValueError as error:
        raise InvalidField((name,), f"{name}: {error}.") from None


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


class Rest(Connector[RestConfig, RestSecrets]):
    type = "rest"
    label = "REST API"
    category = "api"
    description = "Lists of JSON objects over HTTP, described by an OpenAPI document or by hand."
    config_type = RestConfig
    secrets_type = RestSecrets
    driver = "httpx"
    warm_modules = ("httpcore", "anyio._backends._asyncio", "app.connectors.http")
    verified_with = ("Starlette on uvicorn",)
    destination_fields = frozenset(
        {"base_url", "openapi_url", "auth", "username", "api_key_name", "token_url", "client_id"}
        | {"verify_tls", "ca_certificate"}
    )

    @classmethod
    def validate(cls, config: RestConfig, secrets: RestSecrets) -> None:
        needed = _SECRET_OF.get(config.auth)
        if needed and getattr(secrets, needed) is None:
            raise InvalidField(("secrets", needed), f"{needed} is needed for auth {config.auth}.")

    async def check(self, steps: Steps) -> None:
        async with self._client() as client:
            await client.reach(steps, self.config.base_url)
            endpoints: list[Endpoint] = []
            with steps.step("authenticate", self._signed_in()):
                session = await self._sign_in(client)
                endpoints = await session.endpoints()
                response = await session.get(endpoints[0].url if endpoints else self.config.base_url)
                refuse_unless_signed_in(response)
            if "server" in response.headers:
                steps.server["product"] = response.headers["server"][:100]
            if not endpoints:
                steps.skip("list", "No resources are configured, and no OpenAPI document was found.")
                return
            with steps.step("list", f"{len(endpoints)} resources are known."):
                refuse_unless_ok(response)
                response.json()

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._client() as client:
            session = await self._sign_in(client)
            batch: list[DiscoveredObject] = []
            for endpoint in await session.endpoints():
                fields = endpoint.fields
                if fields is None:
                    fields = fields_of(await session.rows(endpoint, _SAMPLE_ROWS))
                batch.append(DiscoveredObject.at(endpoint.path, "resource", fields))
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
            if batch:
                yield batch

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        """One page of the resource: the server decides how many rows there are in it."""
        started = time.perf_counter()
        async with self._client() as client:
            session = await self._sign_in(client)
            endpoint = next((found for found in await session.endpoints() if found.path == request.path), None)
            if endpoint is None:
                raise ConnectorError("not_found", "There is no such resource.")
            page = await session.page(endpoint, request.limit)
        fields = endpoint.fields or fields_of(page.rows[:_SAMPLE_ROWS])
        columns = _columns(fields, request.columns)
        budget = RowBudget(request.limit, request.max_bytes, request.max_value_bytes)
        for row in page.rows:
            if not budget.add([json_safe(row.get(column.name)) for column in columns]):
                break
        return PreviewResult(columns, budget.rows, budget.truncated or page.has_more, elapsed_ms(started))

    def _signed_in(self) -> str:
        return "The server answers without credentials." if self.config.auth == "none" else "The credentials are good."

    def _client(self) -> HttpClient:
        config = self.config
        return HttpClient(
            self.network,
            verify_tls=config.verify_tls,
            ca_certificate=config.ca_certificate,
            connect_timeout_s=config.connect_timeout_s,
            read_timeout_s=config.read_timeout_s,
        )

    async def _sign_in(self, client: HttpClient) -> Session:
        """Credentials as they are sent: headers, and parameters of the query."""
        config, secrets = self.config, self.secrets
        headers, query = dict(config.headers), {}
        if config.auth == "basic":
            pair = f"{config.username}:{secrets.password}".encode()
            headers["authorization"] = "Basic " + base64.b64encode(pair).decode("ascii")
        elif config.auth == "bearer":
            headers["authorization"] = f"Bearer {secrets.token}"
        elif config.auth == "api_key_header":
            headers[str(config.api_key_name)] = str(secrets.api_key)
        elif config.auth == "api_key_query":
            query[str(config.api_key_name)] = str(secrets.api_key)
        elif config.auth == "oauth2_client_credentials":
            headers["authorization"] = f"Bearer {await self._token(client)}"
        return Session(client, config, headers, query)

    async def _token(self, client: HttpClient) -> str:
        """RFC 6749, section 4.4, the client identified by HTTP Basic (section 2.3.1)."""
        config = self.config
        pair = f"{quote(str(config.client_id), safe='')}:{quote(str(self.secrets.client_secret), safe='')}"
        form = {"grant_type": "client_credentials", **({"scope": config.scope} if config.scope else {})}
        basic = {"authorization": "Basic " + base64.b64encode(pair.encode()).decode("ascii")}
        response = await client.post_form(str(config.token_url), form, basic)
        if response.status in {400, 401, 403}:
            raise ConnectorError("authentication_failed", "The token server did not accept the client.")
        refuse_unless_ok(response)
        answer = response.json()
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise ConnectorError("response_invalid", "The token server gave no access token.")
        return token


class Page(Struct, frozen=True):
    rows: list[dict[str, Any]]
    has_more: bool


class Session:
    """A signed-in client of one server."""

    def __init__(self, client: HttpClient, config: RestConfig, headers: Mapping[str, str], query: Mapping[str, str]):
        self._client = client
        self._config = config
        self._headers = headers
        self._query = query
        self._origin: Origin = origin_of(config.base_url)

    async def get(self, url: str, extra: Mapping[str, str] | None = None) -> Response:
        is_own = origin_of(url) == self._origin
        url = _with_query(url, {**(extra or {}), **(self._query if is_own else {})})
        return await self._client.get(url, headers=self._headers, own_origin=self._origin)

    async def endpoints(self) -> list[Endpoint]:
        """What is configured, then what the document has beside it; each path once."""
        configured = [
            Endpoint((resource.name,), self._below(resource.path), resource.items_pointer, None)
            for resource in self._config.resources
        ]
        document = None if configured and self._config.openapi_url is None else await self._document()
        described = _described(document, self._config.base_url) if document else []
        known = {endpoint.path for endpoint in configured} | {(endpoint.url,) for endpoint in configured}
        fresh = [found for found in described if found.path not in known and (found.url,) not in known]
        return [*configured, *fresh][:_MAX_RESOURCES]

    async def _document(self) -> dict[str, Any] | None:
        """The OpenAPI document. One that is configured has to be there; one that is only hoped for need not."""
        wanted = self._config.openapi_url
        for place in (wanted,) if wanted else _DOCUMENT_PLACES:
            url = place if place.startswith(("http://", "https://")) else self._below(place)
            response = await self.get(url)
            if wanted:
                refuse_unless_signed_in(response)
                refuse_unless_ok(response)
            found = _as_document(response, is_wanted=wanted is not None)
            if found is not None:
                return found
        return None

    async def page(self, endpoint: Endpoint, limit: int) -> Page:
        name = self._config.page_size_parameter
        response = await self.get(endpoint.url, {name: str(limit)} if name and limit else {})
        refuse_unless_signed_in(response)
        refuse_unless_ok(response)
        answer = response.json()
        return Page(rows_in(answer, endpoint.pointer), self._has_more(response, answer))

    async def rows(self, endpoint: Endpoint, limit: int) -> list[dict[str, Any]]:
        return (await self.page(endpoint, limit)).rows[:limit]

    def _has_more(self, response: Response, answer: Any) -> bool:
        if self._config.pagination == "link_header":
            return 'rel="next"' in response.headers.get("link", "") or "rel=next" in response.headers.get("link", "")
        if self._config.pagination == "cursor" and self._config.next_pointer:
            return bool(at_pointer(answer, self._config.next_pointer))
        return False

    def _below(self, path: str) -> str:
        """Below base_url, always: a path cannot lead to another origin."""
        return self._config.base_url.rstrip("/") + "/" + path.lstrip("/")


def refuse_unless_signed_in(response: Response) -> None:
    if response.status in {401, 407}:
        raise ConnectorError("authentication_failed", "The server did not accept the credentials.")
    if response.status == 403:
        raise ConnectorError("permission_denied", "The server knows the credentials and does not let them read this.")
    if response.status == 429:
        raise ConnectorError("rate_limited", "The server takes no more requests for now.")
    if response.status >= 500:
        raise ConnectorError("server_error", f"The server answered with status {response.status}.")


def refuse_unless_ok(response: Response) -> None:
    if response.status in {404, 410}:
        raise ConnectorError("not_found", "The server does not have this path.")
    if not 200 <= response.status < 300:
        raise ConnectorError("server_error", f"The server answered with status {response.status}.")


def _with_query(url: str, query: Mapping[str, str]) -> str:
    if not query:
        return url
    parts = urlsplit(url)
    pairs = [*parse_qsl(parts.query, keep_blank_values=True), *query.items()]
    return urlunsplit(parts._replace(query=urlencode(pairs)))


# Rows and their fields ------------------------------------------------------------------------------------------------


def _columns(fields: Sequence[DiscoveredField], names: Sequence[str] | None) -> tuple[PreviewColumn, ...]:
    by_name = {field.name: field for field in fields}
    chosen = list(by_name) if names is None else list(names)
    if unknown := [name for name in chosen if name not in by_name]:
        raise ConnectorError("not_found", f"The resource has no field {', '.join(unknown)[:200]}.")
    return tuple(PreviewColumn(name, by_name[name].type) for name in chosen)


# OpenAPI --------------------------------------------------------------------------------------------------------------

_BY_FORMAT: Final[dict[str, PortableType]] = {
    "date-time": "timestamp_tz",
    "date": "date",
    "time": "time",
    "duration": "interval",
    "uuid": "uuid",
    "byte": "binary",
    "decimal": "decimal",
}


def _as_document(response: Response, *, is_wanted: bool) -> dict[str, Any] | None:
    try:
        document = response.json() if response.status == 200 else None
    except ConnectorError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("paths"), dict) and "openapi" in document:
        return document
    if is_wanted:
        raise ConnectorError("response_invalid", "What openapi_url leads to is no OpenAPI document.")
    return None


def _described(document: dict[str, Any], base_url: str) -> list[Endpoint]:
    """Every path without parameters of its own whose GET answers with JSON."""
    endpoints = []
    for path, item in document["paths"].items():
        schema = _answer_schema(document, item) if isinstance(path, str) and "{" not in path else None
        names = tuple(name for name in str(path).split("/") if name)
        if schema is None or not names or path.rpartition("/")[2] in {"openapi.json"}:
            continue
        pointer, row_schema = _row_schema(document, schema)
        if row_schema is not None:
            url = base_url.rstrip("/") + "/" + quote("/".join(names), safe="/")
            endpoints.append(Endpoint(names, url, pointer, _schema_fields(document, row_schema)))
    return endpoints


def _answer_schema(document: dict[str, Any], item: Any) -> dict[str, Any] | None:
    operation = item.get("get") if isinstance(item, dict) else None
    if not isinstance(operation, dict) or _needs_parameters(operation):
        return None
    answers = operation.get("responses")
    answer = _resolved(document, answers.get("200")) if isinstance(answers, dict) else None
    content = answer.get("content") if answer else None
    media = content.get("application/json") if isinstance(content, dict) else None
    return _resolved(document, media.get("schema")) if isinstance(media, dict) else None


def _needs_parameters(operation: dict[str, Any]) -> bool:
    parameters = operation.get("parameters")
    return any(
        isinstance(parameter, dict) and parameter.get("required") and parameter.get("in") != "header"
        for parameter in (parameters if isinstance(parameters, list) else ())
    )


def _row_schema(document: dict[str, Any], schema: dict[str, Any]) -> tuple[str | None, dict[str, Any] | None]:
    """Where the rows are and what one looks like: a list by itself, or under a usual name; None for other answers."""
    if _schema_type(schema) == "array":
        return "", _resolved(document, schema.get("items"))
    properties = schema.get("properties")
    for key in ITEM_KEYS if isinstance(properties, dict) else ():
        inner = _resolved(document, properties.get(key))  # type: ignore[union-attr]
        if inner and _schema_type(inner) == "array":
            return f"/{key}", _resolved(document, inner.get("items"))
    return None, None


def _schema_fields(document: dict[str, Any], schema: dict[str, Any]) -> tuple[DiscoveredField, ...] | None:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return None
    required = schema.get("required")
    needed = set(filter(lambda name: isinstance(name, str), required)) if isinstance(required, list) else set()
    return tuple(
        _schema_field(document, name, inner, position, is_required=name in needed)
        for position, (name, inner) in enumerate(properties.items(), 1)
    )


def _schema_field(
    document: dict[str, Any], name: str, schema: Any, position: int, *, is_required: bool
) -> DiscoveredField:
    plain, is_nullable = _without_null(document, schema)
    kind, form = _schema_type(plain), plain.get("format")
    portable = BY_JSON_TYPE.get(kind, "json" if plain else "unknown")
    if kind == "string" and isinstance(form, str):
        portable = _BY_FORMAT.get(form, portable)
    native = f"{kind or 'any'}({form})" if isinstance(form, str) else kind or "any"
    return DiscoveredField(name, portable, native[:255], is_nullable or not is_required, position)


def _without_null(document: dict[str, Any], schema: Any) -> tuple[dict[str, Any], bool]:
    """A schema and whether it allows null, in the ways of OpenAPI 3.0 (`nullable`) and 3.1."""
    plain = _resolved(document, schema) or {}
    variants = plain.get("anyOf") or plain.get("oneOf")
    if isinstance(variants, list):
        inner = [found for variant in variants if (found := _resolved(document, variant))]
        solid = [variant for variant in inner if variant.get("type") != "null"]
        return (solid[0] if len(solid) == 1 else {"anyOf": solid}), len(solid) < len(inner)
    types = plain.get("type")
    return plain, plain.get("nullable") is True or (isinstance(types, list) and "null" in types)


def _schema_type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        solid = [item for item in kind if item != "null"]
        kind = solid[0] if len(solid) == 1 else ""
    return kind if isinstance(kind, str) else ("object" if "properties" in schema else "")


def _resolved(document: dict[str, Any], schema: Any) -> dict[str, Any] | None:
    """Follows references inside the document; one that leads out of it is never fetched."""
    for _ in range(16):
        if not isinstance(schema, dict):
            return None
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        schema = at_pointer(document, reference[1:]) if reference.startswith("#/") else None
    return None
