"""API keys on the wire."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from app.core.lookalikes import well_named
from app.core.schemas import EntityOut, Input, Name, Output, Rule
from app.core.security import PrincipalType
from app.domain.assignments.schemas import Moment
from app.domain.roles.schemas import Permissions, known_permissions

RULES: Mapping[str, Rule] = {"name": well_named, "permissions": known_permissions}


class KeyOwner(Input):
    type: PrincipalType
    id: UUID


class KeyOwnerOut(Output):
    type: PrincipalType
    id: UUID


class ApiKeyOut(EntityOut):
    name: str
    prefix: str
    """The beginning of the key: by this it is found again, wherever it turns up."""
    owner: KeyOwnerOut
    permissions: list[str] | None
    """What the key may do, as far as its owner may at that moment; null: all that its owner may."""
    expires_at: datetime
    last_used_at: datetime | None
    """To the hour."""


class ApiKeyCreated(ApiKeyOut):
    key: str
    """Shown now and never again: the hub keeps a hash of it only."""


class ApiKeyCreate(Input):
    rules = RULES

    name: Name
    """For people; two keys may have one name."""
    owner: KeyOwner | None = None
    """As whom the key acts; null: as oneself."""
    permissions: Permissions | None = None
    """To which the key is narrowed, all of them one's own; null: all that its owner may, an empty list: nothing."""
    expires_at: Moment | None = None
    """At most 366 days from now, unless the tenant has decided otherwise; null: 90 days."""
