"""The relay: publishes every event that has a position, at least once, and those of one subject in their order.

One worker does it for each destination: the one whose database connection holds the destination's advisory lock. That
connection also reads what waits and notes what has arrived, so that a worker that loses it can note nothing any more.

No event is sent before the one in front of it of the same subject has been confirmed. What was being sent when a
connection broke may have arrived; it is sent again with the same id, and by itself, so that one event that breaks
connections is found among hundreds. An event that fails again and again, while the destination takes others, is set
aside; until then it holds up its own subject and nothing else (decision 0049).
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from random import uniform
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from app.core.database import CONNECT_TIMEOUT_S, DATABASE_ERRORS, driver_url, server_settings
from app.core.publishing import Confirmation, DestinationAway
from app.core.tenancy import TENANT_SETTING
from app.domain.events.destinations import Destination, WaitingEvent
from app.domain.events.models import POSITIONS_CHANNEL
from app.domain.events.publishers import destinations_of
from app.domain.parts import Parts

log = logging.getLogger("hub.relay")

AT_ONCE = 500
BYTES_AT_ONCE = 8_000_000
LOOK_EVERY_S = 1.0
"""While nothing is notified: for events whose next attempt is due, and those that are to be published again."""
LEAD_EVERY_S = 2.0
"""How soon another worker goes on where the one that published is gone."""
MOST_ATTEMPTS = 5
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
FIRST_BACK_OFF_S = 0.5
LONGEST_BACK_OFF_S = 30.0
KEEP_ALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""So that the server lets go of the lock of a worker whose machine is gone."""
NOBODY = UUID(int=0)
LONGEST_REASON = 500


async def relay_events(parts: Parts) -> None:
    """Until cancelled; to nowhere, where no destination is set."""
    async with asyncio.TaskGroup() as relays:
        for destination in destinations_of(parts.settings):
            relays.create_task(Relay(parts, destination).run(), name=f"relay {destination.name}")
        relays.create_task(asyncio.Event().wait())  # none of the worker's tasks ends by itself


class BackOff:
    """Longer each time, up to a limit, and never the same for two workers."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._next_s = first_s

    def reset(self) -> None:
        self._next_s = self._first_s

    async def wait(self) -> None:
        wait_s, self._next_s = self._next_s, min(self._next_s * 2, self._longest_s)
        await asyncio.sleep(wait_s * uniform(0.5, 1.0))  # noqa: S311 - no secret


class Published(Struct):
    """What became of some events."""

    taken: list[UUID] = []
    failed: list[tuple[WaitingEvent, str]] = []
    """That failed by themselves, with their reasons."""
    unsendable: list[tuple[WaitingEvent, str]] = []
    interruption: str | None = None
    """Why the rest was not sent."""


class Relay:
    def __init__(self, parts: Parts, destination: Destination) -> None:
        self._url = driver_url(parts.database_url)
        self._timeout_s = parts.settings.request_timeout_s
        self._destination = destination
        self._wake = asyncio.Event()
        self._back_off = BackOff(FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S)
        self._suspects: dict[UUID, int] = {}
        """Events that were being sent when a connection broke, or were refused where nothing was taken; how often they
        have failed by themselves since."""
        self._taken = 0
        self._failed_at: dict[UUID, int] = {}
        """How many events had been taken when this one failed last by itself."""
        self._served = NOBODY
        """The tenant whose events were read last."""
        self._away: str | None = ""
        """What was last told of why the destination is away; empty for what a worker before may have noted."""
        self._is_mute = False
        """Away, though it lets itself be connected to."""

    async def run(self) -> None:
        """Until cancelled."""
        is_lost = False
        while True:
            try:
                connection = await self._lead()
                is_lost = False
                await self._publish_as_long_as_it_leads(connection)
                log.warning("the relay to the %s lost its database connection", self._name)
            except (*DATABASE_ERRORS, asyncpg.InternalClientError) as error:
                if not is_lost:
                    log.warning("the relay to the %s waits for the database: %s", self._name, type(error).__name__)
                is_lost = True
            finally:
                await self._destination.close()
            await asyncio.sleep(uniform(0.5, 1.0) * LEAD_EVERY_S)  # noqa: S311 - no secret

    @property
    def _name(self) -> str:
        return self._destination.name

    # --- one at a time ---

    async def _lead(self) -> Any:
        """A connection that holds the lock, as soon as one can."""
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=self._timeout_s,
            server_settings=server_settings("hub relay", self._timeout_s, lock_timeout_s=self._timeout_s) | KEEP_ALIVE,
        )
        try:
            while not await connection.fetchval(_LOCK, f"hub relay {self._name}"):  # noqa: ASYNC110 - other processes'
                await asyncio.sleep(LEAD_EVERY_S)
            await connection.add_listener(POSITIONS_CHANNEL, lambda *_: self._wake.set())
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _publish_as_long_as_it_leads(self, connection: Any) -> None:
        """Stops at once where the connection, and with it the lock, is gone: somebody else may publish from then on."""
        publishing = asyncio.create_task(self._publish_on(connection), name=f"publishing to the {self._name}")
        connection.add_termination_listener(lambda _: publishing.cancel())
        try:
            await asyncio.wait({publishing})
            if not publishing.cancelled():
                publishing.result()
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            connection.terminate()

    # --- the round ---

    async def _publish_on(self, connection: Any) -> None:
        while True:
            self._wake.clear()
            if not await self._is_connected(connection):
                await self._back_off.wait()
                continue
            events = await self._waiting(connection)
            if not events:
                await self._rest()
                continue
            published = await self._publish(events)
            await self._note(connection, published)
            if published.interruption is None or published.taken:
                self._back_off.reset()
            if published.interruption is not None:
                await self._back_off.wait()

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._wake.wait()

    async def _is_connected(self, connection: Any) -> bool:
        try:
            await self._destination.connect()
        except DestinationAway as away:
            await self._note_away(connection, str(away))
            return False
        if self._away is not None and not self._is_mute:
            self._tell_of_return()
            await connection.execute(_BACK, self._name)
        return True

    async def _waiting(self, connection: Any) -> list[WaitingEvent]:
        """In an order in which each subject's own is kept. Which ones is asked across the tenants, and what they say in
        one tenant after the other."""
        rows = await connection.fetch(
            f"SELECT tenant_id, id FROM public.events_waiting_for_{self._name}($1, $2, $3)",  # noqa: S608 - one of two
            self._served,
            AT_ONCE,
            BYTES_AT_ONCE,
        )
        events: list[WaitingEvent] = []
        for tenant_id, found in groupby(rows, itemgetter("tenant_id")):
            self._served = tenant_id
            async with connection.transaction(readonly=True):
                await connection.execute(_ENTER, str(tenant_id))
                read = await connection.fetch(WAITING, tenant_id, [row["id"] for row in found], self._name)
            events += [WaitingEvent(*row) for row in read]
        return events

    # --- publishing ---

    async def _publish(self, events: Sequence[WaitingEvent]) -> Published:
        published = Published()
        blocked: set[tuple[UUID, str]] = set()
        for wave in waves_of(events, self._suspects):
            sendable = [event for event in wave if event.line not in blocked]
            if not sendable:
                continue
            answers = await self._destination.publish(sendable)
            held_up = self._judge(sendable, answers, published)
            if not self._destination.is_connected or len(held_up) == len(sendable):
                reasons = [answer.reason for answer in answers if answer.outcome in ("refused", "unknown")]
                published.interruption = reasons[-1] if reasons else "the connection is over"
                break
            blocked.update(event.line for event in held_up)
        return published

    def _judge(
        self, wave: Sequence[WaitingEvent], answers: Sequence[Confirmation], published: Published
    ) -> list[WaitingEvent]:
        """Notes what became of a wave. Returns what has to be sent again before anything else of its subject."""
        taken = [event for event, answer in zip(wave, answers, strict=True) if answer.outcome == "taken"]
        self._count_taken(taken)
        published.taken += [event.id for event in taken]
        held_up = []
        for event, answer in zip(wave, answers, strict=True):
            if answer.outcome == "unsendable":
                published.unsendable.append((event, answer.reason))
            elif answer.outcome != "taken":
                held_up.append(event)
                is_its_own = answer.outcome == "refused" and bool(taken)
                if is_its_own or (len(wave) == 1 and event.id in self._suspects):
                    published.failed.append((event, answer.reason))
                self._suspects.setdefault(event.id, 0)
        return held_up

    def _count_taken(self, taken: Sequence[WaitingEvent]) -> None:
        self._taken += len(taken)
        for event in taken if self._suspects else ():
            self._acquit(event)

    def _acquit(self, event: WaitingEvent) -> None:
        self._suspects.pop(event.id, None)
        self._failed_at.pop(event.id, None)

    # --- what is noted ---

    async def _note(self, connection: Any, published: Published) -> None:
        """In one transaction. What is lost before it ends is sent again."""
        async with connection.transaction():
            if published.taken:
                await connection.execute(
                    f"SELECT public.note_published_to_{self._name}($1)",
                    published.taken,
                )
            for event, reason in published.unsendable:
                await self._set_aside(connection, event, reason)
            for event, reason in published.failed:
                await self._note_failure(connection, event, reason)
        if published.taken:
            self._tell_of_return()
        elif published.interruption is not None and not published.failed:
            await self._note_away(connection, published.interruption, is_mute=True)

    async def _note_failure(self, connection: Any, event: WaitingEvent, reason: str) -> None:
        """It counts where the destination has taken something since the one before: a destination that takes nothing at
        all is no fault of the event."""
        counts = self._taken > self._failed_at.get(event.id, -1)
        self._failed_at[event.id] = self._taken
        self._suspects[event.id] = self._suspects.get(event.id, 0) + 1
        attempts = event.attempts + counts
        if attempts >= MOST_ATTEMPTS:
            await self._set_aside(connection, event, reason)
            return
        retry_s = min(FIRST_RETRY_S * 4.0 ** (attempts - 1), LONGEST_RETRY_S) * uniform(0.5, 1.0)  # noqa: S311
        await connection.execute(
            f"SELECT public.note_failed_at_{self._name}($1, $2, $3, $4)",
            event.id,
            attempts,
            retry_s,
            reason[:LONGEST_REASON],
        )

    async def _set_aside(self, connection: Any, event: WaitingEvent, reason: str) -> None:
        log.error(
            "event %s (%s of %s) is set aside, the %s does not take it: %s",
            *(event.id, event.type, event.subject, self._name, reason),
        )
        self._acquit(event)
        await connection.execute(f"SELECT public.set_aside_for_{self._name}($1)", event.id)

    async def _note_away(self, connection: Any, reason: str, *, is_mute: bool = False) -> None:
        """Told once for each reason, however often it is tried."""
        if reason != self._away:
            log.warning("events wait, the %s takes none: %s", self._name, reason)
        self._away, self._is_mute = reason, is_mute
        await connection.execute(_AWAY, self._name, reason[:LONGEST_REASON])

    def _tell_of_return(self) -> None:
        if self._away:
            log.info("the %s takes events again", self._name)
        self._away = None


def waves_of(events: Sequence[WaitingEvent], suspects: Mapping[UUID, int]) -> Iterator[list[WaitingEvent]]:
    """What may be sent at the same time: one of each subject, the first ones first.

    A suspect goes by itself, and after all others: what breaks the connection again takes nobody with it. Of several
    those go first that have failed least often, since each may be the last before the connection breaks.
    """
    lines: dict[tuple[UUID, str], list[WaitingEvent]] = {}
    for event in events:
        lines.setdefault(event.line, []).append(event)
    alone = [line[0] for line in lines.values() if line[0].id in suspects]
    waiting = [line for line in lines.values() if line[0].id not in suspects]
    place = 0
    while waiting:
        yield [line[place] for line in waiting]
        place += 1
        waiting = [line for line in waiting if len(line) > place]
    yield from ([event] for event in sorted(alone, key=lambda event: suspects[event.id]))


_ENTER = f"SELECT set_config('{TENANT_SETTING}', $1, true)"
WAITING = """
    SELECT event.id, event.tenant_id, tenants.slug, event.type, event.source, event.subject, event."time",
           event.data::text, coalesce(tried.attempts, 0), event.traceparent
    FROM outbox_events AS event JOIN tenants ON tenants.id = event.tenant_id
      LEFT JOIN event_attempts AS tried ON tried.event_id = event.id AND tried.destination = $3
    WHERE event.tenant_id = $1 AND event.id = ANY ($2) ORDER BY event.position"""
"""The columns of `WaitingEvent`."""
_LOCK = "SELECT pg_try_advisory_lock(hashtext($1))"
_AWAY = "UPDATE relays SET away_since = coalesce(away_since, now()), reason = $2 WHERE destination = $1"
_BACK = "UPDATE relays SET away_since = NULL, reason = NULL WHERE destination = $1"
