"""The rules about roles: nobody grants what they lack, built-in roles stay as they are."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from msgspec import UnsetType
from sqlalchemy import any_, literal, update
from uuid_utils.compat import uuid7

from app.core.errors import BadRequest, Conflict, Fault, Forbidden
from app.core.extent import UUIDS, Place
from app.core.rows import Normaliser
from app.core.schemas import named, to_struct
from app.core.security import Principal
from app.domain.assignments.end_of_roles import end_assignments_of_role
from app.domain.dry_runs.services import Change, before_change
from app.domain.lookalikes import refuse_lookalike
from app.domain.role_requests.endings import cancel_requests, restart_requests, waits_for
from app.domain.role_requests.models import RoleRequest
from app.domain.roles.confirming import confirm_filling, confirm_owning
from app.domain.roles.models import Role, RoleApprover
from app.domain.roles.ownership import OWNER_BRINGS
from app.domain.roles.permissions import refuse_unknown
from app.domain.roles.repositories import RoleApproverRepository, RoleRepository
from app.domain.roles.schemas import RoleCreate, RoleOut, RolePatch
from app.domain.work import UnitOfWork


def _granting(permissions: list[str]) -> dict[str, Any]:
    return {"permissions": sorted(set(permissions))}


COLUMNS = Normaliser(RoleCreate, RolePatch, Role, RoleOut, rules={"name": named, "permissions": _granting})


class RoleService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    @property
    def _roles(self) -> RoleRepository:
        return RoleRepository(self._work.session, tenant_id=self._work.tenant_id)

    @property
    def _approvers(self) -> RoleApproverRepository:
        return RoleApproverRepository(self._work.session, tenant_id=self._work.tenant_id)

    async def create(self, new: RoleCreate) -> RoleOut:
        """Raises Forbidden for permissions that the actor lacks, Conflict for a taken name."""
        await refuse_unknown(self._work, new.permissions, "permissions")
        self._check_held(new.permissions)
        await refuse_lookalike(self._work, RoleRepository, new.name, "role")
        await self.check_reference(new.owner_role_id, "owner_role_id")
        role = self._work.add(Role, id=uuid7(), **self._work.stamp(), **COLUMNS.columns_of_new(new))
        shown = to_struct(role, RoleOut)
        self._work.audit("role.create", "role", shown.id, after=shown)
        self._work.announce("role.created", f"roles/{shown.id}", shown)
        return shown

    async def update(self, role_id: UUID, patch: RolePatch) -> RoleOut:
        role = await self._changeable(role_id)
        before = to_struct(role, RoleOut)
        changes = COLUMNS.columns_of_changes(patch)
        if not isinstance(patch.permissions, UnsetType):
            await refuse_unknown(self._work, patch.permissions, "permissions")
            self._check_held(changes["permissions"])
        if "name" in changes:
            await refuse_lookalike(self._work, RoleRepository, changes["name"], "role", Role.id != role_id)
        await self.check_reference(changes.get("owner_role_id"), "owner_role_id")
        if changes.get("permissions", role.permissions) != role.permissions:
            await confirm_filling(self._work, role_id, set(changes["permissions"]) - set(role.permissions))
            await before_change(self._work, Change(kind="role", row_id=role_id))
        if not self._work.apply(role, changes):
            return before
        await self._roles.update(role)
        if role.permissions != before.permissions:
            await restart_requests(self._work, RoleRequest.role_id == role_id)
        after = to_struct(role, RoleOut)
        self._work.forget("role", role.id)
        self._work.audit("role.update", "role", role.id, before=before, after=after)
        self._work.announce("role.updated", f"roles/{role.id}", after)
        return after

    async def delete(self, role_id: UUID) -> None:
        role = await self._changeable(role_id)
        before = to_struct(role, RoleOut)
        await before_change(self._work, Change(kind="role", row_id=role_id))
        self._work.forget("role", role_id)
        await end_assignments_of_role(self._work, role_id)
        await cancel_requests(self._work, RoleRequest.role_id == role_id, because="The role was deleted.")
        await self._roles.delete(role_id)
        await restart_requests(self._work, waits_for(role_id))
        self._work.audit("role.delete", "role", role_id, before=before)
        self._work.announce("role.deleted", f"roles/{role_id}", {"id": str(role_id)})

    async def approvers(self, role_id: UUID) -> tuple[int, list[UUID]]:
        """The version of the role, and the roles whose members decide on requests for it."""
        role = await self._roles.get_one(id=role_id)
        return role.version, sorted(item.approver_role_id for item in await self._approvers.get_many(role_id=role_id))

    async def set_approvers(self, role_id: UUID, approver_ids: list[UUID]) -> tuple[int, list[UUID]]:
        """Replace the list. Raises Conflict for built-in roles, BadRequest for roles that do not exist."""
        role = await self._changeable(role_id)
        wanted = sorted(set(approver_ids))
        for approver_id in wanted:
            await self.check_reference(approver_id, "items")
        _, before = await self.approvers(role_id)
        if before == wanted:
            return role.version, wanted
        await self._approvers.delete_where(role_id=role_id)
        mine = {"role_id": role_id, "tenant_id": self._work.tenant_id}
        await self._approvers.add_many([RoleApprover(**mine, approver_role_id=item) for item in wanted])
        await restart_requests(self._work, RoleRequest.role_id == role_id)
        self._work.touch(role)
        await self._roles.update(role)
        changed: dict[str, Any] = {"before": {"approver_roles": before}, "after": {"approver_roles": wanted}}
        self._work.audit("role.set_approvers", "role", role_id, **changed)
        self._work.announce("role.updated", f"roles/{role_id}", to_struct(role, RoleOut))
        return role.version, wanted

    async def check_reference(self, role_id: UUID | None, path: str) -> None:
        """Raises BadRequest where a role that a field refers to is not one of this tenant's."""
        if role_id is None:
            return
        if not await self._roles.exists(id=role_id):
            raise BadRequest(errors=[Fault(path, "unknown_role", "is not a role")])

    async def judge_owner(self, before: UUID | None, after: UUID | None, place: Place) -> None:
        """Whether the actor may make one role the owner of what stands there, in place of another.

        Raises BadRequest for a role that is not there, Forbidden where they lack something there that owning brings,
        Conflict where some who hold it would have to be confirmed.
        """
        if before == after:
            return
        await self.check_reference(after, OWNER)
        if fault := fault_of_owner(self._work.actor, place):
            raise Forbidden(code="exceeds_own_permissions", errors=[fault])
        if after is not None:
            await confirm_owning(self._work, after, place)

    async def make_owners(self, role_ids: Iterable[UUID]) -> None:
        """Note that the roles own something: what is owned is looked up for such roles alone."""
        among = Role.id == any_(literal(sorted(role_ids), UUIDS))
        first = update(Role).where(Role.tenant_id == self._work.tenant_id, among, Role.is_owner.is_(False))
        noted = first.values(is_owner=True, version=Role.version).returning(Role.id)
        for role_id in await self._work.session.scalars(noted, execution_options={"synchronize_session": False}):
            self._work.forget("role", role_id)

    async def grantable(self, role_id: UUID) -> Role:
        """A role that the actor may give to somebody.

        Raises NotFound, or Forbidden where it brings more than they hold.
        """
        role = await self._roles.get_one(id=role_id)
        self._check_held(role.permissions)
        return role

    async def _changeable(self, role_id: UUID) -> Role:
        role = await self._roles.get_one(id=role_id, with_for_update=True)
        if role.is_system:
            raise Conflict(code="system_role")
        self._check_held(role.permissions)
        self._work.require_match(role.version)
        return role

    def _check_held(self, permissions: Iterable[str]) -> None:
        if not self._work.actor.holds_all(permissions):
            raise Forbidden("The role has permissions that you do not hold yourself.", code="exceeds_own_permissions")


OWNER = "owner_role_id"


def fault_of_owner(actor: Principal, place: Place, path: str = OWNER) -> Fault | None:
    """Why the actor may not choose the owner of what stands there."""
    if actor.holds_all(OWNER_BRINGS, place):
        return None
    return Fault(path, "exceeds_own_permissions", "brings permissions that you do not hold there yourself")
