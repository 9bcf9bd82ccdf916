"""`/metrics` on a port of its own: of all processes of a hub, for as long as it runs."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.commands.hubs import READY_TIMEOUT_S, Serve, environment, run, survivors
from tests.ports import free_port

pytestmark = pytest.mark.slow


def scraped(port: int) -> dict[str, float]:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20)
    assert answer.status_code == 200
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def once(port: int, is_there: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not is_there(found := scraped(port)):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def requests_in(found: dict[str, float], route: str) -> float:
    name = "hub_http_request_duration_seconds_count"
    return sum(value for series, value in found.items() if series.startswith(name) and f'route="{route}"' in series)


def test_one_port_tells_of_all_servers_and_of_the_worker(data_dir: Path, serve: Serve) -> None:
    port = free_port()
    hub = serve(data_dir, HUB_METRICS_PORT=str(port), HUB_WORKERS="2")
    for _ in range(40):  # each on a connection of its own, so that both servers get some
        httpx.get(f"{hub.url}/health/live")
    found = once(
        port, lambda found: requests_in(found, "/health/live") >= 40 and 'hub_processes{role="worker"}' in found
    )
    assert found['hub_processes{role="server"}'] == 2
    assert found['hub_processes{role="worker"}'] == 1
    assert found['hub_database_places{pool="reads",role="server",state="all"}'] == 16
    assert found['hub_database_places{pool="reads",role="worker",state="all"}'] == 8
    assert found["hub_database_up"] == 1
    assert "hub_scheduled_tests_oldest_due_seconds" in found
    assert found["hub_embedded_database_restarts_total"] == 0
    assert httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 404
    assert httpx.get(f"{hub.url}/metrics").status_code == 401

    worker = hub.wait_for("app worker")
    os.kill(worker, signal.SIGKILL)
    once(port, lambda found: found.get('hub_processes{role="worker"}') != 1)  # one that is gone is not counted
    once(port, lambda found: found.get('hub_processes{role="worker"}') == 1)
    os.kill(hub.wait_for("bin/postgres -D"), signal.SIGKILL)
    once(port, lambda found: found["hub_embedded_database_restarts_total"] == 1 and found["hub_database_up"] == 1)
    assert hub.stop() == 0
    assert "Traceback" not in hub.said
    with pytest.raises(httpx.ConnectError):
        scraped(port)


def test_a_port_that_is_taken_is_told_of_in_one_line_before_anything_starts(data_dir: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        for command in (("serve", "--port", str(free_port())), ("worker",)):
            ended = run(data_dir, *command, HUB_METRICS_PORT=port)
            assert ended.returncode == 1
            assert re.fullmatch(rf"HUB_METRICS_PORT: cannot listen on 127.0.0.1:{port}: .*\n", ended.stderr)
    assert not (data_dir / "postgres").exists()


def test_a_worker_that_stands_alone_answers_itself(used_folder: Path) -> None:
    port = free_port()
    worker = subprocess.Popen(
        [sys.executable, "-m", "app", "worker"], env=environment(used_folder, HUB_METRICS_PORT=str(port))
    )
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                found = scraped(port)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        assert found['hub_processes{role="worker"}'] == 1
        assert found["hub_database_up"] == 1
        assert found["hub_scheduled_test_lag_seconds_count"] == 0
        assert "process_resident_memory_bytes" in found
    finally:
        worker.terminate()
        assert worker.wait(30) == 0
    assert survivors({worker.pid: "python"}) == {}
