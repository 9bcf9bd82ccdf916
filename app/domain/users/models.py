"""Users and what they signed in with."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, FetchedValue, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import UNIQUE_SENTENCES, Base, Entity, Tenanted
from app.core.rows import left_empty


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


class UserRole(Tenanted, Base):
    """A user holds a role. The copies of the user's columns are kept by triggers of the database: the members of a role
    are sorted by them, and an index cannot reach over to `users`."""

    __tablename__ = "user_roles"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    role_id: Mapped[UUID] = mapped_column(ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_by: Mapped[UUID | None]
    user_email_key: Mapped[str] = mapped_column(server_default=FetchedValue())
    user_created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=FetchedValue())
    user_updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=FetchedValue())


UNIQUE_SENTENCES["users_email_key"] = ("email", "email_taken", "Somebody already uses this email address.")
