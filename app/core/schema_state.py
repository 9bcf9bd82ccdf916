"""Whether the schema of the database is one that this release can work with: known to every request without asking.

An older schema lacks what the statements need. A newer one is made so that the release before can go on
(`schema_changes`), unless a migration declares a break: a row in `schema_breaks` says from which revision on, and why.
"""

import asyncio
import logging
from collections.abc import Callable

import asyncpg

from app.core.database import INTERRUPTED
from app.core.migrations import SchemaProblem, schema_problem
from app.core.probe import DatabaseProbe

log = logging.getLogger("hub.schema")

LOOK_EVERY_S = 1.0
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, INTERRUPTED)


class SchemaWatch:
    """Looks again and again, on the connection of the health probes."""

    def __init__(self, probe: DatabaseProbe) -> None:
        self._probe = probe
        self._task: asyncio.Task[None] | None = None
        self.problem: SchemaProblem | None = None
        self.when_broken: Callable[[], None] = lambda: None
        """Called once, when the schema has gone where this release cannot follow."""

    async def start(self) -> None:
        """The first look is over when this returns; a database that is away is looked at later."""
        await self._look()
        self._task = asyncio.create_task(self._look_forever(), name="watch the schema")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._look()

    async def _look(self) -> None:
        try:
            found = await self._probe.ask(schema_problem)
        except AWAY:
            return  # what was known of it still holds
        if found != self.problem and found is not None:
            log.critical("%s", found.sentence)
        is_broken = found is not None and found.code == "schema_too_new" and found != self.problem
        self.problem = found
        if is_broken:
            self.when_broken()
