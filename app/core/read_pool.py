"""The connections of the fast read path.

asyncpg's own pool starts a task for every release, which is a fifth of what a plain read costs; reads change nothing in
a session, so there is nothing to reset or to shield. What is left of a pool is this: have a place, take the connection
that was used last, or else open one.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from app.core.places import Places

Connection = Any  # asyncpg has no types


class ReadPool:
    """At most `size` connections, opened when they are needed. `connect` opens one."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], *, size: int, wait_s: float) -> None:
        self.places = Places(size, wait_s=wait_s)
        self._connect = connect
        self._idle: list[Connection] = []
        self._is_closed = False

    async def acquire(self, kind: str | None) -> Connection:
        """A live connection, for work of this kind.

        Raises Unavailable where none is free in time, and whatever connecting raises.
        """
        if not self.places.try_take(kind):
            await self.places.wait(kind)
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        try:
            return await self._connect()
        except BaseException:
            self.places.give_back(kind)
            raise

    def release(self, connection: Connection, kind: str | None) -> None:
        """Give back a connection that is at rest; one that is closed gives its place to another."""
        if self._is_closed:
            connection.terminate()
        elif not connection.is_closed():
            self._idle.append(connection)
        self.places.give_back(kind)

    def discard(self, connection: Connection, kind: str | None) -> None:
        """For a connection that was left in the middle of something."""
        connection.abandon()
        self.places.give_back(kind)

    @contextlib.asynccontextmanager
    async def connection(self, kind: str | None) -> AsyncIterator[Connection]:
        connection = await self.acquire(kind)
        try:
            yield connection
        except BaseException:
            self.discard(connection, kind)
            raise
        self.release(connection, kind)

    def close(self) -> None:
        self._is_closed = True
        while self._idle:
            self._idle.pop().terminate()
