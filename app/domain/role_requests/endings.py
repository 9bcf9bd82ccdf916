"""What becomes of pending requests when what they are about goes, or when others are to decide on them."""

from uuid import UUID

from sqlalchemy import ColumnElement, select, update

from app.domain.role_requests.deciders import choose_slots
from app.domain.role_requests.models import RoleRequest, RoleRequestEntry
from app.domain.role_requests.repositories import IS_OVER, IS_PENDING, RoleRequestRepository
from app.domain.role_requests.timeline import Timeline
from app.domain.work import UnitOfWork


async def cancel_requests(work: UnitOfWork, *which: ColumnElement[bool], because: str) -> None:
    """Those that are pending: what they are about is gone, and `because` says what."""
    for request in await _pending(work, *which):
        timeline = Timeline(work, request)
        before = await timeline.shown()
        await timeline.change(status="cancelled", awaits=[], decided_at=work.now, decided_by=work.actor_id)
        await timeline.add("cancelled", text=because)
        await timeline.record("cancelled", before=before)


async def restart_requests(work: UnitOfWork, *which: ColumnElement[bool]) -> None:
    """Those that are pending: others decide on them from now on, so that approvals given before count no more. To be
    called when the approver roles are what they will be."""
    for request in await _pending(work, *which):
        timeline = Timeline(work, request)
        before = await timeline.shown()
        slots = await choose_slots(work, request)
        await _make_void(work, request.id)
        await timeline.change(slots=slots, awaits=slots)
        await timeline.add("restarted")
        await timeline.record("restarted", before=before)


async def write_expired(work: UnitOfWork, *which: ColumnElement[bool], most: int = 100) -> int:
    """What time has ended already: as nobody's doing, and without another version, since it is shown so before. Returns
    how many."""
    over = select(RoleRequest.id).where(RoleRequest.tenant_id == work.tenant_id, IS_OVER, *which)
    chosen = over.order_by(RoleRequest.id).limit(most).with_for_update(skip_locked=True)
    ids = list(await work.session.scalars(chosen))
    if not ids:
        return 0
    ended = {"status": "expired", "awaits": [], "decided_at": RoleRequest.pending_until}
    written = update(RoleRequest).where(RoleRequest.id.in_(ids)).values(**ended, version=RoleRequest.version)
    await work.session.execute(written, execution_options={"synchronize_session": False})
    async with work.as_system_of(work.tenant_id) as system:
        for request_id in ids:
            request = await RoleRequestRepository(work.session, tenant_id=work.tenant_id).get_one(id=request_id)
            timeline = Timeline(system, request)
            await timeline.add("expired")
            await timeline.record("expired")
    return len(ids)


def waits_for(role_id: UUID) -> ColumnElement[bool]:
    return RoleRequest.slots.contains([role_id])


async def _pending(work: UnitOfWork, *which: ColumnElement[bool]) -> list[RoleRequest]:
    """Locked, in one order, so that two who do this at once do not wait for each other."""
    found = select(RoleRequest).where(RoleRequest.tenant_id == work.tenant_id, IS_PENDING, *which)
    return list(await work.session.scalars(found.order_by(RoleRequest.id).with_for_update()))


async def _make_void(work: UnitOfWork, request_id: UUID) -> None:
    approvals = update(RoleRequestEntry).where(
        RoleRequestEntry.request_id == request_id, RoleRequestEntry.kind == "approved"
    )
    await work.session.execute(approvals.values(is_void=True), execution_options={"synchronize_session": False})
