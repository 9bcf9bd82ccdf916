"""An HTTP proxy that knows CONNECT and nothing else (RFC 9110, section 9.3.6), as a company has one at its edge."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from app.core.tunnels import EgressProxy

USER, PASSWORD = "hub", "pa:ss word/ü"


class ConnectProxy:
    """`asked` holds each target that was asked for, `names` what it finds behind names that nobody else knows.

    `answers` are what it says instead of opening a way, one for each question, the last one again and again.
    """

    def __init__(
        self, *, username: str = USER, password: str = PASSWORD, names: Mapping[str, str] | None = None
    ) -> None:
        self.names = dict(names or {})
        self.asked: list[str] = []
        self.answers: list[bytes | None] = []
        self.port = 0
        self.visits: set[asyncio.Task[object]] = set()
        self._credentials = base64.b64encode(f"{username}:{password}".encode()).decode()

    def seen(self, **changes: str) -> EgressProxy:
        """As the hub is told of it."""
        given = {"username": USER, "password": PASSWORD, "host": "127.0.0.1", **changes}
        return EgressProxy(port=self.port, **given)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.current_task()
        assert visit is not None
        self.visits.add(visit)
        visit.add_done_callback(self.visits.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                await self._answer(reader, writer)
            finally:
                writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        method, target, _ = request.split(" ")
        self.asked.append(target)
        if (answer := self._refusal(method, lines)) is not None:
            writer.write(answer)
            await writer.drain()
            if not answer:
                await reader.read()  # says nothing until the other side has had enough
            return
        host, _, port = target.rpartition(":")
        try:
            far = await asyncio.open_connection(self.names.get(host, host.strip("[]")), int(port))
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 edge\r\n\r\n")
        await asyncio.gather(_pass_on(reader, far[1]), _pass_on(far[0], writer))

    def _refusal(self, method: str, lines: list[str]) -> bytes | None:
        if method != "CONNECT":
            return b"HTTP/1.1 405 Method Not Allowed\r\n\r\n"
        if f"Proxy-Authorization: Basic {self._credentials}" not in lines:
            return b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"
        if not self.answers:
            return None
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(65_536):
            sink.write(piece)
            await sink.drain()
        sink.write_eof()


@asynccontextmanager
async def serving(proxy: ConnectProxy) -> AsyncIterator[ConnectProxy]:
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for visit in proxy.visits:
            visit.cancel()
        await asyncio.gather(*proxy.visits, return_exceptions=True)


@contextmanager
def running(proxy: ConnectProxy) -> Iterator[ConnectProxy]:
    """In a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    context = serving(proxy)
    asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(5)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
