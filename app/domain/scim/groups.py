"""The rules about groups of a directory: who is in them is the directory's to say, of the users that it keeps.

However many members a request names, they are put in and taken out by one statement each.
"""

from collections.abc import Mapping
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import CursorResult, any_, literal, select, text
from uuid_utils.compat import uuid7

from app.core.errors import Conflict
from app.core.event_names import EventName
from app.core.extent import UUIDS
from app.core.lookalikes import well_named
from app.core.schemas import named, single_spaced, to_struct
from app.core.slices import in_slices
from app.domain.groups.memberships import IS_OPEN
from app.domain.groups.models import Group, GroupMember
from app.domain.groups.repositories import GroupRepository
from app.domain.groups.schemas import GroupOut
from app.domain.groups.services import GroupService
from app.domain.lookalikes import refuse_lookalike
from app.domain.scim.conditional import require_match
from app.domain.scim.definitions import GROUP, Attribute
from app.domain.scim.documents import Document, taken, value_of
from app.domain.scim.errors import ScimFault
from app.domain.scim.patches import Operation, operations, patched
from app.domain.scim.paths import Compare, Filter, Some, Target
from app.domain.scim.resources import tag_of_group
from app.domain.scim.users import MAX_EXTERNAL_ID
from app.domain.users.managed import DIRECTORY
from app.domain.users.models import User
from app.domain.work import UnitOfWork

MAX_NAME: Final = 200
TAKEN: Final = (
    "There is a group of this name already. A group that the directory does not keep yet is handed over to it by an "
    'admin: PATCH /api/v1/groups/{id} {"managed_by": "scim"}.'
)
NEW_MEMBERS = text(
    """INSERT INTO group_members (id, tenant_id, group_id, user_id, created_at, created_by)
       SELECT new.id, :tenant_id, :group_id, new.user_id, statement_timestamp(), :created_by
       FROM unnest(CAST(:ids AS uuid[]), CAST(:user_ids AS uuid[])) AS new (id, user_id)
       ON CONFLICT (group_id, user_id) WHERE ended_at IS NULL DO NOTHING RETURNING user_id"""
)
GONE_MEMBERS = """UPDATE group_members SET ended_at = statement_timestamp(), ended_by = :ended_by
                  WHERE tenant_id = :tenant_id AND group_id = :group_id AND ended_at IS NULL AND {which}
                  RETURNING user_id"""
END_THESE = text(GONE_MEMBERS.format(which="user_id = ANY (CAST(:user_ids AS uuid[]))"))
END_OTHERS = text(GONE_MEMBERS.format(which="user_id <> ALL (CAST(:user_ids AS uuid[]))"))


class Wanted:
    """Who is to be in a group once all operations are done, as far as they say."""

    def __init__(self) -> None:
        self.is_whole = False
        """Nobody stays who is not put in."""
        self.put_in: dict[UUID, None] = {}
        self.taken_out: dict[UUID, None] = {}

    def add(self, ids: list[UUID]) -> None:
        for user_id in ids:
            self.put_in[user_id] = None
            self.taken_out.pop(user_id, None)

    def remove(self, ids: list[UUID]) -> None:
        for user_id in ids:
            self.taken_out[user_id] = None
            self.put_in.pop(user_id, None)

    def replace(self, ids: list[UUID]) -> None:
        self.is_whole = True
        self.put_in, self.taken_out = dict.fromkeys(ids), {}


class DirectoryGroups:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    @property
    def _groups(self) -> GroupRepository:
        return GroupRepository(self._work.session, tenant_id=self._work.tenant_id)

    async def create(self, body: Mapping[str, Any]) -> Group:
        """Raises ScimFault, or Conflict for a taken name."""
        document = taken(GROUP, body)
        columns, wanted = _columns_of(document), Wanted()
        wanted.replace(_ids_of(document.get("members")))
        await self._refuse_taken(columns, None)
        group = Group(id=uuid7(), **self._work.stamp(), **columns, description=None, managed_by=DIRECTORY)
        await self._groups.add(group)
        shown = to_struct(group, GroupOut)
        members = await self._choose(group.id, wanted)
        self._work.audit("group.create", "group", group.id, after=_with_members(shown, members))
        self._work.announce("group.created", f"groups/{group.id}", shown)
        await self._tell(group.id, *members)
        return group

    async def replace(self, group_id: UUID, body: Mapping[str, Any]) -> Group:
        document = taken(GROUP, body)
        group = await self._matching(group_id)
        wanted = Wanted()
        wanted.replace(_ids_of(document.get("members")))
        await self._change(group, document, wanted)
        return group

    async def patch(self, group_id: UUID, body: Mapping[str, Any]) -> Group:
        """Members are not read for it, however many there are."""
        done = operations(GROUP, body)
        group = await self._matching(group_id)
        known = {"displayName": group.name, "externalId": group.external_id}
        wanted, rest = _members_apart(done)
        document = patched(GROUP, {name: value for name, value in known.items() if value is not None}, rest)
        await self._change(group, document, wanted)
        return group

    async def delete(self, group_id: UUID) -> None:
        await GroupService(self._work).remove(await self._matching(group_id))

    async def members_of(self, group_id: UUID) -> list[UUID]:
        shown = select(User.id).join(GroupMember, GroupMember.user_id == User.id)
        mine = (GroupMember.group_id == group_id, GroupMember.tenant_id == self._work.tenant_id, IS_OPEN)
        found = await self._work.session.scalars(shown.where(*mine, User.managed_by == DIRECTORY).order_by(User.id))
        return list(found)

    async def _matching(self, group_id: UUID) -> Group:
        """Locked. Raises NotFound for a group that the directory does not keep, there or not."""
        group = await self._groups.get_one(id=group_id, managed_by=DIRECTORY, with_for_update=True)
        require_match(self._work.exchange, tag_of_group(group))
        return group

    async def _change(self, group: Group, document: Document, wanted: Wanted) -> None:
        columns = _columns_of(document)
        if columns["name_key"] != group.name_key:
            await self._refuse_taken(columns, group.id)
        before = to_struct(group, GroupOut)
        put_in, taken_out = await self._choose(group.id, wanted)
        is_other = self._work.apply(group, columns)
        if not is_other and not put_in and not taken_out:
            return
        self._work.touch(group)
        await self._groups.update(group)
        after = to_struct(group, GroupOut)
        self._work.audit(
            "group.update", "group", group.id, before=before, after=_with_members(after, (put_in, taken_out))
        )
        self._work.announce("group.updated", f"groups/{group.id}", after)
        await self._tell(group.id, put_in, taken_out)

    async def _refuse_taken(self, columns: Mapping[str, Any], group_id: UUID | None) -> None:
        among = () if group_id is None else (Group.id != group_id,)
        await refuse_lookalike(self._work, GroupRepository, columns["name"], "group", *among)
        if await self._groups.exists(*among, name_key=columns["name_key"]):
            raise Conflict(TAKEN, code="name_taken")

    async def _choose(self, group_id: UUID, wanted: Wanted) -> tuple[list[UUID], list[UUID]]:
        """Who has come in, and who has left. Raises ScimFault for somebody whom the directory does not keep."""
        await self._require_users([*wanted.put_in])
        where = {"tenant_id": self._work.tenant_id, "group_id": group_id}
        by = {"ended_by": self._work.actor_id, **where}
        taken_out: list[UUID] = []
        if wanted.is_whole:
            taken_out = await self._changed(END_OTHERS, by | {"user_ids": [*wanted.put_in]})
        elif wanted.taken_out:
            taken_out = await self._changed(END_THESE, by | {"user_ids": [*wanted.taken_out]})
        if not wanted.put_in:
            return [], taken_out
        ids = [uuid7() for _ in wanted.put_in]
        new = {"ids": ids, "user_ids": [*wanted.put_in], "created_by": self._work.actor_id, **where}
        return await self._changed(NEW_MEMBERS, new), taken_out

    async def _changed(self, statement: Any, values: Mapping[str, object]) -> list[UUID]:
        found = cast(CursorResult[Any], await self._work.session.execute(statement, values))
        return list(found.scalars())

    async def _require_users(self, ids: list[UUID]) -> None:
        """Locked, so that nobody is put into a group who is being deleted."""
        if not ids:
            return
        there = select(User.id).where(
            User.tenant_id == self._work.tenant_id, User.managed_by == DIRECTORY, User.id == any_(literal(ids, UUIDS))
        )
        found = set(
            await self._work.session.scalars(there.order_by(User.id).with_for_update(read=True, key_share=True))
        )
        if missing := [user_id for user_id in ids if user_id not in found]:
            raise ScimFault("invalidValue", f"{missing[0]} is no user whom the directory keeps.")

    async def _tell(self, group_id: UUID, put_in: list[UUID], taken_out: list[UUID]) -> None:
        names: dict[EventName, list[UUID]] = {"group.member_added": put_in, "group.member_removed": taken_out}
        for name, ids in names.items():
            async for user_id in in_slices(ids):
                self._work.forget("user", user_id)
                data = {"id": str(group_id), "user_id": str(user_id)}
                self._work.announce(name, f"groups/{group_id}", data)


def _columns_of(document: Document) -> dict[str, Any]:
    """Raises ScimFault."""
    name, external_id = document.get("displayName"), document.get("externalId")
    if not isinstance(name, str) or not name.strip():
        raise ScimFault("invalidValue", "`displayName` is missing.")
    if len(name) > MAX_NAME or any(character < " " or character == "\x7f" for character in name):
        raise ScimFault("invalidValue", f"`displayName` has at most {MAX_NAME} characters, none of them for control.")
    if any(well_named(single_spaced(name), "")):
        raise ScimFault("invalidValue", "`displayName` mixes letters of several scripts that look alike.")
    if external_id is not None and len(external_id) > MAX_EXTERNAL_ID:
        raise ScimFault("invalidValue", f"`externalId` is longer than {MAX_EXTERNAL_ID} characters.")
    return named(name) | {"external_id": external_id}


def _with_members(shown: GroupOut, members: tuple[list[UUID], list[UUID]]) -> dict[str, object]:
    """For the audit log: what the group is, and who has come and gone."""
    found: dict[str, object] = {name: getattr(shown, name) for name in shown.__struct_fields__}
    changed = {"members_added": members[0], "members_removed": members[1]}
    return found | {name: ids for name, ids in changed.items() if ids}


# --- members in operations ---


def _members_apart(done: list[Operation]) -> tuple[Wanted, list[Operation]]:
    """What the operations say of members, in their order, and those on everything else."""
    wanted, rest = Wanted(), []
    for each in done:
        if each.path is None:
            others = {}
            for name, value in each.value.items():
                if name.lower().removeprefix(f"{GROUP.urn.lower()}:") == "members":
                    _choose_whole(wanted, each.op, value)
                else:
                    others[name] = value
            rest.append(Operation(each.op, None, others))
        elif each.path.target is not None and each.path.target.attribute.name == "members":
            _choose(wanted, each)
        else:
            rest.append(each)
    return wanted, rest


def _choose(wanted: Wanted, operation: Operation) -> None:
    path = operation.path
    assert path is not None
    assert path.target is not None
    if path.condition is not None:
        if operation.op != "remove" or path.target.part is not None:
            raise ScimFault("mutability", "A member is put in or taken out, not changed.")
        wanted.remove(_ids_named(path.condition))
    elif path.target.part is not None:
        raise ScimFault("mutability", "A member is put in or taken out, not changed.")
    else:
        _choose_whole(wanted, operation.op, operation.value)


def _choose_whole(wanted: Wanted, op: str, value: Any) -> None:
    ids = _ids_of(value_of(_MEMBERS, value))
    if op == "add":
        wanted.add(ids)
    elif op == "replace":
        wanted.replace(ids)
    elif ids:
        wanted.remove(ids)
    else:
        wanted.replace([])


_MEMBERS = next(attribute for attribute in GROUP.attributes if attribute.name == "members")


def _ids_of(members: list[Document] | None) -> list[UUID]:
    """Raises ScimFault for what is no user: a group, a name, nothing."""
    return [_id_of(member) for member in members or ()]


def _id_of(member: Document) -> UUID:
    if str(member.get("type", "User")).lower() != "user" or "/groups/" in str(member.get("$ref", "")).lower():
        raise ScimFault("invalidValue", "Members are users: groups in groups are not supported.")
    try:
        return UUID(member.get("value", ""))
    except ValueError:
        raise ScimFault("invalidValue", "The `value` of a member is the id of a user.") from None


def _ids_named(condition: Filter) -> list[UUID]:
    """`value eq "..."`, or several of those with `or`. Raises ScimFault (invalidFilter) for anything else."""
    match condition:
        case Some(conditions):
            return [user_id for each in conditions for user_id in _ids_named(each)]
        case Compare(Target(part=Attribute(name="value")), "eq", value):
            return [_id_of({"value": str(value)})]
    raise ScimFault("invalidFilter", "Members are chosen by their `value`.")
