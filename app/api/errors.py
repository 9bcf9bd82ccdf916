"""How whatever is raised below becomes the one error shape."""

import logging
import re
from typing import Any

from litestar import Request
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException
from litestar.types import ExceptionHandlersMap, Receive, Scope

from app.core.answers import Answer, AnySend, shown_error
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
    TooManyRequests,
    UnsupportedMediaType,
)
from app.core.exchange import Exchange
from app.core.limits.limiter import address_key
from app.core.limits.prices import Price
from app.domain.parts import Parts
from app.domain.refusals import reason_of, record_refusal

log = logging.getLogger("hub.errors")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
FOR_NOTHING = Price(1, "address")
_BY_STATUS: dict[int, type[HubError]] = {400: BadRequest, 404: NotFound, 413: TooLarge, 415: UnsupportedMediaType}


def answer_error(request: Request[object, object, Any], error: Exception) -> Answer[ErrorBody]:
    exchange, found, parts = Exchange.of(request.scope), as_hub_error(error), request.app.state.parts
    if exchange.standing is None and found.status < 500:
        return Counted(parts, found)
    reason = reason_of(found) if exchange.principal is not None else None
    return shown_error(exchange, found) if reason is None else Refusal(parts, found, reason)


class Counted(Answer[ErrorBody]):
    """An answer to what nobody was charged for, because it led nowhere or nobody knows who asked: it is taken from the
    quota of the address, and where nothing is left of that, the answer says so instead."""

    def __init__(self, parts: Parts, error: HubError) -> None:
        super().__init__(error.status, [], b"")
        self._parts, self._error = parts, error

    async def __call__(self, scope: Scope, receive: Receive, send: AnySend) -> None:
        exchange, error = Exchange.of(scope), self._error
        try:
            address = address_key(exchange.client_address(self._parts.trusted_proxies))
            await self._parts.limits.charge(exchange, FOR_NOTHING, address)
        except TooManyRequests as refused:
            error = refused
        await shown_error(exchange, error)(scope, receive, send)


class Refusal(Answer[ErrorBody]):
    """An answer that is sent once what it refuses is on record; where that cannot be, the answer says so instead."""

    def __init__(self, parts: Parts, error: HubError, reason: str) -> None:
        super().__init__(error.status, [], b"")
        self._parts, self._error, self._reason = parts, error, reason

    async def __call__(self, scope: Scope, receive: Receive, send: AnySend) -> None:
        exchange, error = Exchange.of(scope), self._error
        try:
            await record_refusal(self._parts, exchange, self._reason)
        except Exception as failure:
            error = as_hub_error(failure)
        await shown_error(exchange, error)(scope, receive, send)


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
