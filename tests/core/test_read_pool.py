"""RL6: the pool of the fast reads loses no connection and lets nobody wait for ever."""

import asyncio
import time
from typing import Any
from uuid import UUID

import pytest

from app.core.errors import Unavailable
from app.core.read_pool import ReadPool

pytestmark = [pytest.mark.anyio, pytest.mark.found("RL6")]


class Connection:
    """What the pool asks of a connection."""

    def __init__(self) -> None:
        self._is_closed = False
        self.tenant_id: UUID | None = None

    def is_closed(self) -> bool:
        return self._is_closed

    def terminate(self) -> None:
        self._is_closed = True

    abandon = terminate


class Server:
    def __init__(self, size: int = 2, wait_s: float = 5.0) -> None:
        self.opened: list[Connection] = []
        self.is_down = False
        self.pool = ReadPool(self._connect, size=size, wait_s=wait_s)

    async def _connect(self) -> Connection:
        await asyncio.sleep(0)
        if self.is_down:
            raise ConnectionRefusedError
        self.opened.append(Connection())
        return self.opened[-1]

    async def assert_has_room(self, size: int = 2) -> None:
        """All places can be had at once, and not one more."""
        held = [await self.pool.acquire(None, None) for _ in range(size)]
        extra = asyncio.create_task(self.pool.acquire(None, None))
        await asyncio.sleep(0.01)
        assert not extra.done()
        extra.cancel()
        await asyncio.gather(extra, return_exceptions=True)
        for connection in held:
            self.pool.release(connection, None)
        assert sum(not connection.is_closed() for connection in self.opened) <= size


async def test_a_connection_is_used_again() -> None:
    server = Server()
    for _ in range(3):
        async with server.pool.connection(None, None):
            pass
    assert len(server.opened) == 1
    await server.assert_has_room()


async def test_waiting_ends_in_time_with_an_answer() -> None:
    server = Server(wait_s=0.02)
    held = [await server.pool.acquire(None, None) for _ in range(2)]
    with pytest.raises(Unavailable) as caught:
        await server.pool.acquire(None, None)
    assert (caught.value.code, caught.value.headers) == ("database_busy", {"Retry-After": "1"})
    for connection in held:
        server.pool.release(connection, None)
    await server.assert_has_room()


async def test_those_who_wait_are_served_in_order() -> None:
    server = Server(size=1)
    first = await server.pool.acquire(None, None)
    served: list[int] = []

    async def use(number: int) -> None:
        async with server.pool.connection(None, None):
            served.append(number)

    tasks = [asyncio.create_task(use(number)) for number in range(5)]
    await asyncio.sleep(0)
    server.pool.release(first, None)
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]


async def test_a_connection_handed_over_as_the_wait_ends_is_not_lost() -> None:
    """Both fall into one turn of the loop: the release comes first, the time-out right behind it."""
    server = Server(size=1, wait_s=0.05)
    connection = await server.pool.acquire(None, None)
    waiting = asyncio.create_task(server.pool.acquire(None, None))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    loop.call_later(0.04, server.pool.release, connection, None)
    time.sleep(0.08)
    found: Any = (await asyncio.gather(waiting, return_exceptions=True))[0]
    if not isinstance(found, Unavailable):
        server.pool.release(found, None)
    await server.assert_has_room(1)


async def test_a_connection_handed_over_to_one_who_left_goes_to_the_next() -> None:
    server = Server(size=1)
    connection = await server.pool.acquire(None, None)
    leaving, staying = (
        asyncio.create_task(server.pool.acquire(None, None)),
        asyncio.create_task(server.pool.acquire(None, None)),
    )
    await asyncio.sleep(0)
    server.pool.release(connection, None)
    leaving.cancel()
    assert await asyncio.wait_for(staying, 1) is connection
    server.pool.release(connection, None)
    await server.assert_has_room(1)


async def test_a_connection_that_died_makes_room_for_one_who_waits() -> None:
    server = Server(size=1)
    connection = await server.pool.acquire(None, None)
    waiting = asyncio.create_task(server.pool.acquire(None, None))
    await asyncio.sleep(0)
    server.pool.discard(connection, None)
    fresh = await asyncio.wait_for(waiting, 1)
    assert fresh is not connection
    server.pool.release(fresh, None)
    await server.assert_has_room(1)


async def test_connections_that_died_while_idle_are_replaced() -> None:
    server = Server()
    held = [await server.pool.acquire(None, None) for _ in range(2)]
    for connection in held:
        server.pool.release(connection, None)
        connection.terminate()
    await server.assert_has_room()


async def test_a_server_that_is_down_takes_no_places_away() -> None:
    server = Server()
    server.is_down = True
    answers = await asyncio.gather(*(server.pool.acquire(None, None) for _ in range(7)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {ConnectionRefusedError}
    server.is_down = False
    await server.assert_has_room()


async def test_one_who_leaves_while_connecting_takes_no_place_away() -> None:
    server = Server()
    tasks = [asyncio.create_task(server.pool.acquire(None, None)) for _ in range(4)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.assert_has_room()


async def test_an_error_within_the_block_costs_the_connection_and_no_place() -> None:
    server = Server(size=1)
    with pytest.raises(KeyError):
        async with server.pool.connection(None, None):
            raise KeyError
    assert server.opened[0].is_closed()
    await server.assert_has_room(1)


async def test_a_closed_pool_keeps_nothing() -> None:
    server = Server()
    idle, held = await server.pool.acquire(None, None), await server.pool.acquire(None, None)
    server.pool.release(idle, None)
    server.pool.close()
    server.pool.release(held, None)
    assert all(connection.is_closed() for connection in server.opened)
