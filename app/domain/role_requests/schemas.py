"""Role requests on the wire."""

from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Literal, get_args
from uuid import UUID

from msgspec import Meta, field

from app.core.schemas import EntityOut, Input, Output, Text, visible
from app.domain.assignments.schemas import Moment, Scope, ScopeOut, storable_moment, well_scoped

RequestStatus = Annotated[
    Literal["pending", "approved", "denied", "cancelled", "expired", "revoked"], Meta(title="RequestStatus")
]
EntryKind = Annotated[
    Literal["created", "approved", "denied", "cancelled", "expired", "revoked", "restarted", "commented"],
    Meta(title="EntryKind"),
]
STATUSES: tuple[str, ...] = get_args(get_args(RequestStatus)[0])
Said = Annotated[str, Meta(min_length=1, max_length=4000, examples=["For the audit of the first half year."])]


class RoleRequestOut(EntityOut):
    user_id: UUID
    """Who asks, and will hold the role."""
    role_id: UUID
    scope: ScopeOut
    justification: str
    expires_at: datetime | None
    """When the role is to end; null for one without end."""
    renews: UUID | None
    """The assignment in whose place the new one comes."""
    status: RequestStatus
    pending_until: datetime
    """When it expires, if nobody decides."""
    awaits: list[UUID]
    """The roles of which somebody has to approve still; who holds two of them fills one."""
    decided_at: datetime | None
    decided_by: UUID | None
    """Null for the hub itself."""
    assignment_id: UUID | None
    """What came of it."""

    def entity_tag(self) -> str:
        """With a hash of what time changes by itself."""
        return f"v{self.version}-{blake2b(self.status.encode(), digest_size=6).hexdigest()}"


class EntryOut(Output):
    id: UUID
    created_at: datetime
    kind: EntryKind
    actor_id: UUID | None
    """Null for the hub itself."""
    on_behalf_of: UUID | None
    """Whose approval it was, where the actor decided in their place."""
    text: str | None
    role_ids: list[UUID]
    """Of an approval: the approver roles for which it can count."""
    is_void: bool
    """Of an approval: it counts no more, because the approver roles are others now."""


class RoleRequestCreate(Input):
    rules = {"scope": well_scoped, "expires_at": storable_moment, "justification": visible}

    role_id: UUID
    justification: Said
    scope: Scope = field(default_factory=lambda: Scope(type="tenant"))
    """Absent: the whole tenant."""
    expires_at: Moment | None = None
    """Absent: until somebody ends it."""
    renews: UUID | None = None
    """One's own assignment of the same role and scope, in whose place the new one is to come."""


class Decision(Input):
    reason: Text | None = None


class CommentCreate(Input):
    rules = {"text": visible}

    text: Said
