"""Role assignments: who holds which role, where, from when until when, and by whose decision."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, FetchedValue
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import UNIQUE_SENTENCES, Entity, Tenanted
from app.core.error_codes import CONFLICT
from app.core.rows import left_empty


class RoleAssignment(Tenanted, Entity):
    """Never deleted, but ended: the past can be asked. Of one subject, role and scope at most one has not ended.

    The copies of the user's columns are kept by triggers of the database: the members of a role are sorted by them, and
    an index cannot reach over to `users`. For groups and service accounts they mean nothing.
    """

    __tablename__ = "role_assignments"

    subject_type: Mapped[str]
    """`user`, `group` or `service_account`."""
    subject_id: Mapped[UUID]
    role_id: Mapped[UUID]
    scope_type: Mapped[str]
    """`tenant`, `data_domain` or `data_source`."""
    scope_id: Mapped[UUID | None]
    """Null for the whole tenant."""
    starts_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    reason: Mapped[str | None]
    via_type: Mapped[str | None]
    """`person`, `request`, `review` or `directory`; null for the hub itself."""
    via_id: Mapped[UUID | None]
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    ended_by: Mapped[UUID | None] = mapped_column(default=left_empty)
    user_email_key: Mapped[str] = mapped_column(server_default=FetchedValue())
    user_created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=FetchedValue())
    user_updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=FetchedValue())


UNIQUE_SENTENCES["role_assignments_open_key"] = ("role_id", "already_assigned", CONFLICT["already_assigned"])
