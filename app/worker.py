"""The worker: what goes on outside of requests. Wires job handlers to the queue."""

import asyncio
import signal

from app.core.logging import configure
from app.domain.assignments.end_of_roles import END_OF_ROLE, end_the_rest
from app.domain.events.sequencing import keep_in_order
from app.domain.groups import memberships
from app.domain.jobs.runner import JobHandler, JobRunner
from app.domain.models import METADATA
from app.domain.source_work.discovery import discover
from app.domain.source_work.discovery_schedule import discover_on_schedule
from app.domain.source_work.schedule import test_on_schedule
from app.domain.source_work.services import DISCOVER
from app.domain.upkeep.services import keep_up
from app.runtime import prepare_parts
from app.settings import Settings

HANDLERS: dict[str, JobHandler] = {
    DISCOVER: discover,
    END_OF_ROLE: end_the_rest,
    memberships.END_OF_GROUP: memberships.end_the_rest,
}


async def run_worker(settings: Settings, database_url: str) -> None:
    """Until SIGTERM or SIGINT; unfinished jobs go back to the queue."""
    assert METADATA.tables
    configure(settings.log_format, settings.log_level)
    parts = prepare_parts(settings, database_url)
    await parts.open()
    runner = JobRunner(parts, HANDLERS, concurrency=settings.jobs_at_once, host_cap=settings.jobs_at_once_per_host)
    schedules = (test_on_schedule(parts), discover_on_schedule(parts))
    work = (runner.run_forever(), *schedules, keep_up(parts), keep_in_order(parts))
    tasks = {asyncio.create_task(each) for each in work}
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    parts.schema.when_broken = stop.set
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()  # neither ends by itself: a worker that does nothing any more must not look alive
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await parts.close()
