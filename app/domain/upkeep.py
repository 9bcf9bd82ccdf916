"""What is removed once it is of no more use: idempotency records after a day, ended sessions after a month, results of
tests and ended jobs after `HUB_HISTORY_DAYS`. And what rows of an earlier release lack, filled in."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, select

from app.core.database import DATABASE_ERRORS
from app.domain.auth.models import Session
from app.domain.idempotency.models import IdempotencyKey
from app.domain.jobs.models import Job
from app.domain.parts import Parts
from app.domain.source_work.models import DataSourceTest
from app.domain.sources.duplicates import fill_in

log = logging.getLogger("hub.upkeep")

EVERY_S = 600.0
IDEMPOTENCY_KEPT = timedelta(hours=24)
ENDED_SESSIONS_KEPT = timedelta(days=30)
REMOVED_AT_ONCE = 5000
_NO_SYNC = {"synchronize_session": False}


async def keep_up(parts: Parts) -> None:
    """Until cancelled. A database that is away is tried again at the next turn."""
    while True:
        try:
            await remove_outdated(parts, datetime.now(UTC))
            await remove_history(parts, datetime.now(UTC))
            while await fill_in(parts):
                pass
        except DATABASE_ERRORS as error:
            log.warning("upkeep is put off: %s", type(error).__name__)
        await asyncio.sleep(EVERY_S)


async def remove_history(parts: Parts, now: datetime) -> None:
    """Results of tests and ended jobs, some at a time, so that no statement takes long."""
    before = now - timedelta(days=parts.settings.history_days)
    for model, ended_at in ((DataSourceTest, DataSourceTest.created_at), (Job, Job.finished_at)):
        removed = REMOVED_AT_ONCE
        while removed == REMOVED_AT_ONCE:
            outdated = select(model.id).where(ended_at < before).limit(REMOVED_AT_ONCE)
            async with parts.sessions.begin() as session:
                result = await session.execute(delete(model).where(model.id.in_(outdated)), execution_options=_NO_SYNC)
            removed = cast(CursorResult[Any], result).rowcount


async def remove_outdated(parts: Parts, now: datetime) -> None:
    ended = func.least(
        Session.expires_at, Session.idle_expires_at, func.coalesce(Session.revoked_at, Session.expires_at)
    )
    async with parts.sessions.begin() as session:
        await session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now - IDEMPOTENCY_KEPT))
        await session.execute(delete(Session).where(ended < now - ENDED_SESSIONS_KEPT))
