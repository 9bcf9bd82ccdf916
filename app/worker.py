"""The worker: what goes on outside of requests. Wires job handlers to the queue."""

import asyncio
import signal
from collections.abc import Coroutine
from socket import socket
from typing import Any

from app.core import tracing
from app.core.logging import configure
from app.domain.assignments.end_of_roles import END_OF_ROLE, end_the_rest
from app.domain.events.relay import relay_events
from app.domain.events.sequencing import keep_in_order
from app.domain.groups import memberships
from app.domain.health.gauges import answer_scrapes, keep_measuring
from app.domain.jobs.runner import JobHandler, JobRunner
from app.domain.letters.sending import send_letters
from app.domain.models import METADATA
from app.domain.recovery.forgotten import answer_forgotten
from app.domain.seals.anchors import keep_anchored
from app.domain.seals.sealing import keep_sealed
from app.domain.source_work.discovery import discover
from app.domain.source_work.discovery_schedule import discover_on_schedule
from app.domain.source_work.schedule import test_on_schedule
from app.domain.source_work.services import DISCOVER
from app.domain.upkeep.services import keep_up
from app.domain.webhooks.dispatching import dispatch_forever
from app.domain.webhooks.sending import WebhookSender
from app.runtime import load_sealing_keys, prepare_parts, start_tracing
from app.settings import Settings

HANDLERS: dict[str, JobHandler] = {
    DISCOVER: discover,
    END_OF_ROLE: end_the_rest,
    memberships.END_OF_GROUP: memberships.end_the_rest,
}


async def run_worker(settings: Settings, database_url: str, metrics: socket | None = None) -> None:
    """Until SIGTERM or SIGINT; unfinished jobs go back to the queue. `metrics` is the port for them, where the worker
    answers there itself."""
    assert METADATA.tables
    configure(settings.log_format, settings.log_level)
    start_tracing(settings, role="worker")
    parts = prepare_parts(settings, database_url)
    parts.sealing_keys = load_sealing_keys(settings)
    await parts.open()
    runner = JobRunner(parts, HANDLERS, concurrency=settings.jobs_at_once, host_cap=settings.jobs_at_once_per_host)
    work: list[Coroutine[Any, Any, None]] = [
        runner.run_forever(),
        test_on_schedule(parts),
        discover_on_schedule(parts),
        keep_up(parts),
        keep_in_order(parts),
        keep_sealed(parts),
        keep_anchored(parts),
        relay_events(parts),
        dispatch_forever(parts),
        WebhookSender(parts).run_forever(),
        answer_forgotten(parts),
        send_letters(parts),
        keep_measuring(parts, "worker"),
    ]
    if metrics is not None:
        work.append(answer_scrapes(metrics, database_url, settings))
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
        await tracing.tracer().close()
