"""When keys were last used: noted for each request, written some at a time, to the hour."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from time import time
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.database import DATABASE_ERRORS

log = logging.getLogger("hub.api_keys")

HOUR_S = 3600
MOST_AT_ONCE = 1000

# In the order of their ids: of two workers that write the same ones neither waits for the other for ever.
_WRITE = text(
    """WITH noted AS (SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:hours AS timestamptz[])) AS each (id, at)),
       locked AS (SELECT api_keys.id, noted.at FROM api_keys JOIN noted ON noted.id = api_keys.id
                  WHERE coalesce(last_used_at < noted.at, true) ORDER BY api_keys.id FOR UPDATE OF api_keys)
       UPDATE api_keys SET last_used_at = locked.at FROM locked WHERE locked.id = api_keys.id"""
)


class KeyUses:
    """What this process knows and the database does not yet. A request pays for a look into a dictionary."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions
        self._hour = 0
        self._noted: set[UUID] = set()
        """In this hour."""
        self._unwritten: dict[UUID, int] = {}

    def note(self, key_id: UUID) -> None:
        hour = int(time() // HOUR_S)
        if hour != self._hour:
            self._hour = hour
            self._noted.clear()
        if key_id not in self._noted:
            self._noted.add(key_id)
            self._unwritten[key_id] = hour

    async def write(self) -> None:
        """What fails is written the next time."""
        while self._unwritten:
            ids = sorted(self._unwritten)[:MOST_AT_ONCE]
            noted = {key_id: self._unwritten.pop(key_id) for key_id in ids}
            try:
                await self._write(noted)
            except DATABASE_ERRORS as error:
                self._unwritten = noted | self._unwritten
                log.warning("last uses of API keys are not written yet: %s", type(error).__name__)
                return

    async def _write(self, noted: Mapping[UUID, int]) -> None:
        hours = [datetime.fromtimestamp(hour * HOUR_S, UTC) for hour in noted.values()]
        async with self._sessions.begin() as session:
            await session.execute(_WRITE, {"ids": list(noted), "hours": hours})
