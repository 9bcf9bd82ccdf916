"""Users and what they signed in with."""

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
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
    last_sign_in_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    managed_by: Mapped[str | None] = mapped_column(default=left_empty)
    """What keeps the user, such as a directory; null for the hub itself. Of others all that follows is null."""
    external_id: Mapped[str | None] = mapped_column(default=left_empty)
    """What the directory calls them by."""
    user_name_key: Mapped[str | None] = mapped_column(default=left_empty)
    """The directory's user name as names are compared; one in a tenant."""
    display_name_key: Mapped[str | None] = mapped_column(default=left_empty)
    address_keys: Mapped[list[str] | None] = mapped_column(ARRAY(Text), default=left_empty)
    """Every email address that the directory gives them, as addresses are compared."""
    directory: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True), default=left_empty)
    """Their attributes as the directory wrote them (RFC 7643); null where it has written none yet."""

    factors: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    """The types of the confirmed second factors, so that a sign-in need not look for them (`domain.factors`)."""


UNIQUE_SENTENCES["users_user_name_key"] = ("userName", "email_taken", "Somebody already uses this user name.")
UNIQUE_SENTENCES["users_email_key"] = ("email", "email_taken", "Somebody already uses this email address.")
SUBJECTS["user"] = User
