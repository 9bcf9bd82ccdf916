"""Service accounts on the wire."""

from collections.abc import Mapping

from msgspec import UNSET, UnsetType

from app.core.lookalikes import well_named
from app.core.schemas import EntityOut, Input, Name, Rule, Text

RULES: Mapping[str, Rule] = {"name": well_named}


class ServiceAccountOut(EntityOut):
    name: str
    description: str | None
    is_active: bool
    """False: its keys let nobody in."""


class ServiceAccountCreate(Input):
    rules = RULES

    name: Name
    description: Text | None = None
    is_active: bool = True


class ServiceAccountPatch(Input):
    rules = RULES

    name: Name | UnsetType = UNSET
    description: Text | None | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    """With false its keys let nobody in, on every worker within a second; with true they do again."""
