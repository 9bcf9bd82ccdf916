"""When the hub discovers sources by itself: five fields of cron, in a time zone.

Evaluated as Debian's cron does it, summer time included: what falls into the hour that is left out runs after it, and
what falls into the hour that is there twice runs once, unless it runs every so many minutes.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from app.core.errors import Fault

FIELDS = 5


def cron_expression(value: str, path: str) -> Iterator[Fault]:
    """Rule: it can be read, and comes to pass."""
    if next_time(value, "UTC", datetime.now(UTC)) is None:
        yield Fault(path, "invalid_schedule", "must be five fields of cron, such as `0 3 * * *`, that come to pass")


def known_time_zone(value: str, path: str) -> Iterator[Fault]:
    """Rule: there is such a zone."""
    if _zone(value) is None:
        yield Fault(path, "unknown_time_zone", "must be a time zone such as `Europe/Berlin` or `UTC`")


def next_time(expression: str, time_zone: str, after: datetime) -> datetime | None:
    """The first moment after that one. None for what cannot be read, or never comes to pass."""
    zone = _zone(time_zone)
    if zone is None or len(expression.split()) != FIELDS:
        return None
    try:
        return next(CronSim(expression, after.astimezone(zone))).astimezone(UTC)
    except (CronSimError, StopIteration, ValueError, OverflowError):
        return None


def first_discovery(now: datetime, expression: str | None, time_zone: str) -> datetime | None:
    return None if expression is None else next_time(expression, time_zone, now)


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones, a name that leads out of theirs
        return None
