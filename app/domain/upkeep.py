"""What is removed once it is of no more use: idempotency records after a day, ended sessions after a month. And what
rows of an earlier release lack, filled in."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func

from app.core.database import DATABASE_ERRORS
from app.domain.auth.models import Session
from app.domain.idempotency.models import IdempotencyKey
from app.domain.parts import Parts
from app.domain.sources.duplicates import fill_in

log = logging.getLogger("hub.upkeep")

EVERY_S = 600.0
IDEMPOTENCY_KEPT = timedelta(hours=24)
ENDED_SESSIONS_KEPT = timedelta(days=30)


async def keep_up(parts: Parts) -> None:
    """Until cancelled. A database that is away is tried again at the next turn."""
    while True:
        try:
            await remove_outdated(parts, datetime.now(UTC))
            while await fill_in(parts):
                pass
        except DATABASE_ERRORS as error:
            log.warning("upkeep is put off: %s", type(error).__name__)
        await asyncio.sleep(EVERY_S)


async def remove_outdated(parts: Parts, now: datetime) -> None:
    ended = func.least(
        Session.expires_at, Session.idle_expires_at, func.coalesce(Session.revoked_at, Session.expires_at)
    )
    async with parts.sessions.begin() as session:
        await session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now - IDEMPOTENCY_KEPT))
        await session.execute(delete(Session).where(ended < now - ENDED_SESSIONS_KEPT))
