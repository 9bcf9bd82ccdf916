"""A proxy inside the connector process, for drivers that resolve names by themselves.

Such a driver is told to reach everything through it (`proxy_url`). It takes the origins that it was opened for and no
other, and connects to their pinned addresses; the driver still believes in the name, so `Host`, signatures, SNI and the
certificate's check stay right. It listens on a loopback port and asks for a password of its own, made for this one run.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.pinning import Network
from app.connectors.network.dialling import dial

MAX_HEAD_BYTES: Final = 65_536
_PIECE: Final = 65_536


class PinnedProxy:
    """Use `opened`. `refused` counts what the driver tried beyond its origins."""

    def __init__(self, network: Network, timeout_s: float) -> None:
        self._network = network
        self._timeout_s = timeout_s
        self._password = secrets.token_urlsafe(24)
        self._allowed: set[tuple[str, int]] = set()
        self._visits: set[asyncio.Task[None]] = set()
        self.port = 0
        self.refused = 0

    @property
    def url(self) -> str:
        return f"http://hub:{self._password}@127.0.0.1:{self.port}"

    def allow(self, host: str, port: int) -> None:
        """Opens the way to a host as the driver will name it; its address is looked up and judged on first use."""
        self._allowed.add((host.lower(), port))

    @classmethod
    @asynccontextmanager
    async def opened(cls, network: Network, timeout_s: float) -> AsyncIterator[PinnedProxy]:
        proxy = cls(network, timeout_s)
        server = await asyncio.start_server(proxy._welcome, "127.0.0.1", 0, limit=MAX_HEAD_BYTES)
        proxy.port = server.sockets[0].getsockname()[1]
        network.open_local_port(proxy.port)
        try:
            yield proxy
        finally:
            server.close()
            await proxy._see_off()

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.create_task(self._serve(reader, writer))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _see_off(self) -> None:
        for visit in self._visits:
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            head = await reader.readuntil(b"\r\n\r\n")
            await self._forward(head, reader, writer)
        with suppress(RuntimeError):
            writer.close()

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request_line, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, version = request_line.split(" ")
        if not self._knows_the_password(lines):
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host, port = (parts.hostname or "").lower(), parts.port or 80
        if (host, port) not in self._allowed:
            self.refused += 1
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        try:
            pinned = await self._network.resolve(host, port, self._timeout_s)
            sock = await dial(pinned, port, self._timeout_s)
        except ConnectorError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        far_reader, far_writer = await asyncio.open_connection(sock=sock)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = parts._replace(scheme="", netloc="").geturl() or "/"
            far_writer.write(_as_origin_sees_it(f"{method} {path} {version}", lines))
        await _join(reader, writer, far_reader, far_writer)

    def _knows_the_password(self, lines: list[str]) -> bool:
        expected = "Basic " + base64.b64encode(f"hub:{self._password}".encode()).decode("ascii")
        given = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("proxy-authorization:")]
        return len(given) == 1 and hmac.compare_digest(given[0], expected)


def _as_origin_sees_it(request_line: str, lines: list[str]) -> bytes:
    """One request for each connection: the next one might be meant for somebody else."""
    kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
    return "\r\n".join([request_line, *kept, "Connection: close", "", ""]).encode("latin-1")


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    out = asyncio.create_task(_copy(reader, far_writer))
    try:
        await _copy(far_reader, writer)
    finally:
        out.cancel()
        far_writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while piece := await source.read(_PIECE):
        sink.write(piece)
        await sink.drain()
