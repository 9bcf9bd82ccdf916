"""The HTTP client beyond what the types show of it: methods, ranges, streams and bodies that are cut."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.pinning import Network
from app.connectors.contract.steps import Steps
from app.connectors.network.http import HttpClient, origin_of
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY
from tests.connectors.servers.starting import scripted_server

pytestmark = pytest.mark.anyio

CONTENT = bytes(range(256)) * 4096


def answer(body: bytes = b"", status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n".encode() + body


@contextmanager
def server(respond: Callable[[bytes], bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Yields its URL and the requests that it got."""
    heard: list[bytes] = []

    def script(connection: socket.socket) -> None:
        heard.append(connection.recv(65_536))
        connection.sendall(respond(heard[-1]))

    with scripted_server(script) as port:
        yield f"http://127.0.0.1:{port}", heard


@pytest.fixture
def client(loopback: EgressPolicy) -> HttpClient:
    return HttpClient(Network(loopback), read_timeout_s=2)


async def test_what_is_asked_for_goes_with_a_redirect_and_who_asks_does_not(client: HttpClient) -> None:
    with (
        server(lambda _: answer(b"<x/>", "207 Multi-Status")) as (far, far_heard),
        server(lambda _: answer(b"", "301 Moved", f"Location: {far}/files/\r\n")) as (near, _),
    ):
        response = await client.request(
            "PROPFIND",
            f"{near}/files",
            headers={"authorization": CANARY},
            open_headers={"depth": "1"},
            content=CANARY.encode(),
        )
    assert (response.status, response.body, response.url) == (207, b"<x/>", f"{far}/files/")
    (request,) = far_heard
    assert request.startswith(b"PROPFIND /files/ HTTP/1.1")
    assert b"depth: 1" in request.lower()
    assert CANARY.encode() not in request


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_request_that_writes_follows_no_redirect(client: HttpClient, status: str) -> None:
    with server(lambda _: answer(b"", status, "Location: /again\r\n")) as (url, heard):
        response = await client.request("POST", url, content=b"x")
    assert str(response.status) == status[:3]
    assert len(heard) == 1


async def test_a_range_is_asked_for_uncompressed(client: HttpClient) -> None:
    with server(lambda _: answer(CONTENT[10:20], "206 Partial Content")) as (url, heard):
        response = await client.request("GET", url, byte_range=(10, 20))
    assert (response.status, response.body) == (206, CONTENT[10:20])
    assert b"range: bytes=10-19" in heard[0].lower()
    assert b"accept-encoding: identity" in heard[0].lower()


async def test_a_range_survives_a_redirect_to_another_origin(client: HttpClient) -> None:
    with (
        server(lambda _: answer(CONTENT[:5], "206 Partial Content")) as (far, heard),
        server(lambda _: answer(b"", "302 Found", f"Location: {far}/x\r\n")) as (near, _),
    ):
        assert (await client.request("GET", near, byte_range=(0, 5))).body == CONTENT[:5]
    assert b"range: bytes=0-4" in heard[0].lower()


@pytest.mark.parametrize("is_compressed", [False, True])
async def test_a_body_that_is_too_long_is_refused_or_cut(client: HttpClient, is_compressed: bool) -> None:
    body = gzip.compress(CONTENT) if is_compressed else CONTENT
    headers = "Content-Encoding: gzip\r\n" if is_compressed else ""
    with server(lambda _: answer(body, headers=headers)) as (url, _):
        with pytest.raises(ConnectorError) as caught:
            await client.request("GET", url, max_bytes=1000)
        assert caught.value.code == "response_too_large"
        cut = await client.request("GET", url, max_bytes=1000, may_cut=True)
        assert (cut.body, cut.is_whole) == (CONTENT[:1000], False)
        whole = await client.request("GET", url, max_bytes=len(CONTENT))
        assert (whole.body, whole.is_whole) == (CONTENT, True)


async def test_a_stream_gives_its_pieces_and_can_be_left(client: HttpClient) -> None:
    with server(lambda _: answer(CONTENT)) as (url, _):
        async with client.stream("GET", url) as stream:
            assert b"".join([piece async for piece in stream.pieces]) == CONTENT
        async with client.stream("GET", url) as stream:
            first = await anext(stream.pieces)
        assert CONTENT.startswith(first)


async def test_a_server_that_stops_in_the_middle_is_explained(client: HttpClient) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    with server(lambda _: half) as (url, _), pytest.raises(ConnectorError) as caught:
        await client.request("GET", url)
    assert caught.value.code == "connection_lost"


async def test_a_certificate_of_the_client_that_is_none_is_named(loopback: EgressPolicy) -> None:
    broken = HttpClient(Network(loopback), client_certificate="-----BEGIN X", client_key=CANARY)
    with pytest.raises(ConnectorError) as caught:
        await broken.request("GET", "https://127.0.0.1:1/")
    assert caught.value.code == "invalid_configuration"
    assert CANARY not in caught.value.message


def test_origins_are_told_apart_by_scheme_host_and_port() -> None:
    assert origin_of("https://EXAMPLE.org/a") == origin_of("https://example.org:443/b")
    assert origin_of("http://example.org") != origin_of("https://example.org")


@pytest.mark.parametrize(
    "url", ["http://api.invalid\\@evil.invalid/", "http://api.invalid\\.evil.invalid/", "http://a:0/"]
)
def test_an_address_that_two_readers_could_take_for_two_is_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        origin_of(url)


async def test_a_backslash_in_a_path_is_a_part_of_a_name(client: HttpClient) -> None:
    with server(lambda _: answer()) as (url, heard):
        await client.get(rf"{url}/\\evil.invalid\x")
    assert heard[0].startswith(b"GET /\\\\evil.invalid\\x HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("path", "sent"),
    [("/dätä/a b", b"/d%C3%A4t%C3%A4/a%20b"), ("/x?sig=ü", b"/x"), ("", b"/"), ("/a%20b", b"/a%20b")],
)
async def test_a_greeting_is_encoded_as_requests_are(path: str, sent: bytes, client: HttpClient) -> None:
    with server(lambda _: answer()) as (url, heard):
        await client.reach(Steps(), url + path)
    (greeting,) = heard
    host = url.removeprefix("http://").encode()
    assert greeting == b"HEAD %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (sent, host)


async def test_what_a_server_calls_a_url_and_is_none_is_said_to_be_none(client: HttpClient) -> None:
    with server(lambda _: answer()) as (url, heard), pytest.raises(ConnectorError) as caught:
        await client.get(f"{url}/next\x01page")
    assert caught.value.code == "response_invalid"
    assert heard == []
