"""Many sources on a schedule: places are filled at once, hosts are spared, and dead sources take no good one with them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from prometheus_client import REGISTRY

from app.connectors.processes.sandbox import ConnectorSandbox
from app.domain.source_work import schedule
from app.domain.source_work.due import MAX_BACKOFF, MAX_BACKOFF_S, claim_due
from tests.beside import beside
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, registered

pytestmark = [pytest.mark.anyio, pytest.mark.found("L4")]

FAR = timedelta(hours=5)


@pytest.fixture(autouse=True)
async def _nothing_else_is_due(hub: Hub, records: Records) -> None:
    await records.run("UPDATE data_sources SET next_test_at = NULL")


async def register(hub: Hub, number: int, **config: Any) -> list[UUID]:
    """Of hosts of their own, unless one is given."""
    items = [
        {
            "name": f"{uuid4().hex}",
            "type": "simulated",
            "config": {"host": f"{uuid4().hex}.invalid"} | config,
            "test_interval_s": 60,
        }
        for _ in range(number)
    ]
    answer = await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": items})
    assert answer.status_code == 201, answer.text[:500]
    return [UUID(item["data_source"]["id"]) for item in answer.json()["items"]]


async def make_due(records: Records, ids: list[UUID], **columns: Any) -> None:
    for name, value in columns.items():
        await records.run(f"UPDATE data_sources SET {name} = $1 WHERE id = ANY($2)", value, ids)
    await records.run("UPDATE data_sources SET next_test_at = now() - interval '1 second' WHERE id = ANY($1)", ids)


async def until_tested(records: Records, ids: list[UUID], within_s: float = 60) -> None:
    gives_up = monotonic() + within_s
    while left := await records.one(
        "SELECT count(*) FROM data_sources WHERE id = ANY($1) AND last_tested_at IS NULL", ids
    ):
        assert monotonic() < gives_up, f"{left} are left"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def scheduler(hub: Hub, **settings: int) -> AsyncIterator[None]:
    before = hub.parts.settings
    hub.parts.settings = msgspec.structs.replace(before, **settings)
    try:
        async with beside(schedule.test_on_schedule(hub.parts)):
            yield
    finally:
        hub.parts.settings = before


@pytest.fixture
def under_way(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The most tests of each host that were under way at once; `all` of them together."""
    now: Counter[str] = Counter()
    most: dict[str, int] = {}
    check = ConnectorSandbox.check

    async def counted(sandbox: ConnectorSandbox, type_name: str, config: Any, *args: Any, **options: Any) -> Any:
        for name in ("all", config["host"]):
            now[name] += 1
            most[name] = max(most.get(name, 0), now[name])
        try:
            return await check(sandbox, type_name, config, *args, **options)
        finally:
            for name in ("all", config["host"]):
                now[name] -= 1

    monkeypatch.setattr(ConnectorSandbox, "check", counted)
    return most


# --- places ---


async def test_places_are_filled_at_once_and_again_as_they_get_free(
    hub: Hub, records: Records, under_way: dict[str, int]
) -> None:
    ids = await register(hub, 20, delays_ms={"connect": 100})
    await make_due(records, ids, status="passed")
    async with scheduler(hub, tests_at_once=6):
        await until_tested(records, ids)
    assert under_way["all"] == 6


async def test_few_of_one_host_are_tested_at_once_and_those_of_others_pass_them_by(
    hub: Hub, records: Records, under_way: dict[str, int]
) -> None:
    busy = f"{uuid4().hex}.invalid"
    of_one_host = await register(hub, 12, host=busy, delays_ms={"connect": 200})
    others = await register(hub, 4, delays_ms={"connect": 200})
    await make_due(records, of_one_host, status="passed")
    await make_due(records, others, status="passed")
    await records.run("UPDATE data_sources SET next_test_at = next_test_at - interval '1 minute' WHERE host = $1", busy)
    async with scheduler(hub, tests_at_once=8, tests_at_once_per_host=2):
        await until_tested(records, [*of_one_host, *others])
    assert under_way[busy] == 2
    last = "SELECT max(last_tested_at) FROM data_sources WHERE id = ANY($1)"
    assert await records.one(last, others) < await records.one(last, of_one_host)


async def test_spellings_of_a_host_are_one_host(hub: Hub, records: Records) -> None:
    names = [await registered(hub, type="rest", config={"base_url": url}, test_interval_s=60) for url in (
        "https://api.example/v1", "https://API.example:8443/v2", "http://api.example./x",
    )]  # fmt: skip
    names.append(await registered(hub, config={"host": "Api.Example", "database": "d", "username": "u"}))
    rows = await records.run("SELECT host FROM data_sources WHERE id = ANY($1)", [UUID(made["id"]) for made in names])
    assert {row["host"] for row in rows} == {"api.example"}


async def test_a_source_that_knows_no_host_yet_learns_it_with_its_test(hub: Hub, records: Records) -> None:
    ids = await register(hub, 1, host="learned.invalid")
    await make_due(records, ids, host=None)
    async with scheduler(hub):
        await until_tested(records, ids)
    assert await records.one("SELECT host FROM data_sources WHERE id = $1", ids[0]) == "learned.invalid"


# --- dead ones ---


async def pause_after(hub: Hub, records: Records, source_id: UUID, failures: int) -> float:
    await make_due(records, [source_id], test_failures=failures, status="failed")
    (due,) = await claim_due(hub.parts, "doubtful", 10, running={}, host_cap=4)
    assert due.source_id == source_id
    moment: datetime = await records.one("SELECT next_test_at FROM data_sources WHERE id = $1", source_id)
    return (moment - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(
    ("interval_s", "failures", "pause_s"),
    [
        (60, 0, 60),
        (60, 1, 120),
        (60, 3, 480),
        (60, 4, 60 * MAX_BACKOFF),
        (60, 1000, 60 * MAX_BACKOFF),
        (600, 5, MAX_BACKOFF_S),
        (86_400, 5, 86_400),
    ],
)
async def test_the_pause_doubles_with_each_failure_up_to_a_bound(
    hub: Hub, records: Records, interval_s: int, failures: int, pause_s: int
) -> None:
    (source_id,) = await register(hub, 1)
    await records.run("UPDATE data_sources SET test_interval_s = $1 WHERE id = $2", interval_s, source_id)
    pauses = {await pause_after(hub, records, source_id, failures) for _ in range(5)}
    assert all(0.89 * pause_s < pause < 1.11 * pause_s for pause in pauses)
    assert len({round(pause, 3) for pause in pauses}) > 1, "dead sources do not come back in step"


async def test_failures_count_and_one_that_passes_again_is_back_at_its_interval(hub: Hub, records: Records) -> None:
    (source_id,) = await register(hub, 1, fail_at="connect", fail_code="connection_refused")
    path = f"{SOURCES}/{source_id}"
    for expected in (1, 2):
        await hub.admin.post(f"{path}/test")
        assert await records.one("SELECT test_failures FROM data_sources WHERE id = $1", source_id) == expected
    await records.run("UPDATE data_sources SET next_test_at = now() + interval '1 hour' WHERE id = $1", source_id)
    await records.run("UPDATE data_sources SET config = config - 'fail_at' WHERE id = $1", source_id)
    assert (await hub.admin.post(f"{path}/test")).json()["status"] == "passed"
    (row,) = await records.run("SELECT test_failures, next_test_at FROM data_sources WHERE id = $1", source_id)
    assert row["test_failures"] == 0
    assert row["next_test_at"] - datetime.now(UTC) < timedelta(seconds=67)


async def test_a_change_that_may_have_mended_a_source_is_tested_soon(hub: Hub, records: Records) -> None:
    (source_id,) = await register(hub, 1, fail_at="connect")
    await hub.admin.post(f"{SOURCES}/{source_id}/test")
    for change, is_soon in (
        ({"description": "x"}, False),
        ({"config": {"fail_at": "list"}}, True),
        ({"secrets": {"password": "x"}}, True),
    ):
        await records.run("UPDATE data_sources SET test_failures = 3, next_test_at = now() + $2 WHERE id = $1", source_id, FAR)  # fmt: skip
        assert (await hub.admin.patch(f"{SOURCES}/{source_id}", json=change)).status_code == 200
        (row,) = await records.run("SELECT test_failures, next_test_at FROM data_sources WHERE id = $1", source_id)
        assert (row["test_failures"] == 0) == is_soon, change
        assert (row["next_test_at"] - datetime.now(UTC) < timedelta(minutes=2)) == is_soon, change


@pytest.mark.slow
async def test_good_ones_stay_on_time_beside_dead_and_silent_ones(hub: Hub, records: Records) -> None:
    """A hundred that fail, sixty that say nothing for as long as they are let, and forty good ones, all due at once."""
    dead = await register(hub, 100, fail_at="connect", fail_code="connection_refused")
    silent = await register(hub, 60, misbehaviour="hang")
    good = await register(hub, 40)
    await make_due(records, dead)
    await make_due(records, silent)
    await make_due(records, good, status="passed")
    await records.run(
        "UPDATE data_sources SET next_test_at = next_test_at - interval '1 hour' WHERE id <> ALL($1)", good
    )
    async with scheduler(hub, tests_at_once=32):
        await until_tested(records, good)
        assert await records.one("SELECT count(*) FROM data_source_tests WHERE data_source_id = ANY($1)", silent) == 0
        await make_due(records, good)  # and again, while the silent ones hold the places that they may hold
        await records.run("UPDATE data_sources SET last_tested_at = NULL WHERE id = ANY($1)", good)
        await until_tested(records, good)
        await until_tested(records, dead)


# --- what is seen of it ---


def lags() -> float:
    return REGISTRY.get_sample_value("hub_scheduled_test_lag_seconds_count") or 0.0


async def test_the_time_from_due_to_start_is_measured(hub: Hub, records: Records) -> None:
    before, ids = lags(), await register(hub, 3)
    await make_due(records, ids)
    await records.run("UPDATE data_sources SET next_test_at = now() - interval '20 seconds' WHERE id = $1", ids[0])
    assert oldest_due(await metrics(hub)) > 19
    async with scheduler(hub):
        await until_tested(records, ids)
    assert lags() - before == 3
    assert oldest_due(await metrics(hub)) == 0.0


async def metrics(hub: Hub) -> str:
    answer = await hub.admin.get("/metrics")
    assert answer.status_code == 200
    return answer.text


def oldest_due(exposition: str) -> float:
    (line,) = [line for line in exposition.splitlines() if line.startswith("hub_scheduled_tests_oldest_due_seconds ")]
    return float(line.split()[1])


async def test_results_of_many_are_kept_with_as_many_statements_as_of_one(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await register(hub, 30)
    await make_due(records, ids)
    audited, announced = await records.mark()
    async with scheduler(hub):
        await until_tested(records, ids)
    assert await records.one("SELECT count(*) FROM data_source_tests WHERE data_source_id = ANY($1)", ids) == 30
    assert tuple(now - then for now, then in zip(await records.mark(), (audited, announced), strict=True)) == (30, 30)


async def test_a_source_that_is_gone_costs_the_others_nothing(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await register(hub, 5, delays_ms={"connect": 500})
    await make_due(records, ids)
    async with scheduler(hub):
        while await records.one("SELECT count(*) FROM data_sources WHERE id = ANY($1) AND next_test_at < now()", ids):
            await asyncio.sleep(0.02)
        assert (await hub.admin.delete(f"{SOURCES}/{ids[0]}")).status_code == 204
        await until_tested(records, ids)
    assert await records.one("SELECT count(*) FROM data_source_tests WHERE data_source_id = ANY($1)", ids) == 4
