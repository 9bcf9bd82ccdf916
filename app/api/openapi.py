"""The OpenAPI 3.1 document: generated from the route table, the Structs and what each route declares of itself.

Litestar's own generation is off (decision 0029). The document is built when it is first asked for, never as the hub
starts.
"""

import asyncio
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import msgspec
from litestar import Litestar, get
from litestar.openapi import OpenAPIConfig

from app.core.answers import Tagged
from app.core.limits.prices import costs
from app.core.security import open_to_all
from app.core.served import document_served
from app.domain.requests import HubRequest

TITLE = "Data Fusion Hub"
DESCRIPTION = """The foundation service of a data platform: identity, access, and data sources proven reachable.

**Signing in.** `POST /api/v1/auth/login` gives an access token for 15 minutes; send it as `Authorization: Bearer
<token>`. Other services verify it with the keys of `/.well-known/jwks.json`. A program sends an API key (`POST
/api/v1/api-keys`) in its place.

**Forms.** JSON in and out, or MessagePack for clients that ask for it (`Accept`, `Content-Type`). Ids are UUIDv7,
times RFC 3339 in UTC. Unknown fields and unknown query parameters are refused by name. `HEAD` works wherever `GET`
does.

**Errors** have one shape everywhere: `detail` for a person, `code` for a program, `errors` for all faulty fields at
once, and the `request_id` that is also in `X-Request-ID`. What one may not see answers like what does not exist: 404.
A method that a path does not take is a 405 with `Allow`.

**Limits.** Whoever is signed in has a quota of units, and so has each address for what is open: a read takes 1, a write
2, a connector run or a query 10, in a sliding window. Sign-ins are counted by themselves, by address and by account.
`RateLimit` says what is left. What would be more is a 429 `rate_limited`: wait for as long as `Retry-After` says.

**Lists** are pages: `limit`, `cursor`, `sort`, filters, and `count=exact` for the total. The cost of a page does not
grow with its depth.

**Changes.** `PATCH` is a JSON Merge Patch (RFC 7396). Single entities carry an `ETag`; send it as `If-Match` and a
change that somebody else made in between is a 412. Send an `Idempotency-Key` with whatever creates, and it is safe to
send again."""

TAGS = {
    "auth": "Signing in and out, one's own sessions, and what other services need to trust our tokens.",
    "second factors": "Authenticator apps, passkeys and recovery codes of one's own.",
    "users": "The people of a tenant and the roles that they hold.",
    "groups": "Users who are given roles together.",
    "roles": "What may be done, bundled: roles, their members, their approvers, and every permission there is.",
    "authorization": "Who may do what, and why: now and at any moment before.",
    "role requests": "Asking for a role, and deciding on what others ask for.",
    "access reviews": "Looking at who holds what, line by line, until a day.",
    "service accounts": "What programs act as: without password and session, with keys of their own.",
    "api keys": "What a program sends in place of an access token: narrowed, limited in time, revoked within a second.",
    "identity providers": "By which of their own systems members of a tenant sign in.",
    "oauth clients": "Programs to which people sign in with the hub (OAuth 2.0).",
    "scim keys": "What a directory sends that keeps users and groups by SCIM 2.0 (RFC 7644) at `/scim/v2`.",
    "tenants": "The organisations that share this hub, for its operators, and the settings of one's own.",
    "data domains": "Folders for data sources, one in another: what somebody may do in one they may do in those below.",
    "data sources": "Where data is: registered with write-only secrets, tested step by step, discovered, previewed.",
    "jobs": "Work that goes on after its request was answered.",
    "webhooks": "Events sent to where one wants them: signed, tried for a day, and switched off where nobody listens.",
    "events": "What has changed, one CloudEvent for each change: in pages, or as it happens.",
    "audit": "Who did what, when, from where, and how it ended.",
    "health": "For probes and for Prometheus.",
}


def openapi_config() -> OpenAPIConfig | None:
    """None: Litestar serves no document and no pages of its own."""
    return None


Document = dict[str, Any]
"""JSON."""


def openapi_document(app: Litestar, base_path: str = "") -> Document:
    """The whole document of an application's routes, which clients find below the path. Takes about a second; needs no
    database.
    """
    # Nothing of this is imported before a document is wanted: start-up time is part of the product.
    from app.api.components import Components
    from app.api.examples import Examples
    from app.api.operations import Operations, describe_codes, error_responses
    from app.api.route_table import documented_routes
    from app.core.migrations import permissions

    routes = documented_routes(app, tuple(TAGS))
    components = Components(
        (route.body_type for route in routes if route.body_type is not None),
        (kind for route in routes for kind in route.answer_types if kind not in (type(None), str, bytes)),
    )
    examples = Examples(components.schemas, fits_in(components.schemas))
    operations = Operations(routes, components, examples, permissions())
    components.schemas["ErrorCode"]["description"] = describe_codes()
    paths: dict[str, dict[str, object]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = operations.of(route)
    document = _head(base_path) | {
        "paths": paths,
        "components": {
            "schemas": components.schemas,
            "responses": error_responses(components, examples),
            "parameters": REQUEST_HEADERS,
            "headers": RESPONSE_HEADERS,
            "securitySchemes": {"bearer": BEARER, "oauth2": _oauth2(base_path)},
        },
    }
    plain: Document = msgspec.json.decode(msgspec.json.encode(document))
    return plain


def _head(base_path: str) -> dict[str, object]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": version("data-fusion-hub"),
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": base_path or "/", "description": "The hub that serves this document."}],
        "security": [{"bearer": []}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
    }


def fits_in(schemas: Document) -> Any:
    from jsonschema import Draft202012Validator

    def fits(value: object, schema: dict[str, object]) -> bool:
        return bool(Draft202012Validator(schema | {"components": {"schemas": schemas}}).is_valid(value))

    return fits


BEARER = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "An access token (RFC 9068) from `POST /api/v1/auth/login`, or an API key from `POST "
    "/api/v1/api-keys`.",
}


def _oauth2(base_path: str) -> dict[str, object]:
    """How a program gets a person's access token. No operation names it: what they take is the token, as `bearer`."""
    endpoints = {"authorizationUrl": "authorize", "tokenUrl": "token", "refreshUrl": "token"}
    flow = {name: f"{base_path}/api/v1/auth/{last}" for name, last in endpoints.items()}
    return {
        "type": "oauth2",
        "description": "Signing in on the hub's own page (RFC 6749 section 4.1 with PKCE, S256). The access token is "
        "sent as `bearer`.",
        "flows": {"authorizationCode": flow | {"scopes": {}}},
    }


_TAG_TEXT = {"type": "string", "pattern": '^"v[0-9]+(-[0-9a-f]+)?"$'}
# None of these has an `example`: Swagger UI would fill it in, and send it with the first request that somebody tries.
REQUEST_HEADERS: dict[str, object] = {
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": 'The `ETag` of the version that is to be changed, such as `"v1"`; another one is a 412. Some '
        "hubs insist on it.",
        "schema": {"type": "string"},
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "description": 'The `ETag` of the version that the client has, such as `"v1"`: 304 where it is still the '
        "current one.",
        "schema": {"type": "string"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A name for this request, best a new UUID. Sent again under it, with the same body, it gets the "
        "first answer again, for 24 hours.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    },
    "LastEventID": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "For a stream: the `id` of the last event that the client was told. It goes on behind that one; "
        "`0` is the beginning of what is kept.",
        "schema": {"type": "string"},
    },
}
RESPONSE_HEADERS: dict[str, object] = {
    "ETag": {
        "description": "The version of the entity, to be given back as it came.",
        "schema": _TAG_TEXT,
        "example": '"v1"',
    },
    "Location": {
        "description": "The path of what was made.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "RequestID": {
        "description": "Taken from the request where it is 1 to 64 letters, digits, `.`, `_` and `-`; made otherwise.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "RetryAfter": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 0}},
    "RateLimit": {
        "description": "Units that are left of a quota, and seconds until there are more: "
        "draft-ietf-httpapi-ratelimit-headers.",
        "schema": {"type": "string"},
        "example": '"principal";r=598;t=42',
    },
    "RateLimitPolicy": {
        "description": "The quota: so many units in a window of so many seconds.",
        "schema": {"type": "string"},
        "example": '"principal";q=600;w=60',
    },
    "WWWAuthenticate": {
        "description": "RFC 6750.",
        "required": True,
        "schema": {"type": "string"},
        "example": "Bearer",
    },
    "IdempotencyReplayed": {
        "description": "`true` where this is the answer to an earlier request.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}


@lru_cache(1)
def _encoded(app: Litestar, base_path: str) -> bytes:
    return msgspec.json.encode(openapi_document(app, base_path))


@get("/openapi.json", opt=open_to_all(needs_database=False) | costs("nothing"), include_in_schema=False)
async def openapi_json(request: HubRequest) -> Tagged[bytes]:
    """The document, the same bytes until the hub is another."""
    return document_served(request.exchange, await asyncio.to_thread(_encoded, request.app, request.exchange.base_path))
