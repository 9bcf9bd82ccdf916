"""RL2: which connections are kept on which nobody asks anything, and for how long."""

import resource
import socket
import time
from collections.abc import Iterator

import pytest

from app.core import connections
from app.core.connections import Connections, Quiet, connection_limit, facts_of

pytestmark = pytest.mark.found("L2", "A3")

SILENT, HALF_HEAD, IDLE, UNTAKEN = (0, 0, 0), (30, 0, 0), (500, 400, 0), (500, 400, 90_000)
ROOM, CROWDED, FULL = 0.1, 0.3, 0.8


@pytest.mark.parametrize(
    ("counts", "share", "kept_s", "closed_s"),
    [
        (SILENT, ROOM, 4, 6),
        (HALF_HEAD, ROOM, 9, 11),
        (IDLE, ROOM, 100_000, None),  # the server's own limit is what ends it
        (UNTAKEN, ROOM, 29, 31),
        (SILENT, CROWDED, 4, 6),
        (HALF_HEAD, CROWDED, 4, 6),
        (IDLE, CROWDED, 4, 6),
        (UNTAKEN, CROWDED, 29, 31),
        (SILENT, FULL, 0.4, 0.6),
        (HALF_HEAD, FULL, 0.4, 0.6),
        (IDLE, FULL, 0.4, 0.6),
        (UNTAKEN, FULL, 4, 6),
    ],
)
def test_patience_hangs_on_what_came_and_on_how_many_there_are(
    counts: tuple[int, int, int], share: float, kept_s: float, closed_s: float | None
) -> None:
    assert Quiet(*counts, kept_s).is_kept(share)
    assert closed_s is None or not Quiet(*counts, closed_s).is_kept(share)


def test_proxies_that_keep_connections_for_a_minute_find_them_open() -> None:
    assert connections.KEEP_ALIVE_S > 60


def test_requests_under_way_never_use_up_all_connections() -> None:
    from app.core.frame import MOST_UNDER_WAY

    assert MOST_UNDER_WAY <= connections.CONNECTIONS * connections.CROWDED


def test_a_process_may_open_what_it_takes_and_more() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(hard, 600)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
        found = connection_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= found + connections.OTHER_FILES or found < 600
        assert found == min(connections.CONNECTIONS, hard - connections.OTHER_FILES)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client, and the server's side of its connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as served,
    ):
        yield client, served


def test_what_the_kernel_says_of_a_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    client, served = pair
    new = facts_of(served)
    assert (new.received, new.taken, new.untaken) == (0, 0, 0)
    time.sleep(0.3)
    assert facts_of(served).since_s >= 0.25
    client.sendall(b"GET / HT")
    time.sleep(0.05)
    asked = facts_of(served)
    assert (asked.received, asked.taken) == (8, 0)
    assert asked.since_s >= 0.25, "what comes slowly does not make it wait anew"
    served.sendall(b"answer")
    time.sleep(0.05)
    answered = facts_of(served)
    assert (answered.received, answered.taken, answered.untaken) == (8, 6, 0)
    assert answered.since_s < 0.25


def test_an_answer_that_nobody_takes_is_seen(pair: tuple[socket.socket, socket.socket]) -> None:
    _, served = pair
    served.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            served.send(b"x" * 65536)
    assert facts_of(served).untaken > 0


def test_only_quiet_connections_of_the_servers_own_port_are_closed(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Quiet, "is_kept", lambda *_: False)
    client, served = pair
    own, peer = served.getsockname()[1], client.getsockname()[1]
    for ports, asking in ((frozenset[int](), set[int]()), (frozenset({own}), {peer})):
        _looking_after(ports)._close_quiet(asking)
        client.sendall(b"a")
        assert served.recv(1) == b"a"
    looked_after = _looking_after(frozenset({own}))
    looked_after._close_quiet(set())
    looked_after._close_quiet(set())
    assert client.recv(1) == b""


def test_a_connection_is_not_closed_on_an_answer_that_is_just_going_out(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request has ended for the hub a moment before the server sends what it was answered: for that moment nobody
    asks anything on the connection, and the last byte may be long ago."""
    monkeypatch.setattr(Quiet, "is_kept", lambda *_: False)
    client, served = pair
    client.sendall(b"question")
    assert served.recv(100) == b"question"
    looked_after = _looking_after(frozenset({served.getsockname()[1]}))
    looked_after._close_quiet(set())
    served.sendall(b"answer")
    assert client.recv(100) == b"answer"
    looked_after._close_quiet(set())
    client.sendall(b"next")
    assert served.recv(100) == b"next"
    looked_after._close_quiet(set())
    looked_after._close_quiet(set())
    assert client.recv(1) == b""


def _looking_after(ports: frozenset[int]) -> Connections:
    looked_after = Connections(set)
    looked_after._ports = ports
    return looked_after
