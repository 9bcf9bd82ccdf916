"""FT3 and memory, on a whole hub: an export of many rows goes on in constant memory, and ends as its client can see."""

import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.core.embedded import EmbeddedPostgres
from app.core.tenancy import DEFAULT_TENANT_ID
from tests.postgres import create_database, drop_database
from tests.serving import Served, serving

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

LOG = "/api/v1/audit-events"
ROWS = 60_000
"""Of about 500 bytes each. The promise is about a million; what grows with the rows shows with these."""
ROW_BYTES = 450
GROWN_BY_BYTES = 8 * 1024**2
"""What the process may grow by from `ROWS / 2` to `ROWS` rows: half of what their text alone takes, and less."""


@pytest.fixture(scope="module")
async def database(cluster: EmbeddedPostgres, migrated: str) -> AsyncIterator[str]:
    name = await create_database(cluster, migrated)
    await filled(cluster, name)
    yield name
    await drop_database(cluster, name)


async def filled(cluster: EmbeddedPostgres, name: str) -> None:
    owner = await asyncpg.connect(cluster.url("hub_owner", name))
    await owner.execute(
        f"""INSERT INTO audit_events (id, tenant_id, occurred_at, actor_name, action, resource_type, outcome, request_id,
                                      address, after)
            SELECT gen_random_uuid(), '{DEFAULT_TENANT_ID}', now() - i * interval '1 ms', 'grown@example.org',
              'thing.change', 'thing', 'success', 'r' || i, '192.0.2.1', jsonb_build_object('text', repeat('x', 150))
            FROM generate_series(1, {ROWS}) AS i"""
    )
    await owner.execute("ANALYZE audit_events")
    await owner.close()


@pytest.fixture(scope="module")
def hub(cluster: EmbeddedPostgres, database: str) -> Iterator[Served]:
    urls = {
        "HUB_DATABASE_URL": cluster.url("hub_app", database),
        "HUB_OWNER_DATABASE_URL": cluster.url("hub_owner", database),
    }
    with serving(HUB_ENV="development", **urls) as served:
        yield served


@pytest.fixture(scope="module")
def token(hub: Served) -> str:
    for _ in range(5):
        with contextlib.suppress(httpx.TimeoutException):  # the machine does other things, too
            return hub.sign_in()
    return hub.sign_in()


def asked(
    hub: Served, token: str, *, form: str = "application/x-ndjson", query: str = "", version: str = "1.1"
) -> socket.socket:
    """A connection on which an export was asked for, with a small window of its own."""
    url = httpx.URL(hub.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect((url.host, url.port))
    head = f"GET {LOG}?{query} HTTP/{version}\r\nHost: h\r\nAuthorization: Bearer {token}\r\nAccept: {form}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def lines_of(hub: Served, token: str, form: str, query: str) -> int:
    headers, found = {"Authorization": f"Bearer {token}", "Accept": form}, 0
    with httpx.stream("GET", f"{hub.url}{LOG}?{query}", headers=headers, timeout=60, trust_env=False) as answer:
        assert answer.status_code == 200
        assert answer.headers["transfer-encoding"] == "chunked"
        for part in answer.iter_raw():
            found += part.count(b"\n")
    return found


def memory_of(hub: Served) -> int:
    """Of the server's processes, at their peak since it was last reset, in bytes."""
    return sum(peak_of(pid) for pid in servers(hub))


def servers(hub: Served) -> list[int]:
    """Without the worker beside them, which has its own to do."""
    return [pid for pid in family(hub.pid) if "serve" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")]


def reset_peaks(hub: Served) -> None:
    for pid in servers(hub):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")


def peak_of(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")), 0)
    return 0


def family(pid: int) -> list[int]:
    """The process and what it has started."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
            for child in file.read().split():
                found += family(int(child))
    return found


def open_streams(hub: Served, token: str) -> float:
    text = httpx.get(
        f"{hub.url}/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
    ).text
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("hub_streams_open"))


# --- constant memory ---


@pytest.mark.parametrize("form", ["application/x-ndjson", "text/csv"])
async def test_twice_the_rows_take_no_more_memory(hub: Served, token: str, form: str) -> None:
    peaks = []
    for limit in (ROWS // 2, ROWS // 2, ROWS):  # the first one warms up
        reset_peaks(hub)
        assert lines_of(hub, token, form, f"action=thing.change&limit={limit}") == limit + (form == "text/csv")
        peaks.append(memory_of(hub))
    assert peaks[2] - peaks[1] < GROWN_BY_BYTES < ROWS // 2 * ROW_BYTES


async def test_a_client_that_is_slow_is_waited_for(hub: Served, token: str) -> None:
    """The server takes whatever it is given and keeps it; so it is given no more than the client takes."""
    lines_of(hub, token, "application/x-ndjson", "limit=2000")
    reset_peaks(hub)
    before = memory_of(hub)
    with asked(hub, token) as slow:
        ends = time.monotonic() + 5
        while time.monotonic() < ends:
            assert slow.recv(500)
            time.sleep(0.01)
        assert memory_of(hub) - before < GROWN_BY_BYTES
        assert open_streams(hub, token) == 1


# --- how it ends ---


def seconds_until_freed(hub: Served, token: str) -> float:
    began = time.monotonic()
    while open_streams(hub, token):
        assert time.monotonic() - began < 20
        time.sleep(0.02)
    return time.monotonic() - began


async def test_a_client_that_leaves_frees_everything(hub: Served, token: str) -> None:
    """FT3: within a second, and some for a machine that does other things, too."""
    connections = [asked(hub, token) for _ in range(5)]
    for connection in connections:
        assert connection.recv(100)
    assert open_streams(hub, token) == 5
    for connection in connections:
        connection.close()
    assert seconds_until_freed(hub, token) < 5


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_export_that_fails_in_the_middle_is_seen_to_be_broken(
    hub: Served, token: str, cluster: EmbeddedPostgres, database: str, version: str
) -> None:
    """HTTP/1.0, as proxies speak it, has no chunks: its only sign of a whole answer is that the connection ends well."""
    with asked(hub, token, version=version) as connection:
        assert connection.recv(100)
        await as_owner(cluster, database, "ALTER TABLE audit_events RENAME TO audit_events_away")
        try:
            with pytest.raises(ConnectionResetError):
                while connection.recv(65536):
                    pass
                raise AssertionError("it ended as if that were all")
        finally:
            await as_owner(cluster, database, "ALTER TABLE audit_events_away RENAME TO audit_events")
    assert seconds_until_freed(hub, token) < 5


async def as_owner(cluster: EmbeddedPostgres, database: str, statement: str) -> None:
    owner = await asyncpg.connect(cluster.url("hub_owner", database))
    try:
        await owner.execute(statement)
    finally:
        await owner.close()


async def test_head_sends_no_row_on_a_real_connection(hub: Served, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/csv"}
    with httpx.Client(base_url=hub.url, headers=headers, trust_env=False, timeout=30) as client:
        for _ in range(2):  # the second one on the same connection
            answer = client.head(LOG)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
        assert client.get(LOG, params={"limit": 1}).text.count("\r\n") == 2


async def test_others_are_answered_meanwhile(hub: Served, token: str) -> None:
    """An export is made in short turns: whoever asks for something else has to wait for none of it."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.stream(
        "GET", hub.url + LOG, headers=headers | {"Accept": "text/csv"}, timeout=60, trust_env=False
    ) as answer:
        parts = answer.iter_raw()
        next(parts)
        answered = 0
        with httpx.Client(base_url=hub.url, headers=headers, trust_env=False, timeout=30) as client:
            for _ in parts:
                assert client.get("/api/v1/auth/me").status_code == 200
                answered += 1
        assert answered > 10
