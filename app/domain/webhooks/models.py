"""Webhooks, the secrets that sign what is sent to them, and what came of each event."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKey, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import IN_USE_SENTENCES, Base, Entity, Tenanted
from app.core.rows import left_empty

Moment = DateTime(timezone=True)


class Webhook(Tenanted, Entity):
    """All from `position` on is outside of `version`: the hub notes there how it gets on with the endpoint."""

    __tablename__ = "webhooks"

    url: Mapped[str]
    event_types: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """Empty: all."""
    data_domain_id: Mapped[UUID | None] = mapped_column(ForeignKey("data_domains.id"))
    """Only what happens in it and below."""
    description: Mapped[str | None]
    is_active: Mapped[bool]
    disabled_because: Mapped[str | None] = mapped_column(default=left_empty)
    """Where the hub itself has switched it off: `gone` or `failing`."""
    disabled_at: Mapped[datetime | None] = mapped_column(Moment, default=left_empty)
    position: Mapped[int] = mapped_column(BigInteger)
    """Of the last event that was looked at for it; those that concerned it have a delivery."""
    dispatch_at: Mapped[datetime] = mapped_column(Moment, server_default=text("now()"))
    """Its next events are looked at from then on: a while later where too many wait already."""
    due_at: Mapped[datetime | None] = mapped_column(Moment, default=left_empty)
    """When something is next to be sent; null where nothing waits."""
    paused_until: Mapped[datetime | None] = mapped_column(Moment, default=left_empty)
    """The circuit is open until then."""
    lease_id: Mapped[UUID | None] = mapped_column(default=left_empty)
    """Of the worker that sends to it. One that has lost it sends nothing more."""
    lease_until: Mapped[datetime | None] = mapped_column(Moment, default=left_empty)
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts that failed, one after the other."""
    failing_since: Mapped[datetime | None] = mapped_column(Moment, default=left_empty)
    last_failure_at: Mapped[datetime | None] = mapped_column(Moment, default=left_empty)
    last_success_at: Mapped[datetime | None] = mapped_column(Moment, default=left_empty)


class WebhookSecret(Tenanted, Base):
    """A signing secret, sealed to this row. The one before the newest signs beside it until it expires."""

    __tablename__ = "webhook_secrets"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    key_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime | None] = mapped_column(Moment)


class WebhookDelivery(Tenanted, Base):
    """One event for one webhook, which may be gone by now."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    webhook_id: Mapped[UUID]
    event_id: Mapped[UUID]
    event_type: Mapped[str]
    """Without the prefix that all types have."""
    subject: Mapped[str]
    position: Mapped[int | None] = mapped_column(BigInteger)
    """The event's; null for the one that tests a webhook, which is nobody else's."""
    status: Mapped[str]
    """pending, delivered or failed."""
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment)
    """Nothing is tried after that."""
    next_attempt_at: Mapped[datetime | None] = mapped_column(Moment)
    last_attempt_at: Mapped[datetime | None] = mapped_column(Moment)
    response_status: Mapped[int | None]
    duration_ms: Mapped[float | None]
    failure: Mapped[str | None]


IN_USE_SENTENCES["webhooks_data_domain_id_fkey"] = "Webhooks tell of what happens in this domain. Delete them first."
