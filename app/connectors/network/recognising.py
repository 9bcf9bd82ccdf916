"""What answers at a port, where it is not what a source is made for.

A number in a port field is easily another server's: 5432 for 3306, the management API for the broker, HTTPS for HTTP.
Such a server hangs up, talks nonsense or waits for what never comes, and the driver then says "too slow" or "broken".
Here the first bytes of a server say what it is, and one that says nothing by itself is asked in the few ways that make
common servers speak. What it is comes from this list and not from the server: its own words are never shown.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from enum import Enum
from typing import Final, Literal, TypeVar

from app.connectors.contract.failures import ConnectorError
from app.connectors.network.dialling import dialled
from app.core.egress import Pinned

Answer = TypeVar("Answer")
OverTls = Literal["never", "not_set", "either", "now"]
"""Whether TLS is spoken from the first byte on: never in this protocol, not as the source is set, as the server likes,
or always as the source is set."""

PATIENCE_S: Final = 1.0
"""A server that has not answered by then is looked at, while the answer is still waited for."""
_LISTENING_S: Final = 0.4
_ASKING_S: Final = 1.0
_RESTING_S: Final = 0.1
_MAX_HEARD: Final = 4096


class Protocol(Enum):
    """A value is how the server is called in a sentence."""

    AMQP = "AMQP, as RabbitMQ speaks it"
    CLICKHOUSE = "ClickHouse's own protocol; its HTTP interface has another port, usually 8123, or 8443 over TLS"
    FTP = "FTP"
    HTTP = "HTTP"
    IMAP = "IMAP, a mail server"
    KAFKA = "Kafka"
    MAIL_OR_FTP = "SMTP or FTP"
    MEMCACHED = "Memcached"
    MONGODB = "MongoDB"
    MYSQL = "MySQL or MariaDB"
    NATS = "NATS"
    OPENWIRE = "OpenWire, as ActiveMQ speaks it"
    POP3 = "POP3, a mail server"
    POSTGRESQL = "PostgreSQL"
    REDIS = "Redis"
    RSYNC = "rsync"
    SMTP = "SMTP, a mail server"
    SSH = "SSH"
    TLS = "TLS"
    VNC = "VNC"


# What first bytes say -------------------------------------------------------------------------------------------------

_BEGINNINGS: Final[tuple[tuple[bytes, Protocol], ...]] = (
    (b"HTTP/1.", Protocol.HTTP),
    (b"SSH-", Protocol.SSH),
    (b"AMQP", Protocol.AMQP),
    (b"\x01\x00\x00\x00\x00", Protocol.AMQP),
    (b"RFB 00", Protocol.VNC),
    (b"INFO {", Protocol.NATS),
    (b"@RSYNCD:", Protocol.RSYNC),
    (b"* OK", Protocol.IMAP),
    (b"* BYE", Protocol.IMAP),
    (b"+OK", Protocol.POP3),
    (b"+PONG", Protocol.REDIS),
    (b"-NOAUTH", Protocol.REDIS),
    (b"-DENIED", Protocol.REDIS),
    (b"-LOADING", Protocol.REDIS),
    (b"-ERR", Protocol.REDIS),
    (b"ERROR\r\n", Protocol.MEMCACHED),
    (b"\x15\x03", Protocol.TLS),  # An alert, or the beginning of a handshake (RFC 8446, section 5.1).
    (b"\x16\x03", Protocol.TLS),
)
_SAID_OVER_HTTP: Final[tuple[tuple[bytes, Protocol], ...]] = (
    (b"MongoDB over HTTP", Protocol.MONGODB),
    (b"clickhouse-client", Protocol.CLICKHOUSE),
    (b"HTTP request to an HTTPS", Protocol.TLS),
    (b"request was sent to HTTPS", Protocol.TLS),
    (b"speaking plain HTTP to an SSL", Protocol.TLS),
)
"""Servers that know what HTTP looks like, and tell whoever speaks it in the wrong place."""


def recognised(answer: bytes) -> Protocol | None:
    """What the first bytes of a server tell, whether it was asked something or spoke first."""
    if answer.startswith(b"HTTP/1."):
        return next((protocol for words, protocol in _SAID_OVER_HTTP if words in answer), Protocol.HTTP)
    if answer.startswith((b"220 ", b"220-")):
        return Protocol.SMTP if b"SMTP" in answer else Protocol.FTP if b"FTP" in answer else Protocol.MAIL_OR_FTP
    if answer[8:16] in _MONGO_REPLIES:
        return Protocol.MONGODB
    if _is_mysql(answer):
        return Protocol.MYSQL
    if answer[:1] == b"E" and answer[5:].startswith((b"SFATAL\x00", b"SERROR\x00", b"SPANIC\x00")):
        return Protocol.POSTGRESQL
    if answer[4:14] == b"\x01ActiveMQ\x00":
        return Protocol.OPENWIRE
    if len(answer) >= 8 and answer[:1] == b"\x00" and answer[4:8] == struct.pack(">i", _KAFKA_ID):
        return Protocol.KAFKA
    return next((protocol for beginning, protocol in _BEGINNINGS if answer.startswith(beginning)), None)


def _is_mysql(answer: bytes) -> bool:
    """A greeting of version 10, or a refusal: packets of the length that their head says, the first of a connection
    (MySQL internals, "Protocol Basics")."""
    if len(answer) < 7 or answer[3] != 0 or answer[4] not in {10, 255}:
        return False
    length = int.from_bytes(answer[:3], "little")
    return 6 <= length < 1024 and len(answer) <= length + 4 + 64


# Asking ---------------------------------------------------------------------------------------------------------------

_KAFKA_ID: Final = 0x68756201
_MONGO_ID: Final = 0x68756202
_MONGO_REPLIES: Final = tuple(struct.pack("<ii", _MONGO_ID, reply) for reply in (1, 2013))
"""MongoDB wire protocol, OP_REPLY and OP_MSG: whose question it answers, and the code."""
_GET: Final = b"GET / HTTP/1.0\r\n\r\n"
_SSL_REQUEST: Final = bytes.fromhex("0000000804d2162f")  # PostgreSQL documentation, "SSLRequest"
_PING: Final = b"*1\r\n$4\r\nPING\r\n"
_IS_MASTER: Final = struct.pack("<iiii", 58, _MONGO_ID, 0, 2004) + (
    b"\0\0\0\0admin.$cmd\0\0\0\0\0\xff\xff\xff\xff\x13\0\0\0\x10isMaster\0\1\0\0\0\0"
)  # MongoDB wire protocol, OP_QUERY: the one form that every version takes for a first question.
_API_VERSIONS: Final = struct.pack(">ihhih", 10, 18, 0, _KAFKA_ID, -1)  # Kafka protocol, "ApiVersions"


def _client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with_nobody = context.wrap_bio(ssl.MemoryBIO(), outgoing)
    try:
        with_nobody.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError  # There is nobody who could have answered.


def _questions() -> Iterator[bytes]:
    """Those first whose answers tell most: a server with TLS answers HTTP, too, to say that it should be TLS."""
    yield from (_client_hello(), _SSL_REQUEST, _PING, _API_VERSIONS, _IS_MASTER, _GET)


async def what_answers(pinned: Pinned, port: int) -> Protocol | None:
    """None for what says nothing, or nothing that is known here. Takes two seconds and a half at most."""
    if found := recognised(await _answer(pinned, port, b"", _LISTENING_S)):
        return found
    questions = list(_questions())
    answers = await asyncio.gather(*(_answer(pinned, port, question, _ASKING_S) for question in questions))
    if answers[questions.index(_SSL_REQUEST)] in {b"S", b"N"}:
        return Protocol.POSTGRESQL
    return next((found for answer in answers if (found := recognised(answer))), None) or await _what_serves_one(
        pinned, port
    )


async def _what_serves_one(pinned: Pinned, port: int) -> Protocol | None:
    """Of a web server that serves one connection after the other, and could answer none of those that were open at the
    same time: many that come with a programming language do."""
    return recognised(await _answer(pinned, port, _GET, _ASKING_S))


async def _answer(pinned: Pinned, port: int, question: bytes, timeout_s: float) -> bytes:
    """Nothing from a server that says nothing, hangs up or is not there."""
    heard = b""
    with suppress(ConnectorError, TimeoutError, OSError):
        async with asyncio.timeout(timeout_s), dialled(pinned, port, timeout_s) as sock:
            await asyncio.get_running_loop().sock_sendall(sock, question)
            async for piece in _pieces(sock):
                heard += piece
    return heard


async def _pieces(sock: socket.socket) -> AsyncIterator[bytes]:
    """Until the server hangs up or rests: some send what they want to say in two goes."""
    loop = asyncio.get_running_loop()
    left = _MAX_HEARD
    while left > 0 and (piece := await loop.sock_recv(sock, left)):
        yield piece
        left -= len(piece)
        if not await _has_more(sock):
            return


async def _has_more(sock: socket.socket) -> bool:
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    loop.add_reader(sock, is_readable.set)
    try:
        async with asyncio.timeout(_RESTING_S):
            return await is_readable.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(sock)


# Saying so ------------------------------------------------------------------------------------------------------------

_SUSPICIOUS: Final = frozenset({"connection_lost", "protocol_mismatch", "timeout", "tls_failed", "tls_unavailable"})


class Mismatch(ConnectorError):
    """Another protocol than the one that was expected. `found` is None where it could not be told."""

    def __init__(self, expected: str, place: str, found: Protocol | None) -> None:
        """`place` is the server as the source knows it: `db.example.com, port 5432`."""
        if found is None:
            message = f"What answers on {place}, is not {expected}."
        else:
            message = f"What answers on {place}, is not {expected}; it speaks {found.value}."
        super().__init__("protocol_mismatch", message)
        self.found = found


def mismatch(expected: str, host: str, port: int, answer: bytes = b"") -> Mismatch:
    """`answer` is what the server said, as far as it is at hand."""
    return Mismatch(expected, f"{host}, port {port}", recognised(answer))


async def met(
    work: Awaitable[Answer],
    expected: Protocol,
    called: str,
    pinned: Pinned,
    port: int,
    over_tls: OverTls,
    held: socket.socket | None = None,
) -> Answer:
    """The result of `work`, the first words with a server that should speak `expected`, which the source's type calls
    `called`. Where it takes long or fails as it does at a server of another kind, that server is looked at. `held` is
    the connection of `work`, where that does not close it itself: it is given up once `work` has failed.

    Raises what `work` does, `protocol_mismatch` with the protocol found, `tls_required` for a server that speaks TLS
    where the source is set not to, and `tls_unavailable` for the reverse.
    """
    meeting = asyncio.ensure_future(work)
    try:
        is_slow = not (await asyncio.wait({meeting}, timeout=PATIENCE_S))[0]
        if is_slow:
            refuse_other(await what_answers(pinned, port), expected, called, pinned, port, over_tls)
        try:
            return await meeting
        except ConnectorError as error:
            found = error.found if isinstance(error, Mismatch) else None
            if found in {None, Protocol.MAIL_OR_FTP} and error.code in _SUSPICIOUS:
                if held is not None:
                    with suppress(OSError):
                        held.shutdown(socket.SHUT_RDWR)
                # A slow one was looked at while this connection was open, and may have served no other meanwhile.
                found = await (_what_serves_one if is_slow else what_answers)(pinned, port) or found
            refuse_other(found, expected, called, pinned, port, over_tls)
            raise
    finally:
        meeting.cancel()
        await asyncio.gather(meeting, return_exceptions=True)


def refuse_other(
    found: Protocol | None, expected: Protocol, called: str, pinned: Pinned, port: int, over_tls: OverTls
) -> None:
    """Raises what `found` means where `expected` should be."""
    if found is expected and over_tls == "now":
        raise ConnectorError("tls_unavailable", f"{pinned.host} does not speak TLS on port {port}.")
    if found is None or found is expected or (found is Protocol.TLS and over_tls in {"either", "now"}):
        return
    if found is Protocol.TLS and over_tls == "not_set":
        raise ConnectorError("tls_required", f"{pinned.host} speaks TLS on port {port}, and the source is set not to.")
    raise Mismatch(called, f"{pinned.host}, port {port}", found)
