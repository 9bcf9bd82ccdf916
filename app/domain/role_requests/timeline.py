"""How a request goes on: each step is a line of its timeline, an audit row and an event, in one transaction."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from app.core.event_names import EventName
from app.domain.role_requests.models import RoleRequest, RoleRequestEntry
from app.domain.role_requests.repositories import RoleRequestRepository
from app.domain.role_requests.schemas import EntryKind, RoleRequestOut
from app.domain.work import UnitOfWork

ACTIONS: dict[EntryKind, str] = {
    "created": "create",
    "approved": "approve",
    "denied": "deny",
    "cancelled": "cancel",
    "expired": "expire",
    "revoked": "revoke",
    "restarted": "restart",
    "commented": "comment",
}
EVENTS: dict[EntryKind, EventName] = {
    "created": "role_request.created",
    "approved": "role_request.approved",
    "denied": "role_request.denied",
    "cancelled": "role_request.cancelled",
    "expired": "role_request.expired",
    "revoked": "role_request.revoked",
    "restarted": "role_request.restarted",
    "commented": "role_request.commented",
}


class Timeline:
    def __init__(self, work: UnitOfWork, request: RoleRequest) -> None:
        self._work = work
        self._request = request
        self._requests = RoleRequestRepository(work.session, tenant_id=work.tenant_id)

    async def add(
        self,
        kind: EntryKind,
        *,
        text: str | None = None,
        role_ids: Iterable[UUID] = (),
        on_behalf_of: UUID | None = None,
    ) -> RoleRequestEntry:
        entry = RoleRequestEntry(
            id=uuid7(),
            tenant_id=self._work.tenant_id,
            request_id=self._request.id,
            kind=kind,
            actor_id=self._work.actor_id,
            on_behalf_of=on_behalf_of,
            text=text,
            role_ids=sorted(role_ids),
            created_at=self._work.now,
        )
        self._work.session.add(entry)
        await self._work.session.flush()
        return entry

    async def change(self, **columns: object) -> None:
        """The request's own row."""
        self._work.apply(self._request, columns)
        await self._requests.update(self._request)

    async def record(
        self, kind: EntryKind, *, event: EventName | None = None, before: RoleRequestOut | None = None, **said: Any
    ) -> RoleRequestOut:
        """The audit row and the event of what has been done; how the request is shown now."""
        shown = await self.shown()
        after = {"request": shown, **said} if said else shown
        self._work.audit(f"role_request.{ACTIONS[kind]}", "role_request", shown.id, before=before, after=after)
        self._work.announce(event or EVENTS[kind], f"role-requests/{shown.id}", shown)
        return shown

    async def shown(self) -> RoleRequestOut:
        return await self._requests.read(RoleRequestOut, id=self._request.id, tenant_id=self._work.tenant_id)
