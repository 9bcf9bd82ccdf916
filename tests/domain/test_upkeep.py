"""Upkeep: what is of no more use goes, everything else stays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text

from app.core.embedded import SUPERUSER, EmbeddedPostgres
from app.domain.upkeep import services as upkeep
from tests.beside import beside
from tests.conftest import ADMIN_EMAIL, Hub
from tests.domain.conftest import Records, open_session
from tests.domain.sources import NOWHERE, SOURCES

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)


async def test_idempotency_records_are_kept_for_a_day(hub: Hub, records: Records) -> None:
    for age in (timedelta(hours=23, minutes=59), timedelta(hours=24, minutes=1)):
        body = {"name": uuid4().hex, "type": "postgresql", "config": NOWHERE}
        await hub.admin.post(SOURCES, json=body, headers={"Idempotency-Key": uuid4().hex})
        await records.run(
            "UPDATE idempotency_keys SET created_at = $1 WHERE created_at > $2", NOW - age, NOW - timedelta(hours=1)
        )
    await upkeep.remove_due(hub.parts, NOW)
    left = await records.run("SELECT created_at FROM idempotency_keys")
    assert [row["created_at"] for row in left] == [NOW - timedelta(hours=23, minutes=59)]


@pytest.mark.parametrize(
    ("column", "age_days", "stays"),
    [
        ("revoked_at", 29, True),
        ("revoked_at", 31, False),
        ("idle_expires_at", 29, True),
        ("idle_expires_at", 31, False),
        ("expires_at", 29, True),
        ("expires_at", 31, False),
    ],
)
async def test_ended_sessions_are_kept_for_a_month(
    hub: Hub, records: Records, column: str, age_days: int, stays: bool
) -> None:
    await open_session(hub, records, ADMIN_EMAIL)
    newest = await records.one("SELECT id FROM sessions ORDER BY created_at DESC LIMIT 1")
    ended_at = NOW - timedelta(days=age_days)
    await records.run(f"UPDATE sessions SET {column} = $1 WHERE id = $2", ended_at, newest)
    before = await records.one("SELECT count(*) FROM sessions")
    await upkeep.remove_due(hub.parts, NOW)
    assert await records.one("SELECT count(*) FROM sessions WHERE id = $1", newest) == int(stays)
    assert await records.one("SELECT count(*) FROM sessions") == before - (not stays)


async def test_upkeep_outlives_a_database_that_refuses_it(
    hub: Hub, cluster: EmbeddedPostgres, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "EVERY_S", 0.05)
    name = hub.url.rpartition("/")[2].partition("?")[0]
    own = await records.one("SELECT pg_backend_pid()")
    superuser = await asyncpg.connect(cluster.url(SUPERUSER, "postgres"))
    task = asyncio.create_task(upkeep.keep_up(hub.parts))
    try:
        await asyncio.sleep(0.2)
        await superuser.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> $2"
        await superuser.execute(cut, name, own)
        await asyncio.sleep(0.5)
        assert not task.done()
    finally:
        await superuser.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await superuser.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# --- L6: by kinds, in batches, counted ---


@pytest.fixture
async def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "ROWS_AT_ONCE", 100)
    monkeypatch.setattr(upkeep, "EVERY_S", 0.05)
    monkeypatch.setattr(upkeep, "RETRY_S", 0.05)


@asynccontextmanager
async def keeping_up(hub: Hub) -> AsyncIterator[None]:
    async with beside(upkeep.keep_up(hub.parts)) as task:
        try:
            yield
        finally:
            assert not task.done()


async def wait_until(records: Records, sql: str, wanted: object) -> None:
    async with asyncio.timeout(20):
        while await records.one(sql) != wanted:
            await asyncio.sleep(0.05)


ENDED = """INSERT INTO sessions (id, tenant_id, user_id, key_id, generation, rotated_at, idle_expires_at, expires_at,
                                 last_seen_at, created_at, updated_at)
           SELECT gen_random_uuid(), tenant_id, id, 'ended', 1, now(), now() - interval '40 days', now(), now(), now(), now()
           FROM users, generate_series(1, 350) WHERE email = $1"""
OLD_EVENTS = """INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data, published_at)
                SELECT gen_random_uuid(), id, 'old', 's', 's', now() - interval '91 days', '{}',
                       CASE WHEN n % 2 = 0 THEN now() END
                FROM tenants, generate_series(1, 250) AS n WHERE slug = 'default'"""


@pytest.mark.found("L6")
@pytest.mark.usefixtures("quick")
async def test_every_kind_is_removed_some_at_a_time_until_nothing_is_left(hub: Hub, records: Records) -> None:
    await records.run(ENDED, ADMIN_EMAIL)
    await records.run(OLD_EVENTS)
    kept = await records.one("SELECT count(*) FROM outbox_events WHERE type <> 'old'")
    before = await records.one("SELECT coalesce(sum(rows_done), 0) FROM upkeep WHERE kind = 'outbox_events'")
    async with keeping_up(hub):
        await wait_until(records, "SELECT count(*) FROM sessions WHERE key_id = 'ended'", 0)
        await wait_until(records, "SELECT count(*) FROM outbox_events WHERE type = 'old'", 0)
        await wait_until(records, "SELECT count(last_success_at) FROM upkeep", len(upkeep.KINDS))
    assert await records.one("SELECT count(*) FROM outbox_events") == kept
    assert await records.one("SELECT rows_done FROM upkeep WHERE kind = 'outbox_events'") == before + 250


@pytest.mark.found("L6")
@pytest.mark.usefixtures("quick")
async def test_a_kind_that_fails_is_tried_again_with_fewer_rows_and_keeps_no_other_back(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    async def too_slow(parts: Any, now: datetime, most: int) -> int:
        tried.append(most)
        if most > 60:
            async with parts.sessions.begin(None) as session:
                await session.execute(text("SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)"))
        return 0

    monkeypatch.setattr(upkeep, "FEWEST_AT_ONCE", 10)
    monkeypatch.setattr(upkeep, "KINDS", (upkeep.Kind("too_slow", too_slow), *upkeep.KINDS))
    await records.run(ENDED, ADMIN_EMAIL)
    async with keeping_up(hub):
        await wait_until(records, "SELECT count(*) FROM sessions WHERE key_id = 'ended'", 0)
        await wait_until(records, "SELECT last_success_at IS NOT NULL FROM upkeep WHERE kind = 'too_slow'", True)
    assert tried[:2] == [100, 25]
    assert await records.one("SELECT failures FROM upkeep WHERE kind = 'too_slow'") == 1


@pytest.mark.found("L6")
async def test_the_metrics_tell_how_upkeep_goes(hub: Hub, records: Records) -> None:
    await upkeep.remove_due(hub.parts, NOW)
    lines = (await hub.admin.get("/metrics")).text.splitlines()
    for kind in upkeep.KINDS:
        for name in ("rows_total", "failures_total", "last_success_timestamp_seconds"):
            assert any(line.startswith(f'hub_upkeep_{name}{{kind="{kind.name}"}} ') for line in lines), (kind, name)
