"""Ways out through a corporate proxy: an HTTP proxy opens a TCP connection for us, asked by CONNECT (RFC 9110, 9.3.6).

    TunnelFailed    the proxy opened no connection; `problem` says why. An OSError, so that drivers take it for one.

Nothing here judges where a connection goes; `egress.py` does. The credentials of the proxy are sent to the proxy and
shown nowhere.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Callable
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec

TunnelProblem = Literal["unreachable", "timeout", "unauthorized", "refused", "target_unreachable", "invalid"]
"""The proxy is away, too slow, wants other credentials, does not let us through, does not get through itself, or is no
HTTP proxy."""

NO_ADDRESS: Final = ""
"""Of a proxy whose name does not resolve."""
MAX_HEAD_BYTES: Final = 16_384
_FORM: Final = "an address such as http://user:password@proxy.example.org:3128 is wanted"
_VISIBLE_ASCII: Final = range(0x21, 0x7F)


class EgressProxy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Its address, and who the hub is to it."""

    host: str
    port: int
    username: str = ""
    password: str = ""

    @classmethod
    def parse(cls, url: str) -> EgressProxy:
        """Raises ValueError with a sentence that repeats nothing of the URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(_FORM) from None
        if parts.scheme != "http" or not parts.hostname or not port or parts.path not in {"", "/"}:
            raise ValueError(f"{_FORM}: with `http`, a port, and no path")
        if parts.query or parts.fragment or any(ord(letter) not in _VISIBLE_ASCII for letter in url):
            raise ValueError(f"{_FORM}; what is no visible ASCII in user and password is written as %XX")
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
        if ":" in username or any(ord(letter) < 0x20 or letter == "\x7f" for letter in username + password):
            raise ValueError(f"{_FORM}: without a colon in the user, or control characters in either")
        return cls(parts.hostname, port, username, password)

    @property
    def place(self) -> str:
        """Without the credentials."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"EgressProxy({self.place})"


class Tunnel(msgspec.Struct, frozen=True):
    """A host that is reached through the proxy, at one of the proxy's addresses."""

    proxy: EgressProxy
    proxy_address: str
    host: str


class TunnelFailed(OSError):
    def __init__(self, problem: TunnelProblem, status: int | None = None) -> None:
        super().__init__(f"no tunnel: {problem}")
        self.problem: TunnelProblem = problem
        self.status = status
        """With which the proxy answered, where it did."""
        self.host = ""
        self.port = 0


async def ask_for_tunnel(sock: socket.socket, proxy: EgressProxy, host: str, port: int) -> None:
    """On a non-blocking socket that is connected to the proxy. What comes on it afterwards is from `host`.

    Raises TunnelFailed. Waits as long as the proxy does: the time is the caller's to limit.
    """
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(sock, _question(proxy, host, port))
        status = _status(await _head(sock))
    except TunnelFailed:
        raise
    except OSError:
        raise TunnelFailed("unreachable") from None
    if not 200 <= status < 300:
        raise TunnelFailed(_problem(status), status)


def _question(proxy: EgressProxy, host: str, port: int) -> bytes:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: data-fusion-hub"]
    if proxy.username or proxy.password:
        pair = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {pair}")  # RFC 7617
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _head(sock: socket.socket) -> bytes:
    """Byte by byte, since what follows belongs to the server behind: many greet whoever connects."""
    loop = asyncio.get_running_loop()
    head = bytearray()
    while not head.endswith((b"\r\n\r\n", b"\n\n")):
        byte = await loop.sock_recv(sock, 1)
        if not byte:
            raise TunnelFailed("invalid" if head else "unreachable")
        head += byte
        if len(head) > MAX_HEAD_BYTES or not head.startswith(b"HTTP/1."[: len(head)]):
            raise TunnelFailed("invalid")
    return bytes(head)


def _status(head: bytes) -> int:
    """Raises TunnelFailed for what is no status line (RFC 9112, section 4)."""
    words = head.split(b"\n", 1)[0].split(None, 2)
    if len(words) < 2 or len(words[1]) != 3 or not words[1].isdigit():
        raise TunnelFailed("invalid")
    return int(words[1])


def _problem(status: int) -> TunnelProblem:
    if status == 407:
        return "unauthorized"
    if status == 504:
        return "timeout"
    if status >= 500:
        return "target_unreachable"
    return "refused" if status >= 400 else "invalid"


async def open_tunnel(proxy: EgressProxy, host: str, port: int, timeout_s: float) -> socket.socket:
    """A connected, non-blocking socket to `host`, through the proxy. Raises TunnelFailed."""
    try:
        async with asyncio.timeout(timeout_s):
            sock = await _connected(proxy)
            try:
                await ask_for_tunnel(sock, proxy, host, port)
            except BaseException:
                sock.close()
                raise
            return sock
    except TimeoutError:
        raise TunnelFailed("timeout") from None


async def _connected(proxy: EgressProxy) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise TunnelFailed("unreachable") from None
    for family, _, _, _, address in found:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            return sock
        except OSError:
            sock.close()
        except BaseException:
            sock.close()
            raise
    raise TunnelFailed("unreachable")


class TunnellingLoop(asyncio.SelectorEventLoop):
    """An event loop that takes connections to certain addresses through the proxy, whoever opens them.

    `tunnel_at` says what an address stands for; addresses that stand for nothing are dialled. `when_failed` hears of
    each tunnel that did not come about, and with None of each that did: a driver may say of either what it likes.
    """

    def __init__(
        self, tunnel_at: Callable[[str], Tunnel | None], when_failed: Callable[[TunnelFailed | None], None]
    ) -> None:
        super().__init__()
        self._tunnel_at = tunnel_at
        self._when_failed = when_failed

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        tunnel = self._tunnel_at(address[0]) if isinstance(address, tuple) else None
        if tunnel is None:
            await super().sock_connect(sock, address)
            return
        try:
            await self._tunnelled(sock, tunnel, address[1])
        except TunnelFailed as failure:
            failure.host, failure.port = tunnel.host, address[1]
            self._when_failed(failure)
            raise
        self._when_failed(None)

    async def _tunnelled(self, sock: socket.socket, tunnel: Tunnel, port: int) -> None:
        if tunnel.proxy_address == NO_ADDRESS:
            raise TunnelFailed("unreachable")
        try:
            await super().sock_connect(sock, (tunnel.proxy_address, tunnel.proxy.port))
        except OSError:
            raise TunnelFailed("unreachable") from None
        await ask_for_tunnel(sock, tunnel.proxy, tunnel.host, port)
