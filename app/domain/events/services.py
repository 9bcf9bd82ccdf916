"""Rows of the outbox: each change as a CloudEvent 1.0, written in the transaction of the change."""

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from uuid_utils.compat import uuid7

from app.core.tracing import traceparent

SOURCE = "/api/v1"
TYPE_PREFIX = "org.datafusionhub."


class EventRow(Struct):
    id: UUID
    tenant_id: UUID
    type: str
    source: str
    subject: str
    time: datetime
    data: Any
    traceparent: str | None


def event_row(event_type: str, subject: str, data: object, *, tenant_id: UUID, time: datetime) -> EventRow:
    """`event_type` is `<resource>.<what happened>`; `subject` the resource's path below `/api/v1`."""
    return EventRow(uuid7(), tenant_id, TYPE_PREFIX + event_type, SOURCE, subject, time, data, traceparent())
