"""Jobs and due tests are shared out: no tenant, kind or host keeps the others waiting, and what failed is tried again."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

import pytest

from app.connectors.contract.failures import ConnectorError
from app.core.errors import Conflict, Unavailable
from app.domain.jobs import runner
from app.domain.jobs.runner import JobHandler, JobRun, JobRunner
from app.domain.jobs.services import AS_ASKED_FOR, FIRST, ON_SCHEDULE
from app.domain.source_work.due import claim_due
from tests.beside import beside
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, discovered, registered, until

pytestmark = pytest.mark.anyio

KIND = "test.fair"


@pytest.fixture(autouse=True)
async def _nothing_else_waits(hub: Hub, records: Records) -> None:
    await records.run("UPDATE jobs SET status = 'cancelled', finished_at = now() WHERE status IN ('queued', 'running')")
    await records.run("UPDATE data_sources SET next_test_at = NULL")


@pytest.fixture
async def other(hub: Hub) -> Hub:
    return await hub.new_tenant()


async def tenant_of(hub: Hub) -> UUID:
    return UUID((await hub.admin.get("/api/v1/auth/me")).json()["tenant"]["id"])


async def queue(records: Records, tenant: UUID, number: int, **columns: Any) -> list[UUID]:
    """Each a moment younger than the one before."""
    given = {"kind": KIND, "priority": AS_ASKED_FOR, "host": None, **columns}
    rows = await records.run(
        """INSERT INTO jobs (id, tenant_id, kind, status, arguments, created_at, updated_at, priority, host)
           SELECT gen_random_uuid(), $1, $2, 'queued', '{}', now() + n * interval '1 ms', now(), $3, $4
           FROM generate_series(1, $5) AS n RETURNING id, created_at""",
        tenant, given["kind"], given["priority"], given["host"], number,
    )  # fmt: skip
    return [row["id"] for row in sorted(rows, key=lambda row: row["created_at"])]


class Noting:
    """Notes who ran, and how many at a time."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.ran: list[UUID] = []
        self.tenants: list[UUID] = []
        self.now: Counter[object] = Counter()
        self.most: Counter[object] = Counter()
        self._takes_s = takes_s

    async def __call__(self, run: JobRun) -> dict[str, object]:
        self.ran.append(run.job_id)
        self.tenants.append(run.tenant_id)
        self.now[run.tenant_id] += 1
        self.most |= self.now
        await asyncio.sleep(self._takes_s)
        self.now[run.tenant_id] -= 1
        return {}


def running(hub: Hub, handlers: dict[str, JobHandler], **options: Any) -> AbstractAsyncContextManager[object]:
    return beside(JobRunner(hub.parts, handlers, **options).run_forever())


async def eventually(holds: Callable[[], bool], within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


# Whose turn it is -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_tenant_with_ten_thousand_jobs_keeps_no_other_one_waiting(
    hub: Hub, other: Hub, records: Records
) -> None:
    many, few = await tenant_of(hub), await tenant_of(other)
    await queue(records, many, 10_000)
    theirs = await queue(records, few, 3)
    noting = Noting(0.01)
    async with running(hub, {KIND: noting}):
        await eventually(lambda: set(theirs) <= set(noting.ran))
    assert noting.ran.index(theirs[-1]) < 12
    assert noting.tenants.count(many) >= 3


async def test_a_place_is_left_for_other_tenants_and_other_kinds(hub: Hub, other: Hub, records: Records) -> None:
    await queue(records, await tenant_of(hub), 12)
    await queue(records, await tenant_of(other), 12, kind="test.other")
    long, noting = Noting(0.2), Noting()
    async with running(hub, {KIND: long, "test.other": noting}):
        await eventually(lambda: len(long.ran) == 12 and len(noting.ran) == 12)
    assert max(long.most.values()) == 3


async def test_few_jobs_of_one_host_run_at_once_and_the_rest_of_the_queue_goes_on(hub: Hub, records: Records) -> None:
    tenant = await tenant_of(hub)
    crowded = await queue(records, tenant, 6, host="db.example.org")
    free = await queue(records, tenant, 2, kind="test.other")
    long, noting = Noting(0.2), Noting()
    async with running(hub, {KIND: long, "test.other": noting}, host_cap=2):
        await eventually(lambda: len(noting.ran) == len(free))
        assert len(long.ran) < len(crowded)
        await eventually(lambda: len(long.ran) == len(crowded))
    assert max(long.most.values()) == 2


async def test_what_is_more_urgent_goes_first(hub: Hub, records: Records) -> None:
    tenant = await tenant_of(hub)
    wanted = []
    for priority in (ON_SCHEDULE, AS_ASKED_FOR, FIRST):
        wanted += await queue(records, tenant, 2, priority=priority)
    noting = Noting()
    async with running(hub, {KIND: noting}, concurrency=1):
        await eventually(lambda: len(noting.ran) == 6)
    assert noting.ran == [*wanted[4:], *wanted[2:4], *wanted[:2]]


@pytest.mark.slow
async def test_a_tenant_with_thousands_of_due_tests_keeps_no_other_one_waiting(
    hub: Hub, other: Hub, records: Records
) -> None:
    mine = await registered(hub, type="simulated", config={}, test_interval_s=60)
    theirs = await registered(other, type="simulated", config={}, test_interval_s=60)
    copied = [column["column_name"] for column in await records.run(_COLUMNS)]
    values = ", ".join(
        {"id": "gen_random_uuid()", "name_key": "name_key || n", "host": "NULL"}.get(c, c) for c in copied
    )
    await records.run(
        f"INSERT INTO data_sources ({', '.join(copied)})"
        f" SELECT {values} FROM data_sources, generate_series(1, 3000) AS n WHERE id = $1::uuid",
        mine["id"],
    )
    late = "UPDATE data_sources SET next_test_at = now() - $2::interval WHERE tenant_id = $1"
    await records.run(late.replace("$2::interval", "interval '1 hour'"), await tenant_of(hub))
    await records.run(late.replace("$2::interval", "interval '1 second'"), await tenant_of(other))
    first = await claim_due(hub.parts, "doubtful", 4, running={}, host_cap=4)
    assert UUID(theirs["id"]) in {due.source_id for due in first}
    assert len(first) == 4
    busy = [await tenant_of(hub)] * 4
    more = "UPDATE data_sources SET next_test_at = now() WHERE tenant_id = $1"
    await records.run(more, await tenant_of(other))
    (next_one,) = await claim_due(hub.parts, "doubtful", 1, running={}, host_cap=4, busy_tenants=busy)
    assert next_one.source_id == UUID(theirs["id"])
    await records.run("DELETE FROM data_sources WHERE tenant_id = $1 AND name_key <> lower(name)", await tenant_of(hub))


_COLUMNS = """SELECT column_name FROM information_schema.columns
WHERE table_name = 'data_sources' AND is_generated = 'NEVER' ORDER BY ordinal_position"""


# Trying again ---------------------------------------------------------------------------------------------------------


class Failing:
    """Fails with each error in turn, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.tried = 0

    async def __call__(self, run: JobRun) -> dict[str, object]:
        self.tried += 1
        if self._errors:
            raise self._errors.pop(0)
        return {"tried": self.tried}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RETRY_AFTER_S", (0.05, 0.05))
    monkeypatch.setattr(runner, "IDLE_POLL_S", 0.05)


AWAY = ConnectorError("connection_refused", "Nobody listens.")


@pytest.mark.usefixtures("soon")
async def test_a_failure_that_may_pass_is_tried_again(hub: Hub, records: Records) -> None:
    (job_id,) = await queue(records, await tenant_of(hub), 1)
    failing = Failing(AWAY, Unavailable(code="connectors_busy"))
    async with running(hub, {KIND: failing}):
        job = await until(hub.admin, str(job_id), "succeeded")
    assert (job["retries"], job["result"], job["error"], job["run_after"]) == (2, {"tried": 3}, None, None)
    audit = await records.run(
        "SELECT action, outcome FROM audit_events WHERE resource_id = $1 ORDER BY sequence", job_id
    )
    assert [tuple(row) for row in audit] == [("job.retry", "failure"), ("job.retry", "failure"), ("job.end", "success")]


@pytest.mark.usefixtures("soon")
async def test_it_has_failed_when_it_was_tried_often_enough(hub: Hub, records: Records) -> None:
    (job_id,) = await queue(records, await tenant_of(hub), 1)
    failing = Failing(AWAY, AWAY, AWAY, AWAY)
    async with running(hub, {KIND: failing}):
        job = await until(hub.admin, str(job_id), "failed")
    assert (failing.tried, job["retries"], job["error"]["code"]) == (3, 2, "connection_refused")


@pytest.mark.usefixtures("soon")
async def test_a_failure_that_does_not_pass_is_the_end(hub: Hub, records: Records) -> None:
    for error in (ConnectorError("authentication_failed", "No."), Conflict(code="source_deleted"), KeyError("x")):
        (job_id,) = await queue(records, await tenant_of(hub), 1)
        failing = Failing(error)
        async with running(hub, {KIND: failing}):
            job = await until(hub.admin, str(job_id), "failed")
        assert (failing.tried, job["retries"]) == (1, 0)


async def test_while_it_waits_it_says_why_and_can_be_cancelled(hub: Hub, records: Records) -> None:
    (job_id,) = await queue(records, await tenant_of(hub), 1)
    patient = ConnectorError("rate_limited", "Later.", retry_after_s=600)
    async with running(hub, {KIND: Failing(patient)}):
        async with asyncio.timeout(20):
            while (job := (await hub.admin.get(f"/api/v1/jobs/{job_id}")).json())["run_after"] is None:
                await asyncio.sleep(0.05)
        assert (job["status"], job["error"]["code"], job["retries"]) == ("queued", "rate_limited", 1)
        wait_s = "SELECT extract(epoch FROM run_after - updated_at)::float8 FROM jobs WHERE id = $1"
        assert 599 < await records.one(wait_s, job_id) < 760
        cancelled = await hub.admin.post(f"/api/v1/jobs/{job_id}/cancel")
    assert cancelled.json()["status"] == "cancelled"


async def test_what_nobody_waits_for_is_tried_more_patiently(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RETRY_AFTER_S", (2.0, 10.0))
    (asked, due) = [(await queue(records, await tenant_of(hub), 1, priority=p))[0] for p in (AS_ASKED_FOR, ON_SCHEDULE)]
    async with running(hub, {KIND: Failing(AWAY, AWAY)}):
        async with asyncio.timeout(20):
            while (
                await records.one(
                    "SELECT count(*) FROM jobs WHERE run_after IS NOT NULL AND id = ANY($1)", [asked, due]
                )
                < 2
            ):
                await asyncio.sleep(0.02)
    waits = "SELECT extract(epoch FROM run_after - updated_at)::float8 FROM jobs WHERE id = $1"
    assert 1.5 < await records.one(waits, asked) < 3
    assert 9 < await records.one(waits, due) < 13


async def test_a_job_that_somebody_has_cancelled_is_not_tried_again(hub: Hub, records: Records) -> None:
    (job_id,) = await queue(records, await tenant_of(hub), 1)

    async def cancelled_then_failing(run: JobRun) -> dict[str, object]:
        assert (await hub.admin.post(f"/api/v1/jobs/{run.job_id}/cancel")).status_code == 200
        raise AWAY

    async with running(hub, {KIND: cancelled_then_failing}):
        job = await until(hub.admin, str(job_id), "cancelled")
    assert (job["retries"], job["error"]) == (0, None)


@pytest.mark.usefixtures("soon")
async def test_a_server_that_asks_for_too_much_patience_is_not_waited_for(hub: Hub, records: Records) -> None:
    (job_id,) = await queue(records, await tenant_of(hub), 1)
    failing = Failing(ConnectorError("rate_limited", "Tomorrow.", retry_after_s=86_400))
    async with running(hub, {KIND: failing}):
        assert (await until(hub.admin, str(job_id), "failed"))["retries"] == 0


@pytest.mark.usefixtures("soon")
async def test_a_discovery_of_a_source_that_is_away_is_tried_again(hub: Hub) -> None:
    config = {"fail_at": "connect", "fail_code": "connection_refused"}
    source = await registered(hub, type="simulated", config=config)
    job = await discovered(hub, f"{SOURCES}/{source['id']}")
    assert (job["status"], job["retries"], job["error"]["can_retry"]) == ("failed", 2, True)


async def test_a_job_of_a_worker_that_was_lost_is_counted_anew_after_a_failure(hub: Hub, records: Records) -> None:
    (job_id,) = await queue(records, await tenant_of(hub), 1)
    async with running(hub, {KIND: Failing(AWAY)}):
        async with asyncio.timeout(20):
            while not await records.one("SELECT retries FROM jobs WHERE id = $1", job_id):
                await asyncio.sleep(0.05)
    assert await records.one("SELECT attempts FROM jobs WHERE id = $1", job_id) == 0
