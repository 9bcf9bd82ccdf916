"""Jobs as requests see them: enqueued in the caller's transaction, watched, cancelled."""

from uuid import UUID

from sqlalchemy import func, select

from app.core.errors import Conflict
from app.core.extent import Place
from app.core.reads import Reads
from app.core.security import Principal, missing, unseen
from app.core.tracing import traceparent
from app.domain.auth.places import place_of
from app.domain.jobs.models import Job
from app.domain.jobs.repositories import JobRepository
from app.domain.jobs.schemas import JobOut
from app.domain.work import UnitOfWork

CHANNEL = "hub_jobs"
"""Wakes the workers when a job is committed."""

UNFINISHED = ("queued", "running")
FIRST, AS_ASKED_FOR, ON_SCHEDULE = 10, 0, -10
"""Priorities: rights that are to end, what somebody waits for, what is merely due."""


class JobService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._jobs = JobRepository(work.session, tenant_id=work.tenant_id)

    async def enqueue(
        self,
        kind: str,
        *,
        subject_id: UUID | None = None,
        arguments: dict[str, object] | None = None,
        priority: int = AS_ASKED_FOR,
        host: str | None = None,
    ) -> JobOut:
        """Queued when, and only when, the caller's transaction commits. The caller audits: it knows what for."""
        job = await self._jobs.add(
            Job(
                **self._work.stamp(),
                kind=kind,
                status="queued",
                subject_id=subject_id,
                arguments=arguments or {},
                traceparent=traceparent(),
                priority=priority,
                host=host,
            )
        )
        await self._work.session.execute(select(func.pg_notify(CHANNEL, "")))
        shown = await self._shown(job.id)
        self._work.announce("job.created", f"jobs/{job.id}", shown)
        return shown

    async def unfinished(self, kind: str, subject_id: UUID) -> JobOut | None:
        """The job of that kind about that subject which waits or runs."""
        statement = select(Job.id).where(Job.kind == kind, Job.subject_id == subject_id, Job.status.in_(UNFINISHED))
        found = await self._work.session.scalar(statement.limit(1))
        return await self._shown(found) if found else None

    async def cancel(self, job_id: UUID) -> JobOut:
        """A waiting job ends at once, a running one as soon as its worker sees the wish.

        Raises Conflict where it has ended, NotFound or Hidden where it may not be seen, Forbidden where it may only be
        seen.
        """
        found = await self._jobs.get_one_or_none(id=job_id, with_for_update=True)
        await self._require_right_to_cancel(found)
        job = self._jobs.check_not_found(found)
        if job.status not in UNFINISHED:
            raise Conflict(code="job_ended")
        is_waiting = job.status == "queued"
        job.cancel_requested = True
        if is_waiting:
            job.status, job.finished_at = "cancelled", self._work.now
        self._work.touch(job)
        await self._jobs.update(job)
        shown = await self._shown(job_id)
        self._work.audit("job.cancel", "job", job_id)
        self._work.announce("job.cancelled" if is_waiting else "job.cancel_requested", f"jobs/{job_id}", shown)
        return shown

    async def _require_right_to_cancel(self, job: Job | None) -> None:
        actor, created_by = self._work.actor, None if job is None else job.created_by
        place = await place_of_job(self._work.parts.reads, actor, None if job is None else job.subject_id)
        if may_see(actor, created_by, "jobs:write", place):
            return
        require_right_to_see(actor, created_by, place)
        if job is not None:
            raise missing(actor, "jobs:write")

    async def _shown(self, job_id: UUID) -> JobOut:
        return await self._jobs.read(JobOut, id=job_id, tenant_id=self._work.tenant_id)


async def place_of_job(reads: Reads, principal: Principal, subject_id: UUID | None) -> Place:
    """Where the source stands that a job is about: asked for those alone whose rights hang on it."""
    if subject_id is None or not principal.extents:
        return Place()
    return await place_of(reads, "data_source", subject_id, principal.tenant_id) or Place()


def may_see(principal: Principal, created_by: UUID | None, permission: str, place: Place) -> bool:
    """One's own jobs, and with the permission those of everybody, or those about sources for which it is held."""
    return created_by == principal.id or principal.may_at(permission, place)


def require_right_to_see(principal: Principal, created_by: UUID | None, place: Place) -> None:
    """Raises Hidden. What is not there is nobody's own, so that it is refused alike to those who may see their own
    only: neither the answer nor the time that it takes tells them what is there.
    """
    if not may_see(principal, created_by, "jobs:read", place):
        raise unseen(principal, "jobs:read")
