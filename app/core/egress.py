"""Which addresses the hub may dial.

    EgressError
    ├── EgressRefused       the policy forbids every address of the host
    │   └── NotAHost        what was given is neither a name nor an address
    └── NameNotResolved     the name has no address

Python's `ipaddress.is_global` is wrong for several ranges in the versions supported here, so the ranges stand below,
each with the document that sets it aside. Whatever is not plainly a public unicast address is refused or asks for an
allowance.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import unicodedata
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, Literal

import idna
import msgspec

from app.core.tunnels import EgressProxy

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

AddressClass = Literal["public", "private", "loopback", "never"]
"""`private` asks for an allowance, `loopback` for a deployment that permits it, `never` cannot be allowed."""

MAX_ADDRESSES: Final = 16
"""Of one name; a name with more is dialled at its first ones."""


class EgressError(Exception):
    """A host may not be dialled, or cannot be."""


class EgressRefused(EgressError):
    """`reason` is a phrase that fits after a colon; it names ranges, and addresses only where the host was one."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"{host}: {reason}")
        self.host = host
        self.reason = reason


class NotAHost(EgressRefused):
    """It may not be dialled whatever the policy says."""

    def __init__(self, host: str) -> None:
        super().__init__(host, "it is neither a host name nor an address")


class NameNotResolved(EgressError):
    """The name has no address, or none was had within the time-out."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} does not resolve")
        self.host = host


# Metadata services come first: some of them live inside ranges that an operator may allow.
_RANGES: Final[tuple[tuple[str, AddressClass, str], ...]] = (
    ("168.63.129.16/32", "never", "a cloud metadata address (Azure)"),
    ("100.100.100.200/32", "never", "a cloud metadata address (Alibaba)"),
    ("192.0.0.192/32", "never", "a cloud metadata address (Oracle)"),
    ("fd00:ec2::/32", "never", "a cloud metadata address (AWS)"),
    ("fd20:ce::254/128", "never", "a cloud metadata address (Google)"),
    ("fd00:42::42/128", "never", "a cloud metadata address (Scaleway)"),
    ("fd00:c1::a9fe:a9fe/128", "never", "a cloud metadata address (Oracle)"),
    ("0.0.0.0/8", "never", "an unspecified address (RFC 1122)"),
    ("10.0.0.0/8", "private", "a private address (RFC 1918)"),
    ("100.64.0.0/10", "private", "a shared provider address (RFC 6598)"),
    ("127.0.0.0/8", "loopback", "a loopback address (RFC 1122)"),
    ("169.254.0.0/16", "never", "a link-local address (RFC 3927)"),
    ("172.16.0.0/12", "private", "a private address (RFC 1918)"),
    ("192.0.0.0/24", "never", "a protocol assignment (RFC 6890)"),
    ("192.0.2.0/24", "never", "a documentation address (RFC 5737)"),
    ("192.88.99.0/24", "never", "a 6to4 relay address (RFC 7526)"),
    ("192.168.0.0/16", "private", "a private address (RFC 1918)"),
    ("198.18.0.0/15", "never", "a benchmarking address (RFC 2544)"),
    ("198.51.100.0/24", "never", "a documentation address (RFC 5737)"),
    ("203.0.113.0/24", "never", "a documentation address (RFC 5737)"),
    ("224.0.0.0/4", "never", "a multicast address (RFC 5771)"),
    ("255.255.255.255/32", "never", "the broadcast address (RFC 919)"),
    ("240.0.0.0/4", "never", "a reserved address (RFC 1112)"),
    ("::/128", "never", "an unspecified address (RFC 4291)"),
    ("::1/128", "loopback", "a loopback address (RFC 4291)"),
    ("::/96", "never", "an IPv4-compatible address (RFC 4291)"),
    ("64:ff9b:1::/48", "never", "a local NAT64 address (RFC 8215)"),
    ("100::/64", "never", "a discard address (RFC 6666)"),
    ("2001::/32", "never", "a Teredo address (RFC 4380)"),
    ("2001:db8::/32", "never", "a documentation address (RFC 3849)"),
    ("2001::/23", "never", "a protocol assignment (RFC 2928)"),
    ("2002::/16", "never", "a 6to4 address (RFC 7526)"),
    ("3fff::/20", "never", "a documentation address (RFC 9637)"),
    ("fc00::/7", "private", "a unique local address (RFC 4193)"),
    ("fe80::/10", "never", "a link-local address (RFC 4291)"),
    ("fec0::/10", "never", "a site-local address (RFC 3879)"),
    ("ff00::/8", "never", "a multicast address (RFC 4291)"),
)
_TABLE: Final = tuple((ip_network(cidr), address_class, phrase) for cidr, address_class, phrase in _RANGES)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP_MARKS: Final = frozenset({0x00005EFE, 0x02005EFE})


class Decision(msgspec.Struct, frozen=True):
    is_allowed: bool
    reason: str
    """A phrase, empty where allowed."""


class Pinned(msgspec.Struct, frozen=True):
    """A host and the addresses that stand for it until the work is done."""

    host: str
    """In canonical form: lower-case ASCII, no trailing dot, an address in its one usual spelling."""
    addresses: tuple[str, ...]
    """In the order in which they are to be tried; at least one."""
    by_proxy: bool = False
    """The addresses are none of the host's, and stand for a way through the proxy (`contract/pinning.py`)."""


class ByProxy(msgspec.Struct, frozen=True):
    """A host that is reached through the proxy, which looks up its name."""

    host: str
    """In canonical form."""
    proxy: EgressProxy


class EgressPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Entries of `allow`, `deny` and `direct` are CIDRs, addresses, host names, or `*.example.org` for every name below
    one.

    `allow` opens private ranges only; what is link-local, metadata, multicast or reserved stays shut. `deny` wins over
    `allow` and over `loopback_allowed`. Raises `ValueError` for an entry that is none of these.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    loopback_allowed: bool = False
    proxy: EgressProxy | None = None
    """Through which everything goes out, but for what is in `direct`; None: everything is dialled."""
    direct: tuple[str, ...] = ()
    files_root: str | None = None
    """The one folder that file sources may read, as an absolute path; None: they may read nothing."""
    files_folder: str | None = None
    """The folder directly in it that alone they may read, where the tenant has one of its own."""
    hidden_folders: frozenset[str] = frozenset()
    """Folders directly in it that are other tenants', in small letters."""
    own_database: tuple[tuple[str, int], ...] = ()
    """The hub's own, which is no source, by each name that its server has for itself, with the oid of the database:
    PostgreSQL's system identifier, which its replicas share, and the moment of its start."""

    def __post_init__(self) -> None:
        for entry in (*self.allow, *self.deny, *self.direct):
            _rule(entry)

    @property
    def readable_root(self) -> str | None:
        """Below it lies all that file sources may read."""
        if not self.files_root or self.files_folder is None:
            return self.files_root
        return os.path.join(self.files_root, self.files_folder)

    def hides(self, name: str) -> bool:
        """Whether what lies directly in `readable_root` under this name is another tenant's; in capitals too, which
        some file systems take for the same."""
        return self.files_folder is None and name.casefold() in self.hidden_folders

    def decide(self, address: str | Address, host: str = "") -> Decision:
        """About one address; `host` is the name it was found under, for the entries that are names."""
        dialled = _peel(ip_address(address) if isinstance(address, str) else address)
        if any(_rule(entry).matches(dialled, host) for entry in self.deny):
            return Decision(False, "denied by HUB_EGRESS_DENY")
        address_class, phrase = classify(dialled)
        if address_class == "public" or (address_class == "loopback" and self.loopback_allowed):
            return Decision(True, "")
        if address_class == "private" and any(_rule(entry).matches(dialled, host) for entry in self.allow):
            return Decision(True, "")
        return Decision(False, phrase)

    def decide_name(self, host: str) -> Decision:
        """About a name whose addresses nobody here knows."""
        if any(_rule(entry).matches_name(host) for entry in self.deny):
            return Decision(False, "denied by HUB_EGRESS_DENY")
        if is_this_machine(host) and not self.loopback_allowed:
            return Decision(False, "a name of this machine (RFC 6761)")
        return Decision(True, "")

    def is_direct(self, address: str | Address, host: str = "") -> bool:
        """Whether it is dialled though there is a proxy. It is judged like any other."""
        dialled = _peel(ip_address(address) if isinstance(address, str) else address)
        return any(_rule(entry).matches(dialled, host) for entry in self.direct)

    def is_direct_name(self, host: str) -> bool:
        return any(_rule(entry).matches_name(host) for entry in self.direct)


def classify(address: Address) -> tuple[AddressClass, str]:
    """The class of an address, and a phrase that names its range. Tunnels are judged by where they lead."""
    address = _peel(address)
    for network, address_class, phrase in _TABLE:
        if address.version == network.version and address in network:
            return address_class, phrase
    if isinstance(address, IPv4Address):
        return "public", "a public address"
    return _classify_ipv6(address)


def closed_whole(entry: str) -> tuple[AddressClass, str] | None:
    """The class and a phrase of an entry for `allow` that opens nothing, because all of it lies where an allowance does
    not reach: `loopback` or `never`. None for all others."""
    rule = _rule(entry)
    if rule.network is None:
        return ("loopback", "a name of this machine (RFC 6761)") if is_this_machine(rule.name) else None
    for network, address_class, phrase in _TABLE:
        if network.version == rule.network.version and _is_within(rule.network, network):
            return (address_class, phrase) if address_class in ("loopback", "never") else None
    return None


def is_this_machine(name: str) -> bool:
    """RFC 6761, section 6.3."""
    return name == "localhost" or name.endswith(".localhost")


def _is_within(inner: Network, outer: Network) -> bool:
    return inner.network_address in outer and inner.prefixlen >= outer.prefixlen


def _classify_ipv6(address: IPv6Address) -> tuple[AddressClass, str]:
    """What the table does not name: NAT64 and ISATAP are as good as the IPv4 address inside, and outside of 2000::/3
    nothing is assigned to be dialled (RFC 4291, section 4)."""
    if address in _NAT64:
        return _inside(address, "a NAT64 address (RFC 6052)")
    if address not in _GLOBAL_UNICAST:
        return "never", "a reserved address (RFC 4291)"
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP_MARKS:
        return _inside(address, "an ISATAP address (RFC 5214)")
    return "public", "a public address"


def _inside(address: IPv6Address, tunnel: str) -> tuple[AddressClass, str]:
    address_class, phrase = classify(_low_ipv4(address))
    return ("public", phrase) if address_class == "public" else ("never", f"{tunnel} that leads to {phrase}")


def _low_ipv4(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)


def _peel(address: Address) -> Address:
    """An IPv4-mapped address is dialled as the IPv4 address that it is (RFC 4291, section 2.5.5.2)."""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


# Allow and deny entries ---------------------------------------------------------------------------------------------


class _Rule(msgspec.Struct, frozen=True):
    network: Network | None
    name: str
    is_suffix: bool

    def matches(self, address: Address, host: str) -> bool:
        if self.network is not None:
            return any(it.version == self.network.version and it in self.network for it in _faces(address))
        return self.matches_name(host)

    def matches_name(self, host: str) -> bool:
        if self.network is not None:
            return False
        return host.endswith("." + self.name) if self.is_suffix else host == self.name


def _faces(address: Address) -> Iterator[Address]:
    """The address and any IPv4 address that it carries: who denies 10.0.0.0/8 denies the tunnels to it."""
    yield address
    if isinstance(address, IPv6Address):
        if address in _NAT64 or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP_MARKS:
            yield _low_ipv4(address)
        if address.sixtofour:
            yield address.sixtofour
        if address.teredo:
            yield from address.teredo


@lru_cache(maxsize=1024)
def _rule(entry: str) -> _Rule:
    try:
        network = ip_network(entry, strict=False)
    except ValueError:
        pass
    else:
        mapped = isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped
        if mapped:
            return _Rule(IPv4Network((mapped, network.prefixlen - 96)), "", False)
        return _Rule(network, "", False)
    name = entry.removeprefix("*.")
    if (canonical := _name_or_none(name)) is None:
        raise ValueError(f"`{entry}` is neither a CIDR range nor a host pattern such as *.example.org")
    return _Rule(None, canonical, entry != name)


def _name_or_none(text: str) -> str | None:
    try:
        canonical = canonical_host(text)
    except EgressRefused:
        return None
    return canonical if isinstance(canonical, str) else None


# Hosts --------------------------------------------------------------------------------------------------------------

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_HEXADECIMAL: Final = re.compile(r"0[xX][0-9a-fA-F]*")
_DOTS: Final = str.maketrans({"\u3002": ".", "\uff0e": ".", "\uff61": ".", "\ufe52": ".", "\u2024": "."})


def canonical_host(host: str) -> str | Address:
    """The one meaning of every spelling: an address, or a lower-case ASCII name without its trailing dot.

    Addresses are read as generously as any C library reads them (decimal, octal, hexadecimal, one to four parts,
    Unicode digits and dots), so that no spelling means one thing here and another where it is dialled. Raises
    `EgressRefused`.
    """
    text = host if host.isascii() else unicodedata.normalize("NFKC", host.translate(_DOTS)).translate(_DOTS)
    if text.startswith("[") and text.endswith("]"):
        return _ipv6(text[1:-1], host)
    if ":" in text:
        return _ipv6(text, host)
    text = text.removesuffix(".")
    if _ends_in_a_number(text):
        return _ipv4(text, host)
    return _name(text, host)


def _ipv6(text: str, host: str) -> Address:
    if "%" in text:
        raise EgressRefused(host, "an address with a zone is link-local")
    try:
        return _peel(IPv6Address(text.strip()))
    except AddressValueError:
        raise NotAHost(host) from None


def _ends_in_a_number(text: str) -> bool:
    """Whether any resolver would take it for an IPv4 address (WHATWG URL, "ends in a number")."""
    last = text.rpartition(".")[2]
    return last.isdigit() or _HEXADECIMAL.fullmatch(last) is not None


def _ipv4(text: str, host: str) -> IPv4Address:
    parts = text.split(".")
    if len(parts) > 4:
        raise NotAHost(host)
    try:
        numbers = [_number(part) for part in parts]
    except ValueError:
        raise NotAHost(host) from None
    *heads, tail = numbers
    if any(head > 255 for head in heads) or tail >= 256 ** (4 - len(heads)):
        raise NotAHost(host)
    return IPv4Address(sum(head << (24 - 8 * place) for place, head in enumerate(heads)) + tail)


def _number(part: str) -> int:
    if not part.isascii() or not part.isalnum() or len(part) > 64:
        raise ValueError(part)
    if part[:2] in {"0x", "0X"}:
        return int(part[2:] or "0", 16)
    return int(part, 8) if len(part) > 1 and part.startswith("0") else int(part, 10)


def _name(text: str, host: str) -> str:
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise NotAHost(host) from None
    text = text.lower()
    if _ends_in_a_number(text) or len(text) > 253 or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise NotAHost(host)
    return text


# Resolving ----------------------------------------------------------------------------------------------------------

Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Host and port in, addresses out. Raises `OSError` for a name without any."""


async def system_lookup(host: str, port: int) -> list[str]:
    """Asks the operating system's resolver."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def resolve(
    host: str, port: int, policy: EgressPolicy, timeout_s: float, lookup: Lookup = system_lookup
) -> Pinned:
    """Looks the host up once and keeps the addresses that the policy allows, in their order.

    Raises `EgressRefused` if none is left, `NameNotResolved` if there was none or it took longer than `timeout_s`.
    """
    canonical = canonical_host(host)
    if not isinstance(canonical, str):
        decision = policy.decide(canonical)
        if not decision.is_allowed:
            raise _refused(host, decision)
        return Pinned(str(canonical), (str(canonical),))
    found = await _look_up(canonical, port, timeout_s, lookup)
    decisions = [(address, policy.decide(address, canonical)) for address in found]
    allowed = tuple(address for address, decision in decisions if decision.is_allowed)
    if not allowed:
        raise EgressRefused(host, f"it leads to {decisions[0][1].reason}" if found else "it leads nowhere")
    return Pinned(canonical, allowed[:MAX_ADDRESSES])


GLANCE_S: Final = 1.0
"""For a look at what a name leads to, where the proxy looks it up in the end: a hub behind one may have no DNS that
answers for names outside."""


async def find_way(
    host: str, port: int, policy: EgressPolicy, timeout_s: float, lookup: Lookup = system_lookup
) -> Pinned | ByProxy:
    """As `resolve`, or through the proxy, where there is one that the host is not exempt from.

    An address is judged as ever. A name is judged by itself, and by every address that it has here: none of them can be
    pinned, so a single one that is refused refuses the name. Of a name that has no address here, and of what it leads
    to at the proxy, nothing is known. Raises as `resolve` does.
    """
    canonical = canonical_host(host)
    if policy.proxy is None or (isinstance(canonical, str) and policy.is_direct_name(canonical)):
        return await resolve(host, port, policy, timeout_s, lookup)
    if not isinstance(canonical, str):
        pinned = await resolve(host, port, policy, timeout_s, lookup)
        return pinned if policy.is_direct(canonical) else ByProxy(pinned.host, policy.proxy)
    return await _way_to_name(canonical, port, policy, policy.proxy, min(timeout_s, GLANCE_S), lookup)


async def _way_to_name(
    name: str, port: int, policy: EgressPolicy, proxy: EgressProxy, timeout_s: float, lookup: Lookup
) -> Pinned | ByProxy:
    by_name = policy.decide_name(name)
    if not by_name.is_allowed:
        raise _refused(name, by_name)
    try:
        found = await _look_up(name, port, timeout_s, lookup)
    except NameNotResolved:
        found = []
    decisions = [(address, policy.decide(address, name)) for address in found]
    allowed = [address for address, decision in decisions if decision.is_allowed]
    if direct := tuple(address for address in allowed if policy.is_direct(address, name)):
        return Pinned(name, direct[:MAX_ADDRESSES])
    for _, decision in decisions:
        if not decision.is_allowed:
            raise EgressRefused(name, f"it leads to {decision.reason}")
    return ByProxy(name, proxy)


def _refused(host: str, decision: Decision) -> EgressRefused:
    return EgressRefused(host, f"it is {decision.reason}" if " by " not in decision.reason else decision.reason)


async def _look_up(host: str, port: int, timeout_s: float, lookup: Lookup) -> list[str]:
    try:
        async with asyncio.timeout(timeout_s):
            found = await lookup(host, port)
    except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
        raise NameNotResolved(host) from error
    if not found:
        raise NameNotResolved(host)
    return [str(_peel(_parsed(address))) for address in found]


def _parsed(address: str) -> Address:
    """A resolver's answer; a zone id marks a link-local address, which the range already says."""
    return ip_address(address.partition("%")[0])
