"""The worker's side of webhooks: due endpoints are claimed, sent what waits for them, and given back.

Endpoints that are well have places that the others cannot take, and no tenant has more than its share of either: a
thousand that are down hold nobody up. Messages about one subject go out one after the other; where one fails, those
behind it do not wait for it.
"""

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from app.core.database import DATABASE_ERRORS
from app.core.lanes import Lane, Lanes
from app.core.log_context import LogContext, bound_to
from app.core.look_ups import LookUps
from app.core.outbound import Destination, Limits, Reply
from app.domain.parts import Parts
from app.domain.tenants.suspension import stop_suspended
from app.domain.webhooks import metrics
from app.domain.webhooks.disabling import disable
from app.domain.webhooks.endpoints import Course, DueDelivery, Endpoint, Held, claim_due
from app.domain.webhooks.retries import CIRCUIT_AT, DISABLED_AFTER, next_attempt, pause_of_circuit
from app.domain.webhooks.signing import body_of, headers_of

log = logging.getLogger("hub.webhooks")

POLL_S: Final = 1.0
"""Between two looks where no endpoint is due."""
PLACES: Final = 128
"""Endpoints to which a worker sends at the same time: each is a few sockets, not a process."""
MESSAGES_AT_ONCE: Final = 20
ROUNDS: Final = 25
"""Of so many messages; then it is the turn of others."""
LAST_WORDS_S: Final = 2.0


class WebhookSender:
    def __init__(
        self,
        parts: Parts,
        *,
        places: int = PLACES,
        limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
        authorities: ssl.SSLContext | None = None,
    ) -> None:
        self._parts = parts
        self._lanes: Lanes[Endpoint] = Lanes(places)
        """Endpoints that took the last message are well; all others are doubtful, new ones included."""
        self._limits = limits
        self._authorities = authorities
        self._look_ups: dict[Lane, LookUps] = {
            "well": LookUps(places, share=self._cap("well")),
            "doubtful": LookUps(max(1, places // 2), share=self._cap("doubtful")),
        }

    async def run_forever(self) -> None:
        """Until cancelled. A database that is away is tried again at the next turn."""
        suspending = asyncio.create_task(stop_suspended(self._parts, self._lanes.tenant_by_task, asyncio.Task.cancel))
        try:
            while True:
                are_more_due = await self._fill_places()
                await self._lanes.wait(POLL_S, for_a_place=are_more_due)
        finally:
            suspending.cancel()
            await asyncio.gather(suspending, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        await self._lanes.cancel()
        for look_ups in self._look_ups.values():
            look_ups.close()

    async def send_what_is_due(self) -> None:
        """Once: whatever is due at this moment."""
        await self._fill_places()
        while self._lanes.running:
            await asyncio.wait(self._lanes.running)
            await self._fill_places()

    # Places -----------------------------------------------------------------------------------------------------------

    async def _fill_places(self) -> bool:
        """Whether more may be due than there are places for."""
        try:
            return any([await self._fill(lane) for lane in ("well", "doubtful")])
        except DATABASE_ERRORS as error:
            log.warning("webhooks are put off: %s", type(error).__name__)
            return False

    async def _fill(self, lane: Lane) -> bool:
        free = self._lanes.free(lane)
        if free <= 0:
            return True
        running, cap = self._running_by_tenant(lane), self._cap(lane)
        due = await claim_due(self._parts, is_well=lane == "well", places=free, running=running, cap=cap)
        for endpoint in due:
            task = asyncio.create_task(self._serve(endpoint, lane), name=f"webhook {endpoint.id}")
            self._lanes.add(task, lane, endpoint)
        return len(due) == free or cap in self._running_by_tenant(lane).values()

    def _cap(self, lane: Lane) -> int:
        """Of one tenant: half of the places for endpoints that are well, an eighth of the others'. As many look-ups,
        which go on when a place is free again."""
        return max(1, self._lanes.places // (2 if lane == "well" else 16))

    def _running_by_tenant(self, lane: Lane) -> Counter[UUID]:
        return Counter(endpoint.tenant_id for endpoint in self._lanes.works(lane))

    # One endpoint -----------------------------------------------------------------------------------------------------

    async def _serve(self, endpoint: Endpoint, lane: Lane) -> None:
        held = Held(self._parts, endpoint)
        destination = Destination(
            endpoint.url,
            self._parts.egress,
            limits=self._limits,
            authorities=self._authorities,
            lookup=self._look_ups[lane].of(endpoint.tenant_id),
        )
        with bound_to(LogContext(tenant_id=endpoint.tenant_id)):
            try:
                await Turn(self._parts, endpoint, held, destination, side_by_side=self._limits.connections).carry_out()
            except asyncio.CancelledError:
                await self._put_back(held)
                raise
            except DATABASE_ERRORS as error:
                log.warning("webhook %s waits until its lease runs out: %s", endpoint.id, type(error).__name__)
            except Exception:
                log.exception("webhook %s could not be served", endpoint.id)
            finally:
                await destination.close()

    async def _put_back(self, held: Held) -> None:
        with contextlib.suppress(TimeoutError, *DATABASE_ERRORS):
            async with asyncio.timeout(LAST_WORDS_S):
                await held.put_back()


class Turn:
    """One claimed endpoint, from its first due message to the last, or to where it stops taking them."""

    def __init__(
        self, parts: Parts, endpoint: Endpoint, held: Held, destination: Destination, *, side_by_side: int
    ) -> None:
        self._parts = parts
        self._endpoint = endpoint
        self._held = held
        self._destination = destination
        self._places = asyncio.Semaphore(side_by_side)
        self._course = Course(endpoint.failures, endpoint.failing_since, endpoint.last_failure_at)
        self._is_held = True
        self._is_gone = False

    async def carry_out(self) -> None:
        for _ in range(ROUNDS):
            is_probe = self._course.failures >= CIRCUIT_AT
            due = await self._held.due(1 if is_probe else MESSAGES_AT_ONCE)
            if is_probe and due:
                await self._send(due[0])
            else:
                await _all_of(map(self._send_in_order, _by_subject(due)))
            if not due or not self._goes_on or self._course.failures:  # it has lost its place among those that are well
                break
        await self._conclude()

    @property
    def _goes_on(self) -> bool:
        return self._is_held and not self._is_gone and self._course.failures < CIRCUIT_AT

    async def _send_in_order(self, deliveries: Sequence[DueDelivery]) -> None:
        """Of one subject."""
        for delivery in deliveries:
            async with self._places:
                if not self._goes_on:
                    return
                await self._send(delivery)

    async def _send(self, delivery: DueDelivery) -> None:
        if delivery.message is None:
            await self._held.note(delivery, Reply(None, None, 0.0), "event_gone", None)
            return
        if not await self._held.renew():
            self._is_held = False
            return
        now = datetime.now(UTC)
        body = body_of(delivery.message)
        if self._endpoint.secrets:
            headers = headers_of(delivery.message, body, self._endpoint.secrets, now)
            reply = await self._destination.post(headers, body)
            failure: str | None = reply.failure
        else:
            reply, failure = Reply(None, "http_error", 0.0), "secret_unreadable"
        await self._note(delivery, reply, failure)

    async def _note(self, delivery: DueDelivery, reply: Reply, failure: str | None) -> None:
        now = datetime.now(UTC)
        self._course.note(reply, now)
        self._is_gone = self._is_gone or reply.failure == "gone"
        is_over = failure in (None, "gone")
        next_at = None if is_over else next_attempt(delivery.attempts + 1, now, delivery.expires_at)
        await self._held.note(delivery, reply, failure, next_at)
        outcome = "delivered" if failure is None else "given_up" if next_at is None else "retry"
        metrics.deliveries.labels(outcome, failure or "none").inc()

    async def _conclude(self) -> None:
        now, endpoint = datetime.now(UTC), self._endpoint
        since = self._course.failing_since
        if self._is_gone:
            await disable(self._parts, endpoint.tenant_id, endpoint.id, endpoint.lease_id, "gone")
        elif since is not None and now - since >= DISABLED_AFTER:
            await disable(self._parts, endpoint.tenant_id, endpoint.id, endpoint.lease_id, "failing")
        else:
            await self._held.release(self._course, pause_of_circuit(self._course.failures, now))


async def _all_of(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """To the end of each, also where one fails: none goes on once nobody waits for it. Raises what the first one
    raised."""
    for ended in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended


def _by_subject(deliveries: Iterable[DueDelivery]) -> list[list[DueDelivery]]:
    """In their order."""
    found: dict[str, list[DueDelivery]] = {}
    for delivery in deliveries:
        found.setdefault(delivery.subject, []).append(delivery)
    return list(found.values())
