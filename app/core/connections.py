"""Connections on which nobody asks anything: closed after a while, sooner where there are many, and at the end.

The server has one limit of time for all of them. It has to be long, because a proxy keeps idle connections, and would
send its next request on one that is being closed if the hub's patience ended first. So connections that never sent a
request are looked up here among the open files of the process, and where room gets scarce all those that are idle; on
Linux only. Elsewhere there is the server's own limit.
"""

import array
import asyncio
import fcntl
import logging
import os
import resource
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

from app.core.stopping import STOPPING

log = logging.getLogger("hub.connections")

KEEP_ALIVE_S = 75.0
"""An idle connection is kept for so long, and a head may take so long on one that was used before: more than the minute
for which proxies keep theirs."""
FIRST_BYTE_S = 5.0
"""From opening a connection until something comes."""
FIRST_HEAD_S = 10.0
"""From opening a connection until its first request is there."""
UNTAKEN_S = 30.0
"""For which nothing more of an answer could be sent to a client that does not take it."""

CONNECTIONS = 4096
"""Of a server's process at once; more wait outside, in order. 6,000 silent ones take 15 MB."""
CROWDED, CROWDED_S = 0.25, 5.0
"""From this share of the limit on, connections on which nothing is asked are kept for so many seconds only,"""
FULL, FULL_S = 0.75, 0.5
"""and from this share on for so many: whoever asks has to find room."""
OTHER_FILES = 256
"""Of what a process may open, for databases, connector processes and the like."""

LAST_HEAD_DEADLINE_S = 1.0
"""For what is on its way already when the process was told to end."""
_LOOK_EVERY_S = 1.0
_LOOK_AT_LEAST_EVERY_S = 2.0
_LOOKING_SHARE = 0.1
"""Of the time that goes into looking: 10 microseconds for each connection, off the event loop."""
_OPEN_FILES = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
_INTERNET = (socket.AF_INET, socket.AF_INET6)


def connection_limit() -> int:
    """How many connections a process may have. Raises what it may open as far as the system lets it."""
    wanted = CONNECTIONS + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(most - OTHER_FILES, OTHER_FILES)


class Quiet(Struct, frozen=True):
    """A connection on which no request is under way."""

    received: int
    """Bytes, ever."""
    taken: int
    """Bytes of answers that the client has acknowledged, ever."""
    untaken: int
    """Bytes of an answer that it has not taken yet."""
    since_s: float
    """Seconds since the hub last sent it anything, or since it was opened."""

    def is_kept(self, share: float) -> bool:
        """`share` is how much of the limit is used."""
        if self.untaken:
            return self.since_s < (CROWDED_S if share >= FULL else UNTAKEN_S)
        if share >= FULL:
            return self.since_s < FULL_S
        if not self.received:
            return self.since_s < FIRST_BYTE_S
        if share >= CROWDED:
            return self.since_s < CROWDED_S
        return self.taken > 0 or self.since_s < FIRST_HEAD_S


class Connections:
    """Those of this process' server. `peers_asking` gives the ports of the clients whose requests are under way."""

    def __init__(self, peers_asking: Callable[[], Collection[int]]) -> None:
        self._peers_asking = peers_asking
        self._limit = connection_limit()
        self._ports: frozenset[int] = frozenset()
        self._suspected: dict[object, tuple[int, int]] = {}
        """By peer, those that the last look would have closed, with what had come and gone on them by then."""
        self._watching: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Called inside of the event loop, when the server has its address. Goes on until the process ends."""
        if sys.platform != "linux":
            return
        self._ports = frozenset(_port(found) for _, found in open_sockets() if _peer(found) is None)
        self._watching = asyncio.create_task(self._watch(), name="quiet connections")
        loop = asyncio.get_running_loop()

        def begin() -> None:
            loop.call_later(LAST_HEAD_DEADLINE_S, self._close_silent)

        STOPPING.react(begin)

    async def _watch(self) -> None:
        while True:
            began = time.perf_counter()
            try:
                await asyncio.to_thread(self._close_quiet, frozenset(self._peers_asking()))
            except OSError as error:
                log.warning("connections cannot be looked at: %s", error)
            took_s = time.perf_counter() - began
            await asyncio.sleep(min(max(_LOOK_EVERY_S, took_s / _LOOKING_SHARE), _LOOK_AT_LEAST_EVERY_S))

    def _close_quiet(self, asking: Collection[int]) -> None:
        """What has sent something is closed by the second look that finds it unchanged: a request that has ended for us
        may have its answer still before it, and one that is on its way is not known here yet."""
        share = len(os.listdir(_OPEN_FILES)) / self._limit
        suspected, self._suspected = self._suspected, {}
        for found in self._quiet(asking):
            with suppress(OSError):  # the server closes some of them in this moment
                quiet, peer = facts_of(found), found.getpeername()
                counts = (quiet.received, quiet.taken)
                if quiet.is_kept(share):
                    continue
                if quiet.received and suspected.get(peer) != counts:
                    self._suspected[peer] = counts
                else:
                    found.shutdown(socket.SHUT_RDWR)  # for the server this is a client who left

    def _close_silent(self) -> None:
        for found in self._quiet(self._peers_asking()):
            with suppress(OSError):
                if not _untaken(found):
                    found.shutdown(socket.SHUT_RD)

    def _quiet(self, asking: Collection[int]) -> Iterator[socket.socket]:
        for _, found in open_sockets():
            with suppress(OSError):
                if _port(found) in self._ports and _peer(found) not in {None, *asking}:
                    yield found


def _port(found: socket.socket) -> int:
    port: int = found.getsockname()[1]
    return port


def _peer(found: socket.socket) -> int | None:
    """Its port. None for a socket that is there to take connections."""
    try:
        port: int = found.getpeername()[1]
    except OSError:
        return None
    return port


def open_sockets() -> Iterator[tuple[int, socket.socket]]:
    """Of the internet, with their numbers among the open files of the process; each for as long as it is looked at."""
    for name in os.listdir(_OPEN_FILES):
        with suppress(OSError), socket_at(int(name)) as found:
            if found.family in _INTERNET and found.type == socket.SOCK_STREAM:
                yield int(name), found


@contextmanager
def socket_at(number: int) -> Iterator[socket.socket]:
    """An open file as a socket, under a descriptor of our own: its owner may close theirs meanwhile. Raises OSError
    where it is none."""
    descriptor = os.dup(number)
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise
    with found:
        yield found


def facts_of(connection: socket.socket) -> Quiet:
    """From Linux' `struct tcp_info` (tcp(7)): milliseconds at 44, 64-bit counts at 120."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
    (since_ms,) = struct.unpack_from("=I", info, 44)
    taken, received = struct.unpack_from("=QQ", info, 120)
    return Quiet(received, taken, _untaken(connection), since_ms / 1000)


def _untaken(connection: socket.socket) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, count)
    return count[0]
