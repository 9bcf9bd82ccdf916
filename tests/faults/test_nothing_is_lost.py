"""FT1, FT2, FT3, FT6, FT7, FT9: whatever happens to a hub under load, nothing that it acknowledged is lost.

When it happens is chosen by a seed: `FAULT_SEEDS=20` tries twenty of each, as `just test-faults` does.
"""

import asyncio
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.commands.hubs import Served, family, fresh_folder
from tests.faults.ledger import Ledger, owner_url_of, wait_until

pytestmark = pytest.mark.slow

SEEDS = range(int(os.environ.get("FAULT_SEEDS", "3")))
DEADLINE_S = 5
SETTINGS = {
    "HUB_RATE_LIMIT": "1000000/minute",
    "HUB_REQUEST_TIMEOUT_S": str(DEADLINE_S),
    "HUB_ADMIN_EMAIL": "admin@example.org",
    "HUB_ADMIN_PASSWORD": "lanterns drift over quiet water",
}
Chance = random.Random
Report = Callable[[str, object], None]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with fresh_folder() as made:
        yield made


@pytest.fixture(scope="module")
def hub(folder: Path) -> Iterator[Served]:
    """One for all: what a fault leaves behind is what the next one finds."""
    served = Served(folder, **SETTINGS)
    yield served
    served.stop()


@pytest.fixture
def client(hub: Served) -> Iterator[httpx.Client]:
    with signed_in(hub) as client:
        yield client


def signed_in(hub: Served) -> httpx.Client:
    asked = {"email": SETTINGS["HUB_ADMIN_EMAIL"], "password": SETTINGS["HUB_ADMIN_PASSWORD"]}
    pair: dict[str, str] = {}

    def is_in() -> bool:
        answer = httpx.post(f"{hub.url}/api/v1/auth/login", json=asked, timeout=60)
        assert answer.status_code in (200, 503), answer.text
        pair.update(answer.json())
        return answer.status_code == 200

    wait_until(is_in)
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    return httpx.Client(base_url=f"{hub.url}/api/v1", headers=headers, timeout=60)


@pytest.fixture(params=SEEDS, ids=lambda seed: f"seed {seed}")
def chance(request: pytest.FixtureRequest) -> Chance:
    return random.Random(request.param)


def wait_a_moment(chance: Chance) -> None:
    time.sleep(chance.uniform(0.0, 0.7))


def assert_nothing_lost(ledger: Ledger, hub: Served, record: Report) -> None:
    verdict = asyncio.run(ledger.verdict(owner_url_of(hub)))
    record("ledger", str(verdict))
    assert verdict.is_good, verdict
    assert ledger.unexpected == []


@contextmanager
def losing_nothing(hub: Served, client: httpx.Client, folder: Path, record: Report) -> Iterator[None]:
    """What is acknowledged before, during and after the block is there in the end."""
    with Ledger(folder / "ledger", client).being_filled() as ledger:
        ledger.wait_for_more()
        yield
        ledger.wait_for_more()
    assert_nothing_lost(ledger, hub, record)


@pytest.mark.fault("FT1")
def test_postgresql_is_killed(
    hub: Served, client: httpx.Client, chance: Chance, tmp_path: Path, record_property: Report
) -> None:
    with losing_nothing(hub, client, tmp_path, record_property):
        wait_a_moment(chance)
        os.kill(hub.wait_for("bin/postgres -D"), signal.SIGKILL)


@pytest.mark.fault("FT2")
def test_postgresql_falls_silent(
    hub: Served, client: httpx.Client, chance: Chance, tmp_path: Path, record_property: Report
) -> None:
    """For longer than a request may take: each is answered, and afterwards it goes on."""
    with losing_nothing(hub, client, tmp_path, record_property):
        wait_a_moment(chance)
        stopped = [pid for pid, command in family(hub.process.pid).items() if "postgres" in command.split(" ")[0]]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            assert client.get("/roles?limit=1").status_code == 503
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)


@pytest.mark.fault("FT3")
def test_clients_leave_in_the_middle(
    hub: Served, client: httpx.Client, chance: Chance, tmp_path: Path, record_property: Report
) -> None:
    """Hundreds, at whatever moment of a write: none takes a place of a pool along."""
    token = client.headers["Authorization"]
    with losing_nothing(hub, client, tmp_path, record_property):
        for number in range(300):
            body = b'{"name": "left %d %d"}' % (chance.getrandbits(60), number)
            head = f"POST /api/v1/roles HTTP/1.1\r\nHost: h\r\nAuthorization: {token}\r\nContent-Type: application/json"
            sent = head.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            with socket.create_connection(("127.0.0.1", hub.port)) as connection:
                connection.sendall(sent[: chance.choice((len(sent), len(sent) - 5, 40))])
                time.sleep(chance.uniform(0.0, 0.01))


@pytest.mark.fault("FT6")
def test_a_worker_is_killed(
    hub: Served, client: httpx.Client, chance: Chance, tmp_path: Path, record_property: Report
) -> None:
    """A process of the server, in the middle of whatever it is at; another one takes its place."""
    with losing_nothing(hub, client, tmp_path, record_property):
        wait_a_moment(chance)
        servers = [pid for pid, command in family(hub.process.pid).items() if " serve " in command]
        os.kill(chance.choice(servers), signal.SIGKILL)


@pytest.mark.fault("FT9")
def test_many_change_one_thing_at_once(client: httpx.Client, chance: Chance, record_property: Report) -> None:
    """Each counts on from what it has read, under `If-Match`: the count is that of the changes acknowledged."""
    made = client.post("/roles", json={"name": f"counted {chance.getrandbits(60)}", "description": "0"}).json()
    path, counted = f"/roles/{made['id']}", threading.Semaphore(0)
    acknowledged: list[int] = []
    refused: list[int] = []

    def count_on() -> None:
        for _ in range(25):
            read = client.get(path)
            body = {"description": str(int(read.json()["description"]) + 1)}
            answer = client.patch(path, json=body, headers={"If-Match": read.headers["etag"]})
            (acknowledged if answer.status_code == 200 else refused).append(answer.status_code)
        counted.release()

    with ThreadPoolExecutor(8) as pool:
        for task in [pool.submit(count_on) for _ in range(8)]:
            task.result()
    count = int(client.get(path).json()["description"])
    assert set(refused) <= {412}
    record_property(
        "ledger", f"acknowledged {len(acknowledged):5}  present {count:5}  lost {len(acknowledged) - count}"
    )
    assert count == len(acknowledged) > 0


@pytest.mark.fault("FT7")
def test_sigterm_under_load(chance: Chance, tmp_path: Path, record_property: Report) -> None:
    """What it has acknowledged until it ends is there when it is started again."""
    with fresh_folder() as folder:
        hub = Served(folder, **SETTINGS)
        try:
            with signed_in(hub) as client, Ledger(tmp_path / "ledger", client).being_filled() as ledger:
                ledger.wait_for_more()
                wait_a_moment(chance)
                assert hub.stop() == 0
                wait_until(lambda: ledger.sent > len(ledger.acknowledged))
            again = Served(folder, **SETTINGS)
            try:
                assert_nothing_lost(ledger, again, record_property)
            finally:
                again.stop()
        finally:
            hub.stop()
