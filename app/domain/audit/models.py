"""The audit log. The application role may add rows and read them, nothing else."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Identity, LargeBinary, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Tenanted, TransactionId


class AuditEvent(Tenanted, Base):
    __tablename__ = "audit_events"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    """The order in which rows were written, which is not the one in which they were committed."""
    transaction_id: Mapped[int] = mapped_column(TransactionId, server_default=text("pg_current_xact_id()"))
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    actor_id: Mapped[UUID | None]
    actor_name: Mapped[str | None]
    """The actor's email at that time: readable after the user is gone."""
    api_key_id: Mapped[UUID | None]
    """With which key the actor came."""
    action: Mapped[str]
    resource_type: Mapped[str]
    resource_id: Mapped[UUID | None]
    outcome: Mapped[str]
    """`success`, `failure` or `refused`."""
    address: Mapped[str | None]
    request_id: Mapped[str | None]
    detail: Mapped[str | None]
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    chain_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Never set: rows are not written to again, and seals have tables of their own (decision 0047)."""
