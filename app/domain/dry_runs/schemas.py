"""What a change of rights would do, on the wire."""

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from app.core.schemas import Output

PlaceType = Annotated[Literal["tenant", "data_domain", "data_source"], Meta(title="ScopeType")]


class PlaceOut(Output):
    type: PlaceType
    id: UUID | None
    """Null for the whole tenant."""


class RightsLine(Output):
    user_id: UUID
    """The user, or the service account."""
    permissions: list[str]
    scope: PlaceOut


class RightsChange(Output):
    """What would come of the change. Nothing was done."""

    gains: list[RightsLine]
    loses: list[RightsLine]
    users: int
    """All who would gain or lose something, those that are not shown included."""
    truncated: bool
    """Whether there are more lines than are shown: a thousand at most, and of a data domain none to those who may not
    list who has access to it."""
