"""The rules about groups: nobody rises by a group, nor has others fall who may do more than they."""

from uuid import UUID

from msgspec import UnsetType
from sqlalchemy import func
from uuid_utils.compat import uuid7

from app.core.errors import Forbidden, NotFound
from app.core.event_names import EventName
from app.core.rows import Normaliser
from app.core.schemas import named, to_struct
from app.domain.assignments.endings import end_assignments
from app.domain.assignments.models import RoleAssignment
from app.domain.dry_runs.services import Change, before_change
from app.domain.groups.memberships import IS_OPEN, end_memberships, end_memberships_of_group
from app.domain.groups.models import Group, GroupMember
from app.domain.groups.reach import is_within_reach
from app.domain.groups.repositories import GroupMemberRepository, GroupRepository
from app.domain.groups.schemas import GroupCreate, GroupOut, GroupPatch
from app.domain.lookalikes import refuse_lookalike
from app.domain.users.managed import DIRECTORY, refuse_managed
from app.domain.users.repositories import UserRepository
from app.domain.users.schemas import UserOut
from app.domain.work import UnitOfWork

COLUMNS = Normaliser(
    GroupCreate,
    GroupPatch,
    Group,
    GroupOut,
    rules={"name": named},
    apart={"managed_by": "a group is made by the hub, and handed over then"},
)


class GroupService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    @property
    def _groups(self) -> GroupRepository:
        return GroupRepository(self._work.session, tenant_id=self._work.tenant_id)

    @property
    def _members(self) -> GroupMemberRepository:
        return GroupMemberRepository(self._work.session, tenant_id=self._work.tenant_id)

    @property
    def _users(self) -> UserRepository:
        return UserRepository(self._work.session, tenant_id=self._work.tenant_id)

    async def create(self, new: GroupCreate) -> GroupOut:
        """Nobody is in it yet, and nothing is given to it. Raises Conflict for a taken name."""
        await refuse_lookalike(self._work, GroupRepository, new.name, "group")
        group = self._work.add(Group, id=uuid7(), **self._work.stamp(), **COLUMNS.columns_of_new(new))
        shown = to_struct(group, GroupOut)
        self._work.audit("group.create", "group", shown.id, after=shown)
        self._work.announce("group.created", f"groups/{shown.id}", shown)
        return shown

    async def update(self, group_id: UUID, patch: GroupPatch) -> GroupOut:
        """Raises Forbidden for a group that may do more than the actor, Conflict for a taken name."""
        group = await self._within_reach(group_id)
        self._work.require_match(group.version)
        before = to_struct(group, GroupOut)
        changes = COLUMNS.columns_of_changes(patch)
        if not isinstance(patch.managed_by, UnsetType):
            changes |= {
                "managed_by": patch.managed_by,
                "external_id": None if patch.managed_by is None else group.external_id,
            }
        if changes.get("managed_by", group.managed_by) is not None and changes.get("name", group.name) != group.name:
            refuse_managed(group)
        if "name" in changes:
            await refuse_lookalike(self._work, GroupRepository, changes["name"], "group", Group.id != group_id)
        if not self._work.apply(group, changes):
            return before
        await self._groups.update(group)
        after = to_struct(group, GroupOut)
        self._work.audit("group.update", "group", group_id, before=before, after=after)
        self._work.announce("group.updated", f"groups/{group_id}", after)
        return after

    async def delete(self, group_id: UUID) -> None:
        """Who is in it no longer is, and what was given to it ends."""
        group = await self._within_reach(group_id)
        self._work.require_match(group.version)
        refuse_managed(group)
        await self.remove(group)

    async def remove(self, group: Group) -> None:
        """Whatever it brings: by who may. Locked already."""
        group_id, before = group.id, to_struct(group, GroupOut)
        await before_change(self._work, Change(kind="group", row_id=group_id))
        await end_memberships_of_group(self._work, group_id)
        await end_assignments(self._work, RoleAssignment.subject_id == group_id)
        await self._groups.delete(group_id)
        self._work.forget("group", group_id)
        self._work.audit("group.delete", "group", group_id, before=before)
        self._work.announce("group.deleted", f"groups/{group_id}", {"id": str(group_id)})

    async def put_in(self, group_id: UUID, user_id: UUID) -> UserOut:
        """Put a user into a group; who is in it already stays. Returns the user.

        Raises Forbidden where the group may do more than the actor, or for longer: somebody would rise by it.
        """
        refuse_managed(await self._within_reach(group_id, for_good=True))
        shown = await self._matching_user(user_id)
        if not await self._members.exists(IS_OPEN, group_id=group_id, user_id=user_id):
            await before_change(self._work, Change(kind="group", row_id=group_id, user_id=user_id))
            since = {
                "created_at": func.statement_timestamp(),
                "created_by": self._work.actor_id,
                "tenant_id": self._work.tenant_id,
            }
            await self._members.add(GroupMember(id=uuid7(), group_id=group_id, user_id=user_id, **since))
            self._work.audit("group.add_member", "group", group_id, after={"user_id": str(user_id)})
            self._say_of_member("group.member_added", group_id, user_id)
        return shown

    async def take_out(self, group_id: UUID, user_id: UUID) -> None:
        """Raises NotFound for somebody who is not in it, Forbidden as `put_in` does.

        A directory does not see whom it does not keep, as who was in the group before it was handed over, or was taken
        back since: nobody else could take those out.
        """
        group = await self._within_reach(group_id)
        user = await self._matching_user(user_id)
        if group.managed_by != DIRECTORY or user.managed_by == DIRECTORY:
            refuse_managed(group)
        await before_change(self._work, Change(kind="group", row_id=group_id, user_id=user_id))
        if not await end_memberships(self._work, GroupMember.group_id == group_id, GroupMember.user_id == user_id):
            raise NotFound("The user is not in this group.")
        self._work.audit("group.remove_member", "group", group_id, before={"user_id": str(user_id)})
        self._say_of_member("group.member_removed", group_id, user_id)

    def _say_of_member(self, event: EventName, group_id: UUID, user_id: UUID) -> None:
        self._work.forget("user", user_id)
        self._work.announce(event, f"groups/{group_id}", {"id": str(group_id), "user_id": str(user_id)})

    async def _matching_user(self, user_id: UUID) -> UserOut:
        """Locked, so that nobody is put into a group who is being deleted."""
        await self._users.get_one(id=user_id, with_for_update=True)
        shown = await self._users.read(UserOut, id=user_id, tenant_id=self._work.tenant_id)
        self._work.require_match(shown.entity_tag())
        return shown

    async def _within_reach(self, group_id: UUID, *, for_good: bool = False) -> Group:
        """Locked, so that nothing is given to the group meanwhile. Raises Forbidden."""
        group = await self._groups.get_one(id=group_id, with_for_update=True)
        if not await is_within_reach(self._work, group_id, for_good=for_good):
            sentence = "This group may do more than you, or for longer: you cannot change it."
            raise Forbidden(sentence, code="exceeds_own_permissions")
        return group
