"""How much of an answer its client has taken, and how to break one off.

granian takes whatever the application sends and keeps it in memory until the client has taken it; and where the
application stops, it ends the answer in good order. Whoever sends much, and may have to stop in the middle, has to look
at the connection: it is found among the open files of the process (`app.core.connections`) and the kernel is asked.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address, ip_address
from time import monotonic
from typing import Any

from app.core.connections import UNTAKEN_S, facts_of, open_sockets, socket_at

WINDOW = 512 * 1024
"""Bytes of an answer that are under way to the client, here or in the net, before more is made."""
FRAME = 8
"""Bytes around each part (RFC 9112, section 7.1)."""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 0.25
"""Between two looks at what the client has taken."""
NOTICED_WITHIN_S = 1.0

Address = tuple[str, int]


class Untaken(Exception):
    """The client has taken nothing for `UNTAKEN_S` seconds."""


class Outflow:
    """Of one connection, from now on."""

    def __init__(self, descriptor: int, here: int, client: Address) -> None:
        self._descriptor = descriptor
        self._here = here
        self._client = client
        self._sent = 0
        self._before = self._acknowledged(and_under_way=True) or 0

    async def wait_for_room(self, size: int) -> None:
        """After a part of that many bytes: until the client has taken all but `WINDOW`. Raises Untaken."""
        self._sent += size + FRAME
        untaken, since, pause_s = self._untaken(), monotonic(), SHORTEST_PAUSE_S
        while untaken > WINDOW:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            if (now_untaken := self._untaken()) < untaken:
                untaken, since = now_untaken, monotonic()
            elif monotonic() - since > UNTAKEN_S:
                raise Untaken

    async def break_off(self, gone: Awaitable[object]) -> None:
        """So that the client sees it: by a reset, for one that knows no chunks (HTTP/1.0, as some proxies speak it)
        takes the end of the connection for the end of the answer. The server is told by what looks like a client that
        left; before it has heard of it (`gone`) the application must not return."""
        with suppress(OSError), self._socket() as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            found.shutdown(socket.SHUT_RD)
        try:
            async with asyncio.timeout(NOTICED_WITHIN_S):
                await gone
        except TimeoutError:
            with suppress(OSError), self._socket() as found:
                found.shutdown(socket.SHUT_RDWR)

    def _untaken(self) -> int:
        """Bytes; none where the connection is gone, for then there is nothing to wait for."""
        acknowledged = self._acknowledged()
        return 0 if acknowledged is None else self._sent - (acknowledged - self._before)

    def _acknowledged(self, *, and_under_way: bool = False) -> int | None:
        """Of all that was ever sent on the connection. None where nobody knows."""
        if sys.platform != "linux":
            return None
        try:
            with self._socket() as found:
                facts = facts_of(found)
        except OSError:
            return None
        return facts.taken + (facts.untaken if and_under_way else 0)

    @contextmanager
    def _socket(self) -> Iterator[socket.socket]:
        """The server closes it whenever it wants to, and another file may have the number then. Raises OSError."""
        with socket_at(self._descriptor) as found:
            if not _is_between(found, self._here, self._client):
                raise OSError("the connection is gone")
            yield found


async def outflow_of(scope: Mapping[str, Any]) -> Outflow | None:
    """None where there is no such connection: in tests that call the application, and behind other servers."""
    client, server = scope.get("client"), scope.get("server")
    if not client or not server or server[1] is None:
        return None
    here, there = int(server[1]), (_plain(client[0]), int(client[1]))  # granian gives ports as texts
    descriptor = await asyncio.to_thread(_find, here, there)
    return None if descriptor is None else Outflow(descriptor, here, there)


def _find(here: int, client: Address) -> int | None:
    return next((number for number, found in open_sockets() if _is_between(found, here, client)), None)


def _is_between(found: socket.socket, here: int, client: Address) -> bool:
    try:
        here_now, peer = found.getsockname(), found.getpeername()
    except OSError:
        return False
    return here_now[1] == here and (_plain(peer[0]), peer[1]) == client


def _plain(host: str) -> str:
    """One spelling for an address: without a zone, and of IPv4 where it is one that is mapped."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
