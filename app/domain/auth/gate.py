"""The gate: a middleware of Litestar's through which every request to a route passes before its body is read.

JWT in, `Principal` out, then the route's own demand (`requires`, `signed_in`, `open_to_all`). A route that declares
nothing is closed to all, and `check_routes` stops the start over it.
"""

from collections.abc import Iterable
from uuid import UUID

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from app.core.bodies import require_form
from app.core.errors import BadRequest, Forbidden, Hidden, HubError, InternalError, NotFound, Unavailable
from app.core.exchange import Exchange
from app.core.security import Access, Principal, bearer_token
from app.domain.parts import Parts


class Gate(ASGIMiddleware):
    """Authentication and the route's demand, in front of every handler but those that answer OPTIONS.

    A handler finds who asks as `request.principal`, and by Litestar's own name as `request.user`.
    """

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Raises Unauthenticated, Forbidden, NotFound for one thing that the caller may not see, or BadRequest for
        query parameters where the route takes none. Raises Unavailable on a schema that is not this release's."""
        _refuse_other_spellings(scope)
        access: Access | None = scope["route_handler"].opt.get("access")
        if access is not None:
            await self._admit(scope, access)
        elif scope.get("method") != "OPTIONS":
            raise InternalError
        await next_app(scope, receive, send)

    async def _admit(self, scope: Scope, access: Access) -> None:
        exchange = Exchange.of(scope)
        parts: Parts = scope["litestar_app"].state.parts
        if parts.schema.problem is not None and access.needs_database:
            raise Unavailable(code=parts.schema.problem.code)
        if not access.is_open:
            scope["user"] = principal = await authenticate(parts, exchange)
            if access.permission is not None and access.permission not in principal.permissions:
                raise _refusal(exchange, principal, access.permission)
        if scope["query_string"] and not access.takes_query:
            raise BadRequest("This call takes no query parameters.", code="invalid_parameter")
        if access.takes_form:
            require_form(exchange.header(b"content-type"))


async def authenticate(parts: Parts, exchange: Exchange) -> Principal:
    """The principal of a live session, set on the exchange. Raises Unauthenticated."""
    claims = parts.tokens.verify(bearer_token(exchange.headers.get(b"authorization")))
    exchange.signed = signed = await parts.principals.of(claims)
    exchange.principal = signed.principal
    return signed.principal


def _refuse_other_spellings(scope: Scope) -> None:
    """Raises NotFound for an id in capitals, in braces, without dashes or as a URN, all of which the router takes: what
    has several paths has several places in caches, logs, limits and records.
    """
    ids = [str(value) for value in scope["path_params"].values() if isinstance(value, UUID)]
    if ids and [part for part in scope["path"].split("/") if part in ids] != ids:
        raise NotFound


def _refusal(exchange: Exchange, principal: Principal, permission: str) -> HubError:
    """A collection, or what one may see but not do, is a 403; a single thing that one may not see is not there."""
    is_seen = principal.may(f"{permission.partition(':')[0]}:read")
    if not is_seen and exchange.scope["path_params"]:
        return Hidden()
    return Forbidden(f"This needs the permission `{permission}`.", code="permission_missing")


def check_routes(app: Litestar, permissions: Iterable[str]) -> None:
    """Every route says who may call it, with permissions that exist.

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
