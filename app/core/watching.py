"""Whether watched rows have changed: one look at the database answers all streams of a process and tenant.

A look asks for versions only; a stream reads its row where that is another one.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from uuid import UUID

from sqlalchemy import Select

from app.core.reads import Reads

LOOK_EVERY_S = 0.5
Versions = Mapping[UUID, int]


class WatchedRows:
    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._groups: dict[tuple[Select[tuple[UUID, int]], UUID], WatchedVersions] = {}

    @contextmanager
    def watched(self, versions: Select[tuple[UUID, int]], tenant_id: UUID, row_id: UUID) -> Iterator["WatchedVersions"]:
        """The row is among those that are looked at for as long as the block lasts. `versions` selects ids and
        versions of the rows `ids` of `tenant_id`."""
        group = self._groups.setdefault((versions, tenant_id), WatchedVersions(self._reads, versions, tenant_id))
        group.streams[row_id] += 1
        try:
            yield group
        finally:
            group.streams[row_id] -= 1
            if not group.streams[row_id]:
                del group.streams[row_id]
            if not group.streams:
                group.stop()
                del self._groups[versions, tenant_id]


class WatchedVersions:
    """The watched rows of one table and tenant."""

    def __init__(self, reads: Reads, versions: Select[tuple[UUID, int]], tenant_id: UUID) -> None:
        self.streams: Counter[UUID] = Counter()
        """By the id of the row that they watch."""
        self._reads = reads
        self._versions = versions
        self._tenant_id = tenant_id
        self._look: asyncio.Task[Versions] | None = None
        self._looked_at = 0.0

    async def version(self, row_id: UUID) -> int | None:
        """At most LOOK_EVERY_S old. None for a row that is gone, and for one that was not watched when they were looked
        at. Raises what the database raises."""
        versions = await asyncio.shield(self._recent_look())  # who leaves does not take the answer from the others
        return versions.get(row_id)

    def stop(self) -> None:
        if self._look is not None:
            self._look.cancel()

    def _recent_look(self) -> "asyncio.Task[Versions]":
        if self._look is None or (self._look.done() and monotonic() - self._looked_at >= LOOK_EVERY_S):
            self._look, self._looked_at = asyncio.create_task(self._look_at_all(), name="watched rows"), monotonic()
        return self._look

    async def _look_at_all(self) -> Versions:
        rows = await self._reads.rows(self._versions, {"tenant_id": self._tenant_id, "ids": list(self.streams)})
        return dict(rows)
