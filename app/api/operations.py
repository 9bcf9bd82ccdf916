"""One operation of the OpenAPI document, read off one route handler: what it takes, what it wants, how it can end."""

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from litestar import Litestar
from litestar.enums import RequestEncodingType
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from app.api.components import WITHOUT_NUL, Components, Schema
from app.api.examples import PATH_PARAMETERS, Examples
from app.core.answers import Answer, Stream
from app.core.bodies import MERGE_PATCH
from app.core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    HubError,
    IdempotencyMismatch,
    InternalError,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from app.core.exchange import JSON, MSGPACK
from app.core.listing import COMMON_PARAMETERS, Listing
from app.core.security import Access

ERRORS: tuple[type[HubError], ...] = (
    BadRequest,
    Unauthenticated,
    Forbidden,
    NotFound,
    Conflict,
    PreconditionFailed,
    TooLarge,
    UnsupportedMediaType,
    IdempotencyMismatch,
    PreconditionRequired,
    TooManyRequests,
    InternalError,
    Unavailable,
)
ALWAYS: tuple[type[HubError], ...] = (BadRequest, TooManyRequests, InternalError, Unavailable)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
CHANGES = frozenset(("PUT", "PATCH", "DELETE"))
ENTITY_TAGGED = frozenset(("entity", "created"))
"""The functions of `core.answers` that send an ETag."""
PLAIN_TEXT = {"type": "string", "pattern": WITHOUT_NUL}
REASONS = {200: "As asked.", 201: "Made.", 202: "Taken on; the job goes on.", 204: "Done; there is nothing to show."}


class Route(Struct, frozen=True):
    """One method of one path."""

    path: str
    method: str
    handler: HTTPRouteHandler
    path_parameters: Mapping[str, type]

    @property
    def access(self) -> Access:
        access: Access = self.handler.opt["access"]
        return access

    @property
    def body_type(self) -> Any:
        """`opt["body_as"]` where a handler reads the parts of its body by itself, one by one."""
        field = self.handler.parsed_data_field
        return None if field is None else self.handler.opt.get("body_as", field.annotation)

    @property
    def answer_type(self) -> Any:
        """What the answer's body holds: the parameter of `Answer[...]` or `Stream[...]`."""
        annotation = self.handler.parsed_return_field.annotation
        wrapped = get_origin(annotation) in (Answer, Stream)
        return get_args(annotation)[0] if wrapped else annotation

    @property
    def other_answers(self) -> Mapping[int, Any]:
        """Answers that are no error and yet have another status: `opt["other_answers"]`, types by status."""
        found: Mapping[int, Any] = self.handler.opt.get("other_answers", {})
        return found

    @property
    def is_idempotent(self) -> bool:
        return bool(getattr(self.handler.fn, "is_idempotent", False))

    @property
    def sends_entity_tag(self) -> bool:
        code = inspect.unwrap(self.handler.fn).__code__
        return not ENTITY_TAGGED.isdisjoint(code.co_names)

    @property
    def tag(self) -> str:
        """A handler has one."""
        (tag,) = self.handler.resolve_tags()
        return str(tag)

    @property
    def module(self) -> str:
        return str(inspect.unwrap(self.handler.fn).__module__)

    @property
    def line(self) -> int:
        """Where its module declares it: what one needs first stands first, as in any reference that is read."""
        return int(inspect.unwrap(self.handler.fn).__code__.co_firstlineno)

    @property
    def key(self) -> str:
        return f"{self.method} {self.path}"


def routes_of(app: Litestar, tags: Sequence[str]) -> list[Route]:
    """Every operation that belongs into the document, tag by tag, in the order in which the controllers tell it."""
    found = []
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if not isinstance(handler, HTTPRouteHandler) or not handler.resolve_include_in_schema():
                continue
            parameters = {name: what.type for name, what in route.path_parameters.items()}
            methods = sorted(str(method) for method in handler.http_methods if method != "OPTIONS")
            found += [Route(route.path_format, method, handler, parameters) for method in methods]
    modules = list(dict.fromkeys(route.module for route in found))  # as the route table names them
    return sorted(
        found,
        key=lambda route: (tags.index(route.tag), modules.index(route.module), route.line, METHODS.index(route.method)),
    )


def operation_ids(routes: list[Route]) -> dict[str, str]:
    """By `Route.key`: the handler's own name, told apart by its parent where two share one (`list_user_roles`)."""
    names = {route.key: _verbal(route) for route in routes}
    shared = {name for name, times in Counter(names.values()).items() if times > 1}
    return {route.key: _distinct(names[route.key], route, shared) for route in routes}


def _distinct(name: str, route: Route, shared: set[str]) -> str:
    """Names of one word say of what where the path does (`cancel_job`)."""
    if not route.path_parameters or (name not in shared and "_" in route.handler.handler_name):
        return name
    return _within_parent(name, route)


def _verbal(route: Route) -> str:
    name = route.handler.handler_name
    if route.method != "GET" or "_" in name:
        return name
    return f"list_{name}" if route.access.listing is not None else f"get_{name}"


def _within_parent(name: str, route: Route) -> str:
    parts = [part for part in route.path.split("/") if part and not part.startswith("{")]
    parent = parts[-2].removesuffix("s").replace("-", "_") if len(parts) > 1 else ""
    verb, _, rest = name.partition("_")
    return "_".join(filter(None, (verb, parent, rest)))


class Operations:
    def __init__(
        self, routes: list[Route], components: Components, examples: Examples, permissions: Mapping[str, str]
    ) -> None:
        self._components = components
        self._examples = examples
        self._permissions = permissions
        self._ids = operation_ids(routes)
        self._tagged = {route.path for route in routes if route.method == "GET" and route.sends_entity_tag}

    def of(self, route: Route) -> dict[str, Any]:
        handler, access = route.handler, route.access
        operation: dict[str, Any] = {
            "operationId": self._ids[route.key],
            "tags": [route.tag],
            "summary": handler.summary,
            "description": self._description(route),
            "security": [{}] if access.is_open else [{"bearer": []}],
        }
        if access.permission:
            operation["x-permission"] = access.permission
        if parameters := list(self._parameters(route)):
            operation["parameters"] = parameters
        if route.body_type is not None:
            operation["requestBody"] = self._request_body(route)
        return operation | {"responses": self._responses(route)}

    def _description(self, route: Route) -> str:
        access = route.access
        text = inspect.cleandoc(route.handler.fn.__doc__ or "")
        if access.permission:
            sentence = self._permissions.get(access.permission, "")
            return f"{text}\n\nNeeds the permission `{access.permission}`: {sentence}".strip()
        return f"{text}\n\nOpen to all." if access.is_open else f"{text}\n\nFor everyone who is signed in."

    def _parameters(self, route: Route) -> Iterator[dict[str, Any]]:
        for name, kind in route.path_parameters.items():
            schema: Schema = (
                {"type": "string", "format": "uuid"} if kind is not str else {"type": "string", "minLength": 1}
            )
            example = PATH_PARAMETERS.get(name, PATH_PARAMETERS["user_id"] if kind is not str else "example")
            yield {"name": name, "in": "path", "required": True, "schema": schema, "example": example}
        if route.access.listing is not None:
            yield from _list_parameters(route.access.listing)
        yield from (_query_parameter(name, wanted) for name, wanted in route.access.parameters.items())
        yield from ({"$ref": f"#/components/parameters/{name}"} for name in self._conditional_headers(route))

    def _conditional_headers(self, route: Route) -> Iterator[str]:
        if route.method == "GET" and route.sends_entity_tag:
            yield "IfNoneMatch"
        if self._takes_if_match(route):
            yield "IfMatch"
        if route.is_idempotent:
            yield "IdempotencyKey"

    def _takes_if_match(self, route: Route) -> bool:
        """A change of something, or of something inside of it, that has an entity tag to hold it against."""
        return route.method in CHANGES and any(
            route.path == path or route.path.startswith(f"{path}/") for path in self._tagged
        )

    def _request_body(self, route: Route) -> dict[str, Any]:
        field = route.handler.parsed_data_field
        assert field is not None
        media_type = getattr(field.kwarg_definition, "media_type", JSON)
        schema = self._components.of(route.body_type)
        if media_type == RequestEncodingType.URL_ENCODED:
            content = {str(RequestEncodingType.URL_ENCODED.value): {"schema": schema, **self._example_of(schema)}}
        else:
            content = self._in_both_forms(schema)
        if route.method == "PATCH":
            content |= {MERGE_PATCH: content[JSON]}
        return {"required": not field.has_default, "content": content}

    def _responses(self, route: Route) -> dict[str, Any]:
        status = route.handler.status_code
        answers: dict[str, Any] = {str(status): self._success(route, status)}
        if route.method == "GET" and route.sends_entity_tag:
            answers["304"] = {"$ref": "#/components/responses/NotModified"}
        for error in self._errors(route):
            answers[str(error.status)] = {"$ref": f"#/components/responses/{error.__name__}"}
        for other, wanted in route.other_answers.items():
            schema = self._components.of(wanted)
            if other >= 400:
                schema = {"anyOf": [schema, {"$ref": "#/components/schemas/ErrorBody"}]}
            answers[str(other)] = {
                "description": REASONS.get(other, Unavailable.detail),
                "headers": _headers(*(["RetryAfter"] if other == Unavailable.status else [])),
                "content": self._in_both_forms(schema),
            }
        return dict(sorted(answers.items()))

    def _success(self, route: Route, status: int) -> dict[str, Any]:
        names = ["ETag"] if route.sends_entity_tag else []
        names += ["Location"] if status in (201, 202) else []
        names += ["IdempotencyReplayed"] if route.is_idempotent else []
        answer = {"description": REASONS.get(status, "As asked."), "headers": _headers(*names)}
        return answer if status == 204 else answer | {"content": self._content(route)}

    def _content(self, route: Route) -> dict[str, Any]:
        if route.answer_type in (str, bytes):
            media_type = "text/plain" if route.access.permission == "metrics:read" else str(route.handler.media_type)
            return {media_type: EVENTS if media_type == EVENT_STREAM else _text(media_type)}
        content = self._in_both_forms(self._components.of(route.answer_type))
        for media_type in route.handler.opt.get("also_as", ()):
            content[media_type] = _text(media_type) if media_type in TEXT_EXAMPLES else {}
        return content

    def _in_both_forms(self, schema: Schema) -> dict[str, Any]:
        return {JSON: {"schema": schema, **self._example_of(schema)}, MSGPACK: {"schema": schema}}

    def _example_of(self, schema: Schema) -> dict[str, Any]:
        return {"example": self._examples.of(schema)}

    def _errors(self, route: Route) -> list[type[HubError]]:
        """Every class of error that this operation can end with."""
        found = set(ALWAYS)
        changes = route.method != "GET"
        if not route.access.is_open or changes:
            found |= {Unauthenticated, Forbidden}
        if route.path_parameters:
            found.add(NotFound)
        if changes and (not route.access.is_open or route.is_idempotent):
            found.add(Conflict)
        if route.body_type is not None:
            found |= {TooLarge, UnsupportedMediaType}
        if route.is_idempotent:
            found.add(IdempotencyMismatch)
        if self._takes_if_match(route):
            found |= {PreconditionFailed, PreconditionRequired}
        return [error for error in ERRORS if error in found]


TEXT_EXAMPLES = {
    "text/csv": "id,total\r\n1,19.90\r\n",
    "application/x-ndjson": '{"action":"role.create","outcome":"success"}\n',
    "text/plain": 'hub_http_request_duration_seconds_count{method="GET",route="/api/v1/roles",status="200"} 42.0\n',
}


EVENT_STREAM = "text/event-stream"
EVENTS: Schema = {
    "schema": {
        "type": "object",
        "description": "Each event of the stream (HTML standard, section 9.2).",
        "properties": {
            "event": {"type": "string"},
            "id": {"type": "string"},
            "data": {"type": "string", "contentMediaType": JSON},
        },
        "required": ["data"],
    },
    "example": {"event": "job", "id": "3", "data": '{"status":"succeeded"}'},
}


def _text(media_type: str) -> Schema:
    return {"schema": {"type": "string"}, "example": TEXT_EXAMPLES.get(media_type, "")}


def _headers(*names: str) -> dict[str, Any]:
    return {HEADER_NAMES.get(name, name): {"$ref": f"#/components/headers/{name}"} for name in (*names, "RequestID")}


HEADER_NAMES = {
    "RequestID": "X-Request-ID",
    "RetryAfter": "Retry-After",
    "WWWAuthenticate": "WWW-Authenticate",
    "IdempotencyReplayed": "Idempotency-Replayed",
}


def _list_parameters(listing: Listing) -> Iterator[dict[str, Any]]:
    sorts = [name for sort in listing.sorts for name in (sort, f"-{sort}")]
    for name, schema in COMMON_PARAMETERS.items():
        yield _query_parameter(name, schema)
    yield _query_parameter(
        "sort", {"type": "string", "enum": sorts, "default": listing.default_sort, "description": "`-` is descending."}
    )
    for name, narrowing in listing.filters.items():
        described = {"description": narrowing.description} if narrowing.description else {}
        yield _query_parameter(name, dict(narrowing.schema) | described)


def _query_parameter(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    schema = dict(given)
    description = schema.pop("description", None)
    if schema.get("type") == "string" and not {"enum", "format", "pattern"} & set(schema):
        schema |= PLAIN_TEXT
    parameter: dict[str, Any] = {"name": name, "in": "query", "schema": schema}
    return parameter | ({"description": description} if description else {})


def error_responses(examples: Examples) -> dict[str, Any]:
    """`components.responses`: one for each class of error, with the headers that it brings."""
    return {error.__name__: _error_response(error, examples) for error in ERRORS} | {
        "NotModified": {"description": "The client has this version already.", "headers": _headers("ETag")}
    }


_ERROR_HEADERS: dict[type[HubError], tuple[str, ...]] = {
    Unauthenticated: ("WWWAuthenticate",),
    PreconditionFailed: ("ETag",),
    TooManyRequests: ("RetryAfter",),
    Unavailable: ("RetryAfter",),
}


def _error_response(error: type[HubError], examples: Examples) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ErrorBody"}
    example = {"detail": error.detail, "code": error.code, "request_id": examples.of({"type": "string"}, "request_id")}
    if error is BadRequest:
        example["errors"] = [{"path": "name", "code": "required", "message": "is required"}]
    content = {JSON: {"schema": schema, "example": example}, MSGPACK: {"schema": schema}}
    return {"description": error.detail, "headers": _headers(*_ERROR_HEADERS.get(error, ())), "content": content}
