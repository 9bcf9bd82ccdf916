"""FT1 on a whole hub: its own PostgreSQL is killed under load, and is back without anybody's doing."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.commands.hubs import Serve, Served, family, fresh_folder, run, survivors

pytestmark = pytest.mark.slow

BACK_WITHIN_S = 30
"""Patience of the tests, not a promise of the hub: other work shares the machine."""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with fresh_folder() as folder:
        yield folder


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[Served] = []

    def start(data_dir: Path, **variables: str) -> Served:
        started.append(Served(data_dir, **variables))
        return started[-1]

    yield start
    for hub in started:
        hub.stop()


class Load:
    """Writers and readers that never stop asking, and all that they were answered."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._is_over = threading.Event()
        self.written: list[str] = []
        self.reads = 0
        self.refusals: list[httpx.Response] = []

    @contextmanager
    def running(self, writers: int = 4, readers: int = 4) -> Iterator["Load"]:
        with ThreadPoolExecutor(writers + readers) as pool:
            tasks = [pool.submit(self._repeat, work) for work in [self._write] * writers + [self._read] * readers]
            try:
                yield self
            finally:
                self._is_over.set()
            for task in tasks:
                task.result()

    def wait_for_more(self, count: int = 20) -> float:
        """Seconds until that many more writes and reads were answered well."""
        began, written, reads = time.monotonic(), len(self.written), self.reads
        while len(self.written) < written + count or self.reads < reads + count:
            assert time.monotonic() < began + BACK_WITHIN_S, self.refusals[-3:]
            time.sleep(0.01)
        return time.monotonic() - began

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._is_over.is_set():
            work()

    def _write(self) -> None:
        name = uuid4().hex
        if self._is_answered(self._client.post("/roles", json={"name": name}), 201):
            self.written.append(name)

    def _read(self) -> None:
        if self._is_answered(self._client.get("/roles?limit=5"), 200):
            self.reads += 1

    def _is_answered(self, answer: httpx.Response, status: int) -> bool:
        if answer.status_code == status:
            return True
        self.refusals.append(answer)
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        time.sleep(0.02)
        return False


def names_of_roles(client: httpx.Client) -> set[str]:
    names: set[str] = set()
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/roles", params={"limit": 200, **({"cursor": cursor} if cursor else {})}).json()
        names |= {role["name"] for role in page["items"]}
        cursor = page["next_cursor"]
    return names


def postmaster_of(hub: Served) -> int:
    return hub.wait_for("bin/postgres -D")


def test_a_killed_postgresql_is_started_again_and_no_acknowledged_write_is_lost(data_dir: Path, serve: Serve) -> None:
    hub = serve(data_dir, HUB_RATE_LIMIT="1000000/minute")
    client = hub.client()
    record = (data_dir / "postgres.json").read_text()
    with Load(client).running() as load:
        for _ in range(3):
            load.wait_for_more()
            killed = postmaster_of(hub)
            os.kill(killed, signal.SIGKILL)
            load.wait_for_more()
            assert postmaster_of(hub) != killed
    assert set(load.written) <= names_of_roles(client)
    port = [line for line in record.splitlines() if '"port"' in line]
    assert port == [line for line in (data_dir / "postgres.json").read_text().splitlines() if '"port"' in line]
    assert hub.process.poll() is None
    assert "killed by signal 9" in hub.said
    assert "Traceback" not in hub.said


def test_a_killed_backend_is_recovered_from(data_dir: Path, serve: Serve) -> None:
    hub = serve(data_dir, HUB_RATE_LIMIT="1000000/minute")
    client = hub.client()
    with Load(client).running() as load:
        load.wait_for_more()
        before = postmaster_of(hub)
        os.kill(hub.wait_for("hub_app hub 127.0.0.1"), signal.SIGKILL)
        load.wait_for_more()
        assert postmaster_of(hub) == before
    assert set(load.written) <= names_of_roles(client)


def test_commands_beside_a_hub_find_its_database_after_a_kill(data_dir: Path, serve: Serve) -> None:
    hub = serve(data_dir)
    os.kill(postmaster_of(hub), signal.SIGKILL)
    ended = run(data_dir, "migrate", "status")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.3])
def test_a_stop_while_postgresql_is_started_again_leaves_nothing(data_dir: Path, serve: Serve, after_s: float) -> None:
    hub = serve(data_dir)
    hub.wait_for("app worker")
    processes = family(hub.process.pid)
    os.kill(postmaster_of(hub), signal.SIGKILL)
    time.sleep(after_s)
    assert hub.stop() == 0
    assert survivors(processes) == {}
    assert survivors(family(hub.process.pid)) == {}
    assert run(data_dir, "migrate", "status").returncode == 0


def test_a_database_that_cannot_be_started_again_ends_the_hub_in_a_sentence(data_dir: Path, serve: Serve) -> None:
    hub = serve(data_dir)
    processes = family(hub.process.pid)
    killed = postmaster_of(hub)
    cluster = (data_dir / "postgres").resolve()
    (cluster / "global" / "pg_control").rename(cluster / "global" / "pg_control.away")
    os.kill(killed, signal.SIGKILL)
    assert hub.process.wait(120) == 1
    assert survivors(processes) == {}
    assert "times in a row" in hub.said
    assert "Traceback" not in hub.said
