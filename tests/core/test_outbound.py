"""POSTs to where others said: what an endpoint may answer, and where none is ever sent (SS1, RL5)."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from app.core.egress import EgressPolicy
from app.core.outbound import MAX_BODY_BYTES, Destination, Limits, PostFailure, Reply, target_of
from tests.connectors.servers import connect_proxy
from tests.connectors.servers.connect_proxy import ConnectProxy
from tests.receivers import (
    Answering,
    answers,
    drips,
    hangs_up,
    keeps_silent,
    never_ends,
    receiving,
    speaks_nonsense,
    takes,
    trusting_the_tests,
)

pytestmark = pytest.mark.anyio

OPEN = EgressPolicy(loopback_allowed=True)
SHUT = EgressPolicy()
USUAL = Limits()
SHORT = Limits(connect_s=1.0, total_s=0.5)
"""For what never answers."""


async def posted(
    url: str, policy: EgressPolicy = OPEN, body: bytes = b"{}", limits: Limits = USUAL, **given: Any
) -> Reply:
    destination = Destination(url, policy, limits=limits, **given)
    try:
        return await destination.post({"x-kept": "yes"}, body)
    finally:
        await destination.close()


async def test_what_is_taken_is_told_with_its_status() -> None:
    async with receiving() as receiver:
        reply = await posted(receiver.url, body=b'{"a": 1}')
    assert (reply.status, reply.failure) == (204, None)
    assert reply.duration_ms > 0
    (received,) = receiver.received
    assert received.body == b'{"a": 1}'
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert received.headers["x-kept"] == "yes"


@pytest.mark.parametrize(
    ("answering", "status", "failure"),
    [
        (answers(200, b"fine"), 200, None),
        (answers(201), 201, None),
        (answers(400, b"no"), 400, "http_error"),
        (answers(404), 404, "http_error"),
        (answers(429, b"", retry_after="1"), 429, "http_error"),
        (answers(500, b"x" * 100_000), 500, "http_error"),
        (answers(503), 503, "http_error"),
        (answers(410), 410, "gone"),
        (keeps_silent, None, "timeout"),
        (drips, None, "timeout"),
        (never_ends, 200, None),
        (hangs_up, None, "connection_lost"),
        (speaks_nonsense, None, "response_invalid"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_every_answer_has_an_end(answering: Answering, status: int | None, failure: PostFailure | None) -> None:
    async with receiving(answering) as receiver:
        limits = SHORT if failure == "timeout" else USUAL
        reply = await asyncio.wait_for(posted(receiver.url, limits=limits), 20)
    assert (reply.status, reply.failure) == (status, failure)


async def test_a_head_of_informational_answers_without_end_is_given_up() -> None:
    async def informs(_: Any, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with receiving(informs) as receiver:
        assert (await asyncio.wait_for(posted(receiver.url, limits=SHORT), 5)).failure == "timeout"


async def test_a_body_that_trickles_is_not_waited_for() -> None:
    async def trickles(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with receiving(trickles) as receiver:
        reply = await asyncio.wait_for(posted(receiver.url), 10)
    assert (reply.status, reply.failure) == (200, None)


async def test_of_a_long_answer_a_few_kilobytes_are_read() -> None:
    sent = 0

    async def counts(_: Any, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 20_000 * MAX_BODY_BYTES:
            writer.write(b"x" * MAX_BODY_BYTES)
            await writer.drain()
            sent += MAX_BODY_BYTES

    async with receiving(counts) as receiver:
        assert (await posted(receiver.url)).failure is None
        await asyncio.sleep(0.2)
    assert sent < 20_000 * MAX_BODY_BYTES, "the connection was hung up"


async def test_messages_share_a_connection() -> None:
    async with receiving(answers(200, b"fine")) as receiver:
        destination = Destination(receiver.url, OPEN)
        for _ in range(3):
            assert (await destination.post({}, b"{}")).failure is None
        await destination.close()
    assert (len(receiver.received), receiver.connections) == (3, 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with receiving() as inside, receiving(answers(status, location=inside.url)) as receiver:
        reply = await posted(receiver.url)
    assert (reply.status, reply.failure) == (status, "redirected")
    assert not inside.received


async def test_nothing_listens() -> None:
    async with receiving() as receiver:
        url = receiver.url
    assert (await posted(url)).failure == "connection_refused"


# --- TLS ---


async def test_a_certificate_is_held_against_the_name() -> None:
    async with receiving(host="localhost", certificate_for="localhost") as receiver:
        reply = await posted(receiver.url, authorities=trusting_the_tests())
    assert (reply.status, reply.failure) == (204, None)
    assert receiver.received[0].headers["host"] == f"localhost:{receiver.port}"


@pytest.mark.parametrize(
    ("host", "certificate_for"),
    [("localhost", "hooks.example.org"), ("localhost", "127.0.0.1"), ("127.0.0.1", "localhost")],
)
async def test_a_certificate_for_another_host_is_refused(host: str, certificate_for: str) -> None:
    async with receiving(host=host, certificate_for=certificate_for) as receiver:
        reply = await posted(receiver.url, authorities=trusting_the_tests())
    assert (reply.status, reply.failure) == (None, "certificate_invalid")
    assert not receiver.received


async def test_a_certificate_of_nobody_known_is_refused() -> None:
    async with receiving(host="localhost", certificate_for="localhost") as receiver:
        assert (await posted(receiver.url)).failure == "certificate_invalid"
    assert not receiver.received


async def test_what_speaks_no_tls_is_not_spoken_to() -> None:
    async with receiving() as receiver:
        url = receiver.url.replace("http:", "https:")
        assert (await posted(url, limits=Limits(connect_s=1.0, total_s=3.0))).failure in (
            "tls_failed",
            "timeout",
            "connect_timeout",
        )
    assert not receiver.received


# --- where nothing is sent ---


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]", "127.1", "１２７.0.0.1",
        "10.0.0.1", "192.168.1.1", "169.254.169.254", "[fe80::1]", "0.0.0.0", "[64:ff9b::7f00:1]", "100.64.0.1",
    ],
)  # fmt: skip
async def test_the_policy_sees_through_every_spelling(host: str) -> None:
    assert (await posted(f"https://{host}/hook", SHUT)).failure == "egress_refused"


async def test_a_denial_wins_over_loopback() -> None:
    async with receiving() as receiver:
        reply = await posted(receiver.url, EgressPolicy(loopback_allowed=True, deny=("127.0.0.0/8",)))
    assert reply.failure == "egress_refused"
    assert not receiver.received


Resolver = Callable[[list[str]], None]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """Every look-up of `rebound.example.org` gets the next address; the last one stays."""

    def set_up(addresses: list[str]) -> None:
        real, left = socket.getaddrinfo, list(addresses)

        def answer(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "rebound.example.org":
                return real(host, port, *args, **kwargs)
            address = left.pop(0) if len(left) > 1 else left[0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0))]

        monkeypatch.setattr(socket, "getaddrinfo", answer)

    return set_up


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254"])
async def test_a_name_that_resolves_inward_is_refused(resolver: Resolver, address: str) -> None:
    resolver([address])
    assert (await posted("https://rebound.example.org/hook", SHUT)).failure == "egress_refused"


async def test_a_name_that_changes_between_check_and_dial_leads_nowhere_else(resolver: Resolver) -> None:
    """Found public and judged so, then changed to this machine: what was found first is dialled, whoever asks again."""
    async with receiving() as receiver:
        resolver(["203.0.113.9", "127.0.0.1"])  # a documentation address, which is refused at once
        refused = await posted(f"https://rebound.example.org:{receiver.port}/hook", SHUT)
        resolver(["127.0.0.1", "10.9.9.9"])
        destination = Destination(f"http://rebound.example.org:{receiver.port}/hook", OPEN)
        taken = [await destination.post({}, b"{}") for _ in range(3)]
        await destination.close()
    assert refused.failure == "egress_refused"
    assert [reply.failure for reply in taken] == [None, None, None]
    assert len(receiver.received) == 3, "the second address, which the policy refuses, was never asked for"


async def test_only_this_machine_is_reached_without_encryption(resolver: Resolver) -> None:
    resolver(["93.184.215.14"])
    assert (await posted("http://rebound.example.org/hook", OPEN)).failure == "insecure_url"


async def test_a_name_without_an_address() -> None:
    assert (await posted("https://no-such-name.invalid/hook")).failure == "name_not_resolved"


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, receiving(takes) as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert (await posted(receiver.url)).failure is None
    assert not proxy.received


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/", "https://", "https:///path", "https://user@a.example/", "https://u:p@a.example/", "a.example/hook",
        "https://a.example:0/", "https://a.example:99999/", "https://a b.example/", "https://[::1/", "file:///etc/passwd",
        "https://a.example\\@b.example/", "https://-.example/",
    ],
)  # fmt: skip
def test_what_is_no_target(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(must|names)"):
        target_of(url)


def test_a_target_has_one_spelling() -> None:
    target = target_of("https://HOOKS.Example.org.:8443/a?b=c#d")
    assert (target.is_encrypted, target.host, target.port) == (True, "hooks.example.org", 8443)
    assert target_of("https://0x7f.1/").host == "127.0.0.1"


# --- through the proxy ---

BEHIND = "hooks.behind.example"
"""A name that the proxy alone knows."""


async def test_where_everything_goes_by_a_proxy_so_does_this() -> None:
    async with (
        connect_proxy.serving(ConnectProxy(names={BEHIND: "127.0.0.1"})) as proxy,
        receiving(host=BEHIND, certificate_for=BEHIND) as receiver,
    ):
        policy = structs.replace(OPEN, proxy=proxy.seen())
        reply = await posted(receiver.url, policy, authorities=trusting_the_tests())
        refused = await posted(receiver.url, structs.replace(OPEN, proxy=proxy.seen(password="another")))
        unencrypted = await posted(receiver.url.replace("https", "http"), policy)
    assert (reply.status, reply.failure) == (204, None)
    assert set(proxy.asked) == {f"{BEHIND}:{receiver.port}"}
    assert receiver.received[0].headers["host"] == f"{BEHIND}:{receiver.port}"
    assert (refused.failure, unencrypted.failure) == ("proxy_refused", "insecure_url")
    assert len(receiver.received) == 1


async def test_by_a_proxy_the_certificate_is_checked_against_the_name() -> None:
    async with (
        connect_proxy.serving(ConnectProxy(names={BEHIND: "127.0.0.1"})) as proxy,
        receiving(host=BEHIND, certificate_for="localhost") as receiver,
    ):
        policy = structs.replace(OPEN, proxy=proxy.seen())
        reply = await posted(receiver.url, policy, authorities=trusting_the_tests())
    assert (reply.failure, receiver.received) == ("certificate_invalid", [])


async def test_what_is_dialled_without_the_proxy_is() -> None:
    async with connect_proxy.serving(ConnectProxy()) as proxy, receiving() as receiver:
        direct = structs.replace(OPEN, proxy=proxy.seen(), direct=("127.0.0.0/8",))
        assert (await posted(receiver.url, direct)).status == 204
        assert (await posted(receiver.url, structs.replace(SHUT, proxy=proxy.seen()))).failure == "egress_refused"
    assert proxy.asked == []
