"""Answers that come whole: as fast as their client takes them over a real connection, and broken off where they end early."""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from app.core import exports, outflow
from app.core.connections import open_sockets
from app.core.exchange import Exchange
from app.core.exports import Export
from app.core.outflow import WINDOW, Outflow, Untaken, outflow_of
from app.core.stopping import Stopping

pytestmark = pytest.mark.anyio

END = {"type": "http.response.body", "body": b"", "more_body": False}


class Client:
    """Takes what it is sent, and leaves when it is told to."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.leaving = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.leaving.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def take(self, parts: AsyncGenerator[bytes, None], method: str = "GET") -> None:
        scope: Any = {"type": "http", "method": method, "headers": [], "client": None, "server": None}
        await Export(Exchange(scope), [(b"content-type", b"text/csv")], parts)(scope, self.receive, self.send)  # type: ignore[arg-type]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def has_all(self) -> bool:
        return self.sent[-1] == END


class Parts:
    """`a`, `b`, then whatever happens; notes that it was closed."""

    def __init__(self, then: BaseException | None = None, *, waits: bool = False) -> None:
        self.is_closed = False
        self._then = then
        self._waits = waits

    async def run(self) -> AsyncGenerator[bytes, None]:
        try:
            yield b"a"
            yield b"b"
            if self._waits:
                await asyncio.Event().wait()
            if self._then is not None:
                raise self._then
        finally:
            self.is_closed = True


async def test_all_parts_come_and_then_the_end() -> None:
    client, parts = Client(), Parts()
    await client.take(parts.run())
    assert (client.body, client.has_all, parts.is_closed) == (b"ab", True, True)
    assert client.sent[0]["status"] == 200


async def test_head_has_no_part() -> None:
    client, parts = Client(), Parts()
    await client.take(parts.run(), "HEAD")
    assert (client.body, client.has_all, len(client.sent)) == (b"", True, 2)


@pytest.mark.parametrize("error", [OSError("away"), ValueError("a mistake of ours"), RecursionError()])
async def test_what_fails_has_no_end_and_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    client, parts = Client(), Parts(error)
    with caplog.at_level(logging.WARNING, "hub.exports"):
        await client.take(parts.run())
    assert (client.body, client.has_all, parts.is_closed) == (b"ab", False, True)
    (record,) = caplog.records
    is_expected = isinstance(error, OSError)
    assert (record.levelname, bool(record.exc_info)) == (("WARNING", False) if is_expected else ("ERROR", True))


async def test_who_leaves_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    client, parts = Client(), Parts(waits=True)
    taking = asyncio.create_task(client.take(parts.run()))
    await asyncio.sleep(0.05)
    client.leaving.set()
    await asyncio.wait_for(taking, 1)
    assert (client.has_all, parts.is_closed, caplog.records) == (False, True, [])


async def test_what_falls_silent_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "UNTAKEN_S", 0.1)
    client, parts = Client(), Parts(waits=True)
    await asyncio.wait_for(client.take(parts.run()), 5)
    assert (client.body, client.has_all, parts.is_closed) == (b"ab", False, True)


async def test_a_process_that_ends_finishes_what_it_can_and_breaks_off_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping = Stopping()
    monkeypatch.setattr(exports, "STOPPING", stopping)
    monkeypatch.setattr(exports, "SENT_WITHIN_S", 0.3)
    quick, slow, ended = Client(), Client(), asyncio.Event()

    async def soon_done() -> AsyncGenerator[bytes, None]:
        yield b"a"
        await ended.wait()
        yield b"b"

    tasks = [asyncio.create_task(quick.take(soon_done())), asyncio.create_task(slow.take(Parts(waits=True).run()))]
    await asyncio.sleep(0.05)
    stopping.begin()
    await asyncio.sleep(0.05)
    assert not quick.has_all
    ended.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert (quick.body, quick.has_all) == (b"ab", True)
    assert (slow.body, slow.has_all) == (b"ab", False)


# --- a connection ---


class Pair:
    """Both ends of a connection of this process, as a server and its client have them."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.server, _ = listener.accept()
        self.server.setblocking(False)
        self.client.setblocking(False)

    @property
    def scope(self) -> dict[str, Any]:
        """As granian gives it: ports are texts."""
        (host, port), (here, own_port) = self.client.getsockname(), self.server.getsockname()
        return {"client": (host, str(port)), "server": (here, str(own_port))}

    async def outflow(self) -> Outflow:
        found = await outflow_of(self.scope)
        assert found is not None
        return found

    async def flow(self, size: int) -> None:
        """That much goes into the connection, as far as it takes it."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.server, b"x" * size)

    async def take(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        while size > 0:
            size -= len(await loop.sock_recv(self.client, min(size, 65536)))

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    yield made
    made.close()


async def test_the_connection_of_a_request_is_found_among_all_others(pair: Pair) -> None:
    others = [Pair() for _ in range(3)]
    assert len(list(open_sockets())) >= 8
    assert (await pair.outflow())._descriptor == pair.server.fileno()
    for other in others:
        assert (await other.outflow())._descriptor == other.server.fileno()
        other.close()
    for scope in (
        {},
        {"client": ("127.0.0.1", 5), "server": ("hub.test", None)},
        {"client": ("127.0.0.1", 5), "server": ("h", 1)},
    ):
        assert await outflow_of(scope) is None


async def test_no_more_is_made_than_the_client_takes(pair: Pair) -> None:
    """The rest of what was sent waits in the server's memory, which is what it is about."""
    flow = await pair.outflow()
    await asyncio.wait_for(flow.wait_for_room(WINDOW // 2), 1)
    waiting = asyncio.create_task(flow.wait_for_room(WINDOW))
    await pair.flow(WINDOW // 4)
    await pair.take(WINDOW // 4)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    sending = asyncio.create_task(pair.flow(WINDOW // 2))
    await pair.take(WINDOW // 2)
    await asyncio.wait_for(asyncio.gather(waiting, sending), 5)


async def test_what_was_sent_before_does_not_count(pair: Pair) -> None:
    await pair.flow(WINDOW // 8)
    flow = await pair.outflow()
    await pair.take(WINDOW // 8)
    await asyncio.sleep(0.05)
    assert flow._untaken() == 0


async def test_a_client_that_takes_nothing_is_given_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outflow, "UNTAKEN_S", 0.2)
    with pytest.raises(Untaken):
        await asyncio.wait_for((await pair.outflow()).wait_for_room(2 * WINDOW), 5)


async def test_a_connection_that_is_gone_is_waited_for_no_longer(pair: Pair) -> None:
    flow = await pair.outflow()
    pair.close()
    await asyncio.wait_for(flow.wait_for_room(2 * WINDOW), 1)
    await asyncio.wait_for(flow.break_off(asyncio.sleep(0)), 1)


async def test_another_connection_under_its_number_is_left_alone(pair: Pair) -> None:
    """The server closes a connection, and takes the next one under the same number."""
    flow, number = await pair.outflow(), pair.server.fileno()
    pair.close()
    other = Pair()
    try:
        assert number in (other.server.fileno(), other.client.fileno())
        await flow.break_off(asyncio.sleep(0))
        await other.flow(5)
        await asyncio.wait_for(other.take(5), 1)
    finally:
        other.close()


@pytest.mark.parametrize("server_notices", [True, False])
async def test_a_client_sees_that_it_was_broken_off(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, server_notices: bool
) -> None:
    """What looks to the server like a client that left is to the client a reset, or at least an end in the middle."""
    monkeypatch.setattr(outflow, "NOTICED_WITHIN_S", 0.2)
    loop = asyncio.get_running_loop()

    async def server() -> None:
        assert await loop.sock_recv(pair.server, 100) == b""
        if not server_notices:
            await asyncio.Event().wait()
        pair.server.close()

    await pair.flow(10)
    noticing = asyncio.create_task(server())
    await (await pair.outflow()).break_off(noticing)
    if server_notices:
        with pytest.raises(ConnectionResetError):
            await pair.take(11)
    else:
        await pair.take(10)
        assert await asyncio.wait_for(loop.sock_recv(pair.client, 1), 1) == b""
