"""Jobs as a stream of server-sent events: one, or several at once, each time one has changed, until all have ended."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from uuid import UUID

import msgspec

from app.core.errors import BadRequest, Fault, NotFound
from app.core.extent import Place
from app.core.security import Principal
from app.core.server_sent_events import STILL_HERE, told
from app.core.watching import WatchedVersions
from app.domain.jobs.repositories import OWN_UNFINISHED, PLACES, SHOWN_JOBS, VERSIONS
from app.domain.jobs.schemas import JobOut
from app.domain.jobs.services import UNFINISHED, require_right_to_see
from app.domain.requests import HubRequest

MAX_WATCHED = 25
"""By one stream; so many ids fit into a query parameter."""
_ID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
IDS: Mapping[str, Mapping[str, object]] = {
    "ids": {
        "type": "string",
        "pattern": f"^{_ID}(,{_ID}){{0,{MAX_WATCHED - 1}}}$",
        "description": f"The jobs to watch, {MAX_WATCHED} at most, separated by commas. "
        "Without: the newest of one's own that have not ended.",
        "example": "0198e0a2-7c1e-7b51-9a3f-2f6f0e7d1c01",
    }
}


async def ids_to_watch(request: HubRequest, given: str | None) -> list[UUID]:
    """Without any: the newest of the caller's own jobs that have not ended. Raises BadRequest."""
    if given is not None:
        return _ids_in(given)
    own = {"tenant_id": request.principal.tenant_id, "principal_id": request.principal.id}
    values = own | {"unfinished": list(UNFINISHED), "most": MAX_WATCHED}
    return [row[0] for row in await request.parts.reads.rows(OWN_UNFINISHED, values)]


def _ids_in(text: str) -> list[UUID]:
    try:
        ids = list(dict.fromkeys(UUID(part) for part in text.split(",")))
    except ValueError:
        raise _bad("must be ids of jobs, separated by commas") from None
    if len(ids) > MAX_WATCHED:
        raise _bad(f"are too many: {MAX_WATCHED} at most")
    return ids


def _bad(sentence: str) -> BadRequest:
    return BadRequest(code="invalid_parameter", errors=[Fault("ids", "invalid_parameter", sentence)])


async def jobs_to_watch(request: HubRequest, principal: Principal, ids: Iterable[UUID]) -> list[JobOut]:
    """In the order of their ids. Raises NotFound, or Hidden for somebody who may see their own only, where one is not
    there or may not be seen."""
    wanted = sorted(ids)
    rows = await request.parts.reads.rows(SHOWN_JOBS, {"ids": wanted, "tenant_id": principal.tenant_id})
    jobs = [JobOut(*row) for row in rows]
    await _require_right_to_see_all(request, principal, jobs)
    if len(jobs) < len(wanted):
        require_right_to_see(principal, None, Place())
        raise NotFound
    return sorted(jobs, key=lambda job: job.id)


async def _require_right_to_see_all(request: HubRequest, principal: Principal, jobs: Sequence[JobOut]) -> None:
    """Where the sources stand is asked for those alone whose rights hang on it. Raises Hidden."""
    places: dict[UUID, Place] = {}
    if principal.extents and (subjects := sorted({job.subject_id for job in jobs if job.subject_id is not None})):
        values = {"ids": subjects, "tenant_id": principal.tenant_id}
        places = {row[0]: Place(*row) for row in await request.parts.reads.rows(PLACES, values)}
    for job in jobs:
        place = places.get(job.subject_id, Place()) if job.subject_id is not None else Place()
        require_right_to_see(principal, job.created_by, place)


class JobNews:
    """Each of the jobs when it has changed."""

    def __init__(self, request: HubRequest, jobs: Sequence[JobOut], looks: Mapping[UUID, WatchedVersions]) -> None:
        self._request = request
        self._looks = looks
        self._jobs = jobs
        self._waiting = {job.id: job for job in jobs if job.status in UNFINISHED}

    def first(self) -> bytes:
        return b"".join(map(self._told, self._jobs))

    @property
    def is_over(self) -> bool:
        return not self._waiting

    async def wait(self, within_s: float) -> None:
        await asyncio.sleep(within_s)

    async def next(self, principal: Principal) -> bytes:
        """Raises NotFound or Hidden."""
        await _require_right_to_see_all(self._request, principal, list(self._waiting.values()))
        waiting = list(self._waiting.values())
        other = [job.id for job in waiting if await self._looks[job.id].version(job.id) != job.version]
        if not other:
            return b""
        found = await jobs_to_watch(self._request, principal, other)
        changed = [job for job in found if job.version != self._waiting[job.id].version]
        for job in changed:
            self._note(job)
        return b"".join(map(self._told, changed))

    def mark(self) -> bytes:
        return STILL_HERE

    def _note(self, job: JobOut) -> None:
        """What has ended is waited for no longer."""
        if job.status in UNFINISHED:
            self._waiting[job.id] = job
        else:
            del self._waiting[job.id]

    def _told(self, job: JobOut) -> bytes:
        event_id = f"{job.id}:{job.version}" if len(self._jobs) > 1 else job.version
        return told("job", event_id, msgspec.json.encode(job))


@asynccontextmanager
async def watched(request: HubRequest, jobs: Sequence[JobOut]) -> AsyncIterator[JobNews]:
    """Their news, until all of them have ended."""
    tenant_id = request.principal.tenant_id
    with ExitStack() as stack:
        looks = {
            job.id: stack.enter_context(request.parts.watched.watched(VERSIONS, tenant_id, job.id)) for job in jobs
        }
        yield JobNews(request, jobs, looks)
