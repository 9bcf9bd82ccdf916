"""The hub's Request: a body read within limits and decoded strictly, the principal, and the parts of the hub."""

import asyncio
from typing import Any, cast

from litestar import Request
from litestar.exceptions import ClientException, InternalServerException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from app.core.bodies import decode, media_type_of
from app.core.errors import BadRequest, TooLarge, Unauthenticated
from app.core.exchange import Exchange
from app.core.security import Principal
from app.domain.parts import Parts

BODY_DEADLINE_S = 10.0


class HubRequest(Request[Any, Any, Any]):
    @property
    def exchange(self) -> Exchange:
        return Exchange.of(self.scope)

    @property
    def parts(self) -> Parts:
        return cast(Parts, self.app.state.parts)

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
        """The whole body. Raises TooLarge without reading on, BadRequest when it does not arrive within ten seconds."""
        try:
            async with asyncio.timeout(BODY_DEADLINE_S):
                return await super().body()
        except TimeoutError:
            raise BadRequest("The request body did not arrive in time.", code="body_timeout") from None
        except RequestEntityTooLarge:
            raise TooLarge from None
        except InternalServerException:
            raise BadRequest("The client left before its body was here.", code="client_left") from None
        except ClientException:
            raise BadRequest("The Content-Length is not valid.", code="malformed_body") from None

    async def json(self) -> Any:
        """The body as the type of the handler's `data`, whether it came as JSON or as MessagePack."""
        wanted = self.route_handler.parsed_data_field
        body = await self.body()
        if wanted is None:
            return None
        media_type = media_type_of(self.exchange.header(b"content-type"))
        return decode(body, wanted.annotation, media_type)
