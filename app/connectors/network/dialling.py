"""Opening connections to pinned addresses, and saying in our own words why one did not open."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from typing import Final

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.pinning import error_of_tunnel
from app.core.egress import Pinned
from app.core.tunnels import TunnelFailed

_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})


class DialledSocket(socket.socket):
    address: str
    """The pinned one: what it is connected to is the proxy, where the way leads through one."""


async def dial(pinned: Pinned, port: int, timeout_s: float) -> DialledSocket:
    """A connected, non-blocking socket to the first address that answers; all of them together have `timeout_s`."""
    failure = ConnectorError("host_unreachable", f"{pinned.host} has no address to try.")
    try:
        async with asyncio.timeout(timeout_s):
            for address in pinned.addresses:
                try:
                    return await _connect(address, port)
                except TimeoutError:
                    raise
                except OSError as error:
                    failure = unreachable(error, pinned.host, port)
    except TimeoutError:
        raise not_in_time(pinned, port, timeout_s) from None
    raise failure


async def _connect(address: str, port: int) -> DialledSocket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = DialledSocket(family, socket.SOCK_STREAM)
    sock.address = address
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def not_in_time(pinned: Pinned, port: int, timeout_s: float) -> ConnectorError:
    if pinned.by_proxy:
        return ConnectorError(
            "proxy_timeout", f"The hub's proxy opened no way to {pinned.host}, port {port}, within {timeout_s:g} s."
        )
    return ConnectorError("connect_timeout", f"{pinned.host} did not answer on port {port} within {timeout_s:g} s.")


def unreachable(error: OSError, host: str, port: int) -> ConnectorError:
    """What a failed connect means."""
    if isinstance(error, TunnelFailed):
        return error_of_tunnel(error, host, port)
    if isinstance(error, ConnectionRefusedError):
        return ConnectorError("connection_refused", f"{host} refused the connection on port {port}.")
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return hung_up(host, port)
    if error.errno == errno.ETIMEDOUT:
        return ConnectorError("connect_timeout", f"{host} did not answer on port {port}.")
    if error.errno in _UNREACHABLE:
        return ConnectorError("host_unreachable", f"There is no route to {host}.")
    name = errno.errorcode.get(error.errno or 0, "unknown")
    return ConnectorError("host_unreachable", f"{host} could not be reached on port {port} ({name}).")


def hung_up(host: str, port: int) -> ConnectorError:
    return ConnectorError("connection_lost", f"{host} closed the connection on port {port}.")


def silent(host: str, port: int, timeout_s: float) -> ConnectorError:
    return ConnectorError("timeout", f"{host} took the connection on port {port} and said nothing for {timeout_s:g} s.")


async def ask(sock: socket.socket, question: bytes, pinned: Pinned, port: int, timeout_s: float) -> bytes:
    """Sends a few bytes and gives the first ones of the answer. Raises `timeout` for a server that says nothing."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            await loop.sock_sendall(sock, question)
            answer = await loop.sock_recv(sock, 4096)
    except TimeoutError:
        raise silent(pinned.host, port, timeout_s) from None
    except OSError:
        raise hung_up(pinned.host, port) from None
    if not answer:
        raise hung_up(pinned.host, port)
    return answer


@contextlib.asynccontextmanager
async def dialled(pinned: Pinned, port: int, timeout_s: float) -> AsyncIterator[DialledSocket]:
    """A socket as from `dial`, closed at the end."""
    sock = await dial(pinned, port, timeout_s)
    try:
        yield sock
    finally:
        sock.close()
