"""An event as it leaves the hub: CloudEvents 1.0 in structured JSON, the same whatever way it takes."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

CONTENT_TYPE = "application/cloudevents+json"


class CloudEvent(Struct, frozen=True, kw_only=True):
    specversion: Literal["1.0"] = "1.0"
    id: UUID
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    data: Any
    traceparent: str | UnsetType = UNSET
    """Of the trace that the change was part of (CloudEvents' extension for distributed tracing)."""
