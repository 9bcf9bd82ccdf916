"""Sessions: one sign-in on one device, carried on by refreshing."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Entity, Tenanted
from app.core.rows import left_empty


class Session(Tenanted, Entity):
    __tablename__ = "sessions"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    key_id: Mapped[str]
    """Which key of the ring the refresh tokens are derived with."""
    generation: Mapped[int] = mapped_column(default=1)
    """Which refresh token is the valid one; rotation adds one."""
    rotated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    idle_expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    last_seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    device: Mapped[str | None]
    """The User-Agent of the sign-in."""
    address: Mapped[str | None]
