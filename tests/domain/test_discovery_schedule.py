"""Discoveries at the times of a cron expression, each once, whichever worker comes first."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.jobs.services import ON_SCHEDULE
from app.domain.source_work import discovery_schedule
from app.domain.source_work.discovery_schedule import discover_on_schedule, enqueue_due
from app.domain.sources.discovery_times import next_time
from tests.beside import beside
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, ended, faults, post_source, registered, working

pytestmark = pytest.mark.anyio

NIGHTLY = {"type": "simulated", "config": {}, "discover_schedule": "0 3 * * *"}


@pytest.fixture(autouse=True)
async def _nothing_else_is_due(records: Records) -> None:
    await records.run("UPDATE data_sources SET next_discovery_at = NULL")
    await records.run("UPDATE jobs SET status = 'cancelled', finished_at = now() WHERE status IN ('queued', 'running')")


async def make_due(records: Records, source: dict[str, Any]) -> None:
    moment = datetime.now(UTC) - timedelta(seconds=1)
    await records.run("UPDATE data_sources SET next_discovery_at = $1 WHERE id = $2::uuid", moment, source["id"])


async def jobs_about(hub: Hub, source: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await hub.admin.get(f"/api/v1/jobs?subject_id={source['id']}")).json()["items"]
    return items


async def shown(hub: Hub, source: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await hub.admin.get(f"{SOURCES}/{source['id']}")).json()
    return found


# --- what is set ---


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        ("0 3 * * *", "UTC", "2026-12-01T02:59:59", "2026-12-01T03:00:00"),
        ("0 3 * * *", "UTC", "2026-12-01T03:00:00", "2026-12-02T03:00:00"),
        ("0 3 * * *", "Europe/Berlin", "2026-12-01T00:00:00", "2026-12-01T02:00:00"),
        ("*/15 * * * *", "Asia/Kathmandu", "2026-12-01T00:01:00", "2026-12-01T00:15:00"),
        ("0 9 * * MON", "America/New_York", "2026-12-01T00:00:00", "2026-12-07T14:00:00"),
        ("30 2 * * *", "Europe/Berlin", "2027-03-28T00:00:00", "2027-03-28T01:00:00"),  # 02:30 is not there that day
        ("30 2 * * *", "Europe/Berlin", "2027-10-31T00:30:00", "2027-11-01T01:30:00"),  # it was at 00:30 UTC already
        ("0 0 29 2 *", "UTC", "2026-12-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 31 2 *", "UTC", "2026-12-01T00:00:00", None),
        ("* * * * * *", "UTC", "2026-12-01T00:00:00", None),
        ("@daily", "UTC", "2026-12-01T00:00:00", None),
        ("0 3 * * *", "Middle/Earth", "2026-12-01T00:00:00", None),
    ],
)
async def test_the_next_time_is_as_cron_has_it(expression: str, zone: str, after: str, expected: str | None) -> None:
    found = next_time(expression, zone, datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert found == (None if expected is None else datetime.fromisoformat(expected).replace(tzinfo=UTC))


async def test_a_schedule_is_kept_changed_and_taken_away(hub: Hub) -> None:
    made = await registered(hub, **NIGHTLY, discover_time_zone="Europe/Berlin")
    assert (made["discover_schedule"], made["discover_time_zone"]) == ("0 3 * * *", "Europe/Berlin")
    first = datetime.fromisoformat(made["next_discovery_at"])
    assert datetime.now(UTC) < first < datetime.now(UTC) + timedelta(days=1, hours=2)
    path = f"{SOURCES}/{made['id']}"
    unchanged = (await hub.admin.patch(path, json={"discover_schedule": "0 3 * * *"})).json()
    assert (unchanged["version"], unchanged["next_discovery_at"]) == (1, made["next_discovery_at"])
    moved = (await hub.admin.patch(path, json={"discover_time_zone": "Asia/Tokyo"})).json()
    assert moved["next_discovery_at"] != made["next_discovery_at"]
    gone = (await hub.admin.patch(path, json={"discover_schedule": None, "discover_time_zone": None})).json()
    assert (gone["discover_schedule"], gone["discover_time_zone"], gone["next_discovery_at"]) == (None, "UTC", None)


@pytest.mark.parametrize(
    ("given", "path", "code"),
    [
        ({"discover_schedule": "0 0 31 2 *"}, "discover_schedule", "invalid_schedule"),
        ({"discover_schedule": "61 * * * *"}, "discover_schedule", "invalid_schedule"),
        ({"discover_schedule": "* * * * * *"}, "discover_schedule", "wrong_form"),
        ({"discover_schedule": "0 3 * * *\n"}, "discover_schedule", "wrong_form"),
        ({"discover_schedule": "every night"}, "discover_schedule", "wrong_form"),
        ({"discover_schedule": "@daily"}, "discover_schedule", "too_short"),
        ({"discover_schedule": 5}, "discover_schedule", "wrong_type"),
        ({"discover_time_zone": "Middle/Earth"}, "discover_time_zone", "unknown_time_zone"),
        ({"discover_time_zone": "Europe"}, "discover_time_zone", "unknown_time_zone"),
        ({"discover_time_zone": "/etc/passwd"}, "discover_time_zone", "wrong_form"),
        ({"discover_time_zone": "../UTC"}, "discover_time_zone", "wrong_form"),
    ],
)
async def test_what_is_no_schedule_is_refused(hub: Hub, given: dict[str, Any], path: str, code: str) -> None:
    answer = await post_source(hub.admin, **{"type": "simulated", "config": {}} | given)
    assert answer.status_code == 400, answer.text
    assert faults(answer)[path] == code


# --- what comes of it ---


async def test_a_due_source_is_discovered_once_and_has_its_next_time(hub: Hub, records: Records) -> None:
    source = await registered(hub, **NIGHTLY)
    await make_due(records, source)
    await asyncio.gather(*(enqueue_due(hub.parts) for _ in range(4)))
    (job,) = await jobs_about(hub, source)
    assert (job["kind"], job["priority"], job["created_by"]) == ("data_source.discover", ON_SCHEDULE, None)
    after = await shown(hub, source)
    assert (after["next_discovery_at"], after["version"]) == (source["next_discovery_at"], 1)
    async with working(hub.parts):
        assert (await ended(hub.admin, job["id"]))["result"]["objects"] == 3
    (row,) = await records.run(
        "SELECT actor_name, after FROM audit_events WHERE action = 'data_source.discover' AND resource_id = $1::uuid",
        source["id"],
    )
    assert (row["actor_name"], json.loads(row["after"])) == (None, {"job_id": job["id"], "by": "schedule"})


async def test_a_discovery_that_is_under_way_stands_for_the_one_that_is_due(hub: Hub, records: Records) -> None:
    source = await registered(hub, **NIGHTLY)
    started = (await hub.admin.post(f"{SOURCES}/{source['id']}/discover")).json()
    await make_due(records, source)
    assert await enqueue_due(hub.parts) == 1
    assert [job["id"] for job in await jobs_about(hub, source)] == [started["id"]]
    assert await enqueue_due(hub.parts) == 0


async def test_nothing_is_discovered_that_is_paused_or_of_a_suspended_tenant(hub: Hub, records: Records) -> None:
    other = await hub.new_tenant()
    paused, theirs = await registered(hub, **NIGHTLY, is_paused=True), await registered(other, **NIGHTLY)
    tenant = (await other.admin.get("/api/v1/auth/me")).json()["tenant"]["id"]
    await hub.admin.post(f"/api/v1/tenants/{tenant}/suspend")
    for source in (paused, theirs):
        await make_due(records, source)
    assert await enqueue_due(hub.parts) == 0
    await hub.admin.patch(f"{SOURCES}/{paused['id']}", json={"is_paused": False})
    await hub.admin.post(f"/api/v1/tenants/{tenant}/resume")
    assert await enqueue_due(hub.parts) == 2
    assert len(await jobs_about(hub, paused)) == 1


async def test_the_worker_looks_by_itself(hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery_schedule, "POLL_S", 0.05)
    source = await registered(hub, **NIGHTLY)
    async with beside(discover_on_schedule(hub.parts)):
        await asyncio.sleep(0.2)
        await make_due(records, source)
        async with asyncio.timeout(20):
            while not await jobs_about(hub, source):
                await asyncio.sleep(0.05)
