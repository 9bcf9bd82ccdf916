"""RL2 on a whole hub: connections on which little or nothing comes keep nobody else from being answered."""

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest

from app.core.connections import FIRST_BYTE_S, FIRST_HEAD_S
from app.core.frame import MOST_UNDER_WAY
from tests.serving import Served, serving

pytestmark = [pytest.mark.slow, pytest.mark.found("L2", "A3", "RL2"), pytest.mark.fault("RL2")]

ANSWERED_WITHIN_S = 5.0
"""On a machine that is busy otherwise; they would be in the way for over a minute."""
SLACK_S = 4.0
HALF_HEAD = b"GET /health/live HTTP/1.1\r\nHost: h\r\nX-Slow: "
HALF_BODY = (
    b"POST /api/v1/auth/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
)
WHOLE = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n"
UNREAD = b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def hub() -> Iterator[Served]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with serving(HUB_LOG_LEVEL="error") as served:
        yield served
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(hub: Served, sent: bytes = b"", window: int | None = None) -> socket.socket:
    url = httpx.URL(hub.url)
    connection = socket.socket()
    if window is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    connection.settimeout(30)
    connection.connect((url.host, url.port))
    connection.sendall(sent)
    return connection


@contextmanager
def crowd(hub: Served, count: int, sent: bytes = b"", window: int | None = None) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connected(hub, sent, window)) for _ in range(count)]


@contextmanager
def more_and_more(crowd: list[socket.socket], part: bytes) -> Iterator[None]:
    """Each of them sends another byte twice a second."""
    over = threading.Event()

    def trickle() -> None:
        while not over.wait(0.5):
            for each in crowd:
                with suppress(OSError):
                    each.sendall(part)

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def slowest(hub: Served, path: str, *, seconds: float, token: str | None = None) -> float:
    """Of requests on connections of their own, one after the other. Each has to be a 200."""
    ends, worst = time.monotonic() + seconds, 0.0
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    while (began := time.monotonic()) < ends:
        assert httpx.get(hub.url + path, headers=headers, timeout=30, trust_env=False).status_code == 200
        worst = max(worst, time.monotonic() - began)
    return worst


@pytest.mark.parametrize("count", [1_100, 3_000, 6_000])
def test_silent_connections_are_in_nobodys_way(hub: Served, count: int) -> None:
    token = hub.sign_in()
    with crowd(hub, count):
        assert slowest(hub, "/health/live", seconds=2) < ANSWERED_WITHIN_S
        assert slowest(hub, "/health/ready", seconds=1) < ANSWERED_WITHIN_S
        assert slowest(hub, "/api/v1/auth/me", seconds=1, token=token) < ANSWERED_WITHIN_S


def test_heads_that_come_slowly_are_in_nobodys_way(hub: Served) -> None:
    with crowd(hub, 4_000, HALF_HEAD) as slow, more_and_more(slow, b"x"):
        assert slowest(hub, "/health/live", seconds=4) < ANSWERED_WITHIN_S


def test_idle_connections_are_in_nobodys_way(hub: Served) -> None:
    with crowd(hub, 4_200, WHOLE):
        assert slowest(hub, "/health/live", seconds=3) < ANSWERED_WITHIN_S


def test_more_slow_bodies_than_are_taken_are_refused_at_once_and_probes_get_through(hub: Served) -> None:
    with crowd(hub, MOST_UNDER_WAY + 1_600, HALF_BODY) as slow:
        assert slowest(hub, "/health/live", seconds=2) < ANSWERED_WITHIN_S
        refused = httpx.get(f"{hub.url}/api/v1/auth/me", timeout=30, trust_env=False)
        assert (refused.status_code, refused.json()["code"]) == (503, "server_busy")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["connection"] == "close"
        assert b'"code":"server_busy"' in slow[-1].recv(65536)
    assert slowest(hub, "/health/live", seconds=1) < ANSWERED_WITHIN_S


def test_answers_that_nobody_takes_are_in_nobodys_way(hub: Served) -> None:
    with crowd(hub, 1_500, UNREAD, window=2048):
        assert slowest(hub, "/health/live", seconds=3) < ANSWERED_WITHIN_S


def seconds_until_closed(connection: socket.socket) -> float:
    began = time.monotonic()
    while connection.recv(65536):
        pass
    return time.monotonic() - began


def test_one_that_never_asks_is_closed_soon(hub: Served) -> None:
    with connected(hub) as silent, connected(hub, HALF_HEAD) as half:
        silent_s = seconds_until_closed(silent)
        half_s = silent_s + seconds_until_closed(half)
    assert FIRST_BYTE_S - 0.5 < silent_s < FIRST_BYTE_S + SLACK_S
    assert FIRST_HEAD_S - 0.5 < half_s < FIRST_HEAD_S + SLACK_S


def test_one_that_was_asked_on_is_kept_for_the_next_request(hub: Served) -> None:
    with connected(hub, WHOLE) as kept:
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
        time.sleep(FIRST_HEAD_S + SLACK_S)
        kept.sendall(WHOLE)
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")


REFUSED = b"POST /api/v1/roles HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def test_a_body_that_comes_behind_a_refusal_does_not_cost_the_connection(hub: Served) -> None:
    """Head and body are two packets for many clients, and a refusal needs the head alone."""
    for _ in range(20):
        with connected(hub, REFUSED % 20) as connection:
            time.sleep(0.05)
            connection.sendall(b"x" * 20)
            assert connection.recv(65536).startswith(b"HTTP/1.1 401")
            connection.sendall(WHOLE)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("length", "sent"), [(20, 0), (200_000, 0), (200_000, 200_000)])
def test_who_is_refused_with_a_body_under_way_is_told_that_the_connection_ends(
    hub: Served, length: int, sent: int
) -> None:
    with connected(hub, REFUSED % length) as connection:
        connection.sendall(b"x" * sent)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"\r\nconnection: close\r\n" in answer.lower()
