"""Discoveries on a schedule: each source at the times that its cron expression names, by whichever worker comes first.

A due source gets a job of low priority, and its next time, in one transaction. Times that passed while no worker was
there, or while the source was paused, are made up for once. A discovery that is still under way stands for the one that
would have begun.
"""

import logging
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import func, select, update

from app.connectors import registry
from app.core.across_tenants import by_tenant, locked_rows
from app.core.turns import keep_doing
from app.domain.jobs.services import ON_SCHEDULE, JobService
from app.domain.parts import Parts
from app.domain.source_work.services import DISCOVER
from app.domain.sources.discovery_times import next_time
from app.domain.sources.models import DataSource
from app.domain.work import UnitOfWork, unit_of_work_of

log = logging.getLogger("hub.schedule")

POLL_S = 2.0
AT_ONCE: Final = 100
_NO_SYNC = {"synchronize_session": False}


async def discover_on_schedule(parts: Parts) -> None:
    """Until cancelled."""
    await keep_doing(
        lambda: enqueue_due(parts),
        full=AT_ONCE,
        every_s=POLL_S,
        log=log,
        put_off="scheduled discoveries are put off",
    )


async def enqueue_due(parts: Parts) -> int:
    """How many sources were due, at most `AT_ONCE` of them."""
    async with parts.sessions.begin(None) as session:
        due = await locked_rows(session, "due_discoveries(:most)", most=AT_ONCE)
    for tenant_id, source_ids in by_tenant(due).items():
        async with unit_of_work_of(parts, tenant_id=tenant_id) as work:
            await _enqueue(work, source_ids)
    return len(due)


async def _enqueue(work: UnitOfWork, source_ids: Sequence[UUID]) -> None:
    """Those that no other worker has taken meanwhile."""
    still_due = (DataSource.id.in_(source_ids), DataSource.next_discovery_at <= func.now(), ~DataSource.is_paused)
    sources = await work.session.scalars(
        select(DataSource).where(*still_due).order_by(DataSource.id).with_for_update(skip_locked=True)
    )
    jobs = JobService(work)
    for source in sources.all():
        await _put_next(work, source)
        if await jobs.unfinished(DISCOVER, source.id) or not registry.get(source.type).capabilities.discover:
            continue
        job = await jobs.enqueue(DISCOVER, subject_id=source.id, priority=ON_SCHEDULE, host=source.host)
        work.audit("data_source.discover", "data_source", source.id, after={"job_id": str(job.id), "by": "schedule"})


async def _put_next(work: UnitOfWork, source: DataSource) -> None:
    """By a statement of its own: the ORM would count the version."""
    following = source.discover_schedule and next_time(source.discover_schedule, source.discover_time_zone, work.now)
    if following is None:
        log.warning("data source %s is not discovered any more: its schedule never comes to pass", source.id)
    await work.session.execute(
        update(DataSource).where(DataSource.id == source.id).values(next_discovery_at=following or None),
        execution_options=_NO_SYNC,
    )
