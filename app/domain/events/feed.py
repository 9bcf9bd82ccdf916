"""The events of a tenant as they come, read once for all streams of the process that follow them.

A notification says that a tenant's events have got positions. Whichever stream has told all that was read reads on; the
others find the same rows in memory, encoded already. Little is kept there: a stream that is slow, or begins further
back, reads for itself until it has come up to the others. So nothing waits for anybody, and nobody's slowness costs
memory.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from operator import attrgetter
from uuid import UUID

import msgspec
from msgspec import Struct

from app.core.extent import Extent, Place
from app.core.notifications import Listener
from app.core.reads import Reads
from app.core.server_sent_events import told
from app.domain.events.models import POSITIONS_CHANNEL
from app.domain.events.repositories import END, NEXT, READ_AT_ONCE
from app.domain.events.schemas import EventOut

MOST_KEPT = 1000
BYTES_KEPT = 2_000_000
"""Of each tenant that somebody follows."""
_WIDTH = len(EventOut.__struct_fields__)


class Told(Struct, frozen=True, gc=False):
    """One event as it is sent, and what decides who is told."""

    position: int
    type: str
    subject: str
    place: Place
    text: bytes

    def is_within(self, extent: Extent | None) -> bool:
        return extent is None or extent.covers(self.place)


class Batch(Struct, frozen=True):
    events: Sequence[Told]
    through: int
    """The position up to which there is no other."""


class EventFeed:
    """Those of this process, by tenant, for as long as somebody follows them."""

    def __init__(self, reads: Reads, database_url: str) -> None:
        self._reads = reads
        self._url = database_url
        self._tenants: dict[UUID, TenantFeed] = {}
        self._listener: Listener | None = None

    @property
    def followed(self) -> int:
        """Tenants."""
        return len(self._tenants)

    async def end(self, tenant_id: UUID) -> int:
        """The last position that was given in a tenant."""
        rows = await self._reads.rows(END, {"tenant_id": tenant_id})
        return int(rows[0][0]) if rows else 0

    @asynccontextmanager
    async def of_tenant(self, tenant_id: UUID, end: int) -> AsyncIterator["TenantFeed"]:
        """From the end on it is read for all who follow; who begins further back reads up to there for themselves."""
        feed = self._tenants.setdefault(tenant_id, TenantFeed(self._reads, tenant_id, end))
        feed.followers += 1
        self._listen()
        try:
            yield feed
        finally:
            feed.followers -= 1
            if not feed.followers:
                feed.stop()
                del self._tenants[tenant_id]
            await self._stop_listening_to_nobody()

    def _listen(self) -> None:
        """From the first stream on: a connection that asks five times in a second is not kept for nobody."""
        if self._listener is None:
            self._listener = Listener(self._url, POSITIONS_CHANNEL, on_message=self._tell, on_gap=self._tell_all)
            self._listener.start()

    async def _stop_listening_to_nobody(self) -> None:
        if not self._tenants and self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.stop()

    def _tell(self, tenant_id: str) -> None:
        """What cannot be read may have been about anybody."""
        try:
            feed = self._tenants.get(UUID(tenant_id))
        except ValueError:
            self._tell_all()
            return
        if feed is not None:
            feed.wake()

    def _tell_all(self) -> None:
        for feed in self._tenants.values():
            feed.wake()


class TenantFeed:
    def __init__(self, reads: Reads, tenant_id: UUID, end: int) -> None:
        self.followers = 0
        self._reads = reads
        self._tenant_id = tenant_id
        self._last = end
        """The position up to which was read for all."""
        self._kept: list[Told] = []
        self._bytes_kept = 0
        self._has_more = True
        """Whether there may be events behind the last one."""
        self._woken = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    def wake(self) -> None:
        self._has_more = True
        self._woken.set()
        self._woken = asyncio.Event()

    def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    async def wait(self, after: int, within_s: float) -> None:
        """Until there may be events behind this position, or so many seconds have passed."""
        if self._has_more or after < self._last:
            return
        woken = self._woken
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await woken.wait()

    async def events(self, after: int) -> Batch:
        """The next ones behind this position, of which there may be more; none where there are none."""
        if after >= self._last and self._has_more:
            await self._read_on()
        if after >= self._last:
            return Batch((), after)
        last = self._last
        if self._kept and after >= self._kept[0].position - 1:
            start = bisect_right(self._kept, after, key=attrgetter("position"))
            found: Sequence[Told] = self._kept[start : start + READ_AT_ONCE]
        else:
            found = await self._read(after)
        return Batch(found, found[-1].position if found else last)

    def _read_on(self) -> Awaitable[None]:
        """One read for all who are at the end; who leaves meanwhile does not take it from the others."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_for_all(), name="events of a tenant")
            self._reading.add_done_callback(_note_failure)
        return asyncio.shield(self._reading)

    async def _read_for_all(self) -> None:
        self._has_more = False  # unless somebody says so from now on
        try:
            found = await self._read(self._last)
        except BaseException:
            self._has_more = True
            raise
        if found:
            self._has_more = True
            self._last = found[-1].position
            self._keep(found)

    def _keep(self, found: list[Told]) -> None:
        self._kept += found
        self._bytes_kept += sum(len(each.text) for each in found)
        surplus = max(len(self._kept) - MOST_KEPT, 0)
        bytes_left = self._bytes_kept - sum(len(each.text) for each in self._kept[:surplus])
        while bytes_left > BYTES_KEPT and surplus < len(self._kept) - 1:
            bytes_left -= len(self._kept[surplus].text)
            surplus += 1
        self._bytes_kept = bytes_left
        del self._kept[:surplus]

    async def _read(self, after: int) -> list[Told]:
        rows = await self._reads.rows(NEXT, {"tenant_id": self._tenant_id, "after": after})
        return [_told(EventOut(*row[:_WIDTH]), Place(*row[_WIDTH:])) for row in rows]


def _told(event: EventOut, place: Place) -> Told:
    text = told(event.type, event.position, msgspec.json.encode(event))
    return Told(event.position, event.type, event.subject, place, text)


def _note_failure(reading: "asyncio.Task[None]") -> None:
    """Whoever waited for it was told; where they all have left, nobody asks."""
    if not reading.cancelled():
        reading.exception()
