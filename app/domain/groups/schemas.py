"""Groups on the wire."""

from collections.abc import Mapping

from msgspec import UNSET, UnsetType

from app.core.lookalikes import well_named
from app.core.schemas import EntityOut, Input, Name, Rule, Text

RULES: Mapping[str, Rule] = {"name": well_named}


class GroupOut(EntityOut):
    name: str
    description: str | None
    managed_by: str | None
    """What keeps its members, such as a directory; null for the hub itself."""


class GroupCreate(Input):
    rules = RULES

    name: Name
    description: Text | None = None


class GroupPatch(Input):
    rules = RULES

    name: Name | UnsetType = UNSET
    description: Text | None | UnsetType = UNSET
