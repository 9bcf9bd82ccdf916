"""Invitations that are open: once accepted there is a user in their place."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, DateTime, UniqueConstraint, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import UNIQUE_SENTENCES, Entity, Tenanted


class Invitation(Tenanted, Entity):
    __tablename__ = "invitations"
    __table_args__ = (UniqueConstraint("tenant_id", "email_key", name="invitations_email_key"),)

    email: Mapped[str]
    email_key: Mapped[str]
    """The form under which addresses are compared."""
    first_name: Mapped[str]
    last_name: Mapped[str]
    role_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    """Which whoever accepts it gets, beside `public`."""
    inviter_type: Mapped[str | None]
    """Of `created_by`; null where the hub itself invites the first admin of a tenant."""
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


UNIQUE_SENTENCES["invitations_email_key"] = (
    "email",
    "already_invited",
    "This email address is invited already. Send that invitation again, or withdraw it.",
)
