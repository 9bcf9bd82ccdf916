"""Work that a worker does again and again, for as long as it runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from app.core.database import DATABASE_ERRORS


async def keep_doing(
    work: Callable[[], Awaitable[int]], *, full: int, every_s: float, log: logging.Logger, put_off: str
) -> None:
    """Until cancelled: at once again where a turn did as much as one may (`full`), else after a pause. A database that
    is away is told of once, with `put_off` for what waits, and tried again at the next turn."""
    is_away = False
    while True:
        done = 0
        try:
            done = await work()
            is_away = False
        except DATABASE_ERRORS as error:
            if not is_away:
                log.warning("%s: %s", put_off, type(error).__name__)
            is_away = True
        if done < full:
            await asyncio.sleep(every_s)
