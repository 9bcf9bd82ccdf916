"""Names looked up once per run, judged by the egress policy, and pinned to the addresses that came out."""

from __future__ import annotations

import asyncio
from typing import Final

from app.connectors.contract.failures import Code, ConnectorError
from app.core.egress import (
    ByProxy,
    EgressPolicy,
    EgressRefused,
    NameNotResolved,
    NotAHost,
    Pinned,
    canonical_host,
    find_way,
    system_lookup,
)
from app.core.tunnels import NO_ADDRESS, EgressProxy, Tunnel, TunnelFailed, TunnelProblem


class Network:
    """The only way a connector learns an address. Each name is looked up once per run and stays what it was.

    A host that is reached through the proxy gets addresses that nothing else has: they stand for it, and whatever opens
    a connection to one of them in this process is taken through the proxy (`TunnellingLoop`).
    """

    def __init__(self, policy: EgressPolicy) -> None:
        self.policy = policy
        self._pinned: dict[str, Pinned] = {}
        self._looked_up: list[str] = []
        self._local_ports: set[int] = set()
        self._tunnels: dict[str, Tunnel] = {}
        self._proxy_addresses: tuple[str, ...] = ()
        self._tunnel_failure: TunnelFailed | None = None

    async def resolve(self, host: str, port: int, timeout_s: float) -> Pinned:
        """Raises `ConnectorError` with `invalid_configuration`, `egress_refused` or `name_not_resolved`."""
        if known := self._pinned.get(host):
            return known
        way = await self._way(host, port, timeout_s)
        if isinstance(way, ByProxy):
            way = Pinned(way.host, await self._stand_ins(way, timeout_s), by_proxy=True)
        self._pinned[host] = way
        return way

    async def _way(self, host: str, port: int, timeout_s: float) -> Pinned | ByProxy:
        self._looked_up.append(host)
        try:
            return await find_way(host, port, self.policy, timeout_s)
        except NotAHost as error:
            raise ConnectorError("invalid_configuration", _not_a_host(host)) from error
        except EgressRefused as error:
            raise ConnectorError("egress_refused", f"The hub may not connect to {host}: {error.reason}.") from error
        except NameNotResolved as error:
            raise ConnectorError("name_not_resolved", f"The name {host} does not resolve.") from error
        finally:
            self._looked_up.remove(host)

    # The proxy --------------------------------------------------------------------------------------------------------

    async def _stand_ins(self, way: ByProxy, timeout_s: float) -> tuple[str, ...]:
        """One for each address of the proxy, of its family: who tries them in turn tries the proxy's in turn."""
        if not self._proxy_addresses:
            self._proxy_addresses = await self._addresses_of(way.proxy, timeout_s)
        addresses = []
        for proxy_address in self._proxy_addresses:
            address = _stand_in(len(self._tunnels) + 1, is_ipv6=":" in proxy_address)
            self._tunnels[address] = Tunnel(way.proxy, proxy_address, way.host)
            addresses.append(address)
        return tuple(addresses)

    async def _addresses_of(self, proxy: EgressProxy, timeout_s: float) -> tuple[str, ...]:
        """The policy has no say in it: the operator named it. One that is not found is away, as is seen when somebody
        connects to it."""
        self._looked_up.append(proxy.host)
        try:
            async with asyncio.timeout(timeout_s):
                return tuple(await system_lookup(proxy.host, proxy.port))
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            return (NO_ADDRESS,)
        finally:
            self._looked_up.remove(proxy.host)

    def tunnel_at(self, address: str) -> Tunnel | None:
        """What the address stands for, if it does for something behind the proxy."""
        return self._tunnels.get(address)

    def note_tunnel(self, failure: TunnelFailed | None) -> None:
        self._tunnel_failure = failure

    def retold(self, error: ConnectorError) -> ConnectorError:
        """What a driver takes for the server's failure, where it was the proxy that opened no connection."""
        failure = self._tunnel_failure
        if failure is None or error.code not in _SAID_OF_SERVERS:
            return error
        return error_of_tunnel(failure, failure.host, failure.port)

    def open_local_port(self, port: int) -> None:
        """Lets a driver reach a listener of this very process, such as `PinnedProxy`."""
        self._local_ports.add(port)

    def is_open_to(self, address: str, port: int) -> bool:
        """Whether the address was handed out, or is a listener of this process."""
        if address == "127.0.0.1" and port in self._local_ports:
            return True
        if address in self._proxy_addresses and self.policy.proxy is not None and port == self.policy.proxy.port:
            return True
        return any(address in pinned.addresses for pinned in self._pinned.values())

    def is_looking_up(self, name: str) -> bool:
        """Whether a look-up of this name is under way here."""
        return any(same_host(name, looked_up) for looked_up in self._looked_up)


_SAID_OF_SERVERS: Final = frozenset(
    {"connection_lost", "connection_refused", "host_unreachable", "protocol_mismatch", "tls_failed"}
)


def error_of_tunnel(failure: TunnelFailed, host: str, port: int) -> ConnectorError:
    """What the proxy would not, or could not do; none of its words is repeated."""
    code, sentence = _TUNNELS[failure.problem]
    return ConnectorError(code, sentence.format(host=host, port=port, status=failure.status))


_TUNNELS: Final[dict[TunnelProblem, tuple[Code, str]]] = {
    "unreachable": ("proxy_unreachable", "The hub's proxy has no address, took no connection, or hung up."),
    "timeout": ("proxy_timeout", "The hub's proxy had no answer of {host}, port {port}, in time."),
    "unauthorized": ("proxy_authentication_failed", "The hub's proxy did not accept the hub's credentials."),
    "refused": ("proxy_refused", "The hub's proxy does not let it through to {host}, port {port} (status {status})."),
    "target_unreachable": (
        "host_unreachable",
        "The hub's proxy could not reach {host} on port {port} (status {status}).",
    ),
    "invalid": ("proxy_invalid", "What answers as the hub's proxy, is no HTTP proxy."),
}


def _stand_in(number: int, *, is_ipv6: bool) -> str:
    """Of ranges in which nothing is ever dialled: reserved (RFC 1112) and for discarding (RFC 6666)."""
    if is_ipv6:
        return f"100::{number >> 16:x}:{number & 0xFFFF:x}" if number > 0xFFFF else f"100::{number:x}"
    return f"240.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _not_a_host(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if host and colon and port.isdigit():
        return f"{text} is no host: the port goes into a field of its own, `port`."
    return f"{text!r} is neither a host name nor an address; it has no blanks, scheme or path."


def same_host(one: str, other: str) -> bool:
    """Whether two spellings mean one host."""
    try:
        return canonical_host(one) == canonical_host(other)
    except EgressRefused:
        return False
