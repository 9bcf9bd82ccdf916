"""When what was not taken is sent again, and when an endpoint is left alone for a while.

Each delivery has its ladder: the first step within 30 seconds, the last within a day. Each endpoint has a circuit: some
failures in a row open it, and then one delivery is sent as a probe, after pauses that double, until one is taken.
"""

import random
from datetime import datetime, timedelta
from typing import Final

KEPT_TRYING: Final = timedelta(hours=24)
LADDER_S: Final = (15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 21_600.0, 21_600.0)
"""Between two attempts at one delivery; less than a day together, with whatever jitter."""
JITTER: Final = 0.2
CIRCUIT_AT: Final = 5
"""Failures in a row."""
SHORTEST_PAUSE_S: Final = 15.0
LONGEST_PAUSE_S: Final = 900.0
DISABLED_AFTER: Final = timedelta(days=3)
"""Without a success in between."""
QUIET: Final = timedelta(days=1)
"""Without an attempt."""


def next_attempt(attempts: int, now: datetime, expires_at: datetime) -> datetime | None:
    """After so many failed attempts, the one just made included. None where that was the last."""
    if attempts > len(LADDER_S):
        return None
    moment = now + timedelta(seconds=_varied(LADDER_S[attempts - 1]))
    return moment if moment < expires_at else None


def pause_of_circuit(failures: int, now: datetime) -> datetime | None:
    """Until when nothing is sent to an endpoint after so many failures in a row; None where it is not left alone."""
    if failures < CIRCUIT_AT:
        return None
    doubled = SHORTEST_PAUSE_S * 2 ** min(failures - CIRCUIT_AT, 10)
    return now + timedelta(seconds=_varied(min(doubled, LONGEST_PAUSE_S)))


def _varied(seconds: float) -> float:
    """So that those that failed together do not come back together."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
