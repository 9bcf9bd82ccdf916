"""A source that goes down or comes back is told once: a line in the log, and a count."""

import asyncio
import logging
from typing import Any

import pytest
from prometheus_client import REGISTRY

from app.domain.source_work import schedule
from app.domain.tenants.models import DEFAULT_TENANT_ID
from app.domain.work import unit_of_work_of
from tests.beside import beside
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import NOWHERE, SOURCES, registered

pytestmark = [pytest.mark.anyio, pytest.mark.found("U14")]

DOWN = {"fail_at": "connect", "fail_code": "connection_refused"}


@pytest.fixture
async def source(hub: Hub, caplog: pytest.LogCaptureFixture) -> str:
    """The path of a source that is well."""
    caplog.set_level(logging.INFO, "hub.sources")
    made = await registered(hub, type="simulated", config={})
    path = f"{SOURCES}/{made['id']}"
    assert (await hub.admin.post(f"{path}/test")).json()["status"] == "passed"
    return path


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(line.levelname, line.getMessage()) for line in caplog.records if line.name == "hub.sources"]


def counted(**labels: str) -> float:
    return REGISTRY.get_sample_value("hub_data_source_transitions_total", labels) or 0.0


async def reconfigure(hub: Hub, path: str, config: dict[str, Any]) -> None:
    assert (await hub.admin.patch(path, json={"config": config})).status_code == 200


async def test_down_and_back_are_a_line_and_a_count_each(
    hub: Hub, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    down = {"to": "down", "type": "simulated", "code": "connection_refused"}
    up = {"to": "up", "type": "simulated", "code": "ok"}
    before = counted(**down), counted(**up)
    assert told(caplog) == [], "a source that was never tested and passes did not come back"
    await reconfigure(hub, source, DOWN)
    for _ in range(3):
        await hub.admin.post(f"{source}/test")
    source_id = source.rpartition("/")[2]
    (line,) = told(caplog)
    assert line[0] == "WARNING"
    for part in (source_id, str(DEFAULT_TENANT_ID), "step connect", "code connection_refused"):
        assert part in line[1]
    await reconfigure(hub, source, {"fail_at": None})
    for _ in range(2):
        await hub.admin.post(f"{source}/test")
    assert [level for level, _ in told(caplog)] == ["WARNING", "INFO"]
    assert source_id in told(caplog)[1][1]
    assert (counted(**down), counted(**up)) == (before[0] + 1, before[1] + 1)


async def test_a_source_that_fails_its_first_test_is_down(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    made = await registered(hub, config=NOWHERE)
    await hub.admin.post(f"{SOURCES}/{made['id']}/test")
    ((level, line),) = told(caplog)
    assert level == "WARNING"
    assert "step resolve, code name_not_resolved" in line


async def test_many_tests_at_once_tell_it_once(hub: Hub, source: str, caplog: pytest.LogCaptureFixture) -> None:
    await reconfigure(hub, source, DOWN)
    await asyncio.gather(*(hub.admin.post(f"{source}/test") for _ in range(4)))
    assert len(told(caplog)) == 1


async def test_the_schedule_tells_it_too(
    hub: Hub, records: Records, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    await reconfigure(hub, source, DOWN)
    await hub.admin.patch(source, json={"test_interval_s": 60})
    await records.run("UPDATE data_sources SET next_test_at = now() WHERE id = $1", source.rpartition("/")[2])
    async with beside(schedule.test_on_schedule(hub.parts)), asyncio.timeout(30):
        while not told(caplog):
            await asyncio.sleep(0.02)
    assert len(told(caplog)) == 1
    assert (await hub.admin.get(source)).json()["status"] == "failed"


async def test_an_unsaved_test_and_a_changed_one_tell_nothing(
    hub: Hub, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    await hub.admin.post(f"{SOURCES}/test", json={"type": "simulated", "config": DOWN})
    await hub.admin.post(f"{source}/test", json={"config": DOWN})
    assert told(caplog) == []


async def test_what_is_undone_is_not_told(hub: Hub) -> None:
    told_too_early: list[str] = []
    with pytest.raises(RuntimeError):
        async with unit_of_work_of(hub.parts) as work:
            work.once_committed(lambda: told_too_early.append("x"))
            raise RuntimeError
    assert told_too_early == []


@pytest.mark.found("U13")
@pytest.mark.parametrize(("config", "outcome"), [({}, "success"), (DOWN, "failure")])
async def test_the_audit_log_tells_how_a_test_ended(
    hub: Hub, records: Records, config: dict[str, Any], outcome: str
) -> None:
    """By hand, on a schedule, unsaved, and as a change would be: the action is the test, and it did not do its work."""
    made = await registered(hub, type="simulated", config=config, test_interval_s=60)
    path = f"{SOURCES}/{made['id']}"
    ended = {"status": "failed", "step": "connect", "code": "connection_refused"} if config else {"status": "passed"}
    for answer in (
        await hub.admin.post(f"{path}/test"),
        await hub.admin.post(f"{path}/test", json={"config": {"objects": 1}}),
        await hub.admin.post(f"{SOURCES}/test", json={"type": "simulated", "config": config}),
    ):
        (row,) = await records.audit(answer)
        assert (row["outcome"], row["after"] | ended) == (outcome, row["after"])
    await records.run("UPDATE data_sources SET next_test_at = now() WHERE id = $1::uuid", made["id"])
    by_the_hub = "SELECT outcome FROM audit_events WHERE resource_id = $1::uuid AND action = 'data_source.test' AND actor_id IS NULL"
    async with beside(schedule.test_on_schedule(hub.parts)), asyncio.timeout(30):
        while not (rows := await records.run(by_the_hub, made["id"])):
            await asyncio.sleep(0.02)
    assert [row["outcome"] for row in rows] == [outcome]
