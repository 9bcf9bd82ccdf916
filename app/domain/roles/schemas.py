"""Roles on the wire."""

from collections.abc import Iterator, Mapping
from typing import Annotated
from uuid import UUID

from msgspec import UNSET, Meta, UnsetType

from app.core import migrations
from app.core.errors import Fault
from app.core.lookalikes import well_named
from app.core.schemas import EntityOut, Input, Name, Output, Rule, Text
from app.core.tenancy import DEFAULT_TENANT_ID

Permission = Annotated[str, Meta(max_length=100, examples=["data-sources:read"])]
Permissions = Annotated[list[Permission], Meta(max_length=200)]


class PermissionOut(Output):
    name: str
    description: str


class PermissionPut(Input):
    description: Annotated[str, Meta(min_length=1, max_length=1000, examples=["See dashboards of reports."])]


PERMISSIONS = {name: PermissionOut(name, sentence) for name, sentence in migrations.permissions().items()}
"""Every permission of the hub's own, by name."""
_PERMISSIONS_OF_OTHERS = {
    name: shown for name, shown in PERMISSIONS.items() if name not in migrations.operator_permissions()
}


def permissions_of(tenant_id: UUID) -> Mapping[str, PermissionOut]:
    """Those of the hub's own that exist in a tenant: what its operators may do is no permission anywhere else."""
    return PERMISSIONS if tenant_id == DEFAULT_TENANT_ID else _PERMISSIONS_OF_OTHERS


def is_of_another_service(permission: str) -> bool:
    return "." in permission.partition(":")[0]


def known_permissions(names: list[str], path: str) -> Iterator[Fault]:
    """Rule: each of them exists, as far as it is one of the hub's own. Of those of other services the tenant tells."""
    for index, name in enumerate(names):
        if name not in PERMISSIONS and not is_of_another_service(name):
            yield Fault(f"{path}[{index}]", "unknown_permission", "is not a permission")


RULES: Mapping[str, Rule] = {"name": well_named, "permissions": known_permissions}


class RoleOut(EntityOut):
    name: str
    description: str | None
    permissions: list[str]
    owner_role_id: UUID | None
    """Members of this role look after the role."""
    is_system: bool
    """Built in: it cannot be changed or deleted."""
    is_requestable: bool
    """Whether anybody signed in sees its name and may ask for it (`POST /api/v1/role-requests`)."""
    requires_mfa: bool
    """Whether what it brings is there only in sessions with a second factor: never for an API key."""


class RequestableRoleOut(Output):
    """What anybody signed in sees of a role that may be asked for."""

    id: UUID
    name: str
    description: str | None


class RoleCreate(Input):
    rules = RULES

    name: Name
    description: Text | None = None
    permissions: Permissions = []
    owner_role_id: UUID | None = None
    is_requestable: bool = False
    requires_mfa: bool = False


class RolePatch(Input):
    rules = RULES

    name: Name | UnsetType = UNSET
    description: Text | None | UnsetType = UNSET
    permissions: Permissions | UnsetType = UNSET
    owner_role_id: UUID | None | UnsetType = UNSET
    is_requestable: bool | UnsetType = UNSET
    requires_mfa: bool | UnsetType = UNSET


RoleIds = Annotated[list[UUID], Meta(max_length=50)]


class ApproverRoles(Input):
    items: RoleIds
    """Role ids."""
