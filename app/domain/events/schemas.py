"""Events on the wire: the attributes of CloudEvents 1.0."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from app.core.schemas import Output


class EventOut(Output):
    id: UUID
    """The same however often and by whichever way the event comes."""
    source: str
    """The path below which the subject is found."""
    type: str
    subject: str
    """What has changed: its path below `source`."""
    time: datetime
    data: dict[str, Any]
    """The thing as the API shows it after the change; its id alone where it is gone."""
    position: int
    """In the order of commits, of the tenant's events, without gaps. Give the last one back as `Last-Event-ID`."""
    specversion: Literal["1.0"]
    datacontenttype: Literal["application/json"]
