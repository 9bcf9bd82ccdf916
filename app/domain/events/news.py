"""What a stream of events tells: those behind a position that its caller may see and asked for."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from app.core.errors import BadRequest, Fault, Hidden
from app.core.exchange import Exchange
from app.core.extent import Extent
from app.core.lists.parameters import parse_parameters, refuse_faulty_parameters
from app.core.security import Principal
from app.core.server_sent_events import LAST_EVENT_ID, STILL_HERE, seen
from app.domain.events.feed import EventFeed, TenantFeed, Told
from app.domain.events.repositories import EVENTS

READ = "events:read"
BYTES_AT_ONCE = 256_000
"""Then the rights are looked at again. One event that is larger is told alone."""
NARROWING = ("type", "subject")


def beginning(exchange: Exchange, end: int) -> int:
    """The position behind which a stream begins. Raises BadRequest for one that was never told."""
    given = exchange.header(LAST_EVENT_ID)
    if given is None:
        return end
    if given.isascii() and given.isdigit() and len(given) <= 19 and int(given) <= end:
        return int(given)
    fault = Fault("Last-Event-ID", "invalid_parameter", f"must be the id of an event; the last one is {end}")
    raise BadRequest(code="invalid_parameter", errors=[fault])


def narrowing(query_string: bytes) -> Mapping[str, object]:
    """By name, what is asked for. Raises BadRequest for what no stream takes."""
    query = EVENTS.parse(query_string)
    of_pages = [name for name in parse_parameters(query_string) if name not in NARROWING]
    refuse_faulty_parameters([Fault(name, "invalid_parameter", "is for pages, not for a stream") for name in of_pages])
    return query.filters


class EventNews:
    is_over = False

    def __init__(self, feed: TenantFeed, after: int, wanted: Mapping[str, object]) -> None:
        self._feed = feed
        self._position = after
        self._wanted = wanted
        self._waiting: Sequence[Told] = ()
        """Read, and not told yet."""
        self._through = after

    def first(self) -> bytes:
        """So that a client that leaves before the first event goes on from here."""
        return seen(self._position)

    async def wait(self, within_s: float) -> None:
        if self._waiting:
            return
        await self._feed.wait(self._through, within_s)
        batch = await self._feed.events(self._through)
        self._waiting, self._through = batch.events, batch.through

    async def next(self, principal: Principal) -> bytes:
        """Raises Hidden."""
        if not principal.may_somewhere(READ):
            raise Hidden
        return b"".join(self._told_to(principal.extent(READ)))

    def _told_to(self, extent: Extent | None) -> Iterator[bytes]:
        size = seen_of_waiting = 0
        for told in self._waiting:
            if told.is_within(extent) and self._is_wanted(told):
                size += len(told.text)
                if size > BYTES_AT_ONCE and size > len(told.text):
                    break
                yield told.text
            seen_of_waiting += 1
        self._waiting = self._waiting[seen_of_waiting:]

    def _is_wanted(self, told: Told) -> bool:
        return all(getattr(told, name) == value for name, value in self._wanted.items())

    def mark(self) -> bytes:
        """With the position, so that what was not for this client is not looked at again when it comes back."""
        return seen(self._through) + STILL_HERE


@asynccontextmanager
async def opened(
    feed: EventFeed, tenant_id: UUID, end: int, after: int, wanted: Mapping[str, object]
) -> AsyncIterator[EventNews]:
    """`end` is the last position that was given, `after` the one behind which the stream begins."""
    async with feed.of_tenant(tenant_id, end) as events:
        yield EventNews(events, after, wanted)
