"""The outbox: every change as a CloudEvent, written with the change and published afterwards."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKey, Identity, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Tenanted, TransactionId

POSITIONS_CHANNEL: Final = "hub_positions"
"""Notified, with the tenant's id, when events of it have got their positions."""


class OutboxEvent(Tenanted, Base):
    """Columns carry the attributes of CloudEvents 1.0; `id` stays the same however often it is sent."""

    __tablename__ = "outbox_events"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    type: Mapped[str]
    source: Mapped[str]
    subject: Mapped[str]
    time: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    traceparent: Mapped[str | None]
    """The attribute of the extension "distributed tracing" of CloudEvents; where traces are sent."""
    transaction_id: Mapped[int] = mapped_column(TransactionId, server_default=text("pg_current_xact_id()"))
    position: Mapped[int | None] = mapped_column(BigInteger)
    """In the order of commits and without gaps, of its tenant's events; given once no earlier one can come any more
    (`sequencing`)."""
    data_source_id: Mapped[UUID | None]
    """Which data source the event is about, or a job or test of it."""
    data_domain_id: Mapped[UUID | None]
    """In which data domain that one was then, or which domain the event is about. Whoever has rights there sees it."""
    published_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When the broker confirmed it; again null while it is to be published again."""
    set_aside_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When it was given up to publish it to the broker."""
    streamed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """As `published_at`, of the Redis stream."""
    stream_set_aside_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class EventAttempt(Tenanted, Base):
    """An event that a destination did not take, and that is sent again. Its subject waits until `retry_at`."""

    __tablename__ = "event_attempts"

    event_id: Mapped[UUID] = mapped_column(ForeignKey("outbox_events.id", ondelete="CASCADE"), primary_key=True)
    destination: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str]
    attempts: Mapped[int]
    retry_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    reason: Mapped[str]


class RelayState(Base):
    """How the relay to a destination goes, for the metrics and the readiness: it runs in workers, which nobody asks."""

    __tablename__ = "relays"

    destination: Mapped[str] = mapped_column(primary_key=True)
    sent: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    failed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    set_aside: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """Ever, as `sent` and `failed`."""
    away_since: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    reason: Mapped[str | None]


class OutboxEnd(Base):
    """The last position that was given in a tenant."""

    __tablename__ = "outbox_ends"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    last_position: Mapped[int] = mapped_column(BigInteger)
