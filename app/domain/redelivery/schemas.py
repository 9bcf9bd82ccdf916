"""The wish for events to be published again."""

from typing import Annotated

from msgspec import Meta

from app.core.schemas import Input, Output
from app.domain.assignments.schemas import Moment

EventType = Annotated[str, Meta(min_length=1, max_length=200, examples=["org.datafusionhub.user.created"])]


class Redelivery(Input, rename={"begins_at": "from", "ends_at": "to"}):
    begins_at: Moment
    """Events of this moment and later."""
    ends_at: Moment
    """Events of before this moment."""
    type: EventType | None = None
    """Of this type alone; `user.created` is the same as `org.datafusionhub.user.created`."""


class RedeliveryOut(Output):
    count: int
    """Events that are published again, to every destination."""
