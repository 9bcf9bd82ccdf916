"""The outermost layer: what holds for every request whatever it asks for.

Request id, host check, deadline, HEAD, security headers, CORS, the log line, the metrics, and an answer in the error
shape when everything else failed. A plain ASGI wrapper around the Litestar application, because it must also see what
never reaches a route.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from litestar.types import ASGIApp, Receive, Scope
from msgspec import Struct

from app.core.answers import shown_error
from app.core.deadlines import Deadlines
from app.core.errors import BadRequest, HubError, InternalError, Unavailable
from app.core.exchange import Exchange, refuse_repeated
from app.core.log_context import bind, unbind
from app.core.stopping import ANSWERED_WITHIN_S, STOPPING, stopping_error

log = logging.getLogger("hub.requests")

ALWAYS = [
    (b"server", b"hub"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
NO_STORE = (b"cache-control", b"no-store")
PROBES = frozenset(("/health/live", "/health/ready"))
"""Asked by address, never by a name (Kubernetes by the pod's, a container's check by 127.0.0.1): answered under any."""
MOST_UNDER_WAY = 1024
"""Requests of this process, probes excepted; a quarter of the connections that it takes."""
PASSED_OVER_BYTES = 65_536
"""Of a body that nobody reads, as of a call without a token: so much is let in, so that the connection can be used
again,"""
PASSED_OVER_S = 0.5
"""for so long."""
VARY = (b"vary", b"Accept")
VARY_WITH_ORIGIN = (b"vary", b"Accept, Origin")


_LABELS = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def _is_named(name: str, pattern: str) -> bool:
    """`*.example.org` stands for whatever is below it, which has a name of its own: `.example.org` is nobody's."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and _LABELS.fullmatch(name.removesuffix(pattern[1:])) is not None
    return name == pattern


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


class FrameConfig(Struct, frozen=True, kw_only=True):
    timeout_s: float
    """Every request has its answer by then; a stream may lift it (`OpenStreams.admit`)."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names without port, `*.example.org` for subdomains; empty: any."""
    cors_origins: tuple[str, ...] = ()
    base_path: str = ""
    """Under which clients find the hub, such as `/hub`. Requests come with it or without it, as the proxy does it."""


Observer = Callable[[Exchange], None]
Begin = Callable[[Scope], Exchange]


class Frame:
    def __init__(
        self,
        app: ASGIApp,
        config: FrameConfig,
        *,
        observe: Observer,
        close: Callable[[], None] = lambda: None,
        begin: Begin = Exchange,
    ) -> None:
        """`begin` makes the exchange of a request, and `observe` is told at its end."""
        self._app = app
        self._begin = begin
        self._config = config
        self._deadlines = Deadlines(config.timeout_s)
        self._observe = observe
        self._close = close
        self._under_way: set[Exchange] = set()
        self._hosts = tuple(name.lower() for name in config.allowed_hosts)
        self._origins = frozenset(origin.encode() for origin in config.cors_origins)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # the application's life: this returns at its end
            self._close()
            return
        if self._config.base_path:
            _enter(scope, self._config.base_path)
        exchange = self._begin(scope)
        scope["hub.exchange"] = exchange
        self._under_way.add(exchange)
        reply = _Reply(exchange, receive, send, self._headers(exchange))
        if scope["method"] == "HEAD":
            scope["method"] = "GET"
            reply.without_body = True
        token = bind(exchange.log_context)
        try:
            await self._within_deadline(exchange, scope, receive, reply)
        except Exception as error:  # the last resort of every layer below
            await self._give_up(exchange, error, scope, receive, reply)
        finally:
            self._under_way.discard(exchange)
            if exchange.at_end is not None:
                exchange.at_end()
            self._observe(exchange)
            unbind(token)
            del scope["hub.exchange"]  # or else the two would keep each other until the collector comes by

    def hurry(self) -> None:
        """The process was told to end: what is not done soon is answered all the same, before it is killed."""
        self._deadlines.shorten(ANSWERED_WITHIN_S)

    def under_way_by_tenant(self) -> dict[Exchange, UUID]:
        """Of those who are signed in, and have no answer yet."""
        waiting = (each for each in self._under_way if not each.status)
        return {each: each.principal.tenant_id for each in waiting if each.principal is not None}

    def peers_asking(self) -> set[int]:
        """The ports of the clients whose requests are under way."""
        clients = (exchange.scope.get("client") for exchange in self._under_way)
        return {int(client[1]) for client in clients if client}  # granian gives the port as a text

    async def _within_deadline(self, exchange: Exchange, scope: Scope, receive: Receive, reply: "_Reply") -> None:
        try:
            with self._deadlines.start() as exchange.deadline:
                refuse_repeated(exchange)
                self._refuse_surplus(exchange)
                self._check_host(exchange)
                if not self._origins or not await self._answer_preflight(exchange, reply):
                    await self._app(scope, receive, reply)
        except TimeoutError:
            if exchange.ended_by is not None:
                raise exchange.ended_by from None
            if STOPPING.has_begun:
                raise stopping_error("The hub stops before this could be done. Send it again.") from None
            raise Unavailable(code="deadline_exceeded") from None

    async def _give_up(
        self, exchange: Exchange, error: Exception, scope: Scope, receive: Receive, reply: "_Reply"
    ) -> None:
        if not isinstance(error, HubError):
            log.exception("unhandled", exc_info=error)
            error = InternalError()
        if exchange.status == 0:
            await shown_error(exchange, error)(scope, receive, reply)

    def _refuse_surplus(self, exchange: Exchange) -> None:
        """Answered at once, and its connection closed, so that slow requests never use up all connections."""
        if len(self._under_way) > MOST_UNDER_WAY and exchange.scope["path"] not in PROBES:
            error = Unavailable(code="server_busy")
            error.headers["Connection"] = "close"
            raise error

    def _headers(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        request_id = (b"x-request-id", exchange.request_id.encode())
        if not self._origins:
            return [request_id, VARY, *ALWAYS]
        headers = [request_id, VARY_WITH_ORIGIN, *ALWAYS]
        origin = exchange.headers.get(b"origin")
        if origin in self._origins and origin is not None:
            headers += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED)]
        return headers

    def _check_host(self, exchange: Exchange) -> None:
        allowed = self._hosts
        if not allowed:
            return
        host = (exchange.header(b"host") or "").lower()
        before, _, port = host.rpartition(":")
        name = before if port.isascii() and port.isdigit() else host
        if any(_is_named(name, pattern) for pattern in allowed):
            return
        if not (exchange.scope["path"] in PROBES and _is_address(name)):
            raise BadRequest(code="unknown_host")

    async def _answer_preflight(self, exchange: Exchange, reply: "_Reply") -> bool:
        """CORS preflight (Fetch standard): only listed origins get an answer that opens anything."""
        headers = exchange.headers
        if exchange.scope["method"] != "OPTIONS" or b"access-control-request-method" not in headers:
            return False
        allow = [(b"access-control-allow-methods", METHODS), (b"access-control-allow-headers", ALLOWED)]
        granted = headers.get(b"origin") in self._origins
        await reply({"type": "http.response.start", "status": 204, "headers": allow if granted else []})
        await reply({"type": "http.response.body", "body": b"", "more_body": False})
        return True


def _enter(scope: Any, base: str) -> None:
    """The path as the routes know it; `root_path` is what stands before it (ASGI, HTTP connection scope)."""
    scope["root_path"] = base
    path: str = scope["path"]
    if path == base or path.startswith(f"{base}/"):
        scope["path"] = path[len(base) :] or "/"


METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
ALLOWED = b"Authorization, Content-Type, Accept, If-Match, If-None-Match, Idempotency-Key, X-Request-ID"
EXPOSED = b"ETag, Location, X-Request-ID, Retry-After, RateLimit, RateLimit-Policy"


class _Reply:
    """The `send` of one exchange: adds the headers that every answer carries, and notes the status."""

    __slots__ = ("_exchange", "_headers", "_receive", "_send", "without_body")

    def __init__(
        self,
        exchange: Exchange,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        self._exchange = exchange
        self._receive = receive
        self._send = send
        self._headers = headers
        self.without_body = False

    def __call__(self, message: Any) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self._exchange.status = message["status"]
            own = message["headers"]
            message["headers"] = [*own, *self._headers]
            standing = self._exchange.standing
            if standing is not None:
                # Another refusal than the quota's has a `Retry-After` of its own, which this must not contradict.
                with_reset = message["status"] != 429 or not standing.is_admitted
                message["headers"] += (standing.header(with_reset=with_reset), standing.policy.header)
            if not [name for name, _ in own if name == b"cache-control"]:
                message["headers"].append(NO_STORE)
            if self._exchange.unread:
                return self._send_behind_the_body(message)
        elif self.without_body:
            message = {"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)}
        return self._send(message)

    async def _send_behind_the_body(self, message: Any) -> None:
        """Before what is left of a body the server would hang up after the answer, at times without a word, and the
        client would find its next request unanswered. So a small one is let in first, and otherwise the answer says
        that this connection ends with it."""
        if not await self._pass_over_the_body():
            own = [header for header in message["headers"] if header[0].lower() != b"connection"]
            message["headers"] = [*own, (b"connection", b"close")]
        await self._send(message)

    async def _pass_over_the_body(self) -> bool:
        if self._exchange.unread > PASSED_OVER_BYTES:
            return False
        try:
            async with asyncio.timeout(PASSED_OVER_S):
                while (part := await self._receive())["type"] == "http.request" and part.get("more_body", False):
                    pass
        except TimeoutError:
            return False
        self._exchange.unread = 0
        return bool(part["type"] == "http.request")
