"""Letters: what is to be sent by mail, how that goes, and what their links are worth."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, LargeBinary
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Tenanted
from app.core.rows import left_empty

Moment = DateTime(timezone=True)


class Letter(Tenanted, Base):
    __tablename__ = "letters"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    email: Mapped[str]
    """To whom it goes."""
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    """Whose account it is about."""
    invitation_id: Mapped[UUID | None] = mapped_column(ForeignKey("invitations.id", ondelete="CASCADE"))
    words: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """What its text says beside the link."""
    digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Of the token in its link; null for one without."""
    key_id: Mapped[str | None]
    """Which key of the ring the token is derived with."""
    status: Mapped[str] = mapped_column(default="waiting")
    """waiting, sent, failed, or shown: its link was shown to whoever asked for it, where the hub sends no mail."""
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime] = mapped_column(Moment)
    lease_id: Mapped[UUID | None] = mapped_column(default=left_empty)
    """Of the worker that sends it."""
    lease_until: Mapped[datetime | None] = mapped_column(Moment, default=left_empty)
    failure: Mapped[str | None] = mapped_column(default=left_empty)
    """Why the last attempt failed."""
    created_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment)
    """The link is worth nothing after that, and nothing is sent."""
    sent_at: Mapped[datetime | None] = mapped_column(Moment, default=left_empty)
    ended_at: Mapped[datetime | None] = mapped_column(Moment, default=left_empty)
    """Its link was used, a newer letter of its kind was written, or what it would change has changed (a trigger on
    `users`: whoever deactivates somebody, or sets a password, need not think of letters)."""
