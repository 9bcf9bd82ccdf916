"""Groups: users who are given roles together."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, FetchedValue, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import UNIQUE_SENTENCES, Base, Entity, Tenanted
from app.core.rows import left_empty
from app.domain.assignments.kinds import SUBJECTS


class Group(Tenanted, Entity):
    __tablename__ = "groups"
    __table_args__ = (UniqueConstraint("tenant_id", "name_key", name="groups_name_key"),)

    name: Mapped[str]
    name_key: Mapped[str]
    description: Mapped[str | None]
    managed_by: Mapped[str | None] = mapped_column(default=left_empty)
    """What keeps its members, such as a directory; null for the hub itself."""
    external_id: Mapped[str | None] = mapped_column(default=left_empty)
    """What the directory calls it by."""


class GroupMember(Tenanted, Base):
    """That a user is in a group, or was: never deleted, so that the past can be asked. The copies of the user's columns
    are kept by triggers of the database, for the order of the members."""

    __tablename__ = "group_members"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    group_id: Mapped[UUID]
    user_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_by: Mapped[UUID | None]
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    ended_by: Mapped[UUID | None] = mapped_column(default=left_empty)
    user_email_key: Mapped[str] = mapped_column(server_default=FetchedValue())
    user_created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=FetchedValue())
    user_updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=FetchedValue())


UNIQUE_SENTENCES["groups_name_key"] = ("name", "name_taken", "A group of this name exists already.")
SUBJECTS["group"] = Group
