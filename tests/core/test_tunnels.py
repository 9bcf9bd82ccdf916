"""Ways out through a corporate proxy: how it is named, what is judged before it is asked, and what its answers mean."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import pytest

from app.core.egress import ByProxy, EgressPolicy, EgressRefused, Lookup, NameNotResolved, Pinned, find_way
from app.core.tunnels import EgressProxy, TunnelFailed, open_tunnel
from tests.connectors.servers.connect_proxy import PASSWORD, USER, ConnectProxy, serving

pytestmark = pytest.mark.anyio

PROXY = EgressProxy("proxy.example.org", 3128)


def finding(*addresses: str) -> Lookup:
    async def lookup(host: str, port: int) -> list[str]:
        if not addresses:
            raise socket.gaierror
        return list(addresses)

    return lookup


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy:3128", ("proxy", 3128, "", "")),
        ("http://hub:pw@proxy.example.org:8080/", ("proxy.example.org", 8080, "hub", "pw")),
        ("http://hub:p%3Aw%40%C3%BC@[::1]:3128", ("::1", 3128, "hub", "p:w@ü")),
        ("http://hub@proxy:3128", ("proxy", 3128, "hub", "")),
    ],
)
def test_a_proxy_is_named_by_a_url(url: str, expected: tuple[Any, ...]) -> None:
    proxy = EgressProxy.parse(url)
    assert (proxy.host, proxy.port, proxy.username, proxy.password) == expected
    assert "pw" not in repr(proxy)


@pytest.mark.parametrize(
    "url",
    [
        "proxy:3128",
        "https://proxy:3128",
        "socks5://proxy:1080",
        "http://proxy",
        "http://:3128",
        "http://proxy:0",
        "http://proxy:99999",
        "http://proxy:3128/path",
        "http://proxy:3128?x=1",
        "http://hub:canary@proxy:3128#x",
        "http://hub:canary%0D%0AX@proxy:3128",
        "http://hub:can ary@proxy:3128",
        "http://h%3Aub:canary@proxy:3128",
    ],
)
def test_what_is_no_url_of_a_proxy_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="is wanted") as caught:
        EgressProxy.parse(url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "found", "direct", "expected"),
    [
        ("db.example.org", ["93.184.216.34"], (), ByProxy("db.example.org", PROXY)),
        ("DB.example.org.", [], (), ByProxy("db.example.org", PROXY)),
        ("93.184.216.34", [], (), ByProxy("93.184.216.34", PROXY)),
        ("0x5db8d822", [], (), ByProxy("93.184.216.34", PROXY)),
        ("93.184.216.34", [], ("93.184.216.0/24",), Pinned("93.184.216.34", ("93.184.216.34",))),
        ("db.corp.example", ["10.1.2.3"], ("10.0.0.0/8",), Pinned("db.corp.example", ("10.1.2.3",))),
        ("db.corp.example", ["10.1.2.3"], ("*.corp.example",), Pinned("db.corp.example", ("10.1.2.3",))),
        ("db.corp.example", ["10.1.2.3"], (), ByProxy("db.corp.example", PROXY)),
    ],
)
async def test_everything_but_what_is_exempt_goes_through_the_proxy(
    host: str, found: Sequence[str], direct: tuple[str, ...], expected: ByProxy | Pinned
) -> None:
    policy = EgressPolicy(allow=("10.0.0.0/8",), proxy=PROXY, direct=direct)
    assert await find_way(host, 5432, policy, 1, finding(*found)) == expected


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("db.example.org", ["10.0.0.1"]),
        ("db.example.org", ["93.184.216.34", "10.0.0.1"]),
        ("db.example.org", ["169.254.169.254"]),
        ("10.0.0.1", []),
        ("169.254.169.254", []),
        ("240.0.0.1", []),
        ("localhost", []),
        ("a.localhost", ["93.184.216.34"]),
        ("denied.example.org", []),
    ],
)
async def test_a_name_is_judged_by_itself_and_by_every_address_that_is_found_here(
    host: str, found: Sequence[str]
) -> None:
    """The proxy may take any of them, so a single one that is refused is too many."""
    policy = EgressPolicy(proxy=PROXY, deny=("denied.example.org",))
    with pytest.raises(EgressRefused):
        await find_way(host, 443, policy, 1, finding(*found))


async def test_a_name_that_is_exempt_has_to_resolve_here() -> None:
    with pytest.raises(NameNotResolved):
        await find_way("db.corp.example", 443, EgressPolicy(proxy=PROXY, direct=("*.corp.example",)), 1, finding())


@pytest.mark.parametrize(
    ("answer", "problem", "status"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "refused", 403),
        (b"HTTP/1.1 429 Too Many\r\n\r\n", "refused", 429),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "target_unreachable", 502),
        (b"HTTP/1.1 504 Gateway Timeout\r\n\r\n", "timeout", 504),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "invalid", 100),
        (b"HTTP/2 200\r\n\r\n", "invalid", None),
        (b"", "timeout", None),
    ],
)
async def test_each_answer_of_the_proxy_is_told_apart(answer: bytes, problem: str, status: int | None) -> None:
    proxy = ConnectProxy()
    proxy.answers = [answer]
    async with serving(proxy):
        with pytest.raises(TunnelFailed) as caught:
            await open_tunnel(proxy.seen(), "db.example.org", 5432, 0.5)
    assert (caught.value.problem, caught.value.status) == (problem, status)


async def test_a_target_that_is_an_ipv6_address_is_written_in_brackets() -> None:
    async with serving(ConnectProxy()) as proxy:
        with pytest.raises(TunnelFailed):
            await open_tunnel(proxy.seen(), "::1", 1, 5)
    assert proxy.asked == ["[::1]:1"]


async def test_the_credentials_go_to_the_proxy_as_they_are() -> None:
    async with serving(ConnectProxy(names={"shop": "127.0.0.1"})) as far, serving(ConnectProxy()) as proxy:
        sock = await open_tunnel(proxy.seen(), "127.0.0.1", far.port, 5)
        sock.close()
        with pytest.raises(TunnelFailed) as caught:
            await open_tunnel(proxy.seen(password="other"), "127.0.0.1", far.port, 5)
    assert caught.value.problem == "unauthorized"
    assert USER not in str(caught.value)
    assert PASSWORD not in str(caught.value)
