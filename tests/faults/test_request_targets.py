"""What the server beneath the hub tells of a request's head, as the README says: more than it takes is a proxy's part."""

import socket
from collections.abc import Iterator

import pytest

from tests.commands.hubs import Served, fresh_folder

pytestmark = [pytest.mark.slow, pytest.mark.found("A10")]


@pytest.fixture(scope="module")
def hub() -> Iterator[Served]:
    with fresh_folder() as folder:
        served = Served(folder, HUB_ALLOWED_HOSTS="hub.example.org")
        served.wait_for("app worker")
        yield served
        served.stop()


def answer(hub: Served, head: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", hub.port)) as connection:
        connection.settimeout(60)
        connection.sendall(head)
        return connection.recv(65536)


TARGET = b"GET http://%s/health/live HTTP/1.1\r\n%s\r\n"


@pytest.mark.parametrize(
    ("target", "host", "is_known"),
    [
        (b"elsewhere.example", b"", False),
        (b"hub.example.org", b"", True),
        (b"hub.example.org", b"Host: elsewhere.example\r\n", False),
        (b"elsewhere.example", b"Host: hub.example.org\r\n", True),
    ],
)
def test_host_counts_and_without_it_the_host_of_the_target(
    hub: Served, target: bytes, host: bytes, is_known: bool
) -> None:
    """The last one is for the proxy: the server does not tell the hub of that target's host."""
    answered = answer(hub, TARGET % (target, host))
    assert answered.startswith(b"HTTP/1.1 200 " if is_known else b"HTTP/1.1 400 ")
    assert (b"unknown_host" in answered) is not is_known


def test_a_head_of_bare_line_feeds_is_judged_by_its_host_as_well(hub: Served) -> None:
    assert answer(hub, b"GET /health/live HTTP/1.1\nHost: elsewhere.example\n\n").startswith(b"HTTP/1.1 400 ")
    assert answer(hub, b"GET /health/live HTTP/1.1\nHost: hub.example.org\n\n").startswith(b"HTTP/1.1 200 ")
