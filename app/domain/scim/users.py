"""The rules about users of a directory: what their attributes mean to the hub, and who may become whom."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, update

from app.core.errors import Conflict
from app.core.lookalikes import well_named, written_alike
from app.core.schemas import single_spaced
from app.domain.groups.memberships import IS_OPEN
from app.domain.groups.models import Group, GroupMember
from app.domain.scim.conditional import require_match
from app.domain.scim.definitions import USER
from app.domain.scim.documents import Document, taken
from app.domain.scim.errors import ScimFault
from app.domain.scim.patches import operations, patched
from app.domain.scim.resources import GroupRef, tag_of_user
from app.domain.scim.spelling import MAX_KEY, address_key, display_key, user_name_key
from app.domain.users.identity import checked_email, email_key, is_email
from app.domain.users.managed import DIRECTORY
from app.domain.users.models import User
from app.domain.users.services import UserService
from app.domain.work import UnitOfWork

MAX_USER_NAME: Final = 254
MAX_NAME: Final = 100
MAX_EXTERNAL_ID: Final = 500
TAKEN: Final = (
    "Somebody has this address or user name already. A user whom the directory does not keep yet is handed over to it "
    'by an admin: PATCH /api/v1/users/{id} {"managed_by": "scim"}.'
)


class DirectoryUsers:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._users = UserService(work)

    async def create(self, body: Mapping[str, Any]) -> User:
        """Raises ScimFault for attributes that mean nothing here, Conflict for somebody who is there."""
        document = {"active": True} | taken(USER, body)
        columns = columns_of(document)
        await self._refuse_taken(columns, None)
        return await self._users.create_managed(columns | {"managed_by": DIRECTORY, "is_active": document["active"]})

    async def replace(self, user_id: UUID, body: Mapping[str, Any]) -> tuple[User, list[GroupRef]]:
        """What the body does not name is gone, but for whether they may sign in: that has to be said."""
        user, groups = await self._matching(user_id)
        document = {"active": user.is_active} | taken(USER, body)
        await self._change(user, document)
        return user, groups

    async def patch(self, user_id: UUID, body: Mapping[str, Any]) -> tuple[User, list[GroupRef]]:
        done = operations(USER, body)
        user, groups = await self._matching(user_id)
        await self._change(user, patched(USER, user.directory or {}, done))
        return user, groups

    async def delete(self, user_id: UUID) -> None:
        """Whoever comes back later is somebody new. Raises Conflict for the last admin."""
        await self._count_groups_up(user_id)
        user, _ = await self._matching(user_id)
        await self._users.delete_managed(user)

    async def _matching(self, user_id: UUID) -> tuple[User, list[GroupRef]]:
        user = await self._users.managed(user_id)
        groups = await self._groups_of(user_id)
        require_match(self._work.exchange, tag_of_user(user, groups))
        return user, groups

    async def _change(self, user: User, document: Document) -> None:
        columns = columns_of(document)
        await self._refuse_taken(columns, user.id)
        await self._users.change_managed(user, columns | {"is_active": document.get("active", user.is_active)})

    async def _refuse_taken(self, columns: Mapping[str, object], user_id: UUID | None) -> None:
        """Asked before the database would say it, for a sentence that helps."""
        is_taken = (User.email_key == columns["email_key"]) | (User.user_name_key == columns["user_name_key"])
        among = () if user_id is None else (User.id != user_id,)
        others = select(User.id).where(User.tenant_id == self._work.tenant_id, is_taken, *among)
        if await self._work.session.scalar(others.limit(1)) is not None:
            raise Conflict(TAKEN, code="email_taken")

    async def _groups_of(self, user_id: UUID) -> list[GroupRef]:
        held = select(Group.id, Group.name).join(GroupMember, GroupMember.group_id == Group.id)
        mine = (GroupMember.user_id == user_id, GroupMember.tenant_id == self._work.tenant_id, IS_OPEN)
        rows = await self._work.session.execute(held.where(*mine, Group.managed_by == DIRECTORY).order_by(Group.id))
        return [GroupRef(*row) for row in rows]

    async def _count_groups_up(self, user_id: UUID) -> None:
        """Those that lose a member look different from now on. Locked in their order and before the user, as whoever
        puts users into a group locks them."""
        of_user = select(GroupMember.group_id).where(GroupMember.user_id == user_id, IS_OPEN)
        mine = (Group.tenant_id == self._work.tenant_id, Group.managed_by == DIRECTORY, Group.id.in_(of_user))
        ids = list(await self._work.session.scalars(select(Group.id).where(*mine).order_by(Group.id).with_for_update()))
        changed = {"version": Group.version + 1, "updated_at": func.statement_timestamp()}
        counting = update(Group).where(Group.id.in_(ids)).values(changed)
        await self._work.session.execute(counting, execution_options={"synchronize_session": False})


def columns_of(document: Document) -> dict[str, object]:
    """What the hub makes of the attributes. Raises ScimFault (invalidValue)."""
    user_name = document.get("userName")
    if not isinstance(user_name, str) or not user_name.strip():
        raise ScimFault("invalidValue", "`userName` is missing.")
    _require_plain("userName", user_name, MAX_USER_NAME)
    if any(well_named(user_name, "")):
        raise ScimFault("invalidValue", "`userName` mixes letters of several scripts that look alike.")
    external_id = document.get("externalId")
    if external_id is not None:
        _require_plain("externalId", external_id, MAX_EXTERNAL_ID)
    email = _email_of(document, user_name)
    display_name = document.get("displayName")
    addresses = {address_key(each["value"])[:MAX_KEY] for each in document.get("emails", []) if "value" in each}
    return {
        "email": email,
        "email_key": email_key(email),
        "first_name": _name_of(document, "givenName"),
        "last_name": _name_of(document, "familyName"),
        "external_id": external_id,
        "user_name_key": user_name_key(user_name),
        "display_name_key": display_key(display_name) if display_name else None,
        "address_keys": sorted(addresses),
        "directory": document,
    }


def _email_of(document: Document, user_name: str) -> str:
    """The user name where it is an address; else the one that is meant first among the addresses. Where there is none,
    the user name stands for it: nobody can write to them, and they sign in by an identity provider."""
    emails = [each for each in document.get("emails", []) if "value" in each]
    emails.sort(key=lambda each: (not each.get("primary", False), str(each.get("type", "")).lower() != "work"))
    for text in (user_name, *(each["value"] for each in emails)):
        if "@" in text and not any(is_email(text, "")):
            return checked_email(text)
    return single_spaced(user_name)


def _name_of(document: Document, part: str) -> str:
    written = document.get("name", {}).get(part, "")
    _require_plain(f"name.{part}", written, MAX_NAME)
    name = single_spaced(written)
    if any(written_alike(name, "")):
        raise ScimFault("invalidValue", f"`name.{part}` mixes letters of several scripts that look alike.")
    return name


def _require_plain(name: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise ScimFault("invalidValue", f"`{name}` is longer than {longest} characters.")
    if any(character < " " or character == "\x7f" for character in text):
        raise ScimFault("invalidValue", f"`{name}` holds a control character.")
