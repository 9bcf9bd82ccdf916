"""Permissions of other services: registered by name, brought by roles, and held by `admin` from then on.

Their names have a dot before the colon, which no permission of the hub has, so that the two never meet.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from uuid_utils.compat import uuid7

from app.core.errors import BadRequest, Conflict, Fault, NotFound
from app.core.event_names import EventName
from app.core.reads import Reads
from app.core.schemas import to_struct
from app.domain.roles.built_in import admin_role_id
from app.domain.roles.models import RegisteredPermission, Role
from app.domain.roles.repositories import REGISTERED_BY_NAME, PermissionRepository, RoleRepository, known_set_id
from app.domain.roles.schemas import (
    PERMISSIONS,
    PermissionOut,
    PermissionPut,
    RoleOut,
    is_of_another_service,
    permissions_of,
)
from app.domain.work import UnitOfWork

MOST = 1000
"""Of one tenant: `admin` holds them all, and every admin's session has them in memory."""
MAX_CHARACTERS = 100
_WORD = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
NAME = re.compile(rf"{_WORD}(?:\.{_WORD})+:{_WORD}")
EVENTS: dict[str, EventName] = {
    "register": "permission.registered",
    "update": "permission.updated",
    "delete": "permission.deleted",
}


class PermissionService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._registered = PermissionRepository(work.session, tenant_id=work.tenant_id)

    async def put(self, name: str, wanted: PermissionPut) -> tuple[int, PermissionOut]:
        """The version, and the permission. Raises BadRequest for a name that is none, Conflict for one of the hub's
        own and for one too many."""
        _refuse_built_in(name)
        if len(name) > MAX_CHARACTERS or not NAME.fullmatch(name):
            fault = Fault("name", "wrong_form", "must be like `reports.dashboards:read`, in small letters")
            raise BadRequest("This is no name for a permission.", errors=[fault])
        admin = await self._lock_admin()
        found = await self._registered.get_one_or_none(name=name)
        if found is not None:
            return await self._change(found, wanted)
        if self._work.exchange is not None and self._work.exchange.header(b"if-match") is not None:
            self._work.require_match(0)
        await self._refuse_too_many()
        made = RegisteredPermission(id=uuid7(), **self._work.stamp(), name=name, description=wanted.description)
        await self._registered.add(made)
        await self._give_admin(admin, {*admin.permissions, name})
        self._record("register", made.id, name, after=_shown(made))
        return made.version, _shown(made)

    async def delete(self, name: str) -> None:
        """Raises NotFound, or Conflict for one of the hub's own and for one that a role still has."""
        _refuse_built_in(name)
        admin = await self._lock_admin()
        found = await self._registered.get_one(name=name, with_for_update=True)
        self._work.require_match(found.version)
        if await RoleRepository(self._work.session, tenant_id=self._work.tenant_id).exists(
            Role.permissions.contains([name]), Role.id != admin.id
        ):
            raise Conflict("A role still has this permission. Take it out of all roles first.", code="still_in_use")
        await self._registered.delete(found.id)
        await self._give_admin(admin, {*admin.permissions} - {name})
        self._record("delete", found.id, name, before=_shown(found))

    async def _change(self, found: RegisteredPermission, wanted: PermissionPut) -> tuple[int, PermissionOut]:
        before = _shown(found)
        self._work.require_match(found.version)
        if self._work.apply(found, {"description": wanted.description}):
            await self._registered.update(found)
            self._record("update", found.id, found.name, before=before, after=_shown(found))
        return found.version, _shown(found)

    async def _lock_admin(self) -> Role:
        """Whoever registers or withdraws comes one after the other."""
        roles = RoleRepository(self._work.session, tenant_id=self._work.tenant_id)
        return await roles.get_one(id=admin_role_id(self._work.tenant_id), with_for_update=True)

    async def _refuse_too_many(self) -> None:
        if await self._registered.count() >= MOST:
            raise Conflict(f"No more than {MOST} permissions of other services.", code="too_many_permissions")

    async def _give_admin(self, admin: Role, permissions: Iterable[str]) -> None:
        """What `admin` holds is all that there is, and stands in its row as any role's permissions do."""
        self._work.apply(admin, {"permissions": sorted(permissions)})
        await RoleRepository(self._work.session, tenant_id=self._work.tenant_id).update(admin)
        self._work.forget("role", admin.id)
        self._work.announce("role.updated", f"roles/{admin.id}", to_struct(admin, RoleOut))

    def _record(self, verb: str, row_id: UUID, name: str, **shown: Any) -> None:
        self._work.forget("permissions", known_set_id(self._work.tenant_id))
        self._work.audit(f"permission.{verb}", "permission", row_id, **shown)
        self._work.announce(EVENTS[verb], f"permissions/{name}", shown.get("after", {"name": name}))


async def find_permission(reads: Reads, name: str, tenant_id: UUID) -> tuple[int, PermissionOut]:
    """The version, and the permission. Raises NotFound."""
    built_in = permissions_of(tenant_id).get(name)
    if built_in is not None:
        return 1, built_in
    rows = await reads.rows(REGISTERED_BY_NAME, {"name": name, "tenant_id": tenant_id})
    if not rows:
        raise NotFound
    ((found, description, version),) = rows
    return version, PermissionOut(found, description)


async def refuse_unknown(work: UnitOfWork, names: Sequence[str], path: str) -> None:
    """Raises BadRequest naming each that is no permission of the tenant. Those of other services cannot be withdrawn
    before the transaction ends."""
    known = permissions_of(work.tenant_id).keys() | await _registered(work, names)
    faults = [
        Fault(f"{path}[{index}]", "unknown_permission", "is not a permission")
        for index, name in enumerate(names)
        if name not in known
    ]
    if faults:
        raise BadRequest(errors=faults)


async def _registered(work: UnitOfWork, names: Sequence[str]) -> set[str]:
    foreign = sorted({name for name in names if is_of_another_service(name)})
    if not foreign:
        return set()
    table = RegisteredPermission
    chosen = select(table.name).where(table.tenant_id == work.tenant_id, table.name.in_(foreign))
    return set(await work.session.scalars(chosen.with_for_update(read=True, key_share=True)))


def _refuse_built_in(name: str) -> None:
    if name in PERMISSIONS:
        raise Conflict(code="built_in_permission")


def _shown(row: RegisteredPermission) -> PermissionOut:
    return PermissionOut(row.name, row.description)
