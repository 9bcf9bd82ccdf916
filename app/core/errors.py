"""The error tree: every way in which a request can end badly, each with its status and its code.

    HubError
    ├── BadRequest 400 ─── InvalidBody, UnknownParameter, InvalidCursor ... (codes, not classes)
    ├── Unauthenticated 401
    ├── Forbidden 403
    ├── NotFound 404
    ├── MethodNotAllowed 405
    ├── Conflict 409 ───── SecretReentryRequired
    ├── PreconditionFailed 412
    ├── TooLarge 413
    ├── UnsupportedMediaType 415
    ├── IdempotencyMismatch 422
    ├── PreconditionRequired 428
    ├── TooManyRequests 429
    ├── InternalError 500
    └── Unavailable 503

Every layer raises these; the HTTP frame turns them into the one error shape of the API.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from msgspec import Struct


class Fault(Struct, frozen=True):
    """One field at fault."""

    path: str
    """Where, in dots and brackets, as in `config.port` or `tags[2]`; empty for the body as a whole."""
    code: str
    message: str


class ErrorBody(Struct, omit_defaults=True):
    """What a client gets for any error, whichever layer raised it."""

    detail: str
    """One sentence for a person."""
    code: str
    """A stable name for a program."""
    request_id: str
    errors: list[Fault] | None = None
    """All faulty fields at once; absent when no field is at fault."""


class HubError(Exception):
    """Something the caller can be told. Subclasses fix the status; `code` may be narrowed per raise."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    detail: str = "Something went wrong on our side. The request id helps the operators to find out what."

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if detail is not None:
            self.detail = detail
        if code is not None:
            self.code = code
        self.errors = list(errors)
        self.headers = dict(headers or {})
        super().__init__(self.detail)


class BadRequest(HubError):
    status = 400
    code = "invalid_request"
    detail = "The request is not valid."


class Unauthenticated(HubError):
    """RFC 6750: the challenge travels in `WWW-Authenticate`."""

    status = 401
    code = "unauthenticated"
    detail = "Sign in first: send a valid access token as `Authorization: Bearer <token>`."

    def __init__(self, detail: str | None = None, *, code: str | None = None) -> None:
        super().__init__(detail, code=code, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(HubError):
    status = 403
    code = "forbidden"
    detail = "You may not do this."


class NotFound(HubError):
    """Absent, or not to be seen by this caller: the two answer alike."""

    status = 404
    code = "not_found"
    detail = "There is nothing here, or nothing that you may see."


class MethodNotAllowed(HubError):
    status = 405
    code = "method_not_allowed"
    detail = "This path does not take that method."


class Conflict(HubError):
    status = 409
    code = "conflict"
    detail = "The change does not fit the present state."


class PreconditionFailed(HubError):
    status = 412
    code = "stale_version"
    detail = "Somebody changed this since you read it. Read it again, then repeat your change."


class TooLarge(HubError):
    status = 413
    code = "too_large"
    detail = "The request body is larger than this service takes."


class UnsupportedMediaType(HubError):
    status = 415
    code = "unsupported_media_type"
    detail = "Send the body as application/json or application/msgpack."


class IdempotencyMismatch(HubError):
    status = 422
    code = "idempotency_key_reused"
    detail = "This Idempotency-Key was used with another body. Choose a new key for a new request."


class PreconditionRequired(HubError):
    status = 428
    code = "precondition_required"
    detail = "This deployment wants `If-Match` on every change. Read first, then send the ETag."


class TooManyRequests(HubError):
    status = 429
    code = "too_many_requests"
    detail = "Too many requests. Wait, then try again."

    def __init__(self, detail: str | None = None, *, code: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": str(retry_after_s)})


class InternalError(HubError):
    pass


class Unavailable(HubError):
    """A part that the answer needs is away for now: a retry can help."""

    status = 503
    code = "unavailable"
    detail = "The service cannot answer right now. Try again in a moment."

    def __init__(self, detail: str | None = None, *, code: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": str(retry_after_s)})
