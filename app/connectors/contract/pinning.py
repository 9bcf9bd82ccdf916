"""Names looked up once per run, judged by the egress policy, and pinned to the addresses that came out."""

from __future__ import annotations

from app.connectors.contract.failures import ConnectorError
from app.core.egress import EgressPolicy, EgressRefused, NameNotResolved, NotAHost, Pinned, canonical_host, resolve


class Network:
    """The only way a connector learns an address. Each name is looked up once per run and stays what it was."""

    def __init__(self, policy: EgressPolicy) -> None:
        self.policy = policy
        self._pinned: dict[str, Pinned] = {}
        self._looked_up: list[str] = []
        self._local_ports: set[int] = set()

    async def resolve(self, host: str, port: int, timeout_s: float) -> Pinned:
        """Raises `ConnectorError` with `invalid_configuration`, `egress_refused` or `name_not_resolved`."""
        if known := self._pinned.get(host):
            return known
        try:
            self._looked_up.append(host)
            pinned = await resolve(host, port, self.policy, timeout_s)
        except NotAHost as error:
            raise ConnectorError("invalid_configuration", _not_a_host(host)) from error
        except EgressRefused as error:
            raise ConnectorError("egress_refused", f"The hub may not connect to {host}: {error.reason}.") from error
        except NameNotResolved as error:
            raise ConnectorError("name_not_resolved", f"The name {host} does not resolve.") from error
        finally:
            self._looked_up.remove(host)
        self._pinned[host] = pinned
        return pinned

    def open_local_port(self, port: int) -> None:
        """Lets a driver reach a listener of this very process, such as `PinnedProxy`."""
        self._local_ports.add(port)

    def is_open_to(self, address: str, port: int) -> bool:
        """Whether the address was handed out, or is a listener of this process."""
        if address == "127.0.0.1" and port in self._local_ports:
            return True
        return any(address in pinned.addresses for pinned in self._pinned.values())

    def is_looking_up(self, name: str) -> bool:
        """Whether a look-up of this name is under way here."""
        return any(same_host(name, looked_up) for looked_up in self._looked_up)


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
