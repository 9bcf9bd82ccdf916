"""Jobs: how far they are, and stopping them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.core.answers import Answer, Stream, Tagged, answer, entity
from app.core.errors import NotFound
from app.core.listing import Page
from app.core.outcomes import outcomes
from app.core.reads import Reads
from app.core.security import Principal, requires, signed_in
from app.core.server_sent_events import MEDIA_TYPE, STILL_HERE, told
from app.core.watching import WatchedVersions
from app.domain.following import follow
from app.domain.jobs.repositories import JOB, JOBS, VERSIONS
from app.domain.jobs.schemas import JobOut
from app.domain.jobs.services import UNFINISHED, JobService, place_of_job, require_right_to_see
from app.domain.requests import HubRequest
from app.domain.work import UnitOfWork


class JobController(Controller):
    path = "/jobs"
    tags = ["jobs"]

    @get("/", opt=requires("jobs:read", on="data_source", listing=JOBS), summary="List jobs")
    async def list_jobs(self, request: HubRequest) -> Answer[Page[JobOut]]:
        """Every job of the tenant, newest first."""
        query = JOBS.parse(request.query_string).within(request.principal.extent("jobs:read"))
        tenant_id = request.principal.tenant_id
        return answer(request.exchange, await request.parts.reads.page(JOBS, query, JobOut, tenant_id=tenant_id))

    @get("/{job_id:uuid}", opt=signed_in(), summary="Get a job")
    async def get_job(self, request: HubRequest, job_id: FromPath[UUID]) -> Tagged[JobOut]:
        """One's own job, or with `jobs:read` anybody's."""
        return entity(request.exchange, await _job(request.parts.reads, request.principal, job_id))

    @post(
        "/{job_id:uuid}/cancel",
        opt=signed_in() | outcomes("job_ended", "permission_missing"),
        status_code=200,
        summary="Cancel a job",
    )
    async def cancel_job(
        self, request: HubRequest, work: NamedDependency[UnitOfWork], job_id: FromPath[UUID]
    ) -> Tagged[JobOut]:
        """One's own job, or with `jobs:write` anybody's. A running job ends as soon as its worker sees the wish."""
        return entity(request.exchange, await JobService(work).cancel(job_id), changed=True)

    @get(
        "/{job_id:uuid}/events",
        opt=signed_in() | outcomes("too_many_streams"),
        media_type=MEDIA_TYPE,
        summary="Watch a job",
    )
    async def get_job_events(self, request: HubRequest, job_id: FromPath[UUID]) -> Stream[str]:
        """Server-sent events: the job each time it has changed, until it has ended.

        It also ends with the access token, the session and the right to see the job: connect again with a fresh token.
        Twenty may be open at a time.
        """
        job = await _job(request.parts.reads, request.principal, job_id)
        return follow(request, _watched(request, job))


async def _job(reads: Reads, principal: Principal, job_id: UUID) -> JobOut:
    """Raises NotFound, or Hidden for somebody who may see their own only."""
    found = await reads.rows(JOB, {"id": job_id, "tenant_id": principal.tenant_id})
    job = JobOut(*found[0]) if found else None
    place = await place_of_job(reads, principal, None if job is None else job.subject_id)
    require_right_to_see(principal, None if job is None else job.created_by, place)
    if job is None:
        raise NotFound
    return job


class JobNews:
    """The job each time it has changed."""

    def __init__(self, reads: Reads, job: JobOut, versions: WatchedVersions) -> None:
        self._reads = reads
        self._job = job
        self._versions = versions

    def first(self) -> bytes:
        return told("job", self._job.version, msgspec.json.encode(self._job))

    @property
    def is_over(self) -> bool:
        return self._job.status not in UNFINISHED

    async def wait(self, within_s: float) -> None:
        await asyncio.sleep(within_s)

    async def next(self, principal: Principal) -> bytes:
        """Raises NotFound or Hidden."""
        seen = self._job
        place = await place_of_job(self._reads, principal, seen.subject_id)
        require_right_to_see(principal, seen.created_by, place)
        if await self._versions.version(seen.id) == seen.version:
            return b""
        self._job = await _job(self._reads, principal, seen.id)
        return b"" if self._job.version == seen.version else self.first()

    def mark(self) -> bytes:
        return STILL_HERE


@asynccontextmanager
async def _watched(request: HubRequest, job: JobOut) -> AsyncIterator[JobNews]:
    parts = request.parts
    with parts.watched.watched(VERSIONS, request.principal.tenant_id, job.id) as versions:
        yield JobNews(parts.reads, job, versions)
