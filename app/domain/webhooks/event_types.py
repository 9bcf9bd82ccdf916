"""The types of events that a webhook may ask for, as they are named there: without the prefix that all have."""

from collections.abc import Iterator, Sequence

from app.core.errors import Fault
from app.domain.events.services import TYPE_PREFIX

_BY_RESOURCE = {
    "access_review": ("created", "answered", "closed"),
    "api_key": ("created", "deleted"),
    "data_domain": ("created", "updated", "deleted"),
    "data_source": ("created", "updated", "deleted", "discovered", "status_changed"),
    "delegation": ("created", "deleted"),
    "group": ("created", "updated", "deleted", "member_added", "member_removed"),
    "job": ("created", "cancel_requested", "cancelled", "succeeded", "failed"),
    "permission": ("registered", "updated", "deleted"),
    "role": ("created", "updated", "deleted"),
    "role_assignment": ("created", "updated", "ended"),
    "role_request": (
        *("created", "approval_given", "approved", "denied", "cancelled", "expired", "revoked", "restarted"),
        "commented",
    ),
    "service_account": ("created", "updated", "deleted"),
    "tenant": ("created", "updated", "suspended", "resumed", "deleted"),
    "tenant_settings": ("updated",),
    "user": ("created", "updated", "deleted"),
    "webhook": ("created", "updated", "secret_rotated", "disabled", "deleted"),
}


def known_event_types() -> frozenset[str]:
    """All that the hub announces."""
    return frozenset(f"{resource}.{what}" for resource, each in _BY_RESOURCE.items() for what in each)


def known_types(values: Sequence[str], path: str) -> Iterator[Fault]:
    """Rule: each is the name of a type, once."""
    known, seen = known_event_types(), set[str]()
    for index, name in enumerate(values):
        if name not in known:
            yield Fault(f"{path}[{index}]", "unknown_event_type", "is not the type of an event")
        elif name in seen:
            yield Fault(f"{path}[{index}]", "duplicate", "is named twice")
        seen.add(name)


def full_name(name: str) -> str:
    """As events themselves have it."""
    return TYPE_PREFIX + name


def short_name(event_type: str) -> str:
    return event_type.removeprefix(TYPE_PREFIX)
