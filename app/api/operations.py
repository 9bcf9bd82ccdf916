"""One operation of the OpenAPI document, read off one route handler: what it takes, what it wants, how it can end."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from litestar.enums import RequestEncodingType

from app.api.components import WITHOUT_NUL, Components, Schema
from app.api.endings import endings_of
from app.api.examples import PATH_PARAMETERS, Examples
from app.api.links import Links
from app.api.route_table import Route
from app.core.bodies import MERGE_PATCH
from app.core.errors import (
    ERRORS,
    BadRequest,
    Fault,
    HubError,
    PreconditionFailed,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from app.core.exchange import JSON, MSGPACK
from app.core.lists.listing import Listing
from app.core.lists.parameters import COMMON_PARAMETERS
from app.core.outcomes import ErrorForm
from app.core.server_sent_events import MEDIA_TYPE
from app.domain.dry_runs.schemas import RightsChange
from app.domain.dry_runs.services import MEDIA_TYPE as DRY_RUN_TYPE

CHANGES = frozenset(("PUT", "PATCH", "DELETE"))
PLAIN_TEXT = {"type": "string", "pattern": WITHOUT_NUL}
REASONS = {
    200: "As asked.",
    201: "Made.",
    202: "Taken on; it goes on.",
    204: "Done; there is nothing to show.",
    302: "To there.",
    303: "To there.",
}


def _reason_in(answer: Any) -> dict[str, object]:
    """Which codes a status has is told of whatever body it comes with."""
    return {} if answer is None else {"description": answer["description"]}


class Operations:
    def __init__(
        self, routes: list[Route], components: Components, examples: Examples, permissions: Mapping[str, str]
    ) -> None:
        self._components = components
        self._examples = examples
        self._permissions = permissions
        self._links = Links(routes)
        self._tagged = {route.path for route in routes if route.method == "GET" and route.sends_entity_tag}

    def of(self, route: Route) -> dict[str, object]:
        handler, access = route.handler, route.access
        operation: dict[str, object] = {
            "operationId": route.name,
            "tags": [route.tag],
            "summary": handler.summary,
            "description": self._description(route),
            "security": [] if access.is_open else [{"bearer": []}],
        }
        if access.permission:
            operation["x-permission"] = access.permission
        operation["x-error-codes"] = {str(error.status): codes for error, codes in self._endings(route).items()}
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
            limit = "\n\nAn API key will not do." if access.needs_session else ""
            return f"{text}\n\nNeeds the permission `{access.permission}`: {sentence}".strip() + limit
        if access.is_open:
            return f"{text}\n\nOpen to all."
        limit = "; an API key will not do" if access.needs_session else ""
        return f"{text}\n\nFor everyone who is signed in{limit}."

    def _parameters(self, route: Route) -> Iterator[dict[str, Any]]:
        for name, kind in route.path_parameters.items():
            schema: Schema = (
                {"type": "string", "format": "uuid"} if kind is not str else {"type": "string", "minLength": 1}
            )
            example = PATH_PARAMETERS.get(name, PATH_PARAMETERS["user_id"] if kind is not str else "example")
            yield {"name": name, "in": "path", "required": True, "schema": schema, "example": example}
        if route.access.listing is not None:
            yield from _list_parameters(route.access.listing, streams=route.outcomes.streams)
        yield from (_query_parameter(name, wanted) for name, wanted in route.access.parameters.items())
        yield from ({"$ref": f"#/components/parameters/{name}"} for name in self._headers_taken(route))

    def _headers_taken(self, route: Route) -> Iterator[str]:
        if route.method == "GET" and route.sends_entity_tag:
            yield "IfNoneMatch"
        if self._takes_if_match(route):
            yield "IfMatch"
        if route.is_idempotent:
            yield "IdempotencyKey"
        if MEDIA_TYPE in route.outcomes.also_as:
            yield "LastEventID"

    def _takes_if_match(self, route: Route) -> bool:
        """A change of something, or of something inside of it, that has an entity tag to hold it against."""
        return route.method in CHANGES and any(
            route.path == path or route.path.startswith(f"{path}/") for path in self._tagged
        )

    def _request_body(self, route: Route) -> dict[str, object]:
        field = route.handler.parsed_data_field
        assert field is not None
        media_type = getattr(field.kwarg_definition, "media_type", JSON)
        schema = self._components.of(route.body_type)
        if media_type == RequestEncodingType.URL_ENCODED:
            media_types = [str(RequestEncodingType.URL_ENCODED.value)]
        else:
            media_types = [JSON, MERGE_PATCH] if route.method == "PATCH" else [JSON]
        content = {media_type: {"schema": schema, **self._example_of(schema)} for media_type in media_types}
        also: dict[str, object] = {"x-also-as": [MSGPACK]} if JSON in content else {}
        if field.has_default:
            also |= {"description": "May be left out; `null` is the same."}
        return {"required": not field.has_default, "content": content} | also

    def _responses(self, route: Route) -> dict[str, object]:
        status = route.handler.status_code
        answers: dict[str, object] = {str(status): self._success(route, status)}
        if route.method == "GET" and route.sends_entity_tag:
            answers["304"] = {"$ref": "#/components/responses/NotModified"}
        for error, codes in self._endings(route).items():
            answers[str(error.status)] = {"$ref": _place_of(error), "description": _told_apart(error, codes)}
        if route.outcomes.errors_as is not None:
            answers |= self._errors_in_own_form(route, route.outcomes.errors_as)
        for other, wanted in route.outcomes.by_status.items():
            answers[str(other)] = self._other_answer(other, wanted) | _reason_in(answers.get(str(other)))
        if route.is_rehearsed:
            self._add_dry_run(answers)
        return dict(sorted(answers.items()))

    def _errors_in_own_form(self, route: Route, form: type[ErrorForm]) -> dict[str, object]:
        """The hub's shape stands beside it: what ends a request before its route is found knows of no other."""
        possible = [*self._endings(route), Unauthenticated]
        by_status = {form.status_of(error): error for error in reversed(possible)}
        return {str(status): self._other_error(status, error, form) for status, error in by_status.items()}

    def _other_error(self, status: int, error: type[HubError], form: object) -> dict[str, object]:
        own = self._components.of(form)
        schema = {"anyOf": [own, self._components.of(error.body_type)]}
        content = {JSON: {"schema": schema, **self._example_of(own)}, MSGPACK: {"schema": schema}}
        if error is Unauthenticated:
            headers = _headers() | {"WWW-Authenticate": CHALLENGE_OF_BASIC}
        else:
            headers = _headers(*_ERROR_HEADERS.get(error, ()))
        return {"description": error().detail, "headers": headers, "content": content}

    def _add_dry_run(self, answers: dict[str, Any]) -> None:
        """A media type of its own beside the real answer's. Where that has another status, the 200 repeats what it has
        as JSON: a client that goes by `application/json` would find nothing there, and take the other for it."""
        schema = self._components.of(RightsChange)
        made = answers.get("201", {}).get("content", {})
        real = answers.setdefault("200", {"description": DRY_RUN_REASON, "headers": _headers(), "content": dict(made)})
        real["content"][DRY_RUN_TYPE] = {"schema": schema, **self._example_of(schema)}

    def _other_answer(self, status: int, wanted: object) -> dict[str, object]:
        schema = self._components.of(wanted)
        if status < 400:
            return {"description": REASONS[status], "headers": _headers(), "content": self._in_both_forms(schema)}
        (error,) = (error for error in ERRORS if error.status == status)
        schema = {"anyOf": [schema, self._components.of(error.body_type)]}
        headers = _headers(*_ERROR_HEADERS.get(error, ()))
        return {"description": error().detail, "headers": headers, "content": self._in_both_forms(schema)}

    def _endings(self, route: Route) -> dict[type[HubError], list[str]]:
        return endings_of(route, is_conditional=self._takes_if_match(route))

    def _success(self, route: Route, status: int) -> dict[str, object]:
        """MessagePack is named among the answers, where a generated client takes what it knows; among the forms of a
        body it would be one that the client cannot write (`x-also-as`).
        """
        links = self._links.of(route)
        names = ["ETag"] if route.sends_entity_tag else []
        names += ["Location"] if status in (201, 302, 303) or (status == 202 and links) else []
        names += ["IdempotencyReplayed"] if route.is_idempotent else []
        names += ["RateLimit", "RateLimitPolicy"] if route.price.units else []
        answer: dict[str, object] = {"description": REASONS.get(status, "As asked."), "headers": _headers(*names)}
        if links:
            answer["links"] = links
        is_empty = status == 204 or route.answer_type in (None, type(None))
        return answer if is_empty else answer | {"content": self._content(route)}

    def _content(self, route: Route) -> dict[str, object]:
        if route.answer_type in (str, bytes):
            media_type = str(route.handler.media_type)
            return {media_type: _other_form(media_type) or _text(media_type)}
        content = self._in_both_forms(self._answer_schema(route))
        for media_type in route.outcomes.also_as:
            content[media_type] = _other_form(media_type)
        return content

    def _answer_schema(self, route: Route) -> Schema:
        schema, to_others = self._components.of(route.answer_type), route.outcomes.to_others
        return schema if to_others is None else {"anyOf": [schema, self._components.of(to_others)]}

    def _in_both_forms(self, schema: Schema) -> dict[str, object]:
        return {JSON: {"schema": schema, **self._example_of(schema)}, MSGPACK: {"schema": schema}}

    def _example_of(self, schema: Schema) -> dict[str, object]:
        return self._examples.media_type(schema)


PARAMETERS_OF_STREAMS: dict[str, dict[str, object]] = {
    "limit": {
        "description": "Rows of a page. In the other media types the list comes whole: rows in all, any number of them,"
        " and every row where it is left out."
    },
    "count": {"description": "Ask for `total`; a page has it, and a whole list no place for it."},
}
DRY_RUN_REASON = "With `dry_run`: what would come of it."
TEXT_EXAMPLES = {
    "application/samlmetadata+xml": '<md:EntityDescriptor entityID="https://hub.example.org/api/v1/auth/saml/corp/metadata">'
    "</md:EntityDescriptor>",
    "text/csv": "id,total\r\n1,19.90\r\n",
    "application/x-ndjson": '{"action":"role.create","outcome":"success"}\n',
    "text/plain": 'hub_http_request_duration_seconds_count{method="GET",route="/api/v1/roles",status="200"} 42.0\n',
}


STREAM: Schema = {
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


def _other_form(media_type: str) -> Schema:
    if media_type == MEDIA_TYPE:
        return STREAM
    return _text(media_type) if media_type in TEXT_EXAMPLES else {}


def _text(media_type: str) -> Schema:
    return {"schema": {"type": "string"}, "example": TEXT_EXAMPLES.get(media_type, "")}


def _headers(*names: str) -> dict[str, object]:
    return {HEADER_NAMES.get(name, name): {"$ref": f"#/components/headers/{name}"} for name in (*names, "RequestID")}


CHALLENGE_OF_BASIC = {
    "description": "Where the client has tried to show who it is by Basic (RFC 6749 section 5.2).",
    "schema": {"type": "string"},
    "example": 'Basic realm="hub"',
}
HEADER_NAMES = {
    "RequestID": "X-Request-ID",
    "RetryAfter": "Retry-After",
    "RateLimitPolicy": "RateLimit-Policy",
    "WWWAuthenticate": "WWW-Authenticate",
    "IdempotencyReplayed": "Idempotency-Replayed",
}


def _list_parameters(listing: Listing, *, streams: bool) -> Iterator[dict[str, object]]:
    sorts = [name for sort in listing.sorts for name in (sort, f"-{sort}")]
    for name, schema in COMMON_PARAMETERS.items():
        yield _query_parameter(name, schema | (PARAMETERS_OF_STREAMS.get(name, {}) if streams else {}))
    yield _query_parameter(
        "sort", {"type": "string", "enum": sorts, "default": listing.default_sort, "description": "`-` is descending."}
    )
    for name, narrowing in listing.filters.items():
        described = {"description": narrowing.description} if narrowing.description else {}
        yield _query_parameter(name, dict(narrowing.schema) | described)


def _query_parameter(name: str, given: Mapping[str, object]) -> dict[str, object]:
    schema = dict(given)
    description, is_required = schema.pop("description", None), schema.pop("required", False)
    if schema.get("type") == "string" and not {"enum", "format", "pattern"} & set(schema):
        schema |= PLAIN_TEXT
    parameter: dict[str, object] = {"name": name, "in": "query", "schema": schema}
    if is_required:
        parameter["required"] = True
    return parameter | ({"description": description} if description else {})


def error_responses(components: Components, examples: Examples) -> dict[str, Any]:
    """`components.responses`: one for each class of error, with the headers that it brings."""
    return {error.__name__: _error_response(error, components, examples) for error in ERRORS} | {
        "NotModified": {"description": "The client has this version already.", "headers": _headers("ETag")}
    }


_ERROR_HEADERS: dict[type[HubError], tuple[str, ...]] = {
    Unauthenticated: ("WWWAuthenticate",),
    PreconditionFailed: ("ETag",),
    TooManyRequests: ("RetryAfter", "RateLimit", "RateLimitPolicy"),
    Unavailable: ("RetryAfter",),
}


def _error_response(error: type[HubError], components: Components, examples: Examples) -> dict[str, object]:
    schema = components.of(error.body_type)
    shown = error(errors=[Fault("name", "required", "is required")]) if error is BadRequest else error()
    example = msgspec.to_builtins(shown.body(examples.of({"type": "string"}, "request_id")))
    content = {JSON: {"schema": schema, "example": example}, MSGPACK: {"schema": schema}}
    return {"description": shown.detail, "headers": _headers(*_ERROR_HEADERS.get(error, ())), "content": content}


def _place_of(error: type[HubError]) -> str:
    return f"#/components/responses/{error.__name__}"


def _told_apart(error: type[HubError], codes: list[str]) -> str:
    """What the schema `ErrorCode` explains."""
    return f"{error().detail} Codes: {', '.join(f'`{code}`' for code in codes)}."


def describe_codes() -> str:
    """Each code of an error with its sentences, as a list in Markdown."""
    sentences: dict[str, list[str]] = {}
    for error in ERRORS:
        for code, sentence in error.sentences.items():
            sentences.setdefault(code, []).append(f"{sentence} ({error.status})")
    return "\n".join(f"- `{code}`: {' '.join(each)}" for code, each in sorted(sentences.items()))
