"""The rules about role assignments: nobody gives or takes what they do not hold at that place themselves, one thing is
given once, and what was given is ended, never deleted."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import UnsetType
from sqlalchemy import func, select

from app.core.error_codes import FaultCode
from app.core.errors import BadRequest, Conflict, Fault, Forbidden
from app.core.extent import Place
from app.core.reads import Reads
from app.core.security import Principal, missing, unseen
from app.domain.assignments.admins import keep_an_admin
from app.domain.assignments.endings import end_assignments
from app.domain.assignments.kinds import SCOPES, SUBJECTS
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import ASSIGNMENT, IS_OPEN, OF_WHOLE_TENANT, AssignmentRepository
from app.domain.assignments.schemas import (
    AssignmentCreate,
    AssignmentOut,
    AssignmentPatch,
    Scope,
    ScopeOut,
    Subject,
    SubjectType,
    Via,
)
from app.domain.auth.places import place_of
from app.domain.auth.rights import Rights, lasting_rights
from app.domain.dry_runs.services import Change, before_change
from app.domain.roles.built_in import admin_role_id, public_role_id
from app.domain.roles.confirming import confirm_giving
from app.domain.roles.models import Role
from app.domain.roles.ownership import OWNER_BRINGS
from app.domain.work import UnitOfWork

UNKNOWN: Mapping[SubjectType, FaultCode] = {
    "user": "unknown_user",
    "group": "unknown_group",
    "service_account": "unknown_service_account",
}
READ, WRITE = "role-assignments:read", "role-assignments:write"


class AssignmentService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._assignments = AssignmentRepository(work.session, tenant_id=work.tenant_id)

    async def create(self, new: AssignmentCreate) -> AssignmentOut:
        """As somebody asks for it. Raises as `give` does, and Forbidden where they may give nothing at that place."""
        place = await self._place(new.scope)
        if not may_at(self._work.actor, WRITE, place):
            raise missing(self._work.actor, WRITE, f"This needs the permission `{WRITE}` there.")
        return await self.give(
            new.subject,
            new.role_id,
            new.scope,
            starts_at=new.starts_at,
            expires_at=new.expires_at,
            reason=new.reason,
        )

    async def give(
        self,
        subject: Subject,
        role_id: UUID,
        scope: Scope | None = None,
        *,
        starts_at: datetime | None = None,
        expires_at: datetime | None = None,
        reason: str | None = None,
        via: Via | None = None,
        is_judged: bool = False,
    ) -> AssignmentOut:
        """Give a role, by the actor's own decision or `via` something else that was decided. `is_judged`: the caller
        has seen to it that who decided may.

        Raises BadRequest for a subject, role or scope that is not there and for times that do not fit, Forbidden where
        the role brings more than the actor holds at that place, Conflict where it is held there already.
        """
        shown = await self.hold(
            subject,
            role_id,
            scope,
            starts_at=starts_at,
            expires_at=expires_at,
            reason=reason,
            via=via,
            is_judged=is_judged,
        )
        self._work.audit("role_assignment.create", "role_assignment", shown.id, after=shown)
        self._work.announce("role_assignment.created", f"role-assignments/{shown.id}", shown)
        return shown

    async def hold(
        self,
        subject: Subject,
        role_id: UUID,
        scope: Scope | None = None,
        *,
        starts_at: datetime | None = None,
        expires_at: datetime | None = None,
        reason: str | None = None,
        via: Via | None = None,
        is_replacing: bool = False,
        is_judged: bool = False,
    ) -> AssignmentOut:
        """`give`, which the caller puts on record. `is_replacing` ends one that has not begun."""
        scope = scope or Scope(type="tenant")
        await self._lock_subject(subject)
        role = await self._role(role_id)
        place = await self._place(scope, is_judged=is_judged)
        self._refuse_built_in(role, scope)
        if not is_judged:
            await self._require_held(role, place)
        if subject.type == "group":
            await confirm_giving(self._work, subject.id, role.permissions, place)
        now = await self._now()
        begins = max(starts_at or now, now)
        _refuse_end(expires_at, begins, now)
        if not is_judged:
            await self._require_held_until(expires_at, role, place)
        await self._before_change(subject.type, subject.id, scope.type, scope.id, at=starts_at and begins)
        await self._make_room(subject, role_id, scope, now, is_replacing=is_replacing)
        given = RoleAssignment(
            **self._work.stamp(),
            **self._via(via),
            subject_type=subject.type,
            subject_id=subject.id,
            role_id=role_id,
            scope_type=scope.type,
            scope_id=scope.id,
            starts_at=begins,
            expires_at=expires_at,
            reason=reason,
        )
        await self._assignments.add(given)
        self._work.forget(subject.type, subject.id)
        return await self._shown(given.id)

    async def update(self, assignment_id: UUID, patch: AssignmentPatch) -> AssignmentOut:
        """Another end. Raises Conflict for one that has ended, and where the last admin would have an end; Forbidden
        where the role brings more than the actor holds there, or for longer."""
        assignment, role, place = await self._changeable(assignment_id)
        before = await self._shown(assignment_id)
        if isinstance(patch.expires_at, UnsetType) or patch.expires_at == assignment.expires_at:
            return before
        _refuse_end(patch.expires_at, assignment.starts_at, await self._now())
        if patch.expires_at is not None:
            await self._keep_an_admin(assignment)
        if role is not None and _is_later(patch.expires_at, assignment.expires_at):
            await self._require_held_until(patch.expires_at, role, place)
        either = [moment for moment in (patch.expires_at, assignment.expires_at) if moment is not None]
        await self._before_change_of(assignment, at=min(either))
        self._work.apply(assignment, {"expires_at": patch.expires_at})
        await self._assignments.update(assignment)
        self._work.forget(assignment.subject_type, assignment.subject_id)
        after = await self._shown(assignment_id)
        self._work.audit("role_assignment.update", "role_assignment", assignment_id, before=before, after=after)
        self._work.announce("role_assignment.updated", f"role-assignments/{assignment_id}", after)
        return after

    async def end(self, assignment_id: UUID) -> None:
        """Raises Conflict for one that has ended and for that of the last admin, Forbidden where the role brings more
        than the actor holds there."""
        assignment, _, _ = await self._changeable(assignment_id)
        await self._put_an_end_to(assignment)

    async def take_back(self, assignment_id: UUID) -> None:
        """`end`, by whoever the caller has judged to have the right to. Raises Conflict alike."""
        assignment = await self._assignments.get_one(id=assignment_id, with_for_update=True)
        _refuse_ended(assignment, await self._now())
        await self._put_an_end_to(assignment)

    async def make_way(self, assignment_id: UUID) -> None:
        """`take_back`, for another one that comes in its place; one that has ended meanwhile is in nobody's way."""
        assignment = await self._assignments.get_one_or_none(IS_OPEN, id=assignment_id, with_for_update=True)
        if assignment is not None:
            await self._put_an_end_to(assignment)

    async def _put_an_end_to(self, assignment: RoleAssignment) -> None:
        assignment_id = assignment.id
        before = await self._shown(assignment_id)
        await self._keep_an_admin(assignment)
        await self._end(assignment)
        after = await self._shown(assignment_id)
        self._work.audit("role_assignment.end", "role_assignment", assignment_id, before=before, after=after)
        self._work.announce("role_assignment.ended", f"role-assignments/{assignment_id}", after)

    async def holds(self, user_id: UUID, role_id: UUID) -> bool:
        """Whether somebody does at this moment, themselves and in the whole tenant."""
        held = select(RoleAssignment.starts_at, RoleAssignment.expires_at).where(
            RoleAssignment.subject_id == user_id, RoleAssignment.role_id == role_id, IS_OPEN, OF_WHOLE_TENANT
        )
        found, now = (await self._work.session.execute(held)).one_or_none(), await self._now()
        return found is not None and found.starts_at <= now and (found.expires_at is None or found.expires_at > now)

    async def lose(self, user_id: UUID, role_id: UUID) -> None:
        """Take away what somebody holds in the whole tenant; the caller puts it on record. Raises Conflict for that of
        the last admin."""
        held = await self._assignments.get_one(
            IS_OPEN, OF_WHOLE_TENANT, subject_id=user_id, role_id=role_id, with_for_update=True
        )
        await self._keep_an_admin(held)
        await self._end(held)

    async def _before_change_of(self, given: RoleAssignment, *, at: datetime | None) -> None:
        await self._before_change(given.subject_type, given.subject_id, given.scope_type, given.scope_id, at=at)

    async def _before_change(
        self, subject_type: str, subject_id: UUID, scope_type: str, scope_id: UUID | None, *, at: datetime | None
    ) -> None:
        change = Change(
            kind="subject",
            row_id=subject_id,
            at=at,
            subject_type=subject_type,
            scope_type=scope_type,
            scope_id=scope_id,
        )
        await before_change(self._work, change)

    async def _end(self, assignment: RoleAssignment) -> None:
        await self._before_change_of(assignment, at=max(assignment.starts_at, await self._now()))
        self._work.apply(assignment, {"ended_at": await self._now(), "ended_by": self._work.actor_id})
        await self._assignments.update(assignment)
        self._work.forget(assignment.subject_type, assignment.subject_id)

    async def _changeable(self, assignment_id: UUID) -> tuple[RoleAssignment, Role | None, Place | None]:
        """With its role, unless that is gone, and its place. Raises NotFound or Hidden where the actor may not see it,
        Forbidden where they may not change it."""
        assignment = await self._assignments.get_one(id=assignment_id, with_for_update=True)
        place = await _place_of(self._work, assignment.scope_type, assignment.scope_id)
        if not may_at(self._work.actor, WRITE, place):
            if may_at(self._work.actor, READ, place):
                raise missing(self._work.actor, WRITE, f"This needs the permission `{WRITE}` there.")
            raise unseen(self._work.actor, READ)
        role = await self._work.session.scalar(
            select(Role).where(Role.id == assignment.role_id, Role.tenant_id == self._work.tenant_id)
        )
        if role is not None:
            self._refuse_public(role)
            await self._require_held(role, place)
        self._work.require_match(assignment.version)
        _refuse_ended(assignment, await self._now())
        return assignment, role, place

    async def _lock_subject(self, subject: Subject) -> None:
        """So that it is not deleted meanwhile. Raises BadRequest where it is not there."""
        model = SUBJECTS.get(subject.type)
        if model is not None:
            found = select(model.id).where(model.id == subject.id, model.tenant_id == self._work.tenant_id)
            if await self._work.session.scalar(found.with_for_update(read=True, key_share=True)) is not None:
                return
        raise BadRequest(errors=[Fault("subject.id", UNKNOWN[subject.type], f"is not a {_spoken(subject.type)}")])

    async def _role(self, role_id: UUID) -> Role:
        found = select(Role).where(Role.id == role_id, Role.tenant_id == self._work.tenant_id)
        role = await self._work.session.scalar(found.with_for_update(read=True, key_share=True))
        if role is None:
            raise BadRequest(errors=[Fault("role_id", "unknown_role", "is not a role")])
        return role

    async def _place(self, scope: Scope, *, is_judged: bool = False) -> Place | None:
        """Raises BadRequest where it is not there, or may not be seen."""
        if scope.type == "tenant":
            return None
        place, kind = await _place_of(self._work, scope.type, scope.id), SCOPES[scope.type]
        actor = self._work.actor
        is_seen = is_judged or any(may_at(actor, name, place) for name in (kind.seen_with, READ, WRITE))
        if place is None or not is_seen:
            raise BadRequest(errors=[Fault("scope.id", kind.unknown, f"is not a {_spoken(scope.type)}")])
        return place

    def _refuse_built_in(self, role: Role, scope: Scope) -> None:
        self._refuse_public(role)
        if role.id == admin_role_id(self._work.tenant_id) and scope.type != "tenant":
            raise BadRequest(errors=[Fault("scope.type", "not_allowed", "must be tenant for the role `admin`")])

    def _refuse_public(self, role: Role) -> None:
        if role.id == public_role_id(self._work.tenant_id):
            raise Conflict("Everyone holds the role `public`.", code="system_role")

    async def _require_held(self, role: Role, place: Place | None) -> None:
        """Raises Forbidden where the role has more than the actor holds there, or owns what they could not own."""
        if not self._work.actor.holds_all(role.permissions, place):
            raise Forbidden(
                "The role has permissions that you do not hold there yourself.", code="exceeds_own_permissions"
            )
        if not await self._could_own(role, place, self._work.actor):
            sentence = "The role owns what you may not do everything with yourself."
            raise Forbidden(sentence, code="exceeds_own_permissions")

    async def _require_held_until(self, end: datetime | None, role: Role, place: Place | None) -> None:
        """Nobody gives for longer than they hold themselves: whoever could would prolong what they have. Raises
        Forbidden."""
        lasting = await lasting_rights(self._work.session, self._work.actor, end)
        if not (lasting.holds_all(role.permissions, place) and await self._could_own(role, place, lasting)):
            raise Forbidden(
                "You hold there yourself what the role has, but not for so long: choose an earlier `expires_at`.",
                code="exceeds_own_permissions",
            )

    async def require_could_give(self, role_id: UUID, place: Place | None) -> None:
        """Raises Forbidden where the role has more than the actor holds there, or owns what they could not own. A role
        that is gone has nothing."""
        found = select(Role).where(Role.id == role_id, Role.tenant_id == self._work.tenant_id)
        role = await self._work.session.scalar(found)
        if role is not None:
            await self._require_held(role, place)

    async def require_givable(self, role_id: UUID) -> None:
        """Raises where `give` would, for somebody of the whole tenant and for good."""
        role = await self._role(role_id)
        self._refuse_public(role)
        await self._require_held(role, None)
        await self._require_held_until(None, role, None)

    async def _could_own(self, role: Role, place: Place | None, holder: Principal | Rights) -> bool:
        """Whether whoever holds so much may do all that the role brings as an owner. Sources of one owner in one domain
        are one place."""
        if place is not None or not role.is_owner or holder.holds_all(OWNER_BRINGS):
            return True
        for kind in SCOPES.values():
            columns = [column.label(name) for name, column in kind.place.items() if name != "source_id"]
            is_owned = (kind.model.tenant_id == self._work.tenant_id, kind.model.owner_role_id == role.id)
            for row in await self._work.session.execute(select(*columns).where(*is_owned).distinct()):
                if not holder.holds_all(OWNER_BRINGS, Place(**row._mapping)):
                    return False
        return True

    async def _make_room(
        self, subject: Subject, role_id: UUID, scope: Scope, now: datetime, *, is_replacing: bool
    ) -> None:
        """An assignment of the same that has expired is ended. Raises Conflict for one that has not."""
        same = (
            RoleAssignment.subject_id == subject.id,
            RoleAssignment.role_id == role_id,
            RoleAssignment.scope_id.is_not_distinct_from(scope.id),
        )
        twin = select(RoleAssignment.expires_at).where(RoleAssignment.tenant_id == self._work.tenant_id, IS_OPEN, *same)
        found = (await self._work.session.execute(twin.with_for_update())).one_or_none()
        if found is None:
            return
        if not is_replacing and (found.expires_at is None or found.expires_at > now):
            fault = Fault("role_id", "already_assigned", "is held there already")
            raise Conflict(code="already_assigned", errors=[fault])
        await end_assignments(self._work, *same)

    async def _keep_an_admin(self, assignment: RoleAssignment) -> None:
        if assignment.subject_type == "user" and assignment.role_id == admin_role_id(self._work.tenant_id):
            await keep_an_admin(self._work, assignment.subject_id)

    def _via(self, via: Via | None) -> dict[str, object]:
        if via is None and self._work.actor_id is not None:
            via = Via("person", self._work.actor_id)
        return {"via_type": via and via.type, "via_id": via and via.id}

    async def _now(self) -> datetime:
        """By the clock that judges what is in force. It may have gone on while this transaction waited for another one,
        so that it is asked for the moment, and not for when the transaction began."""
        now: datetime = (await self._work.session.execute(select(func.clock_timestamp()))).scalar_one()
        return now

    async def _shown(self, assignment_id: UUID) -> AssignmentOut:
        return await self._assignments.read(AssignmentOut, id=assignment_id, tenant_id=self._work.tenant_id)


async def visible_assignment(reads: Reads, principal: Principal, assignment_id: UUID) -> AssignmentOut:
    """Raises NotFound, or Hidden where the principal may not see what is given for that place."""
    tenant_id = principal.tenant_id
    assignment = await reads.one(ASSIGNMENT, AssignmentOut, id=assignment_id, tenant_id=tenant_id)
    if not principal.may(READ):
        scope = msgspec.convert(assignment.scope, ScopeOut)
        place = None
        if scope.type != "tenant" and scope.id is not None:
            place = await place_of(reads, scope.type, scope.id, tenant_id)
        if place is None or not principal.may_at(READ, place):
            raise unseen(principal, READ)
    return assignment


def may_at(principal: Principal, permission: str, place: Place | None) -> bool:
    """At the place, or with None for the whole tenant."""
    return principal.may(permission) if place is None else principal.may_at(permission, place)


async def _place_of(work: UnitOfWork, scope_type: str, scope_id: UUID | None) -> Place | None:
    """Of a scope that is a part of the tenant, locked so that it is not deleted meanwhile; None where it is gone."""
    if scope_type not in SCOPES:
        return None
    kind = SCOPES[scope_type]
    found = select(*(column.label(name) for name, column in kind.place.items())).where(
        kind.model.id == scope_id, kind.model.tenant_id == work.tenant_id
    )
    row = (await work.session.execute(found.with_for_update(read=True, key_share=True))).one_or_none()
    return None if row is None else Place(**row._mapping)


def _is_later(end: datetime | None, before: datetime | None) -> bool:
    return before is not None and (end is None or end > before)


def _refuse_ended(assignment: RoleAssignment, now: datetime) -> None:
    if assignment.ended_at is not None or (assignment.expires_at is not None and assignment.expires_at <= now):
        raise Conflict(code="assignment_ended")


def _refuse_end(expires_at: datetime | None, begins: datetime, now: datetime) -> None:
    """Raises BadRequest for an end that has come already, or comes before the beginning."""
    if expires_at is None:
        return
    if expires_at <= now:
        raise BadRequest(errors=[Fault("expires_at", "too_small", "must lie in the future")])
    if expires_at <= begins:
        raise BadRequest(errors=[Fault("expires_at", "too_small", "must be later than starts_at")])


def _spoken(kind: str) -> str:
    return kind.replace("_", " ")
