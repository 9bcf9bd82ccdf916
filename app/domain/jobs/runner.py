"""The worker's side of the queue: claim a job, keep its lease, write down how it ended.

Jobs are claimed with `FOR UPDATE SKIP LOCKED`. A running job holds a lease that its worker renews; where a worker was
killed the lease runs out and another worker takes the job up. A worker that lost its lease can write nothing more
(`lease_id`).

Which job is next is decided among tenants first, so that one with ten thousand jobs keeps no other one waiting
(`next_waiting_job`); of one kind, tenant and host a worker runs only so many at once. A job that failed and may succeed
later is queued again, and left alone for a while.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar
from uuid import UUID

from prometheus_client import Histogram
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import Update
from uuid_utils.compat import uuid7

from app.connectors.contract.failures import ConnectorError
from app.core.across_tenants import locked_rows
from app.core.database import DATABASE_ERRORS, enter_tenant, explain
from app.core.errors import HubError
from app.core.event_names import EventName
from app.core.log_context import LogContext
from app.core.notifications import Listener
from app.core.tracing import background_work, tracer
from app.domain.audit.schemas import Outcome
from app.domain.jobs.models import Job
from app.domain.jobs.repositories import JobRepository
from app.domain.jobs.schemas import JobErrorCode, JobOut
from app.domain.jobs.services import AS_ASKED_FOR, CHANNEL
from app.domain.parts import Parts
from app.domain.tenants.suspension import stop_suspended
from app.domain.work import UnitOfWork, unit_of_work_of

log = logging.getLogger("hub.jobs")

durations = Histogram(
    "hub_job_duration_seconds",
    "Time from the first start of a job to its end, by how it ended.",
    ("kind", "status"),
    buckets=(0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0),
)

LEASE = timedelta(seconds=30)
RENEWAL_S = 5.0
IDLE_POLL_S = 5.0
"""A notification wakes an idle worker; this is for the one that was missed, and for leases that ran out."""
MAX_ATTEMPTS = 3
RETRY_AFTER_S: tuple[float, ...] = (2.0, 10.0)
"""After the first failure that may pass, after the second, and so on; then the job has failed, which somebody who has
asked for it learns soon."""
PATIENT_RETRY_AFTER_S: tuple[float, ...] = (10.0, 60.0, 300.0, 1800.0)
"""For what nobody waits for."""
LONGEST_RETRY_S = 3600.0
"""A server may ask for so much patience; one that asks for more is not waited for."""
JITTER = 0.25
OF_ONE_TENANT = 4
"""As many connectors as the sandbox runs for a tenant."""
End = Literal["cancelled", "failed", "succeeded"]
ENDS: Mapping[End, EventName] = {
    "cancelled": "job.cancelled",
    "failed": "job.failed",
    "succeeded": "job.succeeded",
}


class LeaseLost(Exception):
    """Another worker holds the job now, or it is gone."""


class JobRun:
    """One attempt at one job, as its handler sees it."""

    def __init__(self, parts: Parts, job: Job) -> None:
        self.parts = parts
        self.job_id: UUID = job.id
        self.tenant_id: UUID = job.tenant_id
        self.subject_id = job.subject_id
        self.created_by = job.created_by
        self.kind = job.kind
        self.started_at = job.started_at
        self.arguments: Mapping[str, object] = job.arguments
        self._lease_id = job.lease_id
        self.is_cancelled = False

    async def report(self, done: int, total: int | None = None) -> None:
        """Tell how far the job is. Raises LeaseLost, and CancelledError where somebody wants it to end."""
        if await self._write(progress_done=done, progress_total=total):
            self.is_cancelled = True
            raise asyncio.CancelledError

    async def renew(self) -> bool:
        """Whether somebody wants the job to end. Raises LeaseLost."""
        return await self._write()

    async def hold(self, session: AsyncSession) -> None:
        """Nobody else takes the job up before the session's transaction has ended. Raises LeaseLost."""
        held = select(Job.id).where(*self._held()).with_for_update()
        if await session.scalar(held) is None:
            raise LeaseLost

    async def release(self, session: AsyncSession) -> None:
        values = {"status": "queued", "lease_until": None, "attempts": Job.attempts - 1}
        await session.execute(self._update(values), execution_options=_NO_SYNC)

    async def try_again(self, error: Mapping[str, object], wait_s: float) -> None:
        """Queue the job anew, not to be run before so many seconds have passed. Raises LeaseLost."""
        run_after = datetime.now(UTC) + timedelta(seconds=wait_s)
        async with unit_of_work_of(self.parts, tenant_id=self.tenant_id) as work:
            waiting = {"status": "queued", "run_after": run_after, "lease_until": None, "error": dict(error)}
            await self._change(work, waiting | {"retries": Job.retries + 1, "attempts": 0})
            data = {"id": str(self.job_id), "status": "queued", "error": error, "run_after": run_after.isoformat()}
            work.audit("job.retry", "job", self.job_id, outcome="failure", after=data)
            work.announce("job.retried", f"jobs/{self.job_id}", await self._shown(work))

    async def end(self, status: End, *, result: object = None, error: object = None) -> None:
        now = datetime.now(UTC)
        async with unit_of_work_of(self.parts, tenant_id=self.tenant_id) as work:
            values = {"status": status, "result": result, "error": error, "finished_at": now, "lease_until": None}
            await self._change(work, values | {"run_after": None})
            data = {"id": str(self.job_id), "status": status, "result": result, "error": error}
            outcome: Outcome = "failure" if status == "failed" else "success"
            work.audit("job.end", "job", self.job_id, outcome=outcome, after=data)
            work.announce(ENDS[status], f"jobs/{self.job_id}", await self._shown(work))
        self._tell(status, now)

    async def _change(self, work: UnitOfWork, values: Mapping[str, object]) -> None:
        """Raises LeaseLost."""
        if await work.session.scalar(self._update(values).returning(Job.id), execution_options=_NO_SYNC) is None:
            raise LeaseLost

    async def _shown(self, work: UnitOfWork) -> JobOut:
        jobs = JobRepository(work.session, tenant_id=self.tenant_id)
        return await jobs.read(JobOut, id=self.job_id, tenant_id=self.tenant_id)

    def _tell(self, status: End, ended_at: datetime) -> None:
        seconds = (ended_at - (self.started_at or ended_at)).total_seconds()
        durations.labels(self.kind, status).observe(max(seconds, 0.0))
        tracer().current().note({"hub.job.status": status})
        if status == "failed":
            tracer().current().fail("job_failed")

    async def _write(self, **values: object) -> bool:
        async with self.parts.sessions.begin(self.tenant_id) as session:
            statement = self._update(values | {"lease_until": datetime.now(UTC) + LEASE}).returning(
                Job.cancel_requested
            )
            wanted: bool | None = await session.scalar(statement, execution_options=_NO_SYNC)
        if wanted is None:
            raise LeaseLost
        return wanted

    def _update(self, values: Mapping[str, object]) -> Update:
        changed = {"version": Job.version + 1, "updated_at": datetime.now(UTC)} if len(values) > 1 else {}
        return update(Job).where(*self._held()).values(dict(values) | changed)

    def _held(self) -> tuple[ColumnElement[bool], ...]:
        return Job.id == self.job_id, Job.lease_id == self._lease_id, Job.status == "running"


Name = TypeVar("Name", bound=Hashable)
_NEXT = "next_waiting_job(:moment, :kinds ::text[], :tenants ::uuid[], :hosts ::text[], :busy ::uuid[])"
_NO_SYNC = {"synchronize_session": False}
JobHandler = Callable[[JobRun], Awaitable[dict[str, object]]]


class JobRunner:
    """Runs up to `concurrency` jobs at once until it is stopped; of one kind, or of one tenant, three quarters of
    that, so that there are places for others, and of one host up to `host_cap`."""

    def __init__(
        self, parts: Parts, handlers: Mapping[str, JobHandler], *, concurrency: int = 4, host_cap: int = 2
    ) -> None:
        self._parts = parts
        self._handlers = handlers
        self._places = asyncio.Semaphore(concurrency)
        self._kind_cap = concurrency - concurrency // 4
        self._tenant_cap = min(self._kind_cap, OF_ONE_TENANT)
        self._host_cap = host_cap
        self._woken = asyncio.Event()
        self._running: dict[asyncio.Task[None], Job] = {}
        wake = self._woken.set
        self._listener = Listener(parts.database_url, CHANNEL, on_message=lambda _: wake(), on_gap=wake)

    async def run_forever(self) -> None:
        """Until cancelled; then unfinished jobs are given back to the queue."""
        self._listener.start()
        suspending = asyncio.create_task(stop_suspended(self._parts, self._tenants, asyncio.Task.cancel))
        try:
            while True:
                await self._places.acquire()
                job = await self._next()
                task = asyncio.create_task(self._run(job), name=f"job {job.id}")
                self._running[task] = job
                task.add_done_callback(self._ended)
        finally:
            suspending.cancel()
            await self._listener.stop()
            for task in self._running:
                task.cancel()
            await asyncio.gather(suspending, *self._running, return_exceptions=True)

    def _tenants(self) -> dict["asyncio.Task[None]", UUID]:
        return {task: job.tenant_id for task, job in self._running.items()}

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._running[task]
        self._places.release()
        self._woken.set()  # what waited for a place of its kind, tenant or host may be next

    async def _next(self) -> Job:
        while True:
            self._woken.clear()
            try:
                if (job := await self._claim()) is not None:
                    return job
            except DATABASE_ERRORS as error:
                log.warning("the queue is out of reach: %s", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_POLL_S):  # wait_for forgets a cancellation that comes with the wake-up
                    await self._woken.wait()

    async def _claim(self) -> Job | None:
        now = datetime.now(UTC)
        async with self._parts.sessions.begin(None) as session:
            following = await locked_rows(session, _NEXT, moment=now, **self._busy())
            if not following:
                return None
            await enter_tenant(session, following[0].tenant_id)
            job = await session.get_one(Job, following[0].id)
            job.status, job.lease_id, job.lease_until, job.run_after = "running", uuid7(), now + LEASE, None
            job.started_at, job.updated_at, job.attempts = job.started_at or now, now, job.attempts + 1
        return job

    def _busy(self) -> dict[str, list[Any]]:
        """What goes on here, and of what no more may."""
        running = self._running.values()
        return {
            "kinds": _full((job.kind for job in running), self._kind_cap),
            "tenants": _full((job.tenant_id for job in running), self._tenant_cap),
            "hosts": _full((job.host for job in running if job.host is not None), self._host_cap),
            "busy": [job.tenant_id for job in running],
        }

    async def _run(self, job: Job) -> None:
        context = LogContext(tenant_id=job.tenant_id, principal_id=job.created_by, job_id=job.id)
        attributes = {"hub.job_id": str(job.id), "hub.tenant_id": str(job.tenant_id)}
        with background_work(f"job {job.kind}", context, attributes, made_by=job.traceparent):
            await self._carry_out(job)

    async def _carry_out(self, job: Job) -> None:
        run = JobRun(self._parts, job)
        work = asyncio.create_task(self._attempt(run, job))
        try:
            while not work.done():
                await asyncio.wait((work,), timeout=RENEWAL_S)
                if not work.done() and await run.renew():
                    run.is_cancelled = True
                    work.cancel()
                    break  # once: a second cancellation would break into what the first one is tidying up
            await work
        except asyncio.CancelledError:
            await self._stop(work)
            await self._put_down(run, job)
            if not run.is_cancelled:
                raise
        except LeaseLost:
            await self._stop(work)
            log.warning("job %s was taken over by another worker", job.id)
        except DATABASE_ERRORS as error:
            await self._stop(work)
            log.warning("job %s cannot be written down; its lease runs out: %s", job.id, type(error).__name__)

    async def _attempt(self, run: JobRun, job: Job) -> None:
        if job.cancel_requested:  # its worker was lost before it saw the wish
            await run.end("cancelled")
            return
        if job.attempts > MAX_ATTEMPTS:
            error = {"code": "worker_lost", "message": "The workers on this job were lost.", "can_retry": True}
            await run.end("failed", error=error)
            return
        try:
            result = await self._handlers[job.kind](run)
        except ConnectorError as error:
            told = _error(error.code, f"{error.message} {error.advice}", error.can_retry)
            await self._fail(run, job, told, error.retry_after_s)
        except HubError as error:
            await self._fail(run, job, _error(error.code, error.detail, error.status in (429, 503)))
        except LeaseLost:
            raise
        except Exception as error:
            if _is_away(error):
                raise
            log.exception("job %s failed", job.id)
            await run.end("failed", error=_error("internal_error", "Something went wrong on our side.", False))
        else:
            await run.end("succeeded", result=result)

    async def _fail(self, run: JobRun, job: Job, error: dict[str, object], asked_s: float | None = None) -> None:
        """For good, or until later; `asked_s` is how long a server asks to be left alone."""
        wait_s = _wait_s(job, asked_s or 0.0) if error["can_retry"] else None
        if wait_s is None:
            await run.end("failed", error=error)
        elif await run.renew():  # somebody wants the job to end, and has not been heard yet
            await run.end("cancelled")
        else:
            await run.try_again(error, wait_s)
            asyncio.get_running_loop().call_later(wait_s, self._woken.set)

    async def _stop(self, work: "asyncio.Task[None]") -> None:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    async def _put_down(self, run: JobRun, job: Job) -> None:
        """A job that was stopped: ended where somebody wanted that, given back where this worker shuts down."""
        try:
            if run.is_cancelled:
                await run.end("cancelled")
            else:
                await self._give_back(run)
        except LeaseLost:
            log.info("job %s had ended, or was taken over, as it was stopped", job.id)
        except DATABASE_ERRORS as error:
            log.warning("job %s cannot be put down; its lease runs out: %s", job.id, type(error).__name__)

    async def _give_back(self, run: JobRun) -> None:
        """The job waits for another worker, and the attempt does not count."""
        async with self._parts.sessions.begin(run.tenant_id) as session:
            await run.release(session)
            await session.execute(select(func.pg_notify(CHANNEL, "")))


def _full(names: Iterable[Name], cap: int) -> list[Name]:
    return [name for name, count in Counter(names).items() if count >= cap]


def _wait_s(job: Job, asked_s: float) -> float | None:
    """None where it is not tried again."""
    waits = RETRY_AFTER_S if job.priority == AS_ASKED_FOR else PATIENT_RETRY_AFTER_S
    if job.retries >= len(waits) or asked_s > LONGEST_RETRY_S:
        return None
    return max(asked_s, waits[job.retries]) * (1 + random.uniform(0, JITTER))  # noqa: S311 - not a secret


def _is_away(error: Exception) -> bool:
    """Whether the database could not be asked: another worker may try. A statement that failed would fail again."""
    meaning = explain(error)
    return meaning is not None and meaning.status == 503


def _error(code: JobErrorCode, message: str, can_retry: bool) -> dict[str, object]:
    return {"code": code, "message": message, "can_retry": can_retry}
