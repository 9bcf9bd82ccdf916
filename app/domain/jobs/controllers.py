"""Jobs: how far they are, and stopping them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from time import time
from uuid import UUID

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.core import watching
from app.core.answers import Answer, Stream, Tagged, answer, entity
from app.core.database import DATABASE_ERRORS
from app.core.errors import HubError, NotFound
from app.core.listing import Page
from app.core.outcomes import outcomes
from app.core.security import Claims, Principal, requires, signed_in
from app.domain.jobs.repositories import JOB, JOBS, VERSIONS
from app.domain.jobs.schemas import JobOut
from app.domain.jobs.services import UNFINISHED, JobService, place_of_job, require_right_to_see
from app.domain.requests import HubRequest
from app.domain.work import UnitOfWork

log = logging.getLogger("hub.jobs")

KEEP_ALIVE_S = 15.0


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
        return entity(request.exchange, await _job(request, request.principal, job_id))

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
        media_type="text/event-stream",
        summary="Watch a job",
    )
    async def get_job_events(self, request: HubRequest, job_id: FromPath[UUID]) -> Stream[str]:
        """Server-sent events: the job each time it has changed, until it has ended.

        It also ends with the access token, the session and the right to see the job: connect again with a fresh token.
        Twenty may be open at a time.
        """
        job = await _job(request, request.principal, job_id)
        request.parts.streams.admit(request.exchange)
        return Stream([(b"content-type", b"text/event-stream")], _changes(request, job))


async def _job(request: HubRequest, principal: Principal, job_id: UUID) -> JobOut:
    """Raises NotFound, or Hidden for somebody who may see their own only."""
    found = await request.parts.reads.rows(JOB, {"id": job_id, "tenant_id": principal.tenant_id})
    job = JobOut(*found[0]) if found else None
    place = await place_of_job(request.parts.reads, principal, None if job is None else job.subject_id)
    require_right_to_see(principal, None if job is None else job.created_by, place)
    if job is None:
        raise NotFound
    return job


async def _changes(request: HubRequest, job: JobOut) -> AsyncIterator[bytes]:
    """Until the job has ended, or the caller may not see it any more: both end the stream in good order."""
    yield _event(job)
    if request.exchange.method == "HEAD":
        return
    try:
        async for part in _later_changes(request, job):
            yield part
    except HubError:
        return
    except DATABASE_ERRORS as error:
        log.warning("a stream ends, the database is away: %s", type(error).__name__)


async def _later_changes(request: HubRequest, job: JobOut) -> AsyncIterator[bytes]:
    """Looks at the job and at the caller twice a second. Raises Unauthenticated, NotFound or Hidden."""
    credential = request.exchange.credential
    ends_at = credential.exp if isinstance(credential, Claims) else request.exchange.signed.expires_at
    silent_s = 0.0
    with request.parts.watched.watched(VERSIONS, request.principal.tenant_id, job.id) as jobs:
        while job.status in UNFINISHED and time() < ends_at:
            await asyncio.sleep(watching.LOOK_EVERY_S)
            signed = await request.parts.principals.of(credential)
            place = await place_of_job(request.parts.reads, signed.principal, job.subject_id)
            require_right_to_see(signed.principal, job.created_by, place)
            silent_s += watching.LOOK_EVERY_S
            if await jobs.version(job.id) != job.version:
                seen, job = job, await _job(request, signed.principal, job.id)
                if job.version != seen.version:
                    yield _event(job)
                    silent_s = 0.0
            if silent_s >= KEEP_ALIVE_S:
                yield b": still here\n\n"
                silent_s = 0.0


def _event(job: JobOut) -> bytes:
    return b"event: job\nid: %d\ndata: %s\n\n" % (job.version, msgspec.json.encode(job))
