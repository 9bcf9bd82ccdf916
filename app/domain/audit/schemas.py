"""The audit log on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta

from app.core.schemas import Output

Outcome = Annotated[Literal["success", "failure", "refused"], Meta(title="AuditOutcome")]


class AuditEventOut(Output):
    id: UUID
    occurred_at: datetime
    actor_id: UUID | None
    actor_name: str | None
    """The actor's email address at that time, or the name of the service account; `system` for what `hub restore`
    wrote, and for secrets that a scheduled test opened."""
    api_key_id: UUID | None
    """The API key with which the actor came; null for a session."""
    action: str
    resource_type: str
    resource_id: UUID | None
    outcome: Outcome
    address: str | None
    request_id: str | None
    detail: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
