"""AMQP 0-9-1 with RabbitMQ, through aiormq (the lower half of aio-pika): signing in, and streams read from their end.

The address is pinned by giving aiormq the resolved one; certificates are checked against the configured name by
`NamedContext`. The credentials are handed over as the mechanism wants them and are in no URL.

Consuming from a stream takes nothing away: it is a log, an acknowledgement only asks for more of it, and the broker
keeps no trace of the reader (RabbitMQ documentation, "Streams", "Consuming"). No such way leads into any other queue.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.pinning import Network
from app.connectors.contract.steps import Steps
from app.connectors.network.dialling import ask, dialled, hung_up, silent
from app.connectors.network.recognising import Protocol, met, mismatch
from app.connectors.network.tls import handshake, tls_failure
from app.connectors.types.rabbitmq.config import RabbitmqConfig, RabbitmqSecrets
from app.connectors.values.bad_bytes import with_bad_bytes
from app.connectors.values.names import members_of

if TYPE_CHECKING:
    import aiormq
    from aiormq.abc import AbstractChannel, DeliveredMessage
    from pamqp.common import FieldTable

    from app.core.egress import Pinned

_PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
_START: Final = b"\x00\x0a\x00\x0a"  # Class and method of Connection.Start, the first frame of a server.
OFFSET: Final = "x-stream-offset"
_PREFETCH: Final = 16
_WIDER: Final = 4
_QUIET_S: Final = 1.5


class Closed(Exception):
    """The server ended the connection while it was opened: in answer to what, and with which code and text."""

    def __init__(self, request: str, code: int, text: str) -> None:
        super().__init__(request, code)
        self.request = request
        self.code = code
        self.text = text


class Amqp:
    """Opens connections, and says in our words why one did not open."""

    def __init__(self, network: Network, config: RabbitmqConfig, secrets: RabbitmqSecrets) -> None:
        self._network = network
        self._config = config
        self._secrets = secrets
        self.timeout_s = config.read_timeout_s

    # Reaching ---------------------------------------------------------------------------------------------------------

    async def reach(self, steps: Steps) -> None:
        """Steps resolve, connect and tls. Without TLS the server is greeted, so that credentials go only to what
        speaks AMQP."""
        config = self._config
        with steps.step("resolve", f"{config.host} is known."):
            await self._network.resolve(config.host, config.port, config.connect_timeout_s)
        if config.tls_mode == "disable":
            with steps.step("connect", f"AMQP is spoken on port {config.port}."):
                pinned = await self._pinned()
                await met(self._greeted(pinned), Protocol.AMQP, "AMQP 0-9-1", pinned, config.port, "not_set")
            steps.server["encryption"] = "none"
            steps.skip("tls", "TLS is turned off in the configuration.")
            return
        with steps.step("connect", f"Port {config.port} is open."):
            await self._address()
        with steps.step("tls", "The connection is encrypted."):
            pinned = await self._pinned()
            steps.server["encryption"] = await met(
                self._encrypted(pinned), Protocol.AMQP, "AMQP 0-9-1", pinned, config.port, "now"
            )

    async def _address(self) -> str:
        """The first of the pinned addresses that answers."""
        config = self._config
        async with dialled(await self._pinned(), config.port, config.connect_timeout_s) as sock:
            return sock.address

    async def _pinned(self) -> Pinned:
        return await self._network.resolve(self._config.host, self._config.port, self._config.connect_timeout_s)

    async def _greeted(self, pinned: Pinned) -> None:
        config = self._config
        async with dialled(pinned, config.port, config.connect_timeout_s) as sock:
            answer = await ask(sock, _PROTOCOL_HEADER, pinned, config.port, config.connect_timeout_s)
        if answer[:1] != b"\x01" or answer[7:11] != _START:
            raise mismatch("AMQP 0-9-1", config.host, config.port, answer)

    async def _encrypted(self, pinned: Pinned) -> str:
        """The version of TLS."""
        config = self._config
        async with dialled(pinned, config.port, config.connect_timeout_s) as sock:
            return await handshake(sock, self._tls_context(), pinned, config.port, config.connect_timeout_s)

    def _tls_context(self) -> ssl.SSLContext:
        return self._config.tls_context(self._config.host, self._secrets)

    # Signing in -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def signed_in(self) -> AsyncIterator[aiormq.Connection]:
        """A connection to the virtual host. Raises `not_found` and `permission_denied` for the virtual host only: the
        server looks for it after it has accepted the credentials."""
        connection = await self._connection()
        try:
            yield connection
        finally:
            await _closed(connection)

    async def _connection(self) -> Any:
        from yarl import URL

        is_encrypted = self._config.tls_mode != "disable"
        url = URL.build(
            scheme="amqps" if is_encrypted else "amqp",
            host=await self._address(),
            port=self._config.port,
            path="/",
            query={"heartbeat": "60", "name": "data-fusion-hub"},
        )
        connection: Any = _connection_class()(url, context=self._tls_context() if is_encrypted else None)
        connection.vhost = self._config.virtual_host
        connection.credentials = self._credentials()
        try:
            async with asyncio.timeout(self._config.read_timeout_s):
                await connection.connect()
        except Exception as error:
            raise self.explain(error) from error
        return connection

    def _credentials(self) -> Credentials:
        user, password = self._config.username, self._secrets.password or ""
        if self._config.auth_mechanism == "EXTERNAL":
            return Credentials("EXTERNAL", "")
        if self._config.auth_mechanism == "AMQPLAIN":
            return Credentials("AMQPLAIN", _table_entry("LOGIN", user) + _table_entry("PASSWORD", password))
        return Credentials("PLAIN", f"\x00{user}\x00{password}")

    # Explaining -------------------------------------------------------------------------------------------------------

    def explain(self, error: Exception) -> ConnectorError:
        """aiormq's errors in our words. What ended a connection hides in the cause of what is raised."""
        import aiormq

        config, cause = self._config, error
        while isinstance(cause.__cause__, Exception) and not isinstance(cause, TimeoutError | Closed):
            cause = cause.__cause__
        if isinstance(cause, ConnectorError):
            return cause
        if isinstance(cause, Closed):
            return self._explain_closed(cause)
        if isinstance(cause, ssl.SSLError):
            return tls_failure(cause, config.host, config.port, config.connect_timeout_s)
        if isinstance(cause, TimeoutError):
            return silent(config.host, config.port, config.read_timeout_s)
        if isinstance(cause, asyncio.IncompleteReadError) and cause.partial:
            return self._not_amqp()
        if isinstance(cause, aiormq.ChannelAccessRefused | aiormq.ChannelLockedResource):
            return ConnectorError("permission_denied", f"{config.username} may not read from this queue.")
        if isinstance(cause, aiormq.ChannelNotFoundEntity):
            return ConnectorError("not_found", "The queue is not there any more.")
        if isinstance(cause, OSError | EOFError | aiormq.AMQPConnectionError):
            return hung_up(config.host, config.port)
        if isinstance(cause, aiormq.ChannelClosed):
            return ConnectorError("server_error", f"{config.host} did not carry out a request for this queue.")
        if isinstance(cause, MemoryError):
            raise cause
        return self._not_amqp()

    def _explain_closed(self, closed: Closed) -> ConnectorError:
        """Reply codes from the AMQP 0-9-1 specification, section 1.2; the text only tells cases apart."""
        config = self._config
        if closed.request == "Connection.StartOk" and closed.code == 403:
            who = config.username if config.auth_mechanism != "EXTERNAL" else "the client certificate"
            return ConnectorError("authentication_failed", f"{config.host} did not let {who} sign in.")
        if closed.code == 530 and closed.text.endswith(" not found"):
            return ConnectorError("not_found", f"{config.host} has no virtual host {config.virtual_host}.")
        if closed.code == 530 and " limit " in closed.text:
            return ConnectorError("server_error", f"{config.host} takes no more connections to this virtual host.")
        if closed.code in {403, 530}:
            return ConnectorError(
                "permission_denied", f"{config.username} may not enter the virtual host {config.virtual_host}."
            )
        return ConnectorError("server_error", f"{config.host} ended the connection with code {closed.code}.")

    def _not_amqp(self) -> ConnectorError:
        return mismatch("AMQP 0-9-1", self._config.host, self._config.port)


class Credentials:
    """A mechanism and its response, in the form that aiormq asks for."""

    def __init__(self, name: str, response: str) -> None:
        self.name = name
        self._response = response

    def value(self, _: object) -> Credentials:
        return self

    def marshal(self) -> str:
        return self._response


def _table_entry(name: str, text: str) -> str:
    """A long string in a field table (AMQP 0-9-1, section 4.2.5.5); of less than 128 bytes, so that it is text."""
    return f"{chr(len(name))}{name}S\x00\x00\x00{chr(len(text.encode()))}{text}"


@cache
def _connection_class() -> Any:
    """aiormq's connection with our credentials. It takes a refusal to open the virtual host for a broken frame, and
    loses why; here every refusal is a `Closed`."""
    import aiormq
    from pamqp import commands

    take_names_as_they_are()
    take_texts_as_they_are()

    class Watchful:
        def __init__(self, request: str, receiver: Any) -> None:
            self._request = request
            self._receiver = receiver

        async def get_frame(self) -> Any:
            found = await self._receiver.get_frame()
            if isinstance(found[2], commands.Connection.Close):
                raise Closed(self._request, found[2].reply_code or 0, str(found[2].reply_text))
            return found

    class Connection(aiormq.Connection):
        credentials: Credentials

        def _credentials_class(self, start_frame: Any) -> Any:
            if self.credentials.name not in start_frame.mechanisms.split():
                raise ConnectorError(
                    "invalid_configuration",
                    f"The server offers no sign-in by {self.credentials.name} (auth_mechanism).",
                )
            return self.credentials

        @staticmethod
        async def _rpc(request: Any, writer: Any, frame_receiver: Any, wait_response: bool = True) -> Any:
            watchful: Any = Watchful(request.name, frame_receiver)
            return await aiormq.Connection._rpc(request, writer, watchful, wait_response)

    return Connection


def take_names_as_they_are() -> None:
    """The specification lets a queue's name be any short string, and RabbitMQ does; pamqp refuses to write one with
    letters beyond ASCII, or with `? = & %` in it (AMQP 0-9-1, section 1.1 `queue-name`; RabbitMQ's guide of queues).

    For this process, which works for one source."""
    from pamqp import constants

    for domain in ("queue-name", "exchange-name"):
        constants.DOMAIN_REGEX[domain] = re.compile(".*", re.DOTALL)


def take_texts_as_they_are() -> None:
    """Short strings and names of headers may be any bytes to RabbitMQ; one that is no UTF-8 makes pamqp, and with it
    the connection, fail. They are read as `with_bad_bytes` reads texts. A header that is there twice is told apart.

    For this process, which works for one source."""
    from pamqp import decode

    def short_string(content: bytes) -> tuple[int, str]:
        end = 1 + content[0]
        return end, with_bad_bytes(content[1:end])

    def table(content: bytes) -> tuple[int, FieldTable]:
        place, end = 4, 4 + int.from_bytes(content[:4], "big")
        if end > len(content):
            raise ValueError("A table ends before what is in it.")
        pairs = []
        while place < end:
            length, name = short_string(content[place:end])
            consumed, value = decode.embedded_value(content[place + length : end])
            place += length + consumed
            pairs.append((name, value))
        return end, members_of(pairs)

    decode.METHODS.update(shortstr=short_string, table=table)
    decode.TABLE_MAPPING[b"F"] = table


async def _closed(what: aiormq.Connection | AbstractChannel) -> None:
    """Says good-bye to a connection or a channel, and does not wait for an answer that does not come."""
    from aiormq.exceptions import AMQPError

    with suppress(OSError, AMQPError):
        async with asyncio.timeout(1):
            await what.close()


# Streams --------------------------------------------------------------------------------------------------------------


class StreamEnd:
    """The messages of a stream, newest first: those of its last chunk, then windows that end where the last one began.

    A stream can be read forwards only, and from its last chunk, its first message or any offset on. Where it ends is
    nowhere to be asked for: the count of its messages is some seconds old. A channel, though, sends what there is of a
    stream before it answers the next request, so an answer with no message before it is the end.
    """

    def __init__(self, amqp: Amqp, connection: aiormq.Connection, queue: str, max_bytes: int) -> None:
        self.is_cut = False
        """Whether `max_bytes` left out messages that would have been among the newest."""
        self._amqp = amqp
        self._connection = connection
        self._queue = queue
        self._left = max_bytes

    async def newest(self, count: int) -> list[DeliveredMessage]:
        """At most `count` of aiormq's `DeliveredMessage`. Raises `ConnectorError`."""
        try:
            return await self._newest(count)
        except MemoryError:
            raise
        except Exception as error:
            raise self._amqp.explain(error) from error

    async def _newest(self, count: int) -> list[DeliveredMessage]:
        found = await self._last_chunk(count) if count else []
        if not found or len(found) == count or self.is_cut:
            return found
        begin = offset_of((await self._window("first", None, 1))[0])
        low, width = offset_of(found[-1]), _WIDER
        while len(found) < count and low > begin:
            start = max(begin, low - min(width, count - len(found)))
            window = await self._window(start, low, low - start)
            if self.is_cut:
                break
            found += reversed(window)
            low, width = start, width * _WIDER
        return found

    async def _last_chunk(self, count: int) -> list[DeliveredMessage]:
        """The newest of it; an older part of it where the bytes end before it does."""
        messages: deque[DeliveredMessage] = deque(maxlen=count)
        async with self._consuming("last", _PREFETCH) as deliveries:
            message = await deliveries.first()
            while message is not None:
                messages.append(message)
                self._left -= len(message.body)
                if self._left < 0:
                    self.is_cut = True
                    break
                message = await deliveries.at_hand()
        return list(reversed(messages))

    async def _window(self, start: int | str, end: int | None, width: int) -> list[DeliveredMessage]:
        """The messages from an offset on to before another, in their order; what goes beyond the bytes is none."""
        messages: list[DeliveredMessage] = []
        async with self._consuming(start, min(width, _PREFETCH)) as deliveries:
            while len(messages) < width:
                message = await deliveries.next()
                if end is not None and offset_of(message) >= end:
                    break
                messages.append(message)
                self._left -= len(message.body)
                if self._left < 0 and end is not None:
                    self.is_cut = True
                    return []
        return messages

    @asynccontextmanager
    async def _consuming(self, start: int | str, prefetch: int) -> AsyncIterator[Deliveries]:
        timeout_s = self._amqp.timeout_s
        channel = await self._connection.channel(timeout=timeout_s)
        try:
            await channel.basic_qos(prefetch_count=prefetch, timeout=timeout_s)
            deliveries = Deliveries(channel, prefetch, timeout_s)
            await channel.basic_consume(
                self._queue, deliveries.arrived.put, arguments={OFFSET: start}, timeout=timeout_s
            )
            yield deliveries
        finally:
            await _closed(channel)


class Deliveries:
    """What a consumer is sent. To take a message asks for one more."""

    def __init__(self, channel: AbstractChannel, prefetch: int, timeout_s: float) -> None:
        self.arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        self._channel = channel
        self._prefetch = prefetch
        self._timeout_s = timeout_s

    async def next(self) -> DeliveredMessage:
        """Raises `TimeoutError`."""
        async with asyncio.timeout(self._timeout_s):
            message = await self.arrived.get()
        assert message.delivery_tag is not None
        await self._channel.basic_ack(message.delivery_tag, wait=False)
        return message

    async def first(self) -> DeliveredMessage | None:
        """None for an empty stream, which is one that says nothing for a while."""
        try:
            async with asyncio.timeout(min(_QUIET_S, self._timeout_s)):
                return await self.next()
        except TimeoutError:
            return None

    async def at_hand(self) -> DeliveredMessage | None:
        """None at the end of the stream."""
        if self.arrived.empty():
            await self._channel.basic_qos(prefetch_count=self._prefetch, timeout=self._timeout_s)
            await asyncio.sleep(0)
        return None if self.arrived.empty() else await self.next()


def offset_of(message: DeliveredMessage) -> int:
    offset = (message.header.properties.headers or {}).get(OFFSET)
    return offset if isinstance(offset, int) else 0
