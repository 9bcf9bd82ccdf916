"""Tests on a schedule: which sources are due, who tests them, and what is kept."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import httpx
import msgspec
import pytest

from app.connectors.processes.sandbox import ConnectorSandbox, TooManyConnectorRuns
from app.core.embedded import EmbeddedPostgres
from app.domain.source_work import schedule
from app.domain.upkeep.services import remove_due
from tests.beside import beside
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, Shop, faults, open_shop, post_source, registered, registered_shop

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "POLL_S", 0.02)


@pytest.fixture
async def shop(cluster: EmbeddedPostgres) -> Shop:
    return await open_shop(cluster)


def scheduler(hub: Hub) -> AbstractAsyncContextManager[object]:
    return beside(schedule.test_on_schedule(hub.parts))


async def seen(client: httpx.AsyncClient, path: str, is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    gives_up = monotonic() + 40
    while True:
        shown: dict[str, Any] = (await client.get(path)).json()
        if is_there(shown):
            return shown
        assert monotonic() < gives_up, shown
        await asyncio.sleep(0.02)


async def make_due(records: Records, path: str) -> None:
    source_id = path.rpartition("/")[2]
    await records.run("UPDATE data_sources SET next_test_at = now() - interval '1 second' WHERE id = $1", source_id)


async def next_test(records: Records, path: str) -> datetime | None:
    moment: datetime | None = await records.one(
        "SELECT next_test_at FROM data_sources WHERE id = $1", path.rpartition("/")[2]
    )
    return moment


async def test_a_due_source_is_tested_and_its_next_test_is_an_interval_away(
    hub: Hub, shop: Shop, records: Records
) -> None:
    path = await registered_shop(hub, shop, test_interval_s=3600)
    await make_due(records, path)
    async with scheduler(hub):
        shown = await seen(hub.admin, path, lambda source: source["status"] != "untested")
    assert shown["status"] == "passed"
    assert shown["version"] == 1
    (test,) = (await hub.admin.get(f"{path}/tests")).json()["items"]
    assert test["created_by"] is None
    due = await next_test(records, path)
    assert due is not None
    assert 0.89 * HOUR < due - datetime.now(UTC) < 1.11 * HOUR


async def test_status_and_since_follow_the_source_and_each_change_is_an_event(
    hub: Hub, shop: Shop, records: Records
) -> None:
    path = await registered_shop(hub, shop, test_interval_s=60)
    _, before = await records.mark()
    await make_due(records, path)
    async with scheduler(hub):
        passed = await seen(hub.admin, path, lambda source: source["status"] == "passed")
        await make_due(records, path)
        again = await seen(hub.admin, path, lambda source: source["last_tested_at"] != passed["last_tested_at"])
        await shop.run(f"ALTER ROLE {shop.username} PASSWORD 'another'")
        await make_due(records, path)
        failed = await seen(hub.admin, path, lambda source: source["status"] == "failed")
    assert again["status_since"] == passed["status_since"] < failed["status_since"]
    changes = [row for row in await records.events(before) if row["type"].endswith("data_source.status_changed")]
    told = [msgspec.json.decode(row["data"]) if isinstance(row["data"], str) else row["data"] for row in changes]
    assert [(each["before"], each["status"]) for each in told] == [("untested", "passed"), ("passed", "failed")]


async def test_paused_sources_and_those_without_an_interval_are_left_alone(
    hub: Hub, shop: Shop, records: Records
) -> None:
    paused = await registered_shop(hub, shop, test_interval_s=60, is_paused=True)
    unscheduled = await registered_shop(hub, shop)
    due = await registered_shop(hub, shop, test_interval_s=60)
    assert await next_test(records, unscheduled) is None
    await make_due(records, paused)
    await make_due(records, due)
    async with scheduler(hub):
        await seen(hub.admin, due, lambda source: source["status"] == "passed")
    for path in (paused, unscheduled):
        assert (await hub.admin.get(path)).json()["status"] == "untested"
        assert (await hub.admin.get(f"{path}/tests")).json()["items"] == []


async def test_two_workers_test_a_due_source_once(hub: Hub, shop: Shop, records: Records) -> None:
    paths = [await registered_shop(hub, shop, test_interval_s=3600) for _ in range(3)]
    for path in paths:
        await make_due(records, path)
    async with scheduler(hub), scheduler(hub):
        for path in paths:
            await seen(hub.admin, path, lambda source: source["status"] == "passed")
    for path in paths:
        assert len((await hub.admin.get(f"{path}/tests")).json()["items"]) == 1


async def test_the_interval_can_be_set_changed_and_taken_away(hub: Hub, records: Records) -> None:
    made = await registered(hub, test_interval_s=600)
    path = f"{SOURCES}/{made['id']}"
    first = await next_test(records, path)
    assert first is not None
    assert first - datetime.now(UTC) < timedelta(minutes=1)
    unchanged = await hub.admin.patch(path, json={"test_interval_s": 600})
    assert unchanged.json()["version"] == 1
    assert await next_test(records, path) == first
    changed = await hub.admin.patch(path, json={"test_interval_s": 7200})
    assert (changed.json()["test_interval_s"], changed.json()["version"]) == (7200, 2)
    assert (await hub.admin.patch(path, json={"test_interval_s": None})).json()["test_interval_s"] is None
    assert await next_test(records, path) is None


@pytest.mark.parametrize("interval", [0, 59, -60, 31 * 86_400 + 1, 1e3, "600", True, 10**20])
async def test_intervals_from_a_minute_to_a_month_are_taken(hub: Hub, interval: Any) -> None:
    answer = await post_source(hub.admin, test_interval_s=interval)
    assert answer.status_code == 400
    assert "test_interval_s" in faults(answer)


async def test_a_source_whose_turn_found_no_place_is_tested_soon(
    hub: Hub, shop: Shop, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await registered_shop(hub, shop, test_interval_s=3600)
    monkeypatch.setattr(ConnectorSandbox, "check", full_sandbox)
    await make_due(records, path)
    async with scheduler(hub):
        await put_off(records, path)
    assert (await hub.admin.get(path)).json()["status"] == "untested"


async def test_a_source_whose_secret_no_key_opens_fails_its_test(hub: Hub, shop: Shop, records: Records) -> None:
    path = await registered_shop(hub, shop, test_interval_s=3600)
    assert (await hub.admin.post(f"{path}/test")).json()["status"] == "passed"
    await records.run(
        "UPDATE data_source_secrets SET sealed = sealed || '\\x00' WHERE data_source_id = $1", path.rpartition("/")[2]
    )
    await make_due(records, path)
    async with scheduler(hub):
        await seen(hub.admin, path, lambda source: source["status"] == "failed")
    newest = (await hub.admin.get(f"{path}/tests")).json()["items"][0]
    assert [step["status"] for step in newest["steps"]] == ["skipped", "skipped", "skipped", "failed", "skipped"]
    assert "cannot be opened" in newest["steps"][3]["message"]
    due = await next_test(records, path)
    assert due is not None
    assert due - datetime.now(UTC) > 0.89 * HOUR


async def full_sandbox(*_: Any, **__: Any) -> Any:
    raise TooManyConnectorRuns("hub", 1)


async def put_off(records: Records, path: str) -> None:
    gives_up = monotonic() + 20
    while True:
        due = await next_test(records, path)
        assert due is not None
        if timedelta(0) < due - datetime.now(UTC) < timedelta(seconds=16):
            return
        assert monotonic() < gives_up, due
        await asyncio.sleep(0.02)


async def test_history_is_kept_for_its_days(hub: Hub, shop: Shop, records: Records) -> None:
    path = await registered_shop(hub, shop)
    for _ in range(2):
        await hub.admin.post(f"{path}/test")
    newest = (await hub.admin.get(f"{path}/tests")).json()["items"][0]
    await records.run(
        "UPDATE data_source_tests SET created_at = created_at - interval '91 days' WHERE id <> $1", newest["id"]
    )
    await remove_due(hub.parts, datetime.now(UTC))
    assert [test["id"] for test in (await hub.admin.get(f"{path}/tests")).json()["items"]] == [newest["id"]]
