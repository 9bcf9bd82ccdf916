"""Groups on the wire."""

from collections.abc import Mapping
from typing import Literal

from msgspec import UNSET, UnsetType

from app.core.lookalikes import well_named
from app.core.schemas import EntityOut, Input, Name, Rule, Text

RULES: Mapping[str, Rule] = {"name": well_named}


class GroupOut(EntityOut):
    name: str
    description: str | None
    managed_by: str | None
    """What keeps its name and its members: `scim` for a directory; null for the hub itself."""


class GroupCreate(Input):
    rules = RULES

    name: Name
    description: Text | None = None


class GroupPatch(Input):
    rules = RULES

    name: Name | UnsetType = UNSET
    description: Text | None | UnsetType = UNSET
    managed_by: Literal["scim"] | None | UnsetType = UNSET
    """`scim` hands the group over to the tenant's directory, which finds it by its name; null takes it back."""
