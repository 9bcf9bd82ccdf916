"""Roles on the wire."""

from typing import Annotated
from uuid import UUID

from msgspec import UNSET, Meta, UnsetType

from app.core.schemas import EntityOut, Input, Name, Output, Text

Permission = Annotated[str, Meta(max_length=100, examples=["data-sources:read"])]
Permissions = Annotated[list[Permission], Meta(max_length=200)]


class RoleOut(EntityOut):
    name: str
    description: str | None
    permissions: list[str]
    owner_role_id: UUID | None
    """Members of this role look after the role."""
    is_system: bool
    """Built in: it cannot be changed or deleted."""


class RoleCreate(Input):
    name: Name
    description: Text | None = None
    permissions: Permissions = []
    owner_role_id: UUID | None = None


class RolePatch(Input):
    name: Name | UnsetType = UNSET
    description: Text | None | UnsetType = UNSET
    permissions: Permissions | UnsetType = UNSET
    owner_role_id: UUID | None | UnsetType = UNSET


RoleIds = Annotated[list[UUID], Meta(max_length=50)]


class ApproverRoles(Input):
    items: RoleIds
    """Role ids."""


class PermissionOut(Output):
    name: str
    description: str
