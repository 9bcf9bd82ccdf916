"""The order of events: each has a position in its tenant, without gaps, in the order in which they were committed.

Neither ids nor sequences are that order: what a long transaction wrote early becomes visible late, and whoever had
remembered the last one that they saw would miss it. So an event has no position as long as an older transaction is
open, and from then on nothing can come in front of it (decision 0046).
"""

import logging

from sqlalchemy import text

from app.core.turns import keep_doing
from app.domain.parts import Parts

log = logging.getLogger("hub.events")

AT_ONCE = 1000
EVERY_S = 0.25
_GIVE = text("SELECT public.give_positions_to_events(:most)")


async def give_positions(parts: Parts, most: int = AT_ONCE) -> int:
    """To the oldest events that have none. How many got one; none where another worker is at it."""
    async with parts.sessions.begin(None) as session:
        given: int = await session.scalar(_GIVE, {"most": most})
    return max(given, 0)


async def keep_in_order(parts: Parts) -> None:
    """Until cancelled."""
    await keep_doing(
        lambda: give_positions(parts),
        full=AT_ONCE,
        every_s=EVERY_S,
        log=log,
        put_off="events get no positions for now",
    )
