"""The rules about tenants: how one is born, suspended and deleted, and what it decides for itself."""

import asyncio
from pathlib import Path
from typing import Final
from uuid import UUID

from msgspec.structs import asdict
from sqlalchemy import select
from sqlalchemy.sql.selectable import ForUpdateArg
from uuid_utils.compat import uuid7

from app.core.errors import BadRequest, Conflict, Fault, Forbidden, Hidden
from app.core.event_names import EventName
from app.core.migrations import built_in_roles
from app.core.rows import Normaliser
from app.core.schemas import single_spaced, to_struct
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.invitations.services import InvitationService
from app.domain.roles.built_in import admin_role_id
from app.domain.roles.models import Role
from app.domain.roles.repositories import RoleRepository
from app.domain.roles.schemas import RoleOut
from app.domain.tenants.models import Tenant, TenantSettings
from app.domain.tenants.repositories import (
    TenantRepository,
    TenantSettingsRepository,
    read_as,
    settings_of,
    slug_that_reads,
)
from app.domain.tenants.schemas import (
    FirstAdmin,
    TenantCreate,
    TenantCreated,
    TenantOut,
    TenantPatch,
    TenantSettingsGiven,
    TenantSettingsOut,
    TenantSettingsPatch,
)
from app.domain.users.schemas import UserCreate
from app.domain.users.services import UserService, refuse_weak_password
from app.domain.work import UnitOfWork

KEEPING_THE_KEY: Final = ForUpdateArg(key_share=True)
COLUMNS = Normaliser(
    TenantCreate,
    TenantPatch,
    Tenant,
    TenantOut,
    rules={"name": lambda name: {"name": single_spaced(name)}},
    apart={"slug": "never changed", "admin": "a user of the new tenant"},
)


class TenantService:
    """For operators, who see that a tenant is there, and nothing inside of it."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._tenants = TenantRepository(work.session)

    @property
    def _is_for_operator(self) -> bool:
        """Whether a member of the operators' tenant acts, whatever stands in the roles of others."""
        return self._work.actor.tenant_id == DEFAULT_TENANT_ID

    async def create(self, new: TenantCreate) -> TenantCreated:
        """A tenant with its built-in roles and its first admin, who is invited where no password is given.

        Raises BadRequest for a weak password, Conflict for a slug that is taken, looks like another, or names a folder
        of `default`.
        """
        if not self._is_for_operator:
            raise Forbidden(code="permission_missing")
        if (password := new.admin.password) is not None:
            await refuse_weak_password(self._work, password, (new.admin.email,), path="admin.password")
        await self._refuse_lookalike(new.slug)
        await self._refuse_folder_in_use(new.slug)
        tenant = Tenant(id=uuid7(), **self._by_operator(), slug=new.slug, **COLUMNS.columns_of_new(new))
        await self._tenants.add(tenant)
        async with self._work.as_system_of(tenant.id) as theirs:
            link = await _furnish(theirs, new.admin)
        shown = to_struct(tenant, TenantOut)
        self._work.audit("tenant.create", "tenant", tenant.id, after=shown)
        self._work.announce("tenant.created", f"tenants/{tenant.id}", shown)
        return TenantCreated(**asdict(shown), invitation_link=link)

    async def update(self, tenant_id: UUID, patch: TenantPatch) -> TenantOut:
        tenant = await self._changeable(tenant_id)
        self._work.require_match(tenant.version)
        return await self._apply(tenant, COLUMNS.columns_of_changes(patch), "tenant.update", "tenant.updated")

    async def suspend(self, tenant_id: UUID) -> TenantOut:
        """Within a second nobody of the tenant is signed in, and none of its work goes on."""
        tenant = await self._changeable(tenant_id)
        _refuse_default(tenant)
        return await self._apply(tenant, {"is_active": False}, "tenant.suspend", "tenant.suspended")

    async def resume(self, tenant_id: UUID) -> TenantOut:
        tenant = await self._changeable(tenant_id)
        return await self._apply(tenant, {"is_active": True}, "tenant.resume", "tenant.resumed")

    async def delete(self, tenant_id: UUID) -> None:
        """It is gone at once for everybody; its rows follow, some at a time (`removal`)."""
        tenant = await self._changeable(tenant_id)
        self._work.require_match(tenant.version)
        _refuse_default(tenant)
        before = to_struct(tenant, TenantOut)
        self._work.apply(tenant, {"is_active": False, "deleted_at": self._work.now})
        await self._tenants.update(tenant)
        self._work.forget("tenant", tenant_id)
        self._work.audit("tenant.delete", "tenant", tenant_id, before=before)
        self._work.announce("tenant.deleted", f"tenants/{tenant_id}", {"id": str(tenant_id)})

    async def _apply(self, tenant: Tenant, changes: dict[str, object], action: str, event: EventName) -> TenantOut:
        before = to_struct(tenant, TenantOut)
        if not self._work.apply(tenant, changes):
            return before
        await self._tenants.update(tenant)
        self._work.forget("tenant", tenant.id)
        after = to_struct(tenant, TenantOut)
        self._work.audit(action, "tenant", tenant.id, before=before, after=after)
        self._work.announce(event, f"tenants/{tenant.id}", after)
        return after

    async def _changeable(self, tenant_id: UUID) -> Tenant:
        """Its row is held, and not its key, which whoever writes in the tenant holds as well."""
        if not self._is_for_operator:
            raise Hidden
        return await self._tenants.get_one(Tenant.deleted_at.is_(None), id=tenant_id, with_for_update=KEEPING_THE_KEY)

    async def _refuse_lookalike(self, slug: str) -> None:
        """Raises Conflict. The row of `default` is held, so that no two that look alike are made at once."""
        one_at_a_time = select(Tenant.id).where(Tenant.id == DEFAULT_TENANT_ID).with_for_update(key_share=True)
        await self._work.session.execute(one_at_a_time)
        taken = await slug_that_reads(self._work.session, read_as(slug))
        if taken is not None and taken != slug:
            fault = Fault("slug", "slug_taken", "looks like the slug of another tenant")
            raise Conflict("Another tenant has, or had, a slug that looks the same.", code="slug_taken", errors=[fault])

    async def _refuse_folder_in_use(self, slug: str) -> None:
        """Raises Conflict where the folder for files holds something under this name, in any case, that `default` would
        lose sight of, and the new tenant would see."""
        root = self._work.parts.settings.files_root
        if await asyncio.to_thread(_is_in_use, root, slug):
            fault = Fault("slug", "folder_taken", "names something that is in the folder for files")
            raise Conflict(code="folder_taken", errors=[fault])

    def _by_operator(self) -> dict[str, object]:
        return {name: value for name, value in self._work.stamp().items() if name != "tenant_id"}


def _is_in_use(root: Path, slug: str) -> bool:
    """An empty folder that waits for the tenant is nobody's yet."""
    try:
        found = [path for path in root.iterdir() if path.name.casefold() == slug]
        return any(path.is_symlink() or not path.is_dir() or any(path.iterdir()) for path in found)
    except PermissionError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False


def _refuse_default(tenant: Tenant) -> None:
    if tenant.id == DEFAULT_TENANT_ID:
        raise Conflict(code="default_tenant")


async def _furnish(work: UnitOfWork, admin: FirstAdmin) -> str | None:
    """All that a tenant is born with, in the new tenant's own name; the link for its first admin, where it is shown."""
    settings = SETTINGS_COLUMNS.columns_of_new(TenantSettingsGiven())
    work.session.add(TenantSettings(**work.stamp(), **settings, id=work.tenant_id))
    for role in built_in_roles(work.tenant_id):
        columns = role._asdict() | {"name_key": role.name, "is_system": True, "owner_role_id": None}
        work.session.add(Role(**work.stamp(), **columns))
    await work.session.flush()
    if admin.password is None:
        sent = await InvitationService(work).invite_first_admin(admin.email, admin_role_id(work.tenant_id))
        return sent.link
    new = UserCreate(email=admin.email, password=admin.password)
    await UserService(work).create(new, roles=[admin_role_id(work.tenant_id)])
    return None


SETTINGS_COLUMNS = Normaliser(TenantSettingsGiven, TenantSettingsPatch, TenantSettings, TenantSettingsOut)


async def update_settings(work: UnitOfWork, patch: TenantSettingsPatch) -> TenantSettingsOut:
    """Of one's own tenant. Raises BadRequest for passwords that may be shorter than the deployment wants them, and
    Forbidden where everybody is to have a second factor and the actor has shown none."""
    repository = TenantSettingsRepository(work.session, tenant_id=work.tenant_id)
    settings = await repository.get_one(id=work.tenant_id, with_for_update=True)
    before = to_struct(settings, TenantSettingsOut)
    work.require_match(settings.version)
    changes = SETTINGS_COLUMNS.columns_of_changes(patch)
    _refuse_shorter_passwords(work, changes.get("password_min_length"))
    if changes.get("requires_mfa") and not work.actor.has_factor:
        raise Forbidden("Sign in with a second factor first: nothing would be left to you.", code="factor_required")
    if not work.apply(settings, changes):
        return before
    await repository.update(settings)
    work.forget("tenant", work.tenant_id)
    await _let_admin_be_asked_for(work, settings.is_admin_requestable)
    after = await settings_of(work.session, work.tenant_id)
    work.audit("tenant_settings.update", "tenant_settings", settings.id, before=before, after=after)
    work.announce("tenant_settings.updated", "tenant-settings", after)
    return after


def _refuse_shorter_passwords(work: UnitOfWork, wanted: int | None) -> None:
    minimum = work.parts.settings.password_min_length
    if wanted is not None and wanted < minimum:
        fault = Fault("password_min_length", "too_small", f"must be at least {minimum}, as everywhere on this hub")
        raise BadRequest(errors=[fault])


async def _let_admin_be_asked_for(work: UnitOfWork, is_requestable: bool) -> None:
    """The role says so where roles are listed."""
    roles = RoleRepository(work.session, tenant_id=work.tenant_id)
    admin = await roles.get_one(id=admin_role_id(work.tenant_id), with_for_update=True)
    if work.apply(admin, {"is_requestable": is_requestable}):
        await roles.update(admin)
        work.announce("role.updated", f"roles/{admin.id}", to_struct(admin, RoleOut))
