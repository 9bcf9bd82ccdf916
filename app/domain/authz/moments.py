"""Which moments can be asked about."""

from datetime import UTC, datetime, timedelta

LEEWAY = timedelta(seconds=10)
"""By which somebody's clock may be ahead of the hub's, for whom it is now."""


def is_to_come(moment: datetime) -> bool:
    return moment > datetime.now(UTC) + LEEWAY
