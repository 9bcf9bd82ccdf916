"""FT7 on a whole hub: SIGTERM finishes what is in flight, and waits for nobody who has nothing to say any more."""

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.core.stopping import ANSWERED_WITHIN_S, KILLED_AFTER_S
from tests.commands.hubs import Served, family, fresh_folder, longer_now, survivors

pytestmark = pytest.mark.slow

ENDED_WITHIN_S = 9.0
"""On a quiet machine: less than what a request in flight is given before the server is killed, and more than anything
here needs."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with fresh_folder() as made:
        yield made


@pytest.fixture
def hub(folder: Path) -> Iterator[Served]:
    admin = {"HUB_ADMIN_EMAIL": "admin@example.org", "HUB_ADMIN_PASSWORD": PASSWORD}
    served = Served(folder, KILLED_AFTER_S * 2 * longer_now(), **admin)
    served.wait_for("app worker")
    yield served
    served.stop()


PASSWORD = "lanterns drift over quiet water"


def signed_in(hub: Served) -> httpx.Client:
    asked = {"email": "admin@example.org", "password": PASSWORD}
    token = httpx.post(f"{hub.url}/api/v1/auth/login", json=asked, timeout=30).json()["access_token"]
    return httpx.Client(base_url=f"{hub.url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=60)


def simulated(client: httpx.Client, name: str, **config: Any) -> str:
    source = {"name": name, "type": "simulated", "config": config, "secrets": {"password": "quite a secret"}}
    made = client.post("/data-sources", json=source)
    assert made.status_code == 201, made.text
    return f"/data-sources/{made.json()['id']}"


def connected(hub: Served, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", hub.port))
    connection.settimeout(30)
    connection.sendall(sent)
    return connection


def all_of(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


@contextmanager
def row_locked(hub: Served, source_id: str) -> Iterator[None]:
    """By somebody else, for as long as the block lasts."""
    postgres = json.loads((hub.data_dir / "postgres.json").read_text())
    url = f"postgresql://hub_owner:{postgres['passwords']['hub_owner']}@127.0.0.1:{postgres['port']}/hub"
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url))
        runner.run(connection.execute("BEGIN"))
        runner.run(connection.execute("SELECT FROM data_sources WHERE id = $1::text::uuid FOR UPDATE", source_id))
        yield
        connection.terminate()


def assert_ends(hub: Served) -> None:
    processes = family(hub.process.pid)
    began = time.monotonic()
    assert hub.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < ENDED_WITHIN_S * longer_now()
    assert survivors(processes) == {}
    assert "refused to gracefully stop" not in hub.said
    assert "Traceback" not in hub.said


def test_who_is_told_to_ask_again_is_told_before_the_server_is_killed() -> None:
    assert ANSWERED_WITHIN_S + 2 <= KILLED_AFTER_S


HALF = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"


def test_a_body_that_does_not_come_is_a_503_soon_after_the_signal(hub: Served) -> None:
    with connected(hub, HALF) as connection:
        time.sleep(0.3)
        assert_ends(hub)
        answer = all_of(connection)
    head = answer.lower()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"stopping"' in answer
    assert b"\r\nconnection: close\r\n" in head
    assert b"\r\nretry-after: " in head


def test_a_body_whose_rest_is_on_its_way_is_answered(hub: Served) -> None:
    with connected(hub, HALF) as connection:
        time.sleep(0.3)
        hub.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        connection.sendall(b" " * 498 + b"}")
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert_ends(hub)


def test_an_idle_connection_does_not_hold_up_the_end(hub: Served) -> None:
    with connected(hub, LIVE) as kept:
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert_ends(hub)


LIVE = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n"


def test_a_stream_of_a_jobs_events_ends_in_good_order(hub: Served) -> None:
    client = signed_in(hub)
    source = simulated(client, "endless", delays_ms={"batch": 60_000}, objects=100_000)
    job = client.post(f"{source}/discover")
    assert job.status_code == 202, job.text
    with client.stream("GET", f"/jobs/{job.json()['id']}/events") as stream:
        parts = stream.iter_bytes()
        assert b"event: job" in next(parts)
        assert_ends(hub)
        for _ in parts:  # raises where the stream is cut off
            pass


def test_streams_of_all_events_end_in_good_order(hub: Served) -> None:
    client = signed_in(hub)
    opened: list[Iterator[bytes]] = []
    with ExitStack() as stack:
        for _ in range(3):
            asked = client.stream("GET", "/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "0"})
            opened.append(stack.enter_context(asked).iter_bytes())
            assert next(opened[-1]).startswith(b"id: 0")
        assert_ends(hub)
        for parts in opened:
            for _ in parts:  # raises where the stream is cut off
                pass


def test_what_is_being_worked_on_gets_its_answer(hub: Served) -> None:
    client = signed_in(hub)
    source = simulated(client, "slow", delays_ms={"connect": 3_000})
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(client.post(f"{source}/test")))
    asking.start()
    time.sleep(1)
    assert_ends(hub)
    asking.join()
    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json()["status"] == "passed"


@pytest.mark.found("L7")
@pytest.mark.parametrize("waiting_for", ["source", "row"])
def test_what_cannot_be_done_in_time_is_told_to_be_sent_again(hub: Served, waiting_for: str) -> None:
    client = signed_in(hub)
    path = simulated(client, f"slower {waiting_for}", delays_ms={"connect": 20_000})
    with ExitStack() as stack:
        if waiting_for == "row":
            stack.enter_context(row_locked(hub, path.rpartition("/")[2]))
        asked = client.build_request("POST", f"{path}/test")
        if waiting_for == "row":
            asked = client.build_request("PATCH", path, json={"description": "waits"})
        answers: list[httpx.Response] = []
        asking = [threading.Thread(target=lambda: answers.append(client.send(asked))) for _ in range(3)]
        for each in asking:
            each.start()
        time.sleep(1)
        assert hub.stop(signal.SIGTERM) == 0
        for each in asking:
            each.join()
    assert [answer.status_code for answer in answers] == [503] * 3
    assert {answer.json()["code"] for answer in answers} == {"stopping"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    assert "refused to gracefully stop" not in hub.said
    assert "Traceback" not in hub.said


def test_a_head_that_does_not_come_holds_up_the_end_no_longer_than_a_body(hub: Served) -> None:
    with connected(hub, LIVE[:-4]) as begun, connected(hub, b"") as silent:
        time.sleep(0.3)
        assert_ends(hub)
        assert all_of(begun) == all_of(silent) == b""


def test_a_head_whose_rest_is_on_its_way_is_answered(hub: Served) -> None:
    with connected(hub, LIVE[:-4]) as connection:
        time.sleep(0.3)
        hub.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        connection.sendall(LIVE[-4:])
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert_ends(hub)


def test_an_answer_that_its_client_is_slow_to_take_is_sent_whole(hub: Served) -> None:
    with socket.socket() as connection:
        connection.settimeout(30)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", hub.port))
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n")
        time.sleep(0.5)
        hub.process.send_signal(signal.SIGTERM)
        time.sleep(2)
        head, _, body = all_of(connection).partition(b"\r\n\r\n")
    assert f"\r\ncontent-length: {len(body)}\r\n".encode() in head.lower()
    assert_ends(hub)
