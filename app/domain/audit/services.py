"""Rows of the audit log: one per write, login and refusal, written in the transaction of what they record."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
from msgspec import Struct
from uuid_utils.compat import uuid7

from app.core.exchange import Exchange
from app.core.security import Principal
from app.domain.audit.schemas import Outcome

NEVER_RECORDED = frozenset(
    ("password", "password_hash", "current_password", "new_password", "refresh_token", "access_token", "key")
)
MAX_TEXT = 500
Content = dict[str, object] | msgspec.Raw


class AuditRow(Struct):
    id: UUID
    tenant_id: UUID
    occurred_at: datetime
    actor_id: UUID | None
    actor_name: str | None
    api_key_id: UUID | None
    action: str
    resource_type: str
    resource_id: UUID | None
    outcome: Outcome
    address: str | None
    request_id: str | None
    detail: str | None
    before: Content | None
    after: Content | None


def audit_row(
    action: str,
    resource_type: str,
    resource_id: UUID | None,
    *,
    tenant_id: UUID,
    principal: Principal | None,
    exchange: Exchange | None,
    address: str | None,
    outcome: Outcome,
    actor_id: UUID | None = None,
    actor_name: str | None = None,
    before: object = None,
    after: object = None,
    detail: str | None = None,
) -> AuditRow:
    """`before` and `after` are Structs or dictionaries as the API shows them: without any secret's value. What is
    encoded already is recorded as it is."""
    return AuditRow(
        id=uuid7(),
        tenant_id=tenant_id,
        occurred_at=datetime.now(UTC),
        actor_id=principal.id if principal else actor_id,
        actor_name=principal.name if principal else actor_name,
        api_key_id=principal.key.id if principal and principal.key else None,
        action=action,
        resource_type=resource_type,
        resource_id=resource_id,
        outcome=outcome,
        address=address,
        request_id=exchange.request_id if exchange else None,
        detail=detail[:MAX_TEXT] if detail else None,
        before=redacted(before),
        after=redacted(after),
    )


def redacted(content: object) -> Content | None:
    if content is None or isinstance(content, msgspec.Raw):
        return content
    plain: dict[str, object] = msgspec.to_builtins(content)
    return {name: value for name, value in plain.items() if name not in NEVER_RECORDED}
