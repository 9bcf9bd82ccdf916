"""Upkeep: what is of no more use goes, everything else stays."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from app.core.embedded import SUPERUSER, EmbeddedPostgres
from app.domain import upkeep
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
    await upkeep.remove_outdated(hub.parts, NOW)
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
    await upkeep.remove_outdated(hub.parts, NOW)
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
