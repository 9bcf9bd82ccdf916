"""Server-sent events (HTML standard, section 9.2): the one form in which the hub tells something as it happens."""

MEDIA_TYPE = "text/event-stream"
LAST_EVENT_ID = b"last-event-id"
STILL_HERE = b": still here\n\n"


def told(name: str, event_id: int | str, data: bytes) -> bytes:
    """One event. `data` has no line breaks, as JSON has none."""
    return b"event: %s\nid: %s\ndata: %s\n\n" % (name.encode(), str(event_id).encode(), data)


def seen(number: int) -> bytes:
    """Tells nothing, but from where a client goes on that comes again: to an event it is nothing but its id."""
    return b"id: %d\n\n" % number
