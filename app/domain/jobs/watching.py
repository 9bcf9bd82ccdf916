"""Jobs as a stream of server-sent events: one, or several at once, each time one has changed, until all have ended."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from time import time
from uuid import UUID

import msgspec

from app.core import watching
from app.core.database import DATABASE_ERRORS
from app.core.errors import BadRequest, Fault, HubError, NotFound
from app.core.extent import Place
from app.core.security import Claims, Principal
from app.core.watching import Group
from app.domain.jobs.repositories import OWN_UNFINISHED, PLACES, SHOWN_JOBS, VERSIONS
from app.domain.jobs.schemas import JobOut
from app.domain.jobs.services import UNFINISHED, require_right_to_see
from app.domain.requests import HubRequest

log = logging.getLogger("hub.jobs")

KEEP_ALIVE_S = 15.0
MAX_WATCHED = 25
"""By one stream; so many ids fit into a query parameter."""
IDS: Mapping[str, Mapping[str, object]] = {
    "ids": {
        "type": "string",
        "pattern": r"^[0-9a-fA-F-]{36}(,[0-9a-fA-F-]{36})*$",
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


async def changes(request: HubRequest, jobs: Sequence[JobOut]) -> AsyncIterator[bytes]:
    """Until all have ended, or the caller may not see one any more: both end the stream in good order."""
    for job in jobs:
        yield event_of(job, is_one_of_many=len(jobs) > 1)
    if request.exchange.method == "HEAD":
        return
    try:
        async for part in _later_changes(request, jobs):
            yield part
    except HubError:
        return
    except DATABASE_ERRORS as error:
        log.warning("a stream ends, the database is away: %s", type(error).__name__)


async def _later_changes(request: HubRequest, jobs: Sequence[JobOut]) -> AsyncIterator[bytes]:
    """Looks at the jobs and at the caller twice a second. Raises Unauthenticated, NotFound or Hidden."""
    credential = request.exchange.credential
    ends_at = credential.exp if isinstance(credential, Claims) else request.exchange.signed.expires_at
    silent_s = 0.0
    waiting = {job.id: job for job in jobs if job.status in UNFINISHED}
    with ExitStack() as stack:
        looks = {
            job_id: stack.enter_context(request.parts.watched.watched(VERSIONS, request.principal.tenant_id, job_id))
            for job_id in waiting
        }
        while waiting and time() < ends_at:
            await asyncio.sleep(watching.LOOK_EVERY_S)
            signed = await request.parts.principals.of(credential)
            await _require_right_to_see_all(request, signed.principal, list(waiting.values()))
            silent_s += watching.LOOK_EVERY_S
            for job in await _changed(request, signed.principal, waiting, looks):
                yield event_of(job, is_one_of_many=len(jobs) > 1)
                silent_s = 0.0
            if silent_s >= KEEP_ALIVE_S:
                yield b": still here\n\n"
                silent_s = 0.0


async def _changed(
    request: HubRequest, principal: Principal, waiting: dict[UUID, JobOut], looks: Mapping[UUID, Group]
) -> list[JobOut]:
    """Those that are not any more what they were; the ones that have ended wait no longer."""
    other = [job.id for job in list(waiting.values()) if await looks[job.id].version(job.id) != job.version]
    if not other:
        return []
    found = await jobs_to_watch(request, principal, other)
    changed = [job for job in found if job.version != waiting[job.id].version]
    waiting |= {job.id: job for job in changed}
    for job in changed:
        if job.status not in UNFINISHED:
            del waiting[job.id]
    return changed


def event_of(job: JobOut, *, is_one_of_many: bool) -> bytes:
    event_id = f"{job.id}:{job.version}" if is_one_of_many else str(job.version)
    return b"event: job\nid: %s\ndata: %s\n\n" % (event_id.encode(), msgspec.json.encode(job))
