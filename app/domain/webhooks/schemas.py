"""Webhooks and their deliveries on the wire."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

from msgspec import Meta, field

from app.core.errors import Fault
from app.core.outbound import PostFailure, target_of
from app.core.schemas import EntityOut, Input, Output, Rule, Text, patch_of
from app.domain.webhooks.event_types import known_types

EventType = Annotated[str, Meta(min_length=1, max_length=100, examples=["data_source.status_changed"])]
EventTypes = Annotated[list[EventType], Meta(max_length=100, extra_json_schema={"uniqueItems": True})]
Url = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=2048,
        pattern=r"^https?://[^\x00-\x20\x7f]+\Z",
        examples=["https://hooks.example.org/hub"],
        extra_json_schema={"patternErrorMessage": "must start with https:// and hold no blanks"},
    ),
]
DisabledBecause = Annotated[Literal["gone", "failing"], Meta(title="DisabledBecause")]
DeliveryStatus = Annotated[Literal["pending", "delivered", "failed"], Meta(title="DeliveryStatus")]
DeliveryFailure = Annotated[
    Literal[PostFailure, "expired", "event_gone", "secret_unreadable", "webhook_disabled"],
    Meta(title="DeliveryFailure"),
]
STATUSES: tuple[str, ...] = get_args(get_args(DeliveryStatus)[0])


def well_addressed(value: str, path: str) -> Iterator[Fault]:
    """Rule: it leads to a host, and holds no user information."""
    try:
        target_of(value)
    except ValueError as error:
        yield Fault(path, "invalid", str(error))


RULES: Mapping[str, Rule] = {"url": well_addressed, "event_types": known_types}


class WebhookOut(EntityOut):
    url: str
    event_types: list[str]
    """Empty: all."""
    data_domain_id: UUID | None
    description: str | None
    is_active: bool
    disabled_because: DisabledBecause | None
    """Where the hub has switched it off: `gone` after an answer 410, `failing` after days without a success."""
    disabled_at: datetime | None
    failing_since: datetime | None
    """Of the first attempt that failed since the last one that did not. Outside of `version`."""
    last_success_at: datetime | None
    """Outside of `version`."""


class WebhookCreated(WebhookOut):
    secret: str
    """Shown now and never again: with it the receiver verifies the signatures (Standard Webhooks)."""


class WebhookEvent(Output):
    """What events tell of a webhook: of its URL, which may hold what is for its receiver alone, only the host."""

    id: UUID
    host: str
    event_types: list[str]
    data_domain_id: UUID | None
    description: str | None
    is_active: bool
    disabled_because: str | None


class WebhookCreate(Input):
    rules = RULES

    url: Url
    """`https`; on a hub that may dial its own machine `http` as well, to there."""
    event_types: EventTypes = field(default_factory=list)
    """Such as `data_source.status_changed`; empty: all."""
    data_domain_id: UUID | None = None
    """Only events about this domain, those below it, and the data sources in them."""
    is_active: bool = True
    description: Text | None = None


WebhookPatch: Any = patch_of(
    WebhookCreate, "WebhookPatch", "What changes. Switched on again, it is sent what happens from then on."
)


class SecretRotated(Output):
    secret: str
    """The new one, shown now and never again."""
    previous_expires_at: datetime
    """Until then the one before signs as well."""


class TestOfWebhook(Output):
    __test__ = False

    event_id: UUID
    delivery_id: UUID
    status: DeliveryStatus
    response_status: int | None
    duration_ms: float
    failure: DeliveryFailure | None


class DeliveryOut(Output):
    id: UUID
    created_at: datetime
    webhook_id: UUID
    event_id: UUID
    """The same in each attempt: `webhook-id`."""
    event_type: str
    subject: str
    status: DeliveryStatus
    attempts: int
    next_attempt_at: datetime | None
    """Null where no other one follows."""
    last_attempt_at: datetime | None
    expires_at: datetime
    """Nothing is tried after that."""
    response_status: int | None
    """Of the last attempt; of an answer nothing else is kept."""
    duration_ms: float | None
    failure: DeliveryFailure | None
