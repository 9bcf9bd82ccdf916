"""How an operation can end badly: the codes of its kind, and those that it declares itself.

Held against what the hub really answers by the tests: whatever any of them is told has to be among these.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from app.api.route_table import Route
from app.core.errors import (
    ERRORS,
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

Endings = Mapping[type[HubError], tuple[str, ...]]

EVERYWHERE: Endings = {
    BadRequest: ("invalid_parameter", "repeated_header", "unknown_host"),
    TooManyRequests: ("rate_limited",),
    InternalError: ("internal_error",),
    Unavailable: (
        "unavailable",
        "deadline_exceeded",
        "schema_outdated",
        "schema_too_new",
        "server_busy",
        "stopping",
    ),
}
SIGNED_IN: Endings = {
    Unauthenticated: ("unauthenticated", "invalid_token", "repeated_header", "session_ended", "token_expired"),
    Forbidden: ("forbidden",),
}
OF_A_SESSION: Endings = {Forbidden: ("session_required",)}
GUARDED: Endings = {Forbidden: ("factor_required", "permission_missing")}
OF_ONE_THING: Endings = {NotFound: ("not_found",)}
WITH_PARAMETERS: Endings = {
    BadRequest: ("invalid_cursor", "repeated_parameter"),
    Unavailable: ("search_busy",),
}
WITH_BODY: Endings = {
    BadRequest: (
        "invalid_request",
        "body_timeout",
        "client_left",
        "duplicate_field",
        "malformed_body",
        "missing_body",
        "too_many_values",
    ),
    TooLarge: ("too_large",),
    UnsupportedMediaType: ("unsupported_media_type",),
}
FROM_THE_DATABASE: Endings = {
    BadRequest: ("constraint_violation", "too_complex", "value_not_storable"),
    Unavailable: (
        "database_busy",
        "database_full",
        "database_migrated",
        "database_read_only",
        "database_timeout",
        "database_unavailable",
    ),
}
CHANGING: Endings = {Conflict: ("conflict", "already_exists", "concurrent_change", "still_in_use")}
IDEMPOTENT: Endings = {
    BadRequest: ("invalid_idempotency_key",),
    IdempotencyMismatch: ("idempotency_key_reused",),
}
CONDITIONAL: Endings = {
    PreconditionFailed: ("stale_version",),
    PreconditionRequired: ("precondition_required",),
}


def endings_of(route: Route, *, is_conditional: bool) -> dict[type[HubError], list[str]]:
    """By class of error, in the order of their status, the codes that the operation can answer with."""
    found: dict[type[HubError], set[str]] = defaultdict(set)
    for endings in _of_kind(route, is_conditional=is_conditional):
        for error, codes in endings.items():
            found[error].update(codes)
    for code in route.outcomes.codes:
        found[_class_of(code)].add(code)
    return {error: sorted(found[error]) for error in ERRORS if error in found}


def _of_kind(route: Route, *, is_conditional: bool) -> Iterator[Endings]:
    access, changes = route.access, route.method != "GET"
    yield EVERYWHERE
    if not access.is_open:
        yield SIGNED_IN
    if access.permission or "permission_missing" in route.outcomes.codes:
        yield GUARDED
    elif not access.is_open and route.path_parameters:
        yield {Forbidden: ("factor_required",)}
    if access.needs_session:
        yield OF_A_SESSION
    if route.path_parameters:
        yield OF_ONE_THING
    if access.takes_query:
        yield WITH_PARAMETERS
    if route.body_type is not None:
        yield WITH_BODY
    if not access.is_open or changes:
        yield FROM_THE_DATABASE
    if changes and (not access.is_open or route.is_idempotent):
        yield CHANGING
    if route.is_idempotent:
        yield IDEMPOTENT
    if is_conditional:
        yield CONDITIONAL


def _class_of(code: str) -> type[HubError]:
    return next(error for error in ERRORS if code in error.sentences)
