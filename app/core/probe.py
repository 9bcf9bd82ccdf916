"""Whether the database answers, asked on a connection of its own: no crowd in front of the pools stands in the way."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from app.core.database import Connection, driver_url, server_settings

T = TypeVar("T")

PROBE_TIMEOUT_S = 0.9
"""With the rest of what a request takes, this stays below a second."""


class DatabaseProbe:
    """Asks one question at a time; who comes meanwhile gets the same answer."""

    def __init__(self, url: str) -> None:
        self._url = driver_url(url)
        self._connection: asyncpg.Connection | None = None
        self._asking: asyncio.Task[Any] | None = None

    async def ask(self, question: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """What `question`, always the same one, finds with the connection.

        Raises TimeoutError within a second, and whatever connecting and asking raise.
        """
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(question))
            self._asking.add_done_callback(self._is_answered)
        answer: T = await asyncio.shield(self._asking)
        return answer

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        self._hang_up()

    async def _ask(self, question: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._connect()
                return await question(self._connection)
        except BaseException:
            self._hang_up()  # the next one may find a server that is back
            raise

    async def _connect(self) -> asyncpg.Connection:
        settings = server_settings("hub probe", PROBE_TIMEOUT_S, lock_timeout_s=PROBE_TIMEOUT_S)
        return await asyncpg.connect(
            self._url, timeout=PROBE_TIMEOUT_S, connection_class=Connection, server_settings=settings
        )

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _is_answered(self, asked: "asyncio.Task[Any]") -> None:
        self._asking = None
        with contextlib.suppress(asyncio.CancelledError):
            asked.exception()  # seen, even where everybody who waited has left
