"""Answers that come whole, however long they are: part by part, as fast as their client takes them.

Whoever has the end of such an answer has all of it. Where it cannot be finished the transfer is broken off, and no
client takes that for the end.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, TypeVar, cast

from litestar.types import Receive, Scope

from app.core.answers import Answer, AnySend, Headers, wait_until_gone
from app.core.connections import UNTAKEN_S
from app.core.database import explain
from app.core.errors import HubError, InternalError
from app.core.exchange import Exchange
from app.core.outflow import Outflow, Untaken, outflow_of
from app.core.stopping import KILLED_AFTER_S, STOPPING

T = TypeVar("T")
Chunks = AsyncGenerator[bytes, None]

log = logging.getLogger("hub.exports")

SENT_WITHIN_S = KILLED_AFTER_S / 2
"""From SIGTERM on: what takes longer is broken off, so that the process ends by itself."""


class Export(Answer[T], Generic[T]):
    """The parts, sent one after the other; none of them for HEAD. The type parameter is what the list is made of."""

    def __init__(self, exchange: Exchange, headers: Headers, parts: Chunks) -> None:
        self.status_code = 200
        self.wire_headers = headers
        self.body = b""
        self.content = cast(T, None)
        self._exchange = exchange
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: AnySend) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.wire_headers})
        if self._exchange.method == "HEAD":
            await self._parts.aclose()
            await send(_END)
            return
        outflow = await outflow_of(scope)
        leaving = asyncio.create_task(wait_until_gone(receive))
        try:
            why_not = await self._send_all(send, outflow, leaving)
            if why_not is None:
                await send(_END)
            elif not leaving.done():
                await _break_off(outflow, leaving, why_not)
        finally:
            leaving.cancel()

    async def _send_all(
        self, send: AnySend, outflow: Outflow | None, leaving: "asyncio.Task[None]"
    ) -> BaseException | None:
        """Why not all of it was sent; None where it was."""
        sending = asyncio.create_task(_send_parts(self._parts, send, outflow))
        stopping = asyncio.create_task(_wait_for_last_moment())
        try:
            await asyncio.wait((sending, leaving, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            stopping.cancel()
            (found, _) = await asyncio.gather(sending, stopping, return_exceptions=True)
        return found


async def _send_parts(parts: Chunks, send: AnySend, outflow: Outflow | None) -> None:
    async with aclosing(parts):
        while True:
            async with asyncio.timeout(UNTAKEN_S):
                part = await anext(parts, None)
            if part is None:
                return
            await send({"type": "http.response.body", "body": part, "more_body": True})
            if outflow is not None:
                await outflow.wait_for_room(len(part))


async def _wait_for_last_moment() -> None:
    await STOPPING.wait()
    await asyncio.sleep(SENT_WITHIN_S)


async def _break_off(outflow: Outflow | None, leaving: "asyncio.Task[None]", why: BaseException) -> None:
    known = why if isinstance(why, HubError) else explain(why)
    if known is not None and not isinstance(known, InternalError):
        log.warning("an export is broken off: %s", known.code)
    elif isinstance(why, Untaken | asyncio.CancelledError):
        log.warning("an export is broken off: %s", type(why).__name__)
    else:
        log.error("an export is broken off", exc_info=why)
    if outflow is not None:
        await outflow.break_off(leaving)


_END = {"type": "http.response.body", "body": b"", "more_body": False}
