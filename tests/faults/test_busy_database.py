"""A table that is locked, or searches without end, are the trouble of those who ask for them: all others are answered."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from app.core import notifications
from app.core.embedded import SUPERUSER, EmbeddedPostgres
from app.core.reads import LONGEST_QUEUE
from tests.conftest import Hub, running_hub

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.found("L3")]

CROWD = 40
SOON_S = 1.5
"""For a request that waits for nothing, on a machine that is busy otherwise. Those in its way would take five seconds."""


@pytest.fixture(scope="module")
async def hub(cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("busy")) as running:
        yield running


@pytest.fixture(autouse=True)
async def signed_in(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, and for long enough: who signs in needs the tables that are locked here."""
    monkeypatch.setattr(notifications, "PROOF_VALID_S", 60.0)
    claims = hub.parts.tokens.verify(hub.admin.headers["authorization"].removeprefix("Bearer ").encode())
    async with asyncio.timeout(20):
        while not (hub.parts.principals._find(claims) and hub.parts.principals._listener._proven_until > soon()):
            await hub.admin.get("/api/v1/auth/me")
            await asyncio.sleep(0.05)


def soon() -> float:
    return time.monotonic() + 30


@asynccontextmanager
async def locked(cluster: EmbeddedPostgres, hub: Hub, table: str) -> AsyncIterator[None]:
    """As a migration or a backup gone wrong does."""
    name = hub.url.rpartition("/")[2].partition("?")[0]
    connection = await asyncpg.connect(cluster.url(SUPERUSER, name))
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def crowd(ask: Callable[[], Awaitable[httpx.Response]], count: int = CROWD) -> AsyncIterator[list[int]]:
    """Each asks again as soon as it has its answer; their statuses so far."""
    statuses: list[int] = []

    async def go_on() -> None:
        while True:
            statuses.append((await ask()).status_code)

    tasks = [asyncio.create_task(go_on()) for _ in range(count)]
    await asyncio.sleep(0.2)
    try:
        yield statuses
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def assert_soon(asked: Awaitable[httpx.Response], status: int = 200) -> None:
    began = time.monotonic()
    answer = await asked
    assert answer.status_code == status, (answer.request.url, answer.text)
    assert time.monotonic() - began < SOON_S, answer.request.url


READS = {
    "users": "/api/v1/users?limit=5",
    "roles": "/api/v1/roles?limit=5",
    "data_sources": "/api/v1/data-sources?limit=5",
    "jobs": "/api/v1/jobs?limit=5",
    "audit_events": "/api/v1/audit-events?limit=5",
}
SHOWN_WITH = {"users": {"roles"}}
"""Tables that a list reads beside its own."""


def writes(hub: Hub, table: str) -> Awaitable[httpx.Response]:
    """A change that goes to that table."""
    name = uuid4().hex
    if table == "users":
        return hub.admin.post("/api/v1/users", json={"email": f"{name}@example.org"})
    if table == "roles":
        return hub.admin.post("/api/v1/roles", json={"name": name})
    body: dict[str, Any] = {"name": name, "type": "rest", "config": {"base_url": "https://a.example"}}
    return hub.admin.post("/api/v1/data-sources", json=body)


@pytest.mark.parametrize("table", sorted(READS))
async def test_reads_of_a_locked_table_are_in_nobodys_way(cluster: EmbeddedPostgres, hub: Hub, table: str) -> None:
    others = [path for name, path in READS.items() if name != table and table not in SHOWN_WITH.get(name, ())]
    async with locked(cluster, hub, table), crowd(lambda: hub.admin.get(READS[table])) as statuses:
        for path in (*others, "/health/ready", "/api/v1/auth/me", *others):
            await assert_soon(hub.admin.get(path))
        await asyncio.sleep(2.2)
        assert set(statuses) == {503}
    await assert_soon(hub.admin.get(READS[table]))


@pytest.mark.parametrize("table", ["users", "data_sources"])
async def test_changes_of_a_locked_table_are_in_nobodys_way(cluster: EmbeddedPostgres, hub: Hub, table: str) -> None:
    async with locked(cluster, hub, table), crowd(lambda: writes(hub, table)):
        for other in {"users", "roles", "data_sources"} - {table}:
            await assert_soon(writes(hub, other), 201)
        await assert_soon(hub.admin.get("/health/ready"))
        await assert_soon(hub.admin.get(READS["jobs"]))


async def test_an_audit_log_that_is_locked_holds_up_changes_and_no_reads(cluster: EmbeddedPostgres, hub: Hub) -> None:
    async with (
        locked(cluster, hub, "audit_events"),
        crowd(lambda: writes(hub, "roles")),
        crowd(lambda: writes(hub, "users")),
        crowd(lambda: hub.admin.get(READS["audit_events"])),
    ):
        for path in (READS["jobs"], READS["data_sources"], "/health/ready"):
            await assert_soon(hub.admin.get(path))


async def test_of_slow_searches_few_run_and_few_wait(cluster: EmbeddedPostgres, hub: Hub) -> None:
    """A lock makes each of them slow for certain."""
    refused = 0
    async with locked(cluster, hub, "users"):
        asked = [asyncio.create_task(hub.admin.get("/api/v1/users?q=nobody")) for _ in range(CROWD)]
        asked += [asyncio.create_task(hub.admin.get("/api/v1/users?count=exact")) for _ in range(CROWD)]
        await asyncio.sleep(0.3)
        places = hub.parts.reads.places
        assert places.size - places.free <= places.size // 3
        refused = sum(task.done() for task in asked)
        await assert_soon(hub.admin.get(READS["jobs"]))
        answers = await asyncio.gather(*asked)
    assert refused >= 2 * CROWD - LONGEST_QUEUE - places.size, "at once"
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["code"] for answer in answers} <= {"search_busy", "database_timeout"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    assert (await hub.admin.get("/api/v1/users?q=nobody&count=exact")).json()["total"] == 0


async def test_a_search_that_is_given_up_ends_on_the_server_too(cluster: EmbeddedPostgres, hub: Hub) -> None:
    async with locked(cluster, hub, "users"):
        asked = asyncio.create_task(hub.admin.get(READS["users"]))
        await asyncio.sleep(0.3)
        assert await _waiting_for_locks(hub) == 1
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await asyncio.sleep(0.5)
        assert await _waiting_for_locks(hub) == 0


async def _waiting_for_locks(hub: Hub) -> int:
    connection = await asyncpg.connect(hub.url)
    try:
        found: int = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
    finally:
        await connection.close()
    return found


async def test_probes_that_come_together_are_one_question(hub: Hub) -> None:
    answers = await asyncio.gather(*(hub.client().get("/health/ready") for _ in range(200)))
    assert {answer.status_code for answer in answers} == {200}
    connection = await asyncpg.connect(hub.url)
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hub probe' AND datname = current_database()"
    )
    assert await connection.fetchval(count) == 1
    await connection.close()
