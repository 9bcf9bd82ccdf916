"""Jobs: how far they are, and stopping them."""

from uuid import UUID

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.core.answers import Answer, Stream, Tagged, answer, entity
from app.core.errors import NotFound
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import Principal, requires, signed_in
from app.core.server_sent_events import MEDIA_TYPE
from app.domain.dry_runs.services import given_parameters
from app.domain.following import follow
from app.domain.jobs.repositories import JOB, JOBS
from app.domain.jobs.schemas import JobOut
from app.domain.jobs.services import JobService, place_of_job, require_right_to_see
from app.domain.jobs.watching import IDS, ids_to_watch, jobs_to_watch, watched
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
        media_type=MEDIA_TYPE,
        summary="Watch a job",
    )
    async def get_job_events(self, request: HubRequest, job_id: FromPath[UUID]) -> Stream[str]:
        """Server-sent events: the job each time it has changed, until it has ended.

        It also ends with the access token, the session and the right to see the job: connect again with a fresh token.
        Twenty may be open at a time.
        """
        return await _stream(request, [job_id])

    @get(
        "/events",
        opt=signed_in(parameters=IDS) | outcomes("not_found", "too_many_streams"),
        media_type=MEDIA_TYPE,
        summary="Watch jobs",
    )
    async def get_events_of_jobs(self, request: HubRequest) -> Stream[str]:
        """Several jobs over one stream, such as the discoveries of many sources: each job at once and each time it has
        changed, until all of them have ended. The event's id is `<job's id>:<version>`.

        Without `ids`: the newest of one's own that have not ended. Those that are named have all to be there and
        to be seen. For the rest as the stream of one job.
        """
        return await _stream(request, await ids_to_watch(request, given_parameters(request).get("ids")))


async def _stream(request: HubRequest, ids: list[UUID]) -> Stream[str]:
    return follow(request, watched(request, await jobs_to_watch(request, request.principal, ids)))


async def _job(request: HubRequest, principal: Principal, job_id: UUID) -> JobOut:
    """Raises NotFound, or Hidden for somebody who may see their own only."""
    found = await request.parts.reads.rows(JOB, {"id": job_id, "tenant_id": principal.tenant_id})
    job = JobOut(*found[0]) if found else None
    place = await place_of_job(request.parts.reads, principal, None if job is None else job.subject_id)
    require_right_to_see(principal, None if job is None else job.created_by, place)
    if job is None:
        raise NotFound
    return job
