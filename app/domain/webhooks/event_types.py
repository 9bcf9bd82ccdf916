"""The types of events that a webhook may ask for, as they are named there: without the prefix that all have."""

from collections.abc import Iterator, Sequence

from app.core.errors import Fault
from app.core.event_names import SENTENCES, TYPE_PREFIX


def known_types(values: Sequence[str], path: str) -> Iterator[Fault]:
    """Rule: each is the name of a type, once."""
    seen = set[str]()
    for index, name in enumerate(values):
        if name not in SENTENCES:
            yield Fault(f"{path}[{index}]", "unknown_event_type", "is not the type of an event")
        elif name in seen:
            yield Fault(f"{path}[{index}]", "duplicate", "is named twice")
        seen.add(name)


def short_name(event_type: str) -> str:
    return event_type.removeprefix(TYPE_PREFIX)
