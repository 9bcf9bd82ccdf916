"""Rows of the outbox: each change as a CloudEvent 1.0, written in the transaction of the change."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw, Struct
from uuid_utils.compat import uuid7

from app.core.event_names import EventName, type_of
from app.core.tracing import traceparent
from app.domain.event_types import DATA
from app.domain.jobs.schemas import JobOut

SOURCE = "/api/v1"


class EventRow(Struct):
    id: UUID
    tenant_id: UUID
    type: str
    source: str
    subject: str
    time: datetime
    data: Any
    traceparent: str | None
    data_source_id: UUID | None
    data_domain_id: UUID | None


def event_row(
    name: EventName, subject: str, data: object, *, tenant_id: UUID, time: datetime, domain_id: UUID | None = None
) -> EventRow:
    """`subject` is the resource's path below `/api/v1`, `domain_id` the data domain in which something was that is
    gone. Raises TypeError for data of another event."""
    shown = _judged(name, data)
    place = _place(name, subject, shown, domain_id)
    return EventRow(uuid7(), tenant_id, type_of(name), SOURCE, subject, time, shown, traceparent(), *place)


def _judged(name: EventName, data: object) -> object:
    """What is encoded already is taken as it is."""
    wanted = DATA[name]
    if isinstance(data, wanted | Raw):
        return data
    if not isinstance(data, dict):
        raise TypeError(f"the data of {name} is {wanted.__name__}, not {type(data).__name__}")
    return msgspec.convert(data, wanted)


def _place(name: EventName, subject: str, data: object, domain_id: UUID | None) -> tuple[UUID | None, UUID | None]:
    """The data source and the data domain that the event is about: what decides whether somebody sees it who may see a
    part of the tenant only. In which domain a source is that is there, the row's statement looks up (`Records`)."""
    kind, _, row_id = subject.partition("/")
    if kind == "data-sources":
        return UUID(row_id), domain_id
    if kind == "data-domains":
        return None, domain_id if name == "data_domain.deleted" else UUID(row_id)
    if isinstance(data, JobOut) and data.kind.startswith("data_source."):
        return data.subject_id, None
    return None, None
