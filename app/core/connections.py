"""Connections on which nobody asks anything, closed when this process was told to end.

The server closes those that are idle by itself, but waits for a head of which only a part is here for as long as heads
may take, and offers nothing to shorten that. So its sockets are looked up among the open files of the process; on Linux
only.
"""

import array
import asyncio
import fcntl
import os
import socket
import sys
import termios
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

from app.core.stopping import STOPPING

LAST_HEAD_DEADLINE_S = 1.0
"""For what is on its way already."""
_OPEN_FILES = "/proc/self/fd"
_INTERNET = (socket.AF_INET, socket.AF_INET6)


def close_when_stopping(peers_asking: Callable[[], Collection[int]]) -> None:
    """Called inside of the event loop, when the server has its address. `peers_asking` gives the ports of the clients
    whose requests are under way."""
    if sys.platform != "linux":
        return
    loop = asyncio.get_running_loop()
    ports = {_port(found) for found in _sockets() if _peer(found) is None}

    def close_silent() -> None:
        for found in _sockets():
            with suppress(OSError):  # the server closes some of them in this moment
                if _port(found) in ports and _peer(found) not in {None, *peers_asking()} and not _unsent(found):
                    found.shutdown(socket.SHUT_RD)  # for the server this is a client who left

    def begin() -> None:
        loop.call_later(LAST_HEAD_DEADLINE_S, close_silent)

    STOPPING.react(begin)


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


def _sockets() -> Iterator[socket.socket]:
    """Each under a descriptor of our own, closed when the next one is asked for."""
    for name in os.listdir(_OPEN_FILES):
        with suppress(OSError):
            descriptor = os.dup(int(name))
            try:
                found = socket.socket(fileno=descriptor)
            except OSError:
                os.close(descriptor)
                continue
            with found:
                if found.family in _INTERNET and found.type == socket.SOCK_STREAM:
                    yield found


def _unsent(connection: socket.socket) -> int:
    """Bytes of an answer that its client has not taken yet."""
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, count)
    return count[0]
