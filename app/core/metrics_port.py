"""`/metrics` on a port of its own, for who scrapes without a token: nothing else is answered there.

By hand, because what it has to know of HTTP is one line, and a second web server in the process would be a second one
to keep from harm.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final

log = logging.getLogger("hub.metrics")

HEAD_WITHIN_S: Final = 5.0
ANSWERED_WITHIN_S: Final = 10.0
MOST_HEAD_BYTES: Final = 8192
MOST_CONNECTIONS: Final = 16
PLAIN: Final = b"text/plain; charset=utf-8"

Scrape = Callable[[], Awaitable[bytes]]


def listen(host: str, port: int) -> socket.socket:
    """Not yet answered. Raises OSError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(MOST_CONNECTIONS)
    except BaseException:
        listening.close()
        raise
    # The server's processes are forks: one that had the socket too would keep the port after its parent's end.
    os.register_at_fork(after_in_child=listening.close)
    return listening


class MetricsPort:
    def __init__(self, scrape: Scrape, content_type: bytes) -> None:
        self._scrape = scrape
        self._content_type = content_type
        self._open = 0

    async def serve(self, listening: socket.socket) -> None:
        """Until cancelled; the socket is closed then."""
        server = await asyncio.start_server(self._answer, sock=listening, limit=MOST_HEAD_BYTES)
        async with server:
            await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(HEAD_WITHIN_S + ANSWERED_WITHIN_S):
                if self._open <= MOST_CONNECTIONS:
                    writer.write(await self._answer_to(reader))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # a client that sends nothing, or no HTTP; or the end of the port, which waits for none
        except Exception:
            log.exception("a scrape failed")
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer_to(self, reader: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(HEAD_WITHIN_S):
            head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return _answer(b"404 Not Found", PLAIN, b"Only /metrics is here.\n")
        if method not in (b"GET", b"HEAD"):
            return _answer(b"405 Method Not Allowed", PLAIN, b"Only GET is answered.\n")
        body = await self._scrape()
        return _answer(b"200 OK", self._content_type, body, is_sent=method == b"GET")


def _answer(status: bytes, content_type: bytes, body: bytes, *, is_sent: bool = True) -> bytes:
    head = (
        b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\ncache-control: no-store\r\n"
        b"x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    )
    return head % (status, content_type, len(body)) + (body if is_sent else b"")
