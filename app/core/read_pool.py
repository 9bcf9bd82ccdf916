"""The connections of the fast read path.

asyncpg's own pool starts a task for every release, which is a fifth of what a plain read costs; reads change nothing in
a session, so there is nothing to reset or to shield. What is left of a pool is this: have a place, take the connection
that was used last, or else open one.

A connection stays in the tenant that it entered last. Whoever takes it makes sure that it is in theirs, which costs a
round trip where it is not; so one that is in it already is taken first.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

from app.core.places import Places

Connection = Any  # asyncpg has no types


class ReadPool:
    """At most `size` connections, opened when they are needed. `connect` opens one."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], *, size: int, wait_s: float) -> None:
        self.places = Places(size, wait_s=wait_s)
        self._connect = connect
        self._idle: list[Connection] = []
        self._is_closed = False

    async def acquire(self, kind: str | None, tenant_id: UUID | None) -> Connection:
        """A live connection, for work of this kind; in the tenant, if there is such a one. `enter` is up to the caller,
        within their own deadline.

        Raises Unavailable where none is free in time, and whatever connecting raises.
        """
        if not self.places.try_take(kind):
            await self.places.wait(kind)
        while self._idle:
            connection = self._idle.pop(self._nearest(tenant_id))
            if not connection.is_closed():
                return connection
        try:
            return await self._connect()
        except BaseException:
            self.places.give_back(kind)
            raise

    def _nearest(self, tenant_id: UUID | None) -> int:
        """Of the idle ones, the last that is in the tenant, or else the last."""
        for place in range(len(self._idle) - 1, -1, -1):
            if self._idle[place].tenant_id == tenant_id:
                return place
        return -1

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
    async def connection(self, kind: str | None, tenant_id: UUID | None) -> AsyncIterator[Connection]:
        """In the tenant, or in none."""
        connection = await self.acquire(kind, tenant_id)
        try:
            if connection.tenant_id != tenant_id:
                await connection.enter(tenant_id)
            yield connection
        except BaseException:
            self.discard(connection, kind)
            raise
        self.release(connection, kind)

    def close(self) -> None:
        self._is_closed = True
        while self._idle:
            self._idle.pop().terminate()
