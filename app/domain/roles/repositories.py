"""Which rows make a role or a permission of another service, and which lists of roles there are."""

from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, select

from app.core.database import Repository
from app.core.lists.filters import boolean_filter, search_filter, text_filter, uuid_filter
from app.core.lists.listing import Listing, Sort
from app.domain.roles.models import RegisteredPermission, Role, RoleApprover
from app.domain.roles.schemas import RequestableRoleOut, RoleOut


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
SORTS = {
    "created_at": Sort(Role.created_at, "roles_tenant_id_created_at_id_idx"),
    "updated_at": Sort(Role.updated_at, "roles_tenant_id_updated_at_id_idx"),
    "name": Sort(Role.name_key, "roles_tenant_id_name_key_id_idx"),
}
NAMED = text_filter(
    Role.name_key, name_key=True, index="roles_tenant_id_name_key_id_idx", description="This name, in any case."
)
REQUESTABLE = boolean_filter(
    Role.is_requestable, index="roles_is_requestable_{sort}_idx", description="Whether anybody may ask for the role."
)
SEARCHED = search_filter(Role.name, Role.description, index="roles_search_idx")
ROLES = Listing(
    RoleRepository.selection(RoleOut),
    name="roles",
    id_column=Role.id,
    sorts=SORTS,
    default_sort="created_at",
    filters={
        "name": NAMED,
        "is_system": boolean_filter(Role.is_system, index="roles_is_system_{sort}_idx"),
        "owner_role_id": uuid_filter(Role.owner_role_id, index="roles_owner_role_id_{sort}_idx"),
        "is_requestable": REQUESTABLE,
        "q": SEARCHED,
    },
)
REQUESTABLE_ROLES = Listing(
    RoleRepository.selection(RequestableRoleOut).where(Role.is_requestable),
    name="requestable roles",
    id_column=Role.id,
    sorts={name: Sort(sort.column, f"roles_is_requestable_{name}_idx") for name, sort in SORTS.items()},
    default_sort="created_at",
    filters={"name": NAMED, "is_requestable": REQUESTABLE, "q": SEARCHED},
)
"""What those see who may not see roles."""
