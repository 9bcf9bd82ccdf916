"""Streams of events: how long one goes on, and that nobody is told what they may not see any more.

What is told, each stream says for itself (`News`); that it ends with the token, the session, the tenant and the right,
that it shows that it is there, and that there are not too many, is the same for all.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from time import monotonic, time
from typing import Protocol

from app.core import watching
from app.core.answers import Stream
from app.core.database import DATABASE_ERRORS
from app.core.errors import HubError
from app.core.security import Claims, Principal
from app.core.server_sent_events import MEDIA_TYPE
from app.domain.requests import HubRequest

log = logging.getLogger("hub.streams")

KEEP_ALIVE_S = 15.0


class News(Protocol):
    """What one stream tells."""

    def first(self) -> bytes:
        """Sent at once."""

    @property
    def is_over(self) -> bool:
        """Whether there is no more to come."""

    async def wait(self, within_s: float) -> None:
        """Until there may be something to tell, or so many seconds have passed."""

    async def next(self, principal: Principal) -> bytes:
        """What there is to tell at this moment to somebody who may do what the principal may; empty where there is
        nothing. Raises HubError where they may not be told any more."""

    def mark(self) -> bytes:
        """Sent after a while in which there was nothing to tell."""


def follow(request: HubRequest, opened: AbstractAsyncContextManager[News]) -> Stream[str]:
    """Raises TooManyRequests or Unavailable where too many streams are open."""
    request.parts.streams.admit(request.exchange)
    return Stream([(b"content-type", MEDIA_TYPE.encode())], _told(request, opened))


async def _told(request: HubRequest, opened: AbstractAsyncContextManager[News]) -> AsyncGenerator[bytes, None]:
    """What ends a stream ends it in good order: the client connects again, and is told then."""
    if request.exchange.method == "HEAD":
        return
    try:
        async with opened as news:
            yield news.first()
            async for part in _later(request, news):
                yield part
    except HubError:
        return
    except DATABASE_ERRORS as error:
        log.warning("a stream ends, the database is away: %s", type(error).__name__)


async def _later(request: HubRequest, news: News) -> AsyncIterator[bytes]:
    """Looks at the caller twice a second, and before anything is told. Raises Unauthenticated, NotFound or Hidden."""
    credential = request.exchange.credential
    ends_at = credential.exp if isinstance(credential, Claims) else request.exchange.signed.expires_at
    told_at = monotonic()
    while not news.is_over and time() < ends_at:
        await news.wait(watching.LOOK_EVERY_S)
        signed = await request.parts.principals.of(credential)
        part = await news.next(signed.principal)
        if not part and monotonic() - told_at >= KEEP_ALIVE_S:
            part = news.mark()
        if part:
            yield part
            told_at = monotonic()
