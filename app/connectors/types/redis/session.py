"""One signed-in connection to a Redis server, over a socket of our own, that takes no reply beyond a fixed size.

redis-py speaks the protocol (RESP2, which every version knows); it neither dials nor reads configuration here, follows
no redirect and repeats nothing. What a server means to send is only known when it is under way, so a reply that grows
too long ends the connection, and the next command opens another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, SupportsIndex

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.network.dialling import dial, hung_up, silent
from app.connectors.network.recognising import mismatch
from app.connectors.network.tls import tls_failure
from app.core.egress import Pinned

if TYPE_CHECKING:
    from redis.asyncio.connection import Connection

PING: Final = b"*1\r\n$4\r\nPING\r\n"
MAX_REPLY_BYTES: Final = 2 * 1024 * 1024
Command = tuple[str | bytes | int, ...]


class TooLong(Exception):
    """The reply was longer than `MAX_REPLY_BYTES`."""


class Server(msgspec.Struct, frozen=True):
    """Where a session leads and as whom."""

    pinned: Pinned
    port: int
    context: ssl.SSLContext | None
    database: int
    username: str | None
    password: str | None
    connect_timeout_s: float
    read_timeout_s: float


class Session:
    """Use `opened`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._connection = _connection(server)

    @classmethod
    @asynccontextmanager
    async def opened(cls, server: Server) -> AsyncIterator[Session]:
        """Connected and signed in; the database is chosen with the first command."""
        from redis.exceptions import RedisError

        session = cls(server)
        try:
            await session._sign_in()
            yield session
        finally:
            with contextlib.suppress(OSError, RedisError):
                await session._connection.disconnect(nowait=True)

    async def ask(self, *commands: Command) -> list[object]:
        """A reply to each, sent together. What a server refuses is a `ResponseError` in its place, and what would have
        been too long is `TooLong`."""
        replies: list[object] = []
        while len(replies) < len(commands):
            replies += await self._round(commands[len(replies) :])
        return replies

    async def one(self, *command: str | bytes | int) -> Any:
        """The reply to one command. Raises `ConnectorError` for a refusal, and `TooLong`."""
        from redis.exceptions import ResponseError

        (reply,) = await self.ask(command)
        if isinstance(reply, ResponseError):
            raise refusal(reply, self.server)
        if isinstance(reply, TooLong):
            raise reply
        return reply

    async def _sign_in(self) -> None:
        from redis.exceptions import RedisError

        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]
        except RedisError as error:
            raise self._broken(error) from error
        if self.server.database:
            await self.one("SELECT", self.server.database)
        # Refused by old servers and strict rights, and then done without: our name in lists of clients, reads that
        # count for no key's age (Redis 7.2), and reads from a replica of a cluster.
        await self.ask(("CLIENT", "SETNAME", "data-fusion-hub"), ("CLIENT", "NO-TOUCH", "ON"), ("READONLY",))

    async def _round(self, commands: Sequence[Command]) -> list[object]:
        """Replies up to the first that is too long."""
        from redis.exceptions import RedisError, ResponseError

        if not self._connection.is_connected:
            await self._sign_in()
        replies: list[object] = []
        try:
            await self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
            for _ in commands:
                self._connection._reader.allow(MAX_REPLY_BYTES)  # type: ignore[union-attr]
                try:
                    replies.append(await self._connection.read_response(disable_decoding=True))
                except ResponseError as error:
                    replies.append(error)
        except TooLong as error:
            replies.append(error)
        except RedisError as error:
            raise self._broken(error) from error
        except (ValueError, RecursionError) as error:
            raise ConnectorError("response_invalid", f"{self.server.pinned.host} sent something unreadable.") from error
        return replies

    def _broken(self, error: Exception) -> ConnectorError:
        from redis.exceptions import (
            AuthenticationError,
            BusyLoadingError,
            InvalidResponse,
            ResponseError,
            TimeoutError,
        )

        pinned, port = self.server.pinned, self.server.port
        if isinstance(error.__cause__, ConnectorError):
            return error.__cause__
        if isinstance(error, ResponseError | AuthenticationError | BusyLoadingError):
            return refusal(error, self.server)
        if isinstance(error, TimeoutError):
            return silent(pinned.host, port, self.server.read_timeout_s)
        if isinstance(error, InvalidResponse):
            return ConnectorError("protocol_mismatch", f"{pinned.host} does not follow the Redis protocol.")
        return hung_up(pinned.host, port)


def _connection(server: Server) -> Connection:
    """A connection of redis-py over a socket that was dialled here."""
    from redis.asyncio.connection import Connection
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    class Dialled(Connection):
        async def _connect(self) -> None:
            self._reader, self._writer = await _streams(server)

    return Dialled(
        host=server.pinned.host,
        port=server.port,
        username=server.username,
        password=server.password,
        protocol=2,
        socket_connect_timeout=server.connect_timeout_s,
        socket_timeout=server.read_timeout_s,
        driver_info=None,
        retry=Retry(NoBackoff(), 0),
    )


async def greet(server: Server) -> str:
    """The version of TLS of a server that answers over it. A server that refuses a client's certificate, or the lack of
    one, says so only after the handshake (TLS 1.3)."""
    pinned, port = server.pinned, server.port
    reader, writer = await _streams(server)
    try:
        async with asyncio.timeout(server.connect_timeout_s):
            writer.write(PING)
            answer = await reader.readline()
    except ssl.SSLError as error:
        raise tls_failure(error, pinned.host, port, server.connect_timeout_s) from None
    except TimeoutError:
        raise silent(pinned.host, port, server.connect_timeout_s) from None
    except (OSError, ValueError, TooLong):
        answer = b""
    finally:
        writer.transport.abort()
    if not answer:
        message = f"{pinned.host} hung up after the TLS handshake on port {port}; it may ask for a client certificate."
        raise ConnectorError("tls_failed", message)
    judge_greeting(answer, pinned.host, port)
    return str(writer.get_extra_info("ssl_object").version())


def judge_greeting(answer: bytes, host: str, port: int) -> None:
    """Raises what the answer to a PING says against going on. That somebody has to sign in first does not."""
    if answer.startswith(b"-DENIED"):
        raise ConnectorError("permission_denied", f"{host} is in protected mode: it serves its own machine only.")
    if answer.startswith(b"-ERR max number of clients"):
        raise ConnectorError("rate_limited", f"{host} takes no more clients for now.")
    if not answer.startswith((b"+PONG\r\n", b"-")):
        raise mismatch("Redis", host, port, answer)


@contextlib.contextmanager
def understood(server: Server) -> Iterator[None]:
    """Replies in there may be of any form: one that is not as documented is the server's fault."""
    try:
        yield
    except TooLong:
        message = f"{server.pinned.host} answered with more than {MAX_REPLY_BYTES} bytes at once."
        raise ConnectorError("response_too_large", message) from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConnectorError("response_invalid", f"{server.pinned.host} does not answer as Redis does.") from error


async def _streams(server: Server) -> tuple[MeasuredReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    sock = await dial(server.pinned, server.port, server.connect_timeout_s)
    reader = MeasuredReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    try:
        transport, _ = await loop.create_connection(
            lambda: protocol,
            sock=sock,
            ssl=server.context,
            server_hostname=server.pinned.host if server.context else None,
            ssl_handshake_timeout=server.connect_timeout_s if server.context else None,
        )
    except (OSError, EOFError) as error:
        sock.close()
        raise tls_failure(error, server.pinned.host, server.port, server.connect_timeout_s) from None
    reader.hang_up = transport.abort
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class MeasuredReader(asyncio.StreamReader):
    """Hangs up as soon as more comes than was allowed."""

    hang_up: Callable[[], None]

    def __init__(self) -> None:
        super().__init__()
        self._allowed = MAX_REPLY_BYTES

    def allow(self, size: int) -> None:
        """The number of bytes that may come from now on."""
        self._allowed = size

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        piece = bytes(data)
        self._allowed -= len(piece)
        if self._allowed >= 0:
            super().feed_data(piece)
        elif self.exception() is None:
            self.set_exception(TooLong())
            self.hang_up()


def refusal(error: Exception, server: Server) -> ConnectorError:
    """An error reply in our words; its text helps to tell cases apart and is never shown. Codes from the Redis
    documentation and from `src/server.c`."""
    from redis import exceptions

    host, who, text = server.pinned.host, server.username or "the default user", str(error)
    if isinstance(error, exceptions.NoPermissionError):
        return ConnectorError("permission_denied", f"{who} may not do this at {host}.")
    if isinstance(error, exceptions.AuthenticationError) or text.startswith("NOAUTH"):
        return _not_signed_in(text, host, who, server.password)
    if isinstance(error, exceptions.AskError | exceptions.MovedError):
        return ConnectorError("egress_refused", f"{host} led to another address, which is not followed.")
    if "DB index" in text or "SELECT is not allowed" in text:
        return ConnectorError("not_found", f"{host} has no database {server.database}.")
    if isinstance(error, exceptions.BusyLoadingError):
        return ConnectorError("server_error", f"{host} is still loading its data.")
    if text.startswith("unknown command"):
        return ConnectorError("unsupported", f"{host} does not know a command that is needed.")
    return ConnectorError("server_error", f"{host} answered with an error.")


def is_about_a_key(error: Exception) -> bool:
    """Whether the user lacks a right on a key, and not on a command (`ACLDeniedError` in `src/acl.c`)."""
    from redis.exceptions import NoPermissionError

    return isinstance(error, NoPermissionError) and "command" not in str(error)


def _not_signed_in(text: str, host: str, who: str, password: str | None) -> ConnectorError:
    if "without any password" in text:
        message = f"{host} has no password set for {who}; leave it out, or set it there."
    elif password is None:
        message = f"{host} asks for a password."
    else:
        message = f"{host} did not let {who} sign in."
    return ConnectorError("authentication_failed", message)
