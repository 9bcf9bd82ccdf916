"""When keys were last used: noted for each request, written some at a time, to the hour."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from time import time
from typing import Literal
from uuid import UUID

from sqlalchemy import ARRAY, DateTime, TextClause, Uuid, bindparam, text

from app.core.database import DATABASE_ERRORS, Sessions

log = logging.getLogger("hub.api_keys")

HOUR_S = 3600
MOST_AT_ONCE = 1000

Table = Literal["api_keys", "scim_keys"]


def _write_into(table: Table) -> TextClause:
    """By a function of the owner: the keys are those of many tenants."""
    return text(f"SELECT public.note_uses_of_{table}(:ids, :hours)").bindparams(
        bindparam("ids", type_=ARRAY(Uuid)), bindparam("hours", type_=ARRAY(DateTime(timezone=True)))
    )


class KeyUses:
    """What this process knows and the database does not yet. A request pays for a look into a dictionary."""

    def __init__(self, sessions: Sessions, table: Table = "api_keys") -> None:
        self._sessions = sessions
        self._table = table
        self._statement = _write_into(table)
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
                log.warning("last uses of %s are not written yet: %s", self._table, type(error).__name__)
                return

    async def _write(self, noted: Mapping[UUID, int]) -> None:
        hours = [datetime.fromtimestamp(hour * HOUR_S, UTC) for hour in noted.values()]
        async with self._sessions.begin(None) as session:
            await session.execute(self._statement, {"ids": list(noted), "hours": hours})
