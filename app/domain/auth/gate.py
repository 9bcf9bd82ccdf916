"""The gate: a middleware of Litestar's through which every request to a route passes before its body is read.

Access token or API key in, `Principal` out, then the route's own demand (`requires`, `signed_in`, `open_to_all`). A
route that declares nothing is closed to all, and `check_routes` stops the start over it.
"""

import re
from collections.abc import Awaitable, Iterable, Mapping
from typing import cast
from uuid import UUID

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.middleware._internal.exceptions import ExceptionHandlerMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from app.core.bodies import require_form
from app.core.errors import BadRequest, Forbidden, Hidden, HubError, InternalError, NotFound, Unavailable
from app.core.exchange import Exchange
from app.core.limits.limiter import address_key
from app.core.limits.prices import Price, price_of
from app.core.outcomes import NONE
from app.core.security import Access, KeyLimits, Principal, ScopedKind, bearer_token
from app.domain.auth.bearer import identify
from app.domain.auth.places import ID_IN_PATH, place_of
from app.domain.auth.principals import Credential, Signed
from app.domain.parts import Parts

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Gate:
    """Authentication and the route's demand, in front of every handler but those that answer OPTIONS.

    A handler finds who asks as `request.principal`, and by Litestar's own name as `request.user`.

    It is what Litestar calls a middleware without its base class, which puts two coroutines around each request: this
    one puts none, as long as who asks is in memory.
    """

    __slots__ = ("app",)

    def __init__(self, app: ASGIApp) -> None:
        # Litestar puts another handler of errors below its middleware, for what a middleware does to answers that pass
        # it. This one does nothing to them, and whatever is raised below it is answered above it in the same way.
        self.app = app.app if isinstance(app, ExceptionHandlerMiddleware) else app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Raises Unauthenticated, Forbidden, NotFound for one thing that the caller may not see, or BadRequest for
        query parameters where the route takes none. Raises Unavailable on a schema that is not this release's."""
        if scope["type"] != ScopeType.HTTP:
            return self.app(scope, receive, send)
        _refuse_other_spellings(scope)
        access: Access | None = scope["route_handler"].opt.get("access")
        if access is None:
            if scope["method"] != "OPTIONS":
                raise InternalError
            return self.app(scope, receive, send)
        parts: Parts = scope["litestar_app"].state["parts"]
        if parts.schema.problem is not None and access.needs_database:
            raise Unavailable(code=parts.schema.problem.code)
        signed = None
        exchange = Exchange.of(scope)
        if access.takes_directory_key:
            return self._let_directory_in(access, scope, receive, send)
        if not access.is_open:
            credential = identify(parts.tokens, bearer_token(exchange.headers.get(b"authorization")))
            exchange.credential = credential
            signed = parts.principals.in_memory(credential)
            if signed is None:
                return self._load_and_pass(credential, access, scope, receive, send)
            _enter(scope, exchange, signed)
        price: Price = scope["route_handler"].opt["price"]
        if price.units:
            if parts.limits.are_shared:
                return self._charge_and_pass(price, access, scope, receive, send)
            parts.limits.charge_here(exchange, price, _whose(parts, exchange))
        if _admit(scope, access, signed):
            return self._look_and_pass(access, scope, receive, send)
        return self.app(scope, receive, send)

    async def _load_and_pass(
        self, credential: Credential, access: Access, scope: Scope, receive: Receive, send: Send
    ) -> None:
        parts: Parts = scope["litestar_app"].state["parts"]
        _enter(scope, Exchange.of(scope), await parts.principals.of(credential))
        await self._charge_and_pass(scope["route_handler"].opt["price"], access, scope, receive, send)

    async def _let_directory_in(self, access: Access, scope: Scope, receive: Receive, send: Send) -> None:
        parts: Parts = scope["litestar_app"].state["parts"]
        exchange = Exchange.of(scope)
        token = bearer_token(exchange.headers.get(b"authorization"))
        exchange.principal = scope["user"] = await parts.directories.of(token)
        await self._charge_and_pass(scope["route_handler"].opt["price"], access, scope, receive, send)

    async def _charge_and_pass(self, price: Price, access: Access, scope: Scope, receive: Receive, send: Send) -> None:
        parts: Parts = scope["litestar_app"].state["parts"]
        exchange = Exchange.of(scope)
        if price.units:
            await parts.limits.charge(exchange, price, _whose(parts, exchange))
        if _admit(scope, access, exchange.signed):
            await _admit_there(parts, scope, access)
        await self.app(scope, receive, send)

    async def _look_and_pass(self, access: Access, scope: Scope, receive: Receive, send: Send) -> None:
        await _admit_there(scope["litestar_app"].state["parts"], scope, access)
        await self.app(scope, receive, send)


def _enter(scope: Scope, exchange: Exchange, signed: Signed) -> None:
    """From here on it is known who asks."""
    exchange.signed = signed
    exchange.principal = scope["user"] = signed.principal


def _whose(parts: Parts, exchange: Exchange) -> UUID | str:
    """Whose quota a call is taken from: the address's where nobody has to say who they are."""
    if exchange.principal is not None:
        return exchange.principal.id
    return address_key(exchange.client_address(parts.trusted_proxies))


def _admit(scope: Scope, access: Access, signed: Signed | None) -> bool:
    """What the route demands. `signed` is who asks, wherever the route is not open to all. True where it hangs on what
    the path names, which has to be looked up (`_admit_there`)."""
    exchange = Exchange.of(scope)
    is_open = False
    if signed is not None:
        principal = signed.principal
        if principal.key is not None:
            _admit_key(scope, access, principal.key)
        wanted = None if access.lets_others_in else access.permission
        if wanted is not None and wanted not in principal.permissions:
            is_open = _hangs_on_the_place(exchange, principal, access, wanted)
    if scope["query_string"] and not access.takes_query:
        raise BadRequest("This call takes no query parameters.", code="invalid_parameter")
    if access.takes_form:
        require_form(exchange.header(b"content-type"))
    return is_open


def _hangs_on_the_place(exchange: Exchange, principal: Principal, access: Access, permission: str) -> bool:
    """Whether it does, of somebody who does not hold the permission for the whole tenant. False where holding it
    anywhere is enough. Raises Forbidden or Hidden."""
    if access.on is not None and (principal.extents or principal.factor_extents):
        if ID_IN_PATH[access.on] not in exchange.scope["path_params"]:
            if permission in principal.extents:
                return False
            if principal.would_somewhere_with_factor(permission):
                raise Forbidden(code="factor_required")
        elif any(_may_somewhere(principal, name) for name in (permission, *_readings(exchange, access, permission))):
            return True
    if principal.would_with_factor(permission):
        raise Forbidden(code="factor_required")
    is_seen = any(principal.may(name) for name in _readings(exchange, access, permission))
    raise _refusal(exchange, permission, is_seen=is_seen)


def _may_somewhere(principal: Principal, permission: str) -> bool:
    """By a second factor, too: then it hangs on the place, what they are told."""
    return principal.may_somewhere(permission) or principal.would_somewhere_with_factor(permission)


async def _admit_there(parts: Parts, scope: Scope, access: Access) -> None:
    """Raises Forbidden for what the caller may see, and Hidden for what they may not."""
    exchange = Exchange.of(scope)
    principal, permission, kind = exchange.principal, access.permission, access.on
    assert principal is not None
    assert permission is not None
    assert kind is not None
    row_id = cast(UUID, scope["path_params"][ID_IN_PATH[kind]])
    place = await place_of(parts.reads, kind, row_id, principal.tenant_id)
    if place is None or not principal.may_at(permission, place):
        if place is not None and principal.would_at_with_factor(permission, place):
            raise Forbidden(code="factor_required")
        is_seen = place is not None and any(
            principal.may_at(name, place) for name in _readings(exchange, access, permission)
        )
        raise _refusal(exchange, permission, is_seen=is_seen)


def reading(permission: str) -> str:
    """The permission to see what this one is about."""
    return f"{permission.partition(':')[0]}:read"


def _admit_key(scope: Scope, access: Access, key: KeyLimits) -> None:
    """Raises Forbidden where a route is about the caller's session. A refused use of a key is one, too."""
    parts: Parts = scope["litestar_app"].state["parts"]
    parts.key_uses.note(key.id)
    if access.needs_session:
        raise Forbidden(code="session_required")


def _readings(exchange: Exchange, access: Access, permission: str) -> tuple[str, ...]:
    """What shows the thing that the path names: what somebody has to do with it may be of another kind."""
    if access.on is None or ID_IN_PATH[access.on] not in exchange.scope["path_params"]:
        return (reading(permission),)
    return (reading(permission), SHOWN_BY[access.on])


SHOWN_BY: Mapping[ScopedKind, str] = {
    "data_source": "data-sources:read",
    "data_domain": "data-domains:read",
    "webhook": "webhooks:read",
    "delivery": "webhooks:read",
}


def _refuse_other_spellings(scope: Scope) -> None:
    """Raises NotFound for an id in capitals, in braces, without dashes or as a URN, all of which the router takes: what
    has several paths has several places in caches, logs, limits and records.
    """
    if scope["path_params"]:
        places = _PLACES_OF_IDS.get(scope["path_template"])
        if places is None:
            places = _find_ids(scope)
        parts = scope["path"].split("/")
        for at in places:
            if _CANONICAL.fullmatch(parts[at]) is None:
                raise NotFound


_PLACES_OF_IDS: dict[str, tuple[int, ...]] = {}
"""By path template, which parts of such a path are ids."""


def _find_ids(scope: Scope) -> tuple[int, ...]:
    template, values = scope["path_template"], scope["path_params"]
    ids = {f"{{{name}}}" for name, value in values.items() if isinstance(value, UUID)}
    found = tuple(at for at, part in enumerate(template.split("/")) if part in ids)
    _PLACES_OF_IDS[template] = found
    return found


def _refusal(exchange: Exchange, permission: str, *, is_seen: bool) -> HubError:
    """A collection, or what one may see but not do, is a 403; a single thing that one may not see is not there."""
    if not is_seen and exchange.scope["path_params"]:
        return Hidden()
    return Forbidden(f"This needs the permission `{permission}`.", code="permission_missing")


def check_routes(app: Litestar, permissions: Iterable[str]) -> None:
    """Every route says who may call it, with permissions that exist, and has its price, which is worked out here.

    Raises RuntimeError naming the first that does not.
    """
    known = set(permissions)
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if not isinstance(handler, HTTPRouteHandler) or handler.http_methods == {"OPTIONS"}:
                continue
            access = handler.opt.get("access")
            if access is None or (access.permission is not None and access.permission not in known):
                raise RuntimeError(f"{handler} does not declare its access, or names a permission that does not exist")
            handler.opt["price"] = _price(handler, access)


def _price(handler: HTTPRouteHandler, access: Access) -> Price:
    codes = handler.opt.get("outcomes", NONE).codes
    try:
        price = price_of(handler.opt, map(str, handler.http_methods), is_open=access.is_open, codes=codes)
        return price._replace(policy="directory") if access.takes_directory_key else price
    except ValueError as error:
        raise RuntimeError(f"{handler} {error}") from None
