"""How whatever is raised below becomes the one error shape."""

import logging
import re
from typing import Any

from litestar import Request
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException
from litestar.types import ExceptionHandlersMap

from app.core.answers import Answer, error_answer
from app.core.database import explain
from app.core.errors import (
    BadRequest,
    ErrorBody,
    Fault,
    HubError,
    InternalError,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    UnsupportedMediaType,
)
from app.core.exchange import Exchange

log = logging.getLogger("hub.errors")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_BY_STATUS: dict[int, type[HubError]] = {400: BadRequest, 404: NotFound, 413: TooLarge, 415: UnsupportedMediaType}


def answer_error(request: Request[Any, Any, Any], error: Exception) -> Answer[ErrorBody]:
    return error_answer(Exchange.of(request.scope), as_hub_error(error))


def as_hub_error(error: BaseException) -> HubError:
    if isinstance(error, HubError):
        return error
    if isinstance(error, HTTPException):
        return _from_litestar(error)
    found = explain(error)
    if found is None or isinstance(found, InternalError):
        log.error("unhandled error", exc_info=error)
        return InternalError()
    if found.status == 503:
        log.warning("database: %s", found.code)
    return found


def _from_litestar(error: HTTPException) -> HubError:
    if isinstance(error, MethodNotAllowedException):
        allowed = {method.strip() for method in (error.headers or {}).get("allow", "").split(",") if method.strip()}
        allowed |= {"HEAD"} if "GET" in allowed else set()
        return MethodNotAllowed(headers={"Allow": ", ".join(sorted(allowed))})
    if isinstance(error, ValidationException):
        return BadRequest(errors=_faults(error))
    if isinstance(error, NotFoundException):
        return NotFound()
    return _BY_STATUS.get(error.status_code, InternalError)()


def _faults(error: ValidationException) -> list[Fault]:
    extra = error.extra if isinstance(error.extra, list) else []
    return [
        _fault(item.get("key", ""), item.get("message", "is not valid")) for item in extra if isinstance(item, dict)
    ]


def _fault(key: str, message: str) -> Fault:
    """What is missing in a form is told of our parameter for the whole form."""
    missing = _MISSING.fullmatch(message)
    return Fault(missing[1], "required", "is required") if missing else Fault(key, "invalid", message)


EXCEPTION_HANDLERS: ExceptionHandlersMap = {Exception: answer_error, HTTPException: answer_error}
