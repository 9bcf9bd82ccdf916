"""Users and what they signed in with."""

from datetime import datetime

from sqlalchemy import ARRAY, DateTime, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import UNIQUE_SENTENCES, Entity, Tenanted
from app.core.rows import left_empty
from app.domain.assignments.kinds import SUBJECTS


class User(Tenanted, Entity):
    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("tenant_id", "email_key", name="users_email_key"),)

    email: Mapped[str]
    """As the person wrote it."""
    email_key: Mapped[str]
    """The form under which addresses are compared."""
    first_name: Mapped[str]
    last_name: Mapped[str]
    is_active: Mapped[bool] = mapped_column(default=True)
    password_hash: Mapped[str | None]
    """argon2id; null for a user who does not sign in with a password."""
    failed_logins: Mapped[int] = mapped_column(default=0)
    """In a row, counted when a failure is known; of parallel guesses ten answers count (decision 0007)."""
    locked_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)

    factors: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    """The types of the confirmed second factors, so that a sign-in need not look for them (`domain.factors`)."""


UNIQUE_SENTENCES["users_email_key"] = ("email", "email_taken", "Somebody already uses this email address.")
SUBJECTS["user"] = User
