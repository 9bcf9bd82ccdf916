"""Which rows make a role or a permission of another service, and which lists of roles there are."""

from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, select

from app.core.database import Repository
from app.core.listing import Listing, Sort, boolean_filter, search_filter, text_filter, uuid_filter
from app.domain.roles.models import RegisteredPermission, Role, RoleApprover
from app.domain.roles.schemas import RoleOut


class RoleRepository(Repository[Role]):
    model_type = Role


class RoleApproverRepository(Repository[RoleApprover]):
    model_type = RoleApprover


class PermissionRepository(Repository[RegisteredPermission]):
    model_type = RegisteredPermission


def known_set_id(tenant_id: UUID) -> UUID:
    """What every worker's memory of a tenant's permissions rests on, as `UnitOfWork.forget` names it."""
    return UUID(int=tenant_id.int ^ 0x7E12)


REGISTERED: Select[Any] = select(RegisteredPermission.name, RegisteredPermission.description).where(
    RegisteredPermission.tenant_id == bindparam("tenant_id", type_=RegisteredPermission.tenant_id.type)
)
"""All permissions of other services."""

REGISTERED_BY_NAME: Select[Any] = REGISTERED.add_columns(RegisteredPermission.version).where(
    RegisteredPermission.name == bindparam("name", type_=RegisteredPermission.name.type)
)

ROLE = RoleRepository.selection_by_id(RoleOut)
ROLES = Listing(
    RoleRepository.selection(RoleOut),
    name="roles",
    id_column=Role.id,
    sorts={
        "created_at": Sort(Role.created_at, "roles_tenant_id_created_at_id_idx"),
        "updated_at": Sort(Role.updated_at, "roles_tenant_id_updated_at_id_idx"),
        "name": Sort(Role.name_key, "roles_tenant_id_name_key_id_idx"),
    },
    default_sort="created_at",
    filters={
        "name": text_filter(
            Role.name_key, name_key=True, index="roles_tenant_id_name_key_id_idx", description="This name, in any case."
        ),
        "is_system": boolean_filter(Role.is_system, index="roles_is_system_{sort}_idx"),
        "owner_role_id": uuid_filter(Role.owner_role_id, index="roles_owner_role_id_{sort}_idx"),
        "q": search_filter(Role.name, Role.description, index="roles_search_idx"),
    },
)
