"""The rules about users: one identity per person, nobody rises above themselves, the last admin stays."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from msgspec import UnsetType
from sqlalchemy import delete, func, update

from app.core.errors import BadRequest, Conflict, Fault, NotFound
from app.core.passwords import refusal
from app.core.rows import Normaliser
from app.core.schemas import changes_of, single_spaced
from app.domain.assignments.admins import keep_an_admin
from app.domain.assignments.endings import end_assignments
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import AssignmentRepository
from app.domain.assignments.schemas import Subject
from app.domain.assignments.services import AssignmentService
from app.domain.auth.models import Session, SignInCode
from app.domain.delegations.services import drop_delegations
from app.domain.groups.memberships import end_memberships
from app.domain.groups.models import GroupMember
from app.domain.reach import require_reach
from app.domain.role_requests.endings import cancel_requests
from app.domain.role_requests.models import RoleRequest
from app.domain.roles.built_in import public_role_id
from app.domain.roles.services import RoleService
from app.domain.sign_in_rules import rules_of
from app.domain.users.identity import checked_email, email_key
from app.domain.users.managed import DIRECTORY, columns_of_hand_over, refuse_changes_of_managed, refuse_managed
from app.domain.users.models import User
from app.domain.users.repositories import UserRepository
from app.domain.users.schemas import UserCreate, UserOut, UserPatch
from app.domain.work import UnitOfWork

VIA = ("via_type", "via_id")


def _addressed(email: str) -> dict[str, object]:
    checked = checked_email(email)
    return {"email": checked, "email_key": email_key(checked)}


COLUMNS = Normaliser(
    UserCreate,
    UserPatch,
    User,
    UserOut,
    rules={
        "email": _addressed,
        "first_name": lambda name: {"first_name": single_spaced(name)},
        "last_name": lambda name: {"last_name": single_spaced(name)},
    },
    apart={
        "password": "hashed in a thread, and shown as `has_password`",
        "managed_by": "goes with all that a directory says of a user (`users.managed`)",
    },
)


class UserService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._users = UserRepository(work.session, tenant_id=work.tenant_id)
        self._held = AssignmentRepository(work.session, tenant_id=work.tenant_id)

    async def create(
        self,
        new: UserCreate,
        *,
        roles: Iterable[UUID] = (),
        is_registration: bool = False,
        given_by: UUID | None = None,
    ) -> UserOut:
        """A user who holds `public` and the given roles; by registration they act themselves. `given_by`: who gives the
        roles, where nobody who is signed in does.

        Raises BadRequest for a weak password or a domain that the tenant does not take, Conflict for a taken address.
        """
        columns = COLUMNS.columns_of_new(new)
        (await rules_of(self._work.parts, self._work.tenant_id)).refuse_domain(columns["email"])
        hashed = await self._hashed(new.password, columns["email"], new.first_name, new.last_name)
        user = User(**self._work.stamp(), **columns, password_hash=hashed)
        return await self._add(user, roles, is_registration=is_registration, given_by=given_by)

    async def _add(
        self,
        user: User,
        roles: Iterable[UUID] = (),
        *,
        is_registration: bool = False,
        given_by: UUID | None = None,
    ) -> UserOut:
        await self._users.add(user)
        await self._hold(user.id, (public_role_id(self._work.tenant_id), *roles), given_by)
        shown = await self._shown(user.id)
        actor = (user.id, user.email) if is_registration else (None, None)
        self._work.audit("user.create", "user", user.id, after=shown, actor_id=actor[0], actor_name=actor[1])
        self._work.announce("user.created", f"users/{user.id}", shown)
        return shown

    async def create_managed(self, columns: Mapping[str, object]) -> User:
        """As a directory says, which keeps the user from now on. Raises Conflict for a taken address or user name."""
        user = User(**self._work.stamp(), **columns, password_hash=None)
        await self._add(user)
        return user

    async def managed(self, user_id: UUID) -> User:
        """Locked. Nobody's reach is asked about: a directory decides on all that it keeps. Raises NotFound for others'
        users, there or not."""
        return await self._users.get_one(id=user_id, managed_by=DIRECTORY, with_for_update=True)

    async def change_managed(self, user: User, changes: Mapping[str, object]) -> None:
        """Raises Conflict for the last admin, who stays active, and for a taken address or user name."""
        if changes.get("is_active") is False and user.is_active:
            await keep_an_admin(self._work, user.id)
        await self._apply(user, await self._shown(user.id), changes)

    async def delete_managed(self, user: User) -> None:
        """Raises Conflict for the last admin."""
        await self._remove(user.id, await self._shown(user.id))

    async def update(self, user_id: UUID, patch: UserPatch) -> UserOut:
        await self._refuse_weak(changes_of(patch))
        user, before = await self._changeable(user_id)
        changes = await self._columns(user, patch)
        if changes.get("email", user.email) != user.email:
            (await rules_of(self._work.parts, self._work.tenant_id)).refuse_domain(str(changes["email"]))
        refuse_changes_of_managed(user, changes)
        changes |= columns_of_hand_over(user, changes)
        is_leaving = changes.get("is_active") is False and user.is_active
        if is_leaving or ("password_hash" in changes and changes["password_hash"] is None):
            await keep_an_admin(self._work, user_id)
        return await self._apply(user, before, changes)

    async def set_password(self, user_id: UUID, password: str) -> UserOut:
        """By whoever operates the hub, so that nobody's reach is asked about. Raises BadRequest for a weak one."""
        user = await self._users.get_one(id=user_id, with_for_update=True)
        return await self._apply(
            user, await self._shown(user_id), await self._columns(user, UserPatch(password=password))
        )

    async def _apply(self, user: User, before: UserOut, changes: Mapping[str, object]) -> UserOut:
        if not self._work.apply(user, changes):
            return before
        await self._users.update(user)
        if "password_hash" in changes or not user.is_active:
            await end_sessions(self._work, user.id)
        self._work.forget("user", user.id)
        after = await self._shown(user.id)
        action = "user.set_password" if "password_hash" in changes else "user.update"
        self._work.audit(action, "user", user.id, before=before, after=after)
        self._work.announce("user.updated", f"users/{user.id}", after)
        return after

    async def delete(self, user_id: UUID) -> None:
        """The audit log keeps the name under which the user acted."""
        user, before = await self._changeable(user_id)
        refuse_managed(user)
        await self._remove(user_id, before)

    async def _remove(self, user_id: UUID, before: UserOut) -> None:
        await keep_an_admin(self._work, user_id)
        await end_assignments(self._work, RoleAssignment.subject_id == user_id)
        await end_memberships(self._work, GroupMember.user_id == user_id)
        await cancel_requests(self._work, RoleRequest.user_id == user_id, because="The user was deleted.")
        await drop_delegations(self._work, user_id)
        await self._users.delete(user_id)
        self._work.forget("user", user_id)
        self._work.audit("user.delete", "user", user_id, before=before)
        self._work.announce("user.deleted", f"users/{user_id}", {"id": str(user_id)})

    async def unlock(self, user_id: UUID) -> None:
        """Let somebody who is locked out try again at once; of an account that is not locked nothing changes."""
        user = await self._within_reach(user_id)
        if self._work.apply(user, {"failed_logins": 0, "locked_until": None}):
            await self._users.update(user)
            self._work.forget("user", user_id)
            self._work.audit("user.unlock", "user", user_id)

    async def end_sessions(self, user_id: UUID) -> None:
        """Whoever is signed in as the user is signed out everywhere within a second."""
        await self._within_reach(user_id)
        await end_sessions(self._work, user_id)
        self._work.audit("user.end_sessions", "user", user_id)

    async def assign(self, user_id: UUID, role_id: UUID) -> UserOut:
        """Give a role; giving it again changes nothing.

        Raises Forbidden where the role brings more than the actor holds.
        """
        user = await self._users.get_one(id=user_id, with_for_update=True)
        await RoleService(self._work).grantable(role_id)
        before = await self._matching(user_id)
        if await AssignmentService(self._work).holds(user_id, role_id):
            return before
        await AssignmentService(self._work).hold(Subject(type="user", id=user_id), role_id, is_replacing=True)
        return await self._roles_changed(user, before, "user.assign_role", role_id)

    async def unassign(self, user_id: UUID, role_id: UUID) -> None:
        """Take a role away.

        Raises NotFound where the user does not hold it, Conflict for `public` and for the last admin.
        """
        user = await self._within_reach(user_id)
        await RoleService(self._work).grantable(role_id)
        if role_id == public_role_id(self._work.tenant_id):
            raise Conflict("Everyone holds the role `public`.", code="system_role")
        if not await AssignmentService(self._work).holds(user_id, role_id):
            raise NotFound("The user does not hold this role.")
        before = await self._matching(user_id)
        await AssignmentService(self._work).lose(user_id, role_id)
        await self._roles_changed(user, before, "user.unassign_role", role_id)

    async def _roles_changed(self, user: User, before: UserOut, action: str, role_id: UUID) -> UserOut:
        self._work.touch(user)
        await self._users.update(user)
        self._work.forget("user", user.id)
        after = await self._shown(user.id)
        changed = {"role_id": str(role_id), "roles": after.roles}
        self._work.audit(action, "user", user.id, before={"roles": before.roles}, after=changed)
        self._work.announce("user.updated", f"users/{user.id}", after)
        return after

    async def _changeable(self, user_id: UUID) -> tuple[User, UserOut]:
        """The user, and how it is shown now."""
        user = await self._within_reach(user_id)
        return user, await self._matching(user_id)

    async def _matching(self, user_id: UUID) -> UserOut:
        """How the user is shown now. Raises PreconditionFailed where the client has seen something else."""
        shown = await self._shown(user_id)
        self._work.require_match(shown.entity_tag())
        return shown

    async def _within_reach(self, user_id: UUID) -> User:
        """Raises Forbidden for a user who may do more than the actor: changing one would be a way up."""
        user = await self._users.get_one(id=user_id, with_for_update=True)
        await require_reach(self._work, "user", user_id, "This user may do more than you: you cannot change them.")
        return user

    async def _refuse_weak(self, changes: Mapping[str, Any]) -> None:
        """A password that is weak by itself, or made of what comes with it. Raises BadRequest."""
        if changes.get("password") is not None:
            own = (changes[name] for name in ("email", "first_name", "last_name") if name in changes)
            await refuse_weak_password(self._work, changes["password"], own, path="password")

    async def _columns(self, user: User, patch: UserPatch) -> dict[str, object]:
        """The fields of a patch as columns."""
        changes = COLUMNS.columns_of_changes(patch)
        if not isinstance(patch.managed_by, UnsetType):
            changes["managed_by"] = patch.managed_by
        if not isinstance(patch.password, UnsetType):
            own = (changes.get(name, getattr(user, name)) for name in ("email", "first_name", "last_name"))
            changes["password_hash"] = await self._hashed(patch.password, *own)
            changes |= {"failed_logins": 0, "locked_until": None}
        return changes

    async def _hashed(self, password: str | None, *own: str) -> str | None:
        if password is None:
            return None
        return await hash_new_password(self._work, password, own, path="password")

    async def _hold(self, user_id: UUID, role_ids: Iterable[UUID], given_by: UUID | None) -> None:
        giver = self._work.actor_id or given_by
        via_type = "person" if self._work.principal is None or self._work.principal.type == "user" else "directory"
        via = {"via_type": via_type, "via_id": giver} if giver else dict.fromkeys(VIA)
        given = {"subject_type": "user", "subject_id": user_id, "scope_type": "tenant", "scope_id": None}
        when: dict[str, Any] = {"starts_at": func.statement_timestamp(), "expires_at": None, "reason": None}
        rows = [RoleAssignment(**self._work.stamp(), **given, **when, **via, role_id=role_id) for role_id in role_ids]
        await self._held.add_many(rows)

    async def _shown(self, user_id: UUID) -> UserOut:
        return await self._users.read(UserOut, id=user_id, tenant_id=self._work.tenant_id)


async def hash_new_password(work: UnitOfWork, password: str, own: Iterable[str], *, path: str) -> str:
    """Raises BadRequest for a weak password."""
    await refuse_weak_password(work, password, own, path=path)
    return await work.parts.passwords.hash(password)


async def refuse_weak_password(work: UnitOfWork, password: str, own: Iterable[str], *, path: str) -> None:
    """Raises BadRequest where the password is too short, common or made of the person's own data."""
    rules = await rules_of(work.parts, work.tenant_id)
    minimum = max(work.parts.settings.password_min_length, rules.password_min_length or 0)
    sentence = await asyncio.to_thread(lambda: refusal(password, min_length=minimum, personal=tuple(own)))
    if sentence is not None:
        raise BadRequest(code="weak_password", errors=[Fault(path, "weak_password", sentence)])


async def end_sessions(work: UnitOfWork, user_id: UUID, *, keep: UUID | None = None) -> None:
    """Revoke the user's sessions, but for one; their tokens are dead everywhere once this is committed.

    Codes that nobody has exchanged are sessions to come. They go first, so that one that is being exchanged is waited
    for.
    """
    codes = delete(SignInCode).where(SignInCode.user_id == user_id, SignInCode.session_id.is_(None))
    await work.session.execute(codes, execution_options={"synchronize_session": False})
    statement = update(Session).where(Session.user_id == user_id, Session.revoked_at.is_(None))
    if keep is not None:
        statement = statement.where(Session.id != keep)
    await work.session.execute(statement.values(revoked_at=work.now), execution_options={"synchronize_session": False})
    work.forget("user", user_id)
