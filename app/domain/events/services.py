"""Writing the outbox: each change as a CloudEvent 1.0, in the transaction of the change."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.domain.events.models import OutboxEvent

SOURCE = "/api/v1"
TYPE_PREFIX = "org.datafusionhub."


async def announce(
    session: AsyncSession, *, tenant_id: UUID, event_type: str, subject: str, data: Any, time: datetime
) -> None:
    """Add one event. `event_type` is `<resource>.<what happened>`; `subject` the resource's path below `/api/v1`."""
    values = {
        "id": uuid7(),
        "tenant_id": tenant_id,
        "type": TYPE_PREFIX + event_type,
        "source": SOURCE,
        "subject": subject,
        "time": time,
        "data": msgspec.to_builtins(data),
    }
    await session.execute(insert(OutboxEvent), values)
