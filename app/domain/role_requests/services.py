"""The rules about role requests: one approval for each slot, nobody decides on their own, and one decision wins."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text

from app.core.errors import BadRequest, Conflict, Fault, Forbidden, Hidden
from app.core.reads import Reads
from app.core.security import Principal
from app.domain.assignments.kinds import SCOPES, SUBJECTS
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import IN_FORCE
from app.domain.assignments.schemas import Scope, Subject, Via
from app.domain.assignments.services import AssignmentService
from app.domain.role_requests.deciders import (
    Abilities,
    abilities_of,
    abilities_of_actor,
    choose_slots,
    require_deciders,
)
from app.domain.role_requests.endings import write_expired
from app.domain.role_requests.matching import awaited
from app.domain.role_requests.models import RoleRequest, RoleRequestEntry
from app.domain.role_requests.repositories import IS_PENDING, ROLE_REQUEST, SEEN, EntryRepository, RoleRequestRepository
from app.domain.role_requests.schemas import EntryOut, RoleRequestCreate, RoleRequestOut
from app.domain.role_requests.timeline import Timeline
from app.domain.roles.built_in import admin_role_id, public_role_id
from app.domain.roles.models import Role
from app.domain.work import UnitOfWork

READ = "role-requests:read"
_HELD = text(
    """SELECT EXISTS (
         SELECT FROM held_at(CAST(:tenant_id AS uuid), CAST(:user_id AS uuid), statement_timestamp()) AS held
         WHERE held.role_id = CAST(:role_id AS uuid) AND held.assignment_id IS DISTINCT FROM CAST(:renews AS uuid)
           AND (held.scope_id IS NULL OR held.scope_id = ANY (
             SELECT unnest(place.reach)
             FROM place_at(CAST(:tenant_id AS uuid), CAST(:scope_type AS text), CAST(:scope_id AS uuid),
                           statement_timestamp()) AS place)))"""
)


class RoleRequestService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._requests = RoleRequestRepository(work.session, tenant_id=work.tenant_id)
        self._entries = EntryRepository(work.session, tenant_id=work.tenant_id)

    async def create(self, new: RoleRequestCreate) -> RoleRequestOut:
        """Ask for a role.

        Raises NotFound for a role that may not be asked for, BadRequest for a scope or an assignment that is not there
        and for an end that does not fit, and Conflict for `public` and `admin`, for what is held or asked for already,
        and where nobody could decide.
        """
        await self._lock_asker()
        role = await self._requestable(new.role_id)
        await self._lock_scope(new.scope, role)
        now = await self._now()
        if new.expires_at is not None and new.expires_at <= now:
            raise BadRequest(errors=[Fault("expires_at", "too_small", "must lie in the future")])
        await self._check_renewed(new)
        await self._refuse_held(new)
        await self._refuse_twin(new)
        request = self._asked(new, now)
        request.slots = request.awaits = await choose_slots(self._work, request)
        await require_deciders(self._work, request)
        await self._requests.add(request)
        timeline = Timeline(self._work, request)
        await timeline.add("created", text=new.justification)
        return await timeline.record("created")

    async def approve(self, request_id: UUID, reason: str | None) -> RoleRequestOut:
        """Fill a slot; with the last one the role is given.

        Raises NotFound or Hidden where it may not be seen, Forbidden for who may not decide, Conflict where it is
        decided, where the actor has approved already, and where another one of their kind would not help.
        """
        request, able = await self._decidable(request_id)
        timeline = Timeline(self._work, request)
        before = await timeline.shown()
        approvals = await self._standing_approvals(request)
        person = self._whose_approval(request, able, approvals)
        said = self._in_whose_place(person)
        await timeline.add("approved", text=reason, role_ids=able[person], **said)
        awaits = awaited(request.slots, [*(set(approval.role_ids) for approval in approvals), able[person]])
        if awaits:
            await timeline.change(awaits=awaits)
            return await timeline.record("approved", event="role_request.approval_given", before=before, **said)
        given = await self._give(request)
        await self._decide(timeline, "approved", assignment_id=given)
        return await timeline.record("approved", before=before, **said)

    async def deny(self, request_id: UUID, reason: str | None) -> RoleRequestOut:
        """One of those who may approve is enough. Raises as `approve` does."""
        request, able = await self._decidable(request_id)
        timeline = Timeline(self._work, request)
        before = await timeline.shown()
        said = self._in_whose_place(self._of_own_right(able))
        await self._decide(timeline, "denied")
        await timeline.add("denied", text=reason, **said)
        return await timeline.record("denied", before=before, **said)

    async def cancel(self, request_id: UUID) -> RoleRequestOut:
        """By who made it. Raises Forbidden for others who see it, Conflict where it is decided."""
        request = await self._locked(request_id)
        if request.user_id != self._work.actor_id:
            await self._require_sight(request)
            raise Forbidden("Only who made the request can cancel it.", code="not_your_request")
        await self._require_pending(request)
        timeline = Timeline(self._work, request)
        before = await timeline.shown()
        await self._decide(timeline, "cancelled")
        await timeline.add("cancelled")
        return await timeline.record("cancelled", before=before)

    async def revoke(self, request_id: UUID, reason: str | None) -> RoleRequestOut:
        """End what was given. By those who may decide on the request, and by admins; Raises as `approve` does, and
        Conflict where nothing was given, or has ended."""
        request = await self._locked(request_id)
        await self._refuse_own(request)
        able = await abilities_of_actor(self._work, request)
        if not able and not self._is_admin:
            await self._require_sight(request)
            raise Forbidden(code="not_an_approver")
        if request.status != "approved" or request.assignment_id is None:
            raise Conflict(code="request_not_approved")
        timeline = Timeline(self._work, request)
        before = await timeline.shown()
        await AssignmentService(self._work).take_back(request.assignment_id)
        said = {} if self._is_admin else self._in_whose_place(self._of_own_right(able))
        await self._decide(timeline, "revoked")
        await timeline.add("revoked", text=reason, **said)
        return await timeline.record("revoked", before=before, **said)

    async def comment(self, request_id: UUID, said: str) -> EntryOut:
        """By anybody who sees it, whatever its state. Raises NotFound or Hidden."""
        request = await self._locked(request_id)
        await self._require_sight(request)
        timeline = Timeline(self._work, request)
        entry = await timeline.add("commented", text=said)
        await timeline.record("commented", text=said)
        return EntryRepository.shown(entry, EntryOut)

    # What is asked for ------------------------------------------------------------------------------------------------

    async def _lock_asker(self) -> None:
        """So that somebody asks for one thing after the other."""
        users = SUBJECTS["user"]
        await self._work.session.execute(select(users.id).where(users.id == self._work.actor_id).with_for_update())

    async def _requestable(self, role_id: UUID) -> Role:
        """Raises Conflict for the built-in roles that nobody may ask for, Hidden for all others."""
        if role_id == public_role_id(self._work.tenant_id):
            raise Conflict(code="role_is_public")
        found = select(Role).where(Role.id == role_id, Role.tenant_id == self._work.tenant_id)
        role = await self._work.session.scalar(found.with_for_update(read=True, key_share=True))
        if role is not None and not role.is_requestable and role_id == admin_role_id(self._work.tenant_id):
            raise Conflict(code="admin_not_requestable")
        if role is None or not role.is_requestable:
            raise Hidden
        return role

    async def _lock_scope(self, scope: Scope, role: Role) -> None:
        """Raises BadRequest where it is not there. Whoever asks need not see it: that is what they ask for."""
        if role.id == admin_role_id(self._work.tenant_id) and scope.type != "tenant":
            raise BadRequest(errors=[Fault("scope.type", "not_allowed", "must be tenant for the role `admin`")])
        if scope.type != "tenant" and not await self._is_there(scope.type, scope.id):
            kind = scope.type.replace("_", " ")
            raise BadRequest(errors=[Fault("scope.id", SCOPES[scope.type].unknown, f"is not a {kind}")])

    async def _is_there(self, scope_type: str, scope_id: UUID | None) -> bool:
        """A part of the tenant, locked so that it is not deleted meanwhile."""
        model = SCOPES[scope_type].model
        found = select(model.id).where(model.id == scope_id, model.tenant_id == self._work.tenant_id)
        return await self._work.session.scalar(found.with_for_update(read=True, key_share=True)) is not None

    async def _check_renewed(self, new: RoleRequestCreate) -> None:
        """Raises BadRequest for an assignment that is not one's own of the same role and scope, and for an end that is
        not later; Conflict for one that has no end."""
        if new.renews is None:
            return
        own = select(RoleAssignment.expires_at).where(
            RoleAssignment.tenant_id == self._work.tenant_id,
            RoleAssignment.id == new.renews,
            RoleAssignment.subject_id == self._work.actor_id,
            RoleAssignment.role_id == new.role_id,
            RoleAssignment.scope_id.is_not_distinct_from(new.scope.id),
            IN_FORCE,
        )
        found = (await self._work.session.execute(own)).one_or_none()
        if found is None:
            fault = Fault(
                "renews", "unknown_assignment", "is not an assignment of yours, of that role and scope, in force"
            )
            raise BadRequest(errors=[fault])
        if found.expires_at is None:
            raise Conflict("The assignment has no end.", code="already_assigned")
        if new.expires_at is not None and new.expires_at <= found.expires_at:
            raise BadRequest(errors=[Fault("expires_at", "too_small", "must be later than the present end")])

    async def _refuse_held(self, new: RoleRequestCreate) -> None:
        values = {
            "tenant_id": self._work.tenant_id,
            "user_id": self._work.actor_id,
            "role_id": new.role_id,
            "scope_type": new.scope.type,
            "scope_id": new.scope.id,
            "renews": new.renews,
        }
        if await self._work.session.scalar(_HELD, values):
            raise Conflict("You hold the role there already.", code="already_assigned")

    async def _refuse_twin(self, new: RoleRequestCreate) -> None:
        """One whose time is over makes room."""
        same = (
            RoleRequest.user_id == self._work.actor_id,
            RoleRequest.role_id == new.role_id,
            RoleRequest.scope_id.is_not_distinct_from(new.scope.id),
        )
        await write_expired(self._work, *same)
        if await self._requests.exists(IS_PENDING, *same):
            raise Conflict(code="request_pending")

    def _asked(self, new: RoleRequestCreate, now: datetime) -> RoleRequest:
        last_day = now + timedelta(days=self._work.parts.settings.request_days)
        return RoleRequest(
            **self._work.stamp(),
            user_id=self._work.actor_id,
            role_id=new.role_id,
            scope_type=new.scope.type,
            scope_id=new.scope.id,
            justification=new.justification,
            expires_at=new.expires_at,
            renews=new.renews,
            status="pending",
            pending_until=min(last_day, new.expires_at or last_day),
            slots=[],
            awaits=[],
        )

    # What is decided --------------------------------------------------------------------------------------------------

    async def _decidable(self, request_id: UUID) -> tuple[RoleRequest, Abilities]:
        """A request that is pending, locked, and the slots that the actor can fill, in whose place ever."""
        request = await self._locked(request_id)
        await self._refuse_own(request)
        able = await abilities_of_actor(self._work, request)
        if not able:
            await self._require_sight(request)
            raise Forbidden(code="not_an_approver")
        await self._require_pending(request)
        return request, able

    def _whose_approval(self, request: RoleRequest, able: Abilities, approvals: Iterable[RoleRequestEntry]) -> UUID:
        """The actor's own, or that of somebody in whose place they decide, who can fill more. Whoever has a part in an
        approval, by their hand or by their right, has none in another one. Raises Conflict."""
        used = {person for approval in approvals for person in (approval.actor_id, approval.on_behalf_of)}
        left = {person: slots for person, slots in able.items() if person not in used}
        if not left or self._work.actor_id in used:
            raise Conflict(code="already_approved")
        useful = {person: slots for person, slots in left.items() if slots & set(request.awaits)}
        if not useful:
            raise Conflict(code="approval_not_needed")
        return max(sorted(useful), key=lambda person: (len(useful[person]), person == self._work.actor_id))

    def _of_own_right(self, able: Abilities) -> UUID:
        """The actor, where they may decide themselves."""
        return self._work.actor.id if self._work.actor.id in able else min(able)

    def _in_whose_place(self, person: UUID) -> dict[str, Any]:
        """For the timeline and the audit row; nothing where it is the actor's own decision."""
        return {} if person == self._work.actor_id else {"on_behalf_of": person}

    async def _locked(self, request_id: UUID) -> RoleRequest:
        """With what it is about, in the order in which whoever deletes that locks it: no two wait for each other."""
        about = select(RoleRequest.user_id, RoleRequest.role_id, RoleRequest.scope_type, RoleRequest.scope_id).where(
            RoleRequest.id == request_id, RoleRequest.tenant_id == self._work.tenant_id
        )
        found = (await self._work.session.execute(about)).one_or_none()
        if found is not None:
            for model, row_id in ((SUBJECTS["user"], found.user_id), (Role, found.role_id)):
                one = select(model.id).where(model.id == row_id, model.tenant_id == self._work.tenant_id)
                await self._work.session.execute(one.with_for_update(read=True, key_share=True))
            if found.scope_type in SCOPES:
                await self._is_there(found.scope_type, found.scope_id)
        return await self._requests.get_one(id=request_id, with_for_update=True)

    async def _refuse_own(self, request: RoleRequest) -> None:
        if request.user_id == self._work.actor_id:
            raise Forbidden(code="own_request")

    @property
    def _is_admin(self) -> bool:
        return admin_role_id(self._work.tenant_id) in self._work.actor.role_ids

    async def _require_sight(self, request: RoleRequest) -> None:
        """Raises Hidden."""
        values = {"id": request.id, "tenant_id": self._work.tenant_id, "actor_id": self._work.actor_id}
        if not self._work.actor.may(READ) and await self._work.session.scalar(SEEN, values) is None:
            raise Hidden

    async def _require_pending(self, request: RoleRequest) -> None:
        """By the database's clock, asked when the row is locked."""
        if not await self._requests.exists(IS_PENDING, id=request.id):
            raise Conflict(code="request_decided")

    async def _standing_approvals(self, request: RoleRequest) -> list[RoleRequestEntry]:
        """Those of people who could still give them: with the right or the account of who gave it, an approval falls,
        and its slot is open again."""
        approvals = await self._entries.get_many(request_id=request.id, kind="approved", is_void=False)
        able = await abilities_of(self._work, request, {_giver(each) for each in approvals}) if approvals else {}
        standing = [each for each in approvals if able.get(_giver(each), frozenset()) & set(each.role_ids)]
        if len(standing) < len(approvals):
            for fallen in approvals:
                fallen.is_void = fallen not in standing
            request.awaits = awaited(request.slots, [set(each.role_ids) for each in standing])
        return standing

    async def _decide(self, timeline: Timeline, status: str, *, assignment_id: UUID | None = None) -> None:
        made = {} if assignment_id is None else {"assignment_id": assignment_id}
        decided = {"decided_at": self._work.now, "decided_by": self._work.actor_id}
        await timeline.change(status=status, awaits=[], **decided, **made)

    async def _give(self, request: RoleRequest) -> UUID:
        """Raises Conflict where the role is held there by now."""
        assignments = AssignmentService(self._work)
        if request.renews is not None:
            await self._refuse_to_shorten(request, request.renews)
            await assignments.make_way(request.renews)
        given = await assignments.give(
            Subject(type="user", id=request.user_id),
            request.role_id,
            Scope(type=request.scope_type, id=request.scope_id),  # type: ignore[arg-type]
            expires_at=request.expires_at,
            reason=request.justification,
            via=Via("request", request.id),
            is_judged=True,
        )
        return given.id

    async def _refuse_to_shorten(self, request: RoleRequest, renewed: UUID) -> None:
        """Raises Conflict where somebody has given what is to be renewed a later end meanwhile, or none."""
        lasts: ColumnElement[bool] = RoleAssignment.expires_at.is_(None)
        if request.expires_at is not None:
            lasts |= RoleAssignment.expires_at >= request.expires_at
        same = (RoleAssignment.id == renewed, RoleAssignment.tenant_id == self._work.tenant_id)
        if await self._work.session.scalar(select(RoleAssignment.id).where(*same, IN_FORCE, lasts).with_for_update()):
            raise Conflict(code="already_assigned")

    async def _now(self) -> datetime:
        now: datetime = (await self._work.session.execute(select(func.statement_timestamp()))).scalar_one()
        return now


def _giver(approval: RoleRequestEntry) -> UUID:
    """By whose right it was given."""
    giver = approval.on_behalf_of or approval.actor_id
    assert giver is not None  # the system approves nothing
    return giver


async def visible_request(reads: Reads, principal: Principal, request_id: UUID) -> RoleRequestOut:
    """Raises NotFound, or Hidden where it is none of the principal's business."""
    of_tenant = {"id": request_id, "tenant_id": principal.tenant_id}
    request = await reads.one(ROLE_REQUEST, RoleRequestOut, **of_tenant)
    if not principal.may(READ) and not await reads.rows(SEEN, {**of_tenant, "actor_id": principal.id}):
        raise Hidden
    return request
