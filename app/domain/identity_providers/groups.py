"""The groups that a provider keeps: its words for them are their names, and who is in them is what it says at each
sign-in. What such a group may do is said here, by whoever gives it roles.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from app.core.errors import Conflict
from app.core.lookalikes import well_named
from app.core.schemas import named, to_struct
from app.domain.groups.memberships import IS_OPEN, end_memberships
from app.domain.groups.models import Group, GroupMember
from app.domain.groups.repositories import GroupRepository
from app.domain.groups.schemas import GroupOut
from app.domain.lookalikes import refuse_lookalike
from app.domain.work import UnitOfWork

MOST: Final = 200
"""Of one member; what a provider says beyond is passed over."""
MOST_OF_NAME: Final = 200


async def keep_groups(work: UnitOfWork, manager: str, user_id: UUID, said: Sequence[str]) -> None:
    """The user is in the groups of these names that `manager` keeps, and in no other of its groups. A group of that
    name that somebody else keeps, or the hub's admins, stays as it is."""
    wanted = await _kept_groups(work, manager, said)
    held = set(await work.session.scalars(_held(work, manager, user_id)))
    for group_id in sorted(wanted - held):
        await _put_in(work, group_id, user_id)
    if surplus := held - wanted:
        await _take_out(work, surplus, user_id)
    if wanted != held:
        work.forget("user", user_id)


def _held(work: UnitOfWork, manager: str, user_id: UUID) -> Select[tuple[UUID]]:
    is_held = (GroupMember.user_id == user_id, GroupMember.tenant_id == work.tenant_id, IS_OPEN)
    is_kept = (Group.id == GroupMember.group_id, Group.tenant_id == work.tenant_id, Group.managed_by == manager)
    return select(Group.id).join(GroupMember, is_kept[0]).where(*is_held, *is_kept[1:])


async def _kept_groups(work: UnitOfWork, manager: str, said: Sequence[str]) -> set[UUID]:
    """Held, so that none is deleted meanwhile. Those that are not there are made: without roles. One that looks like
    another group is not: a role that is meant for that one would be given to it."""
    by_key = {str(columns["name_key"]): columns for columns in map(named, _fit(said))}
    there = await _found(work, by_key.keys())
    for key in sorted(by_key.keys() - there.keys()):
        with suppress(Conflict):
            await refuse_lookalike(work, GroupRepository, str(by_key[key]["name"]), "group")
            await _make(work, manager, by_key[key])
    if by_key.keys() - there.keys():
        there = await _found(work, by_key.keys())
    return {group_id for group_id, kept_by in there.values() if kept_by == manager}


def _fit(said: Sequence[str]) -> list[str]:
    fit = [name for name in said if len(name) <= MOST_OF_NAME and name.isprintable() and not any(well_named(name, ""))]
    return fit[:MOST]


async def _found(work: UnitOfWork, keys: Collection[str]) -> dict[str, tuple[UUID, str | None]]:
    wanted = select(Group.name_key, Group.id, Group.managed_by).where(
        Group.tenant_id == work.tenant_id, Group.name_key.in_(list(keys))
    )
    rows = await work.session.execute(wanted.order_by(Group.id).with_for_update(read=True))
    return {key: (group_id, kept_by) for key, group_id, kept_by in rows}


async def _make(work: UnitOfWork, manager: str, columns: dict[str, object]) -> None:
    """Unless somebody makes it at this moment."""
    new = insert(Group).values(id=uuid7(), **work.stamp(), **columns, managed_by=manager, version=1)
    made = await work.session.scalar(new.on_conflict_do_nothing(constraint="groups_name_key").returning(Group))
    if made is not None:
        shown = to_struct(made, GroupOut)
        work.audit("group.create", "group", shown.id, after=shown)
        work.announce("group.created", f"groups/{shown.id}", shown)


async def _put_in(work: UnitOfWork, group_id: UUID, user_id: UUID) -> None:
    since = {"created_at": func.statement_timestamp(), "created_by": None, "tenant_id": work.tenant_id}
    work.session.add(GroupMember(id=uuid7(), group_id=group_id, user_id=user_id, **since))
    await work.session.flush()
    work.audit("group.add_member", "group", group_id, after={"user_id": str(user_id)})
    work.announce("group.member_added", f"groups/{group_id}", {"id": str(group_id), "user_id": str(user_id)})


async def _take_out(work: UnitOfWork, group_ids: Collection[UUID], user_id: UUID) -> None:
    await end_memberships(work, GroupMember.group_id.in_(group_ids), GroupMember.user_id == user_id)
    for group_id in sorted(group_ids):
        work.audit("group.remove_member", "group", group_id, before={"user_id": str(user_id)})
        work.announce("group.member_removed", f"groups/{group_id}", {"id": str(group_id), "user_id": str(user_id)})
