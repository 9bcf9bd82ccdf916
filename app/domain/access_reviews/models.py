"""Access reviews: campaigns in which somebody looks at each assignment of a role, a domain or a source."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Entity, Tenanted
from app.core.rows import left_empty


class AccessReview(Tenanted, Entity):
    __tablename__ = "access_reviews"

    name: Mapped[str]
    role_id: Mapped[UUID | None]
    scope_type: Mapped[str | None]
    scope_id: Mapped[UUID | None]
    """Either a role, or a domain or a source: whose assignments are looked at."""
    due_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    on_no_answer: Mapped[str]
    closed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)


class AccessReviewItem(Tenanted, Base):
    """One assignment, as it was when the review began: the report stays, whatever becomes of what it is about."""

    __tablename__ = "access_review_items"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    review_id: Mapped[UUID] = mapped_column(ForeignKey("access_reviews.id"))
    assignment_id: Mapped[UUID]
    subject_type: Mapped[str]
    subject_id: Mapped[UUID]
    subject_name: Mapped[str]
    role_id: Mapped[UUID]
    role_name: Mapped[str]
    scope_type: Mapped[str]
    scope_id: Mapped[UUID | None]
    since: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    via_type: Mapped[str | None]
    via_id: Mapped[UUID | None]
    last_active_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    state: Mapped[str]
    """`open`, `kept`, `ended`, or `gone` where the assignment ended otherwise."""
    answered_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    answered_by: Mapped[UUID | None]
    reason: Mapped[str | None]
