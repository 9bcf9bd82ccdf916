"""Where events are published to: each place for itself, with its own progress (decision 0049)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

import msgspec
from msgspec import Struct

from app.core.publishing import Confirmation
from app.domain.events.envelope import CloudEvent
from app.settings import Settings

DestinationName = Literal["broker", "stream"]


class WaitingEvent(Struct, frozen=True):
    """An event as it is published."""

    id: UUID
    tenant_id: UUID
    slug: str
    type: str
    source: str
    subject: str
    time: datetime
    data: str
    attempts: int
    """That failed until now."""
    traceparent: str | None = None

    @property
    def line(self) -> tuple[UUID, str]:
        """Those of one line are published one after the other."""
        return (self.tenant_id, self.subject)

    def in_envelope(self) -> bytes:
        event = CloudEvent(
            id=self.id,
            source=self.source,
            type=self.type,
            subject=self.subject,
            time=self.time,
            data=msgspec.Raw(self.data.encode()),
            traceparent=self.traceparent or msgspec.UNSET,
        )
        return msgspec.json.encode(event)


class Destination(Protocol):
    name: DestinationName

    async def connect(self) -> None:
        """Where it is not connected. Raises DestinationAway."""

    async def publish(self, events: Sequence[WaitingEvent]) -> list[Confirmation]:
        """All at once; what became of each, in their order."""

    @property
    def is_connected(self) -> bool: ...

    async def close(self) -> None: ...


def names_of_destinations(settings: Settings) -> list[DestinationName]:
    """Those that are set."""
    names: list[DestinationName] = []
    if settings.broker_url is not None:
        names.append("broker")
    if settings.events_redis_stream is not None:
        names.append("stream")
    return names
