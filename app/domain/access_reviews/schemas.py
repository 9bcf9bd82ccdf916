"""Access reviews on the wire."""

from datetime import datetime
from typing import Annotated, Literal, get_args
from uuid import UUID

from msgspec import Meta

from app.core.schemas import EntityOut, Input, Name, Output, Text, tag_with, visible
from app.domain.assignments.schemas import Moment, ScopeOut, SubjectType, ViaOut, storable_moment

OnNoAnswer = Annotated[Literal["keep", "end"], Meta(title="OnNoAnswer")]
ReviewStatus = Annotated[Literal["open", "closing", "closed"], Meta(title="ReviewStatus")]
ItemState = Annotated[Literal["open", "kept", "ended", "gone"], Meta(title="ItemState")]
STATES: tuple[str, ...] = get_args(get_args(ItemState)[0])


class ReviewScope(Input):
    """A part of the tenant: the whole of it is reviewed role by role."""

    type: Annotated[Literal["data_domain", "data_source"], Meta(title="ReviewScopeType")]
    id: UUID


class AccessReviewOut(EntityOut):
    name: str
    role_id: UUID | None
    scope: ScopeOut | None
    due_at: datetime
    on_no_answer: OnNoAnswer
    """What becomes of lines that nobody has answered by then."""
    status: ReviewStatus
    """`closing`: no more answers are taken, and lines without one are being carried out."""
    closed_at: datetime | None

    def entity_tag(self) -> str:
        return tag_with(self.version, self.status)


class AccessReviewCreate(Input):
    rules = {"name": visible, "due_at": storable_moment}

    name: Name
    due_at: Moment
    on_no_answer: OnNoAnswer
    role_id: UUID | None = None
    scope: ReviewScope | None = None
    """A data domain with all that is in it and below it, or a data source; or else a role."""


class ReviewSubject(Output):
    type: SubjectType
    id: UUID
    name: str


class ReviewRole(Output):
    id: UUID
    name: str


class ReviewItemOut(Output):
    id: UUID
    assignment_id: UUID
    subject: ReviewSubject
    role: ReviewRole
    scope: ScopeOut
    since: datetime
    expires_at: datetime | None
    via: ViaOut | None
    """By whose decision it was given; null for the hub itself."""
    last_active_at: datetime | None
    """When its holder last did anything that the hub has noted: was seen in a session, used a key, or left a line in
    the audit log. The hub does not note which right a call used. Null where nothing is known, and for groups."""
    state: ItemState
    """`gone`: it ended otherwise before anybody answered."""
    answered_at: datetime | None
    answered_by: UUID | None
    """Null where nobody answered in time."""
    reason: str | None


class Report(Output):
    review: AccessReviewOut
    totals: dict[str, int]
    """Of lines by state."""
    items: list[ReviewItemOut]
    next_cursor: str | None


class ReviewAnswer(Input):
    reason: Text | None = None
