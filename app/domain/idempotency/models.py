"""First answers to POSTs that carried an `Idempotency-Key`, kept for a day."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Tenanted


class IdempotencyKey(Tenanted, Base):
    __tablename__ = "idempotency_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """UUIDv5 of tenant, principal, route and key: one request has one row."""
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    """HMAC of the body, which may hold a password."""
    answer: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Status, headers and body, sealed: an answer may show a secret once."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
