"""Keys of directories on the wire."""

from collections.abc import Mapping
from datetime import datetime

from app.core.lookalikes import well_named
from app.core.schemas import EntityOut, Input, Name, Rule

RULES: Mapping[str, Rule] = {"name": well_named}


class ScimKeyOut(EntityOut):
    name: str
    last_used_at: datetime | None
    """To the hour."""


class ScimKeyCreated(ScimKeyOut):
    key: str
    """Shown now and never again: the hub keeps a hash of it only."""


class ScimKeyCreate(Input):
    rules = RULES

    name: Name
    """For people, such as the name of the directory; the audit log says it of all that is done with the key."""
