"""The connections of the fast read path.

asyncpg's own pool starts a task for every release, which is a fifth of what a plain read costs; reads change nothing in
a session, so there is nothing to reset or to shield. What is left of a pool is this: hand out the connection that was
used last, open a new one up to the limit, let the others wait in order.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from app.core.deadlines import Deadlines
from app.core.errors import Unavailable

Connection = Any  # asyncpg has no types


class ReadPool:
    """At most `size` connections, opened when they are needed. `connect` opens one."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], *, size: int, wait_s: float) -> None:
        self._connect = connect
        self._waits = Deadlines(wait_s)
        self._idle: list[Connection] = []
        self._places = size
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._is_closed = False

    async def acquire(self) -> Connection:
        """A live connection. Raises Unavailable where none is free in time, and whatever connecting raises."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._places += 1
        if self._places > 0:
            return await self._open()
        handed_over = await self._wait()
        return handed_over if handed_over is not None else await self.acquire()

    def release(self, connection: Connection) -> None:
        """Give back a connection that is at rest; one that is closed gives its place to another."""
        if self._is_closed:
            connection.terminate()
        elif connection.is_closed():
            self._places += 1
            self._hand_over(None)
        elif not self._hand_over(connection):
            self._idle.append(connection)

    def discard(self, connection: Connection) -> None:
        """For a connection that was left in the middle of something."""
        connection.terminate()
        self.release(connection)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        connection = await self.acquire()
        try:
            yield connection
        except BaseException:
            self.discard(connection)
            raise
        self.release(connection)

    def close(self) -> None:
        self._is_closed = True
        while self._idle:
            self._idle.pop().terminate()

    async def _open(self) -> Connection:
        self._places -= 1
        try:
            return await self._connect()
        except BaseException:
            self._places += 1
            self._hand_over(None)
            raise

    async def _wait(self) -> Connection | None:
        """What a release hands over: a connection, or None for a place that is free."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with self._waits.start():
                return await turn
        except TimeoutError:
            if turn.done() and not turn.cancelled():
                return turn.result()  # handed over in the very moment in which the wait ended
            raise Unavailable(code="database_busy") from None
        except asyncio.CancelledError:
            self._pass_on(turn)
            raise

    def _pass_on(self, turn: "asyncio.Future[Connection | None]") -> None:
        """The one who waited is gone: what was handed over in that moment goes to the next."""
        if turn.done() and not turn.cancelled():
            connection = turn.result()
            if connection is not None:
                self.release(connection)
            else:
                self._hand_over(None)

    def _hand_over(self, connection: Connection | None) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False
