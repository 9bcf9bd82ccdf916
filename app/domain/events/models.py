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
    transaction_id: Mapped[int] = mapped_column(TransactionId, server_default=text("pg_current_xact_id()"))
    position: Mapped[int | None] = mapped_column(BigInteger)
    """In the order of commits and without gaps, of its tenant's events; given once no earlier one can come any more
    (`sequencing`)."""
    data_source_id: Mapped[UUID | None]
    """Which data source the event is about, or a job or test of it."""
    data_domain_id: Mapped[UUID | None]
    """In which data domain that one was then, or which domain the event is about. Whoever has rights there sees it."""
    published_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class OutboxEnd(Base):
    """The last position that was given in a tenant."""

    __tablename__ = "outbox_ends"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    last_position: Mapped[int] = mapped_column(BigInteger)
