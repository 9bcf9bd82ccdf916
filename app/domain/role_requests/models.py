"""Role requests: assignments that somebody asks for, and all that was said and decided about each."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, Uuid
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Entity, Tenanted
from app.core.rows import left_empty


class RoleRequest(Tenanted, Entity):
    """Of one person, role and scope at most one is pending. What user, role or scope it was about may be gone."""

    __tablename__ = "role_requests"

    user_id: Mapped[UUID]
    """Who asks, and will hold the role."""
    role_id: Mapped[UUID]
    scope_type: Mapped[str]
    scope_id: Mapped[UUID | None]
    justification: Mapped[str]
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """Of the assignment that is asked for."""
    renews: Mapped[UUID | None]
    status: Mapped[str]
    """As it was last written: one whose time is over is `pending` until upkeep comes by, and shown as `expired`."""
    pending_until: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    slots: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    """The roles of which one holder each has to approve."""
    awaits: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    """Those of the slots of which one more holder would bring the request further."""
    decided_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    decided_by: Mapped[UUID | None] = mapped_column(default=left_empty)
    assignment_id: Mapped[UUID | None] = mapped_column(default=left_empty)
    """What came of it."""


class RoleRequestEntry(Tenanted, Base):
    """One line of a request's timeline. Never changed, but for `is_void`."""

    __tablename__ = "role_request_entries"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    request_id: Mapped[UUID] = mapped_column(ForeignKey("role_requests.id"))
    kind: Mapped[str]
    actor_id: Mapped[UUID | None]
    on_behalf_of: Mapped[UUID | None]
    """Whose approval it is, where the actor decides in their place."""
    text: Mapped[str | None]
    role_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    """Of an approval: the slots that it can fill."""
    is_void: Mapped[bool] = mapped_column(default=False)
    """Of an approval: it was given under approver roles that are others now."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
