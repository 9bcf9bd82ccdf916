"""An event as it leaves the hub: CloudEvents 1.0 in structured JSON, the same whatever way it takes."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import Struct

CONTENT_TYPE = "application/cloudevents+json"


class CloudEvent(Struct, frozen=True, kw_only=True):
    specversion: Literal["1.0"] = "1.0"
    id: UUID
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    data: msgspec.Raw
