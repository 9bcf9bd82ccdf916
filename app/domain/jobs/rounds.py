"""What is too much for a request: the rest of it some rows at a time, each time in a transaction of its own."""

from collections.abc import Awaitable, Callable

from app.domain.jobs.runner import JobRun
from app.domain.work import UnitOfWork, unit_of_work_of


async def end_in_rounds(
    run: JobRun, end_some: Callable[[UnitOfWork], Awaitable[int]], *, at_once: int
) -> dict[str, object]:
    """Until a round ends fewer rows than it may at once. `end_some` returns how many it has ended."""
    done = 0
    ended = at_once
    while ended == at_once:
        async with unit_of_work_of(run.parts, tenant_id=run.tenant_id) as work:
            ended = await end_some(work)
        done += ended
        await run.report(done)
    return {"ended": done}
