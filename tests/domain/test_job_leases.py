"""A job outlives its worker: the lease of a killed one runs out, and another takes the job up."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from app.domain.jobs.models import Job
from app.domain.jobs.runner import MAX_ATTEMPTS, JobRun, JobRunner
from app.domain.jobs.services import CHANNEL
from app.domain.tenants.models import DEFAULT_TENANT_ID
from tests.beside import beside
from tests.conftest import Hub

pytestmark = pytest.mark.anyio

KIND = "test.long"


class Gate:
    """A job handler that waits to be let through, and notes who began."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, run: JobRun) -> dict[str, Any]:
        self.begun.set()
        await self.open.wait()
        return {"by": id(self)}


def _runner(hub: Hub, handler: Gate) -> contextlib.AbstractAsyncContextManager["asyncio.Task[None]"]:
    # One place: who holds a job claims no other, so that the wake-up cannot give a lost job back to whoever lost it.
    return beside(JobRunner(hub.parts, {KIND: handler}, concurrency=1).run_forever())


async def _enqueue(hub: Hub) -> UUID:
    now = datetime.now(UTC)
    stamp = {
        "tenant_id": DEFAULT_TENANT_ID,
        "created_at": now,
        "updated_at": now,
        "created_by": None,
        "updated_by": None,
    }
    job = Job(**stamp, kind=KIND, status="queued", subject_id=None, arguments={})
    async with hub.parts.sessions.begin(DEFAULT_TENANT_ID) as session:
        session.add(job)
        await session.execute(select(func.pg_notify(CHANNEL, "")))
    return job.id


async def _job(hub: Hub, job_id: UUID) -> Job:
    async with hub.parts.sessions(DEFAULT_TENANT_ID) as session:
        found = await session.get(Job, job_id)
        assert found is not None
        return found


async def _until(hub: Hub, job_id: UUID, status: str) -> Job:
    async with asyncio.timeout(20):
        while (job := await _job(hub, job_id)).status != status:
            await asyncio.sleep(0.05)
    return job


async def _run_out(hub: Hub, job_id: UUID, **values: Any) -> None:
    """As the lease of a worker that was killed is half a minute later; the next notification wakes the other."""
    async with hub.parts.sessions.begin(DEFAULT_TENANT_ID) as session:
        past = {"lease_until": func.now() - func.make_interval(0, 0, 0, 0, 0, 1), **values}
        await session.execute(update(Job).where(Job.id == job_id).values(past))
        await session.execute(select(func.pg_notify(CHANNEL, "")))


async def test_another_worker_takes_up_the_job_of_a_killed_one(hub: Hub) -> None:
    lost, second = Gate(), Gate()
    job_id = await _enqueue(hub)
    async with _runner(hub, lost):
        await asyncio.wait_for(lost.begun.wait(), 10)
        async with _runner(hub, second):
            await _run_out(hub, job_id)
            await asyncio.wait_for(second.begun.wait(), 10)
            second.open.set()
            job = await _until(hub, job_id, "succeeded")
            assert (job.result, job.attempts) == ({"by": id(second)}, 2)
            # Whoever lost the lease writes nothing more, however it ends.
            lost.open.set()
            await asyncio.sleep(0.3)
            assert (await _job(hub, job_id)).result == {"by": id(second)}


async def test_a_worker_that_shuts_down_gives_its_job_back(hub: Hub) -> None:
    gate = Gate()
    job_id = await _enqueue(hub)
    async with _runner(hub, gate):
        await asyncio.wait_for(gate.begun.wait(), 10)
    job = await _job(hub, job_id)
    assert (job.status, job.attempts, job.lease_until) == ("queued", 0, None)
    gate.open.set()
    async with _runner(hub, gate):
        await _until(hub, job_id, "succeeded")


async def test_a_job_that_loses_every_worker_fails_in_the_end(hub: Hub) -> None:
    gate = Gate()
    job_id = await _enqueue(hub)
    await _run_out(hub, job_id, status="running", attempts=MAX_ATTEMPTS)
    async with _runner(hub, gate):
        job = await _until(hub, job_id, "failed")
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert not gate.begun.is_set()


@pytest.mark.slow
async def test_a_running_job_stops_when_it_is_cancelled(hub: Hub) -> None:
    gate = Gate()
    job_id = await _enqueue(hub)
    async with _runner(hub, gate):
        await asyncio.wait_for(gate.begun.wait(), 10)
        assert (await hub.admin.post(f"/api/v1/jobs/{job_id}/cancel")).status_code == 200
        await _until(hub, job_id, "cancelled")
