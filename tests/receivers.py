"""Receivers of webhooks: real servers on loopback, in the loop of the test, that answer as badly as a test wants."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.connectors.servers.certificates import authority


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


Answering = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    host: str
    port: int
    scheme: str
    answering: Answering
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        """Of the messages, in the order in which they came."""
        return [each.headers["webhook-id"] for each in self.received]


def answers(status: int, body: bytes = b"", **headers: str) -> Answering:
    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    return answer


takes = answers(204)


async def keeps_silent(_: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


def silent_from(arrived: asyncio.Event) -> Answering:
    """Sets the event with the first message, and answers none."""

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await keeps_silent(received, writer)

    return answer


async def drips(_: Received, writer: asyncio.StreamWriter) -> None:
    """A head that never ends, a few bytes at a time."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def never_ends(_: Received, writer: asyncio.StreamWriter) -> None:
    """A good head, and a body without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
    while True:
        writer.write(b"more " * 1000)
        await writer.drain()
        await asyncio.sleep(0)


async def hangs_up(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def speaks_nonsense(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.org ESMTP\r\n\r\n")
    await writer.drain()
    writer.close()


@asynccontextmanager
async def receiving(
    answering: Answering = takes,
    *,
    host: str = "127.0.0.1",
    address: str = "127.0.0.1",
    certificate_for: str | None = None,
) -> AsyncIterator[Receiver]:
    """At an address of this machine, by the name `host`. With `certificate_for`, by TLS, with a certificate of the tests'
    authority for that name."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while not writer.is_closing():
                received = await _read(reader)
                receiver.received.append(received)
                await receiver.answering(received, writer)
        writer.close()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    context = authority().server_context(certificate_for) if certificate_for else None
    server = await asyncio.start_server(start, address, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    receiver = Receiver(host, port, "https" if context else "http", answering)
    try:
        yield receiver
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(head[0].split()[1], headers, body)


def trusting_the_tests() -> ssl.SSLContext:
    """What a sender that trusts the tests' authority has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority().pem.decode())
    return context
