"""Data domains on the wire."""

from collections.abc import Mapping
from uuid import UUID

from msgspec import UNSET, UnsetType

from app.core.lookalikes import well_named
from app.core.schemas import EntityOut, Input, Name, Rule, Text, tag_with

RULES: Mapping[str, Rule] = {"name": well_named}


class DataDomainOut(EntityOut):
    name: str
    description: str | None
    parent_id: UUID | None
    """The domain that it is in; null at the top."""
    owner_role_id: UUID | None
    """Members of this role look after the data sources in the domain and below it."""
    path: list[str]
    """Names, from the top down to its own."""

    def entity_tag(self) -> str:
        """With a hash of the path, which changes when a domain above is renamed or moved."""
        return tag_with(self.version, self.path)


class DataDomainCreate(Input):
    rules = RULES

    name: Name
    """Nobody else's among those in the same domain."""
    description: Text | None = None
    parent_id: UUID | None = None
    owner_role_id: UUID | None = None


class DataDomainPatch(Input):
    rules = RULES

    name: Name | UnsetType = UNSET
    description: Text | None | UnsetType = UNSET
    parent_id: UUID | None | UnsetType = UNSET
    """Another one moves the domain, with everything in it."""
    owner_role_id: UUID | None | UnsetType = UNSET
