"""What was published already, or set aside, is published again: with the same ids, in its own order."""

from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import CursorResult, text

from app.core.errors import BadRequest
from app.core.event_names import type_of
from app.domain.redelivery.schemas import Redelivery, RedeliveryOut
from app.domain.work import UnitOfWork

MOST_AT_ONCE: Final = 50_000
"""For one request. `hub events redeliver` takes any number, some at a time."""

# What waits already is not counted: it comes in any case. What was published since the wish is not wished for again.
_AGAIN = text(
    """WITH chosen AS (
         SELECT id FROM outbox_events
         WHERE tenant_id = :tenant_id AND "time" >= :begins_at AND "time" < :ends_at
           AND (CAST(:type AS text) IS NULL OR type IN (:type, :full_type))
           AND (published_at < :asked_at OR streamed_at < :asked_at OR set_aside_at < :asked_at
                OR stream_set_aside_at < :asked_at)
         LIMIT :most FOR UPDATE
       )
       UPDATE outbox_events SET published_at = NULL, set_aside_at = NULL, streamed_at = NULL, stream_set_aside_at = NULL
       FROM chosen WHERE outbox_events.id = chosen.id"""
)


async def publish_again(work: UnitOfWork, wish: Redelivery, asked_at: datetime, most: int) -> int:
    """At most so many; how many."""
    values = {
        "tenant_id": work.tenant_id,
        "begins_at": wish.begins_at,
        "ends_at": wish.ends_at,
        "type": wish.type,
        "full_type": type_of(wish.type or ""),
        "asked_at": asked_at,
        "most": most,
    }
    result = await work.session.execute(_AGAIN, values)
    return cast(CursorResult[Any], result).rowcount


async def redeliver(work: UnitOfWork, wish: Redelivery) -> RedeliveryOut:
    """Raises BadRequest for more than are done at once."""
    count = await publish_again(work, wish, work.now, MOST_AT_ONCE + 1)
    if count > MOST_AT_ONCE:
        raise BadRequest(
            f"There are more than {MOST_AT_ONCE:,} events between these moments: ask for a part of them.",
            code="invalid_request",
        )
    record(work, wish, count)
    return RedeliveryOut(count)


def record(work: UnitOfWork, wish: Redelivery, count: int) -> None:
    asked = {"from": wish.begins_at, "to": wish.ends_at, "type": wish.type, "count": count}
    work.audit("event.redeliver", "event", None, after=asked)
