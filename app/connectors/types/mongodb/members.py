"""Members of a MongoDB deployment, met before the driver is: what each says of itself, and which one to read from.

A server answers `hello` to anybody (MongoDB manual, "hello"; specification "MongoDB Handshake"), so a member is known,
and known to be MongoDB, before a name or a password is sent to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeVar, get_args

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.pinning import Network
from app.connectors.network.dialling import DialledSocket, dialled, hung_up, silent
from app.connectors.network.recognising import OverTls, Protocol, met, mismatch
from app.connectors.network.tls import tls_context, tls_failure
from app.connectors.network.tls_fields import TlsMode
from app.core.egress import Pinned

Role = Literal["secondary", "router", "standalone", "primary", "unreadable"]
"""In the order in which a reader prefers them; what is unreadable is an arbiter, or a member that is not up to date."""

_ROLES: Final[tuple[Role, ...]] = get_args(Role)
_OLDEST_WIRE_VERSION: Final = 9  # Of MongoDB 4.4; pymongo knows nothing older.
_MAX_MEMBERS: Final = 50  # As many as a replica set may have (MongoDB manual, "Replica Sets Limits").
_HEADER: Final = struct.Struct("<iiii")  # Length, request id, id answered, opcode (MongoDB manual, "Wire Protocol").
_OP_MSG: Final = 2013
_OUR_REQUEST: Final = 1
_MAX_ANSWER: Final = 1024 * 1024
_Item = TypeVar("_Item")


class Greeting(msgspec.Struct, frozen=True):
    """What a member says of itself."""

    role: Role
    set_name: str | None
    members: tuple[str, ...]
    """Of its replica set, as it names them: `host:port`."""
    wire_version: int
    encryption: str
    """`none`, or the version of TLS."""


class Member(msgspec.Struct, frozen=True):
    pinned: Pinned
    port: int
    address: str = ""
    """The one of `pinned` that took the connection."""
    greeting: Greeting | None = None
    """None as long as it was not asked, because it is to be asked over TLS."""


class Members:
    """Meets members of one deployment, each at an address that the policy judged."""

    def __init__(
        self,
        network: Network,
        tls_mode: TlsMode,
        timeout_s: float,
        tls_context: Callable[[str], ssl.SSLContext],
        replica_set: str | None,
    ) -> None:
        """`timeout_s` is for each connection; `tls_context` makes the context for a host."""
        self._network = network
        self._tls_mode = tls_mode
        self._timeout_s = timeout_s
        self._tls_context = tls_context
        self._replica_set = replica_set

    @property
    def must_encrypt(self) -> bool:
        return self._tls_mode not in {"disable", "prefer"}

    async def resolve(self, places: Iterable[tuple[str, int]]) -> list[Member]:
        """One name of several may be unknown for a while; one that the policy refuses is a mistake in any case."""
        known, failures = await self._resolve(places)
        refused = [error for error in failures if error.code == "egress_refused"]
        if refused or not known:
            raise (refused or failures)[0]
        return known

    async def knock(self, members: Iterable[Member]) -> list[Member]:
        """Those that take a connection; the ones that speak TLS, where it is wanted, are left to be greeted over it."""
        return await _together(self._knock, members)

    async def greet_over_tls(self, members: Iterable[Member]) -> list[Member]:
        return await _together(self._greet_over_tls, members)

    async def choose(self, members: Sequence[Member], *, is_alone: bool) -> Member:
        """A secondary, if there is one. Members that these ones name are asked only where none of these can be read
        from, and never if it `is_alone`."""
        host, wanted = members[0].pinned.host, self._replica_set
        of_set = [it for it in members if it.greeting and (wanted is None or it.greeting.set_name == wanted)]
        if not of_set:
            raise ConnectorError("not_found", f"{host} is no member of the replica set {wanted}.")
        if readable := _readable(of_set):
            return readable[0]
        if is_alone or not (named := _named(of_set)):
            raise ConnectorError("server_error", f"{host} is in no state to be read from.")
        try:
            known, failures = await self._resolve(named)
            if not known:
                raise failures[0]
            readable = _readable(await _together(self._meet, known))
        except ConnectorError as error:
            message = f"{host} is in no state to be read from, and none of the members that it names can be reached."
            raise ConnectorError(error.code, message) from error
        if not readable:
            raise ConnectorError("server_error", f"No member of the replica set of {host} can be read from.")
        return readable[0]

    async def _resolve(self, places: Iterable[tuple[str, int]]) -> tuple[list[Member], list[ConnectorError]]:
        """One after the other: a connector has one look-up under way at a time."""
        known: list[Member] = []
        failures: list[ConnectorError] = []
        for host, port in places:
            try:
                known.append(Member(await self._network.resolve(host, port, self._timeout_s), port))
            except ConnectorError as error:
                failures.append(error)
        return known, failures

    async def _meet(self, member: Member) -> Member:
        """One that another member named."""
        member = await self._knock(member)
        if member.greeting is None:
            return await self._greet_over_tls(member)
        if self.must_encrypt:
            raise without_tls(member)
        return member

    async def _knock(self, member: Member) -> Member:
        over_tls: OverTls = "not_set" if self._tls_mode == "disable" else "either"
        return await met(self._heard_of(member), Protocol.MONGODB, "MongoDB", member.pinned, member.port, over_tls)

    async def _heard_of(self, member: Member) -> Member:
        if self._tls_mode != "disable" and await self._speaks_tls(member):
            return member
        try:
            return await self._greet(member, None)
        except ConnectorError as error:
            if self._tls_mode == "disable" and error.code in {"connection_lost", "protocol_mismatch"}:
                await self._refuse_if_it_speaks_tls(member)
            elif self.must_encrypt and error.code == "connection_lost":
                return member  # Let the handshake say what is wrong.
            raise

    async def _refuse_if_it_speaks_tls(self, member: Member) -> None:
        if await self._speaks_tls(member):
            message = f"{member.pinned.host} speaks nothing but TLS on port {member.port}."
            raise ConnectorError("tls_required", message) from None

    @asynccontextmanager
    async def _dialled(self, member: Member) -> AsyncIterator[DialledSocket]:
        async with dialled(member.pinned, member.port, self._timeout_s) as sock:
            yield sock

    async def _speaks_tls(self, member: Member) -> bool:
        async with self._dialled(member) as sock:
            return await speaks_tls(sock, member.pinned, member.port, self._timeout_s)

    async def _greet_over_tls(self, member: Member) -> Member:
        return await self._greet(member, self._tls_context(member.pinned.host))

    async def _greet(self, member: Member, context: ssl.SSLContext | None) -> Member:
        async with self._dialled(member) as sock:
            address = sock.address
            greeting = await greet(sock, member.pinned, member.port, self._timeout_s, context)
        if greeting.wire_version < _OLDEST_WIRE_VERSION:
            raise ConnectorError("unsupported", f"{member.pinned.host} is older than MongoDB 4.4.")
        return msgspec.structs.replace(member, address=address, greeting=greeting)


def without_tls(member: Member) -> ConnectorError:
    return ConnectorError("tls_unavailable", f"{member.pinned.host} speaks no TLS on port {member.port}.")


async def _together(work: Callable[[_Item], Awaitable[Member]], items: Iterable[_Item]) -> list[Member]:
    """All at once: what became of those with which it ended well. Raises the first one's error if there are none."""
    ended = await asyncio.gather(*(work(item) for item in items), return_exceptions=True)
    if good := [member for member in ended if isinstance(member, Member)]:
        return good
    raise next(error for error in ended if isinstance(error, BaseException))


def _readable(members: Iterable[Member]) -> list[Member]:
    """Without those that are not, the preferred ones first."""
    able = [(it.greeting.role, it) for it in members if it.greeting and it.greeting.role != "unreadable"]
    return [member for _, member in sorted(able, key=lambda pair: _ROLES.index(pair[0]))]


def _named(members: Iterable[Member]) -> list[tuple[str, int]]:
    """The members that these ones name, themselves left out."""
    own = {(member.pinned.host, member.port) for member in members}
    named = [_place(name) for member in members if member.greeting for name in member.greeting.members]
    return [place for place in dict.fromkeys(named) if place is not None and place not in own]


def _place(name: str) -> tuple[str, int] | None:
    """Host and port of a member as a server names it; None for what is neither, such as a socket of a machine."""
    host, _, port = name.rpartition(":")
    if not host or not port.isdecimal() or len(port) > 5 or not 0 < int(port) < 65_536:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


# The wire -------------------------------------------------------------------------------------------------------------


async def speaks_tls(sock: socket.socket, pinned: Pinned, port: int, timeout_s: float) -> bool:
    """Says the first words of a TLS handshake and ends its side of the connection: a server that takes them for the
    beginning of a long message learns that there is no more to come, instead of waiting for it."""
    try:
        async with asyncio.timeout(timeout_s):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, _client_hello(pinned.host))
            sock.shutdown(socket.SHUT_WR)
            answer = await loop.sock_recv(sock, 16)
    except TimeoutError:
        raise silent(pinned.host, port, timeout_s) from None
    except OSError:
        return False
    return answer[:2] in {b"\x16\x03", b"\x15\x03"}  # A handshake or an alert, RFC 8446, section 5.1


def _client_hello(server_name: str) -> bytes:
    outgoing = ssl.MemoryBIO()
    context = tls_context(server_name, verify_certificate=False)
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


async def greet(
    sock: socket.socket, pinned: Pinned, port: int, timeout_s: float, context: ssl.SSLContext | None
) -> Greeting:
    """Asks what answers for a `hello`; closes the socket. Raises `protocol_mismatch` for what is not MongoDB."""
    try:
        reader, writer = await asyncio.open_connection(
            sock=sock,
            ssl=context,
            server_hostname=pinned.host if context else None,
            ssl_handshake_timeout=timeout_s if context else None,
        )
    except (OSError, EOFError) as error:
        raise tls_failure(error, pinned.host, port, timeout_s) from None
    heard = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            writer.write(_question())
            document = await _answer(reader, heard)
    except ssl.SSLError as error:  # With TLS 1.3 a server refuses a client's certificate only now.
        raise tls_failure(error, pinned.host, port, timeout_s) from None
    except TimeoutError:
        raise _mismatch(pinned, port, heard) if heard else silent(pinned.host, port, timeout_s) from None
    except (OSError, EOFError):
        raise _mismatch(pinned, port, heard) if heard else _left(pinned, port, context) from None
    except ValueError:
        raise _mismatch(pinned, port, heard) from None
    finally:
        writer.transport.abort()
    return _greeting(document, str(writer.get_extra_info("ssl_object").version()) if context else "none")


def _mismatch(pinned: Pinned, port: int, heard: bytearray) -> ConnectorError:
    return mismatch("MongoDB", pinned.host, port, bytes(heard))


def _left(pinned: Pinned, port: int, context: ssl.SSLContext | None) -> ConnectorError:
    """Some servers tell a client without the certificate that they ask for by hanging up."""
    if context is None:
        return hung_up(pinned.host, port)
    message = f"{pinned.host} hung up after the TLS handshake on port {port}; it may ask for a client certificate."
    return ConnectorError("tls_failed", message)


def _question() -> bytes:
    """The `hello` that every version since 3.6 understands."""
    import bson

    document = bson.encode({"isMaster": 1, "helloOk": True, "$db": "admin"})
    body = struct.pack("<IB", 0, 0) + document  # No flags, one section of kind 0.
    return _HEADER.pack(_HEADER.size + len(body), _OUR_REQUEST, 0, _OP_MSG) + body


async def _answer(reader: asyncio.StreamReader, heard: bytearray) -> dict[str, object]:
    """Raises `ValueError` for what is no answer to the question, `EOFError` if it ends before its end."""
    import bson
    from bson.errors import InvalidBSON

    await _read(reader, heard, _HEADER.size)
    length, _, answered, opcode = _HEADER.unpack(heard)
    if answered != _OUR_REQUEST or opcode != _OP_MSG or not 26 <= length <= _MAX_ANSWER:
        raise ValueError("No answer of a MongoDB server")
    await _read(reader, heard, length)
    start = _HEADER.size + 5
    end = start + int.from_bytes(heard[start : start + 4], "little")
    try:
        return dict(bson.decode(bytes(heard[start:end])))
    except InvalidBSON as error:
        raise ValueError("No BSON") from error


async def _read(reader: asyncio.StreamReader, heard: bytearray, length: int) -> None:
    while len(heard) < length:
        piece = await reader.read(length - len(heard))
        if not piece:
            raise EOFError
        heard += piece


def _greeting(document: dict[str, object], encryption: str) -> Greeting:
    """Whatever the types of what it says, and however much it is."""
    set_name, wire_version = document.get("setName"), document.get("maxWireVersion")
    members = [
        member
        for key in ("hosts", "passives")
        if isinstance(listed := document.get(key), list)
        for member in listed
        if isinstance(member, str) and len(member) < 300
    ]
    return Greeting(
        role=_role(document),
        set_name=set_name if isinstance(set_name, str) else None,
        members=tuple(dict.fromkeys(members))[:_MAX_MEMBERS],
        wire_version=wire_version if isinstance(wire_version, int) else 0,
        encryption=encryption,
    )


def _role(document: dict[str, object]) -> Role:
    if document.get("msg") == "isdbgrid":
        return "router"
    is_writable = document.get("isWritablePrimary", document.get("ismaster")) is True
    if "setName" in document:
        return "primary" if is_writable else "secondary" if document.get("secondary") is True else "unreadable"
    return "standalone" if is_writable else "unreadable"
