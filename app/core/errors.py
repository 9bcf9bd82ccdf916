"""The error tree: every way in which a request can end badly, one class for each status.

    HubError
    ├── BadRequest 400
    ├── Unauthenticated 401
    ├── Forbidden 403
    ├── NotFound 404 ───── Hidden (on record as a refusal)
    ├── MethodNotAllowed 405
    ├── Conflict 409
    ├── PreconditionFailed 412
    ├── TooLarge 413
    ├── UnsupportedMediaType 415
    ├── IdempotencyMismatch 422
    ├── PreconditionRequired 428
    ├── TooManyRequests 429
    ├── InternalError 500
    └── Unavailable 503

Within a status the code tells one case from another; `core.error_codes` lists them all. Every layer raises these; the
HTTP frame turns them into the one error shape of the API.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Generic, cast, get_args

from msgspec import Meta, Struct
from typing_extensions import TypeVar

from app.core import error_codes as codes
from app.core.error_codes import Code, FaultCode

C = TypeVar("C", bound=str, covariant=True, default=Code)


class Fault(Struct, frozen=True):
    """One field at fault."""

    path: str
    """Where, in dots and brackets, as in `config.port` or `tags[2]`; empty for the body as a whole."""
    code: Annotated[FaultCode, Meta(title="FaultCode")]
    message: str


class ErrorBody(Struct, omit_defaults=True):
    """What a client gets for any error, whichever layer raised it. A field is what the error has under the same name,
    and `request_id` the request's."""

    detail: str
    """One sentence for a person."""
    code: Annotated[Code, Meta(title="ErrorCode")]
    """A stable name for a program."""
    request_id: str
    errors: list[Fault] = []
    """All faulty fields at once; absent when no field is at fault."""


class HubError(Exception, Generic[C]):
    """Something the caller can be told.

    A subclass fixes the status and its codes: `HubError[<the Literal of its codes>]`, with the sentence of each. It may
    tell more than the others do: by a `body_type` with more fields, each an attribute of the error.
    """

    status: ClassVar[int]
    sentences: ClassVar[Mapping[Any, str]]
    body_type: ClassVar[type[ErrorBody]] = ErrorBody
    code: C

    def __init_subclass__(cls) -> None:
        """Raises TypeError where the Literal and the sentences name different codes."""
        super().__init_subclass__()
        for base in cls.__dict__.get("__orig_bases__", ()):
            if set(get_args(get_args(base)[0])) != set(cls.sentences):
                raise TypeError(f"{cls.__name__}: its codes and their sentences differ")

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: C | None = None,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.code = code or cast(C, next(iter(self.sentences)))
        sentence = self.sentences[self.code]
        self.detail = detail or sentence
        self.errors = list(errors)
        self.headers = dict(headers or {})
        super().__init__(self.detail)

    def body(self, request_id: str) -> ErrorBody:
        """What the client is told."""
        fields = {name: getattr(self, name) for name in self.body_type.__struct_fields__ if name != "request_id"}
        return self.body_type(request_id=request_id, **fields)


class BadRequest(HubError[codes.BadRequestCode]):
    status = 400
    sentences = codes.BAD_REQUEST


class Unauthenticated(HubError[codes.UnauthenticatedCode]):
    """RFC 6750: the challenge travels in `WWW-Authenticate`."""

    status = 401
    sentences = codes.UNAUTHENTICATED

    def __init__(self, detail: str | None = None, *, code: codes.UnauthenticatedCode | None = None) -> None:
        super().__init__(detail, code=code, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(HubError[codes.ForbiddenCode]):
    status = 403
    sentences = codes.FORBIDDEN


class NotFound(HubError[codes.NotFoundCode]):
    """Absent, or not to be seen by this caller: the two answer alike."""

    status = 404
    sentences = codes.NOT_FOUND


class Hidden(NotFound):
    """Answers like NotFound, and is on record as a refusal: there or not, it is nothing that this caller may see."""

    def __init__(self, reason: codes.ForbiddenCode = "permission_missing") -> None:
        super().__init__()
        self.reason = reason


class MethodNotAllowed(HubError[codes.MethodNotAllowedCode]):
    status = 405
    sentences = codes.METHOD_NOT_ALLOWED


class Conflict(HubError[codes.ConflictCode]):
    status = 409
    sentences = codes.CONFLICT


class PreconditionFailed(HubError[codes.PreconditionFailedCode]):
    status = 412
    sentences = codes.PRECONDITION_FAILED


class TooLarge(HubError[codes.TooLargeCode]):
    status = 413
    sentences = codes.TOO_LARGE


class UnsupportedMediaType(HubError[codes.UnsupportedMediaTypeCode]):
    status = 415
    sentences = codes.UNSUPPORTED_MEDIA_TYPE


class IdempotencyMismatch(HubError[codes.IdempotencyMismatchCode]):
    status = 422
    sentences = codes.IDEMPOTENCY_MISMATCH


class PreconditionRequired(HubError[codes.PreconditionRequiredCode]):
    status = 428
    sentences = codes.PRECONDITION_REQUIRED


class TooManyRequests(HubError[codes.TooManyRequestsCode]):
    status = 429
    sentences = codes.TOO_MANY_REQUESTS

    def __init__(
        self, detail: str | None = None, *, code: codes.TooManyRequestsCode | None = None, retry_after_s: int = 1
    ) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": str(retry_after_s)})


class InternalError(HubError[codes.InternalErrorCode]):
    """Our fault. The operators find the cause in the log, by the request id."""

    status = 500
    sentences = codes.INTERNAL_ERROR


class Unavailable(HubError[codes.UnavailableCode]):
    """A part that the answer needs is away for now: a retry can help."""

    status = 503
    sentences = codes.UNAVAILABLE

    def __init__(
        self, detail: str | None = None, *, code: codes.UnavailableCode | None = None, retry_after_s: int = 1
    ) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": str(retry_after_s)})


ERRORS: tuple[type[HubError[Any]], ...] = tuple(HubError.__subclasses__())
"""Every class of the tree, by status."""
