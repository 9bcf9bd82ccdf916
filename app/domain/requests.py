"""The hub's Request: a body read within limits and decoded strictly, the principal, and the parts of the hub."""

from typing import Any, cast

from litestar import Request
from litestar.types import Empty
from litestar.utils.scope.state import ScopeState

from app.core.bodies import decode_in_turns, form_fields, media_type_of
from app.core.deadlines import Deadlines
from app.core.errors import BadRequest, TooLarge, Unauthenticated, UnsupportedMediaType
from app.core.exchange import Exchange
from app.core.security import Principal
from app.core.stopping import STOPPING, stopping_error
from app.domain.parts import Parts

BODY_DEADLINE_S = 10.0
LAST_BODY_DEADLINE_S = 1.0
"""Once the process was told to end: for what is on its way already."""
_BODY_DEADLINES = Deadlines(BODY_DEADLINE_S)
STOPPING.react(lambda: _BODY_DEADLINES.shorten(LAST_BODY_DEADLINE_S))


class HubRequest(Request[Any, Any, Any]):
    @property
    def exchange(self) -> Exchange:
        return Exchange.of(self.scope)

    @property
    def parts(self) -> Parts:
        return cast(Parts, self.scope["litestar_app"].state["parts"])  # as an attribute it costs six times as much

    @property
    def principal(self) -> Principal:
        principal = self.exchange.principal
        if principal is None:
            raise Unauthenticated
        return principal

    @property
    def query_string(self) -> bytes:
        return self.scope["query_string"]

    async def body(self) -> bytes:
        """The whole body.

        Raises TooLarge without reading on, BadRequest when it does not arrive within ten seconds, and Unavailable when
        the hub stops before it is here.
        """
        if self._body is Empty:
            try:
                with _BODY_DEADLINES.start():
                    body = await self._read()
            except TimeoutError:
                if STOPPING.has_begun:
                    raise stopping_error("The hub stops, and your request was not all here. Send it again.") from None
                raise BadRequest(code="body_timeout") from None
            if not body:
                self._refuse_absence()
            elif self.route_handler.opt["access"].takes_form:
                ScopeState.from_scope(self.scope).form = form_fields(body)
            self._body = body
        return self._body

    async def _read(self) -> bytes:
        """By hand: Litestar's own reading parses all headers for the one that says how long the body is."""
        limit = cast(int, self.route_handler.resolve_request_max_body_size())
        if self.route_handler.opt["access"].takes_form:
            limit = min(limit, self.route_handler.opt["access"].form_bytes)
        declared = self.exchange.headers.get(b"content-length", b"0")
        if not declared.isdigit():
            raise BadRequest("The Content-Length is not valid.", code="malformed_body")
        if len(declared) > 18 or int(declared) > limit:
            raise TooLarge
        body = bytearray()
        more = True
        while more:
            message: Any = await self.receive()
            if message["type"] == "http.disconnect":
                raise BadRequest(code="client_left")
            body += message.get("body", b"")
            if len(body) > limit:
                raise TooLarge
            more = message.get("more_body", False)
        self.exchange.unread = 0
        return bytes(body)

    def _refuse_absence(self) -> None:
        """Raises UnsupportedMediaType or BadRequest where the route cannot do without a body."""
        wanted = self.route_handler.parsed_data_field
        if wanted is not None and not wanted.has_default and not self.route_handler.opt["access"].takes_form:
            self._media_type()
            raise BadRequest(code="missing_body")

    def _media_type(self) -> str:
        if self.exchange.header(b"content-encoding") not in (None, "identity"):
            raise UnsupportedMediaType("Send the body as it is, without a Content-Encoding.")
        return media_type_of(self.exchange.header(b"content-type"), self.exchange.method)

    async def json(self) -> object:
        """The body as the type of the handler's `data`, whether it came as JSON or as MessagePack."""
        wanted = self.route_handler.parsed_data_field
        body = await self.body()
        if wanted is None:
            return None
        return await decode_in_turns(body, wanted.annotation, self._media_type())
