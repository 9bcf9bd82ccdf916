"""Endpoints as workers take them: claimed with all that sending needs, held by a lease, noted, given back.

A due endpoint is claimed by whichever worker comes first (`FOR UPDATE SKIP LOCKED`), and one worker at a time sends to
it. Where that one is killed its lease runs out, and what it had not noted is sent again under the same ids.
"""

from collections import Counter
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from msgspec import Struct
from sqlalchemy import ARRAY, Uuid, bindparam, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.across_tenants import by_tenant, locked_rows
from app.core.database import enter_tenant
from app.core.lanes import in_turn
from app.core.outbound import Reply
from app.domain.events.envelope import CloudEvent
from app.domain.parts import Parts
from app.domain.webhooks.models import WebhookSecret
from app.domain.webhooks.retries import QUIET
from app.domain.webhooks.secrets import opened

LEASE_S: Final = 60
"""Renewed before each message, which takes a quarter of it at most."""
CANDIDATES: Final = 8
"""Due endpoints that are looked at for each place: those of tenants that have theirs are passed over."""

_IDS = bindparam("ids", type_=ARRAY(Uuid))
_CLAIM = text(
    f"""UPDATE webhooks SET lease_id = :lease_id, lease_until = now() + interval '{LEASE_S} seconds'
        WHERE id = ANY (:ids) RETURNING id, tenant_id, url, failures, failing_since, last_failure_at"""  # noqa: S608 - a number of ours
).bindparams(_IDS)
_SECRETS = (
    select(WebhookSecret.webhook_id, WebhookSecret.id, WebhookSecret.tenant_id, WebhookSecret.sealed)
    .where(
        WebhookSecret.webhook_id == text("ANY (:ids)").bindparams(_IDS),
        or_(WebhookSecret.expires_at.is_(None), WebhookSecret.expires_at > text("now()")),
    )
    .order_by(WebhookSecret.webhook_id, WebhookSecret.created_at.desc(), WebhookSecret.id.desc())
)
_HOLD = text(
    f"""UPDATE webhooks SET lease_until = now() + interval '{LEASE_S} seconds'
        WHERE id = :id AND lease_id = :lease_id AND is_active RETURNING true"""  # noqa: S608
)
_EXPIRE = text(
    """UPDATE webhook_deliveries SET status = 'failed', failure = 'expired', next_attempt_at = NULL
       WHERE webhook_id = :id AND status = 'pending' AND expires_at <= now()"""
)
_DUE = text(
    """SELECT delivery.id, delivery.event_id, delivery.attempts, delivery.expires_at, event.type, event.source,
         event.subject, event."time", event.data
       FROM webhook_deliveries AS delivery LEFT JOIN outbox_events AS event
         ON event.id = delivery.event_id AND event.tenant_id = delivery.tenant_id
       WHERE delivery.webhook_id = :id AND delivery.status = 'pending' AND delivery.next_attempt_at <= now()
       ORDER BY delivery.position LIMIT :most"""
)
_NOTE_DELIVERED = text(
    """UPDATE webhook_deliveries SET status = 'delivered', attempts = :attempts, next_attempt_at = NULL,
         last_attempt_at = :at, response_status = :response_status, duration_ms = :duration_ms, failure = NULL
       WHERE id = :id"""
)
_NOTE_FAILED = text(
    """UPDATE webhook_deliveries SET status = CASE WHEN CAST(:next AS timestamptz) IS NULL THEN 'failed'
                                                   ELSE 'pending' END,
         attempts = :attempts, next_attempt_at = :next, last_attempt_at = :at, response_status = :response_status,
         duration_ms = :duration_ms, failure = :failure
       WHERE id = :id AND status = 'pending' AND attempts = :attempts - 1"""
)
_LOCK = text("SELECT true FROM webhooks WHERE id = :id AND lease_id = :lease_id FOR UPDATE")
_RELEASE = text(
    """UPDATE webhooks SET lease_id = NULL, lease_until = NULL, failures = :failures, failing_since = :failing_since,
         last_failure_at = :last_failure_at,
         paused_until = :paused_until, last_success_at = coalesce(:succeeded_at, last_success_at),
         dispatch_at = least(dispatch_at, now()),
         due_at = (SELECT greatest(min(next_attempt_at), CAST(:paused_until AS timestamptz))
                   FROM webhook_deliveries WHERE webhook_id = webhooks.id AND status = 'pending')
       WHERE id = :id"""
)
"""By a statement of its own after the lock: what a dispatcher made in between is seen."""
_PUT_BACK = text("UPDATE webhooks SET lease_id = NULL, lease_until = NULL WHERE id = :id AND lease_id = :lease_id")


class Endpoint(Struct):
    """A claimed webhook."""

    id: UUID
    tenant_id: UUID
    url: str
    failures: int
    failing_since: datetime | None
    last_failure_at: datetime | None
    lease_id: UUID
    secrets: list[str]
    """The newest first; empty where no key of the ring opens any."""


class DueDelivery(Struct):
    id: UUID
    event_id: UUID
    subject: str
    attempts: int
    """Until now."""
    expires_at: datetime
    message: CloudEvent | None
    """None where the event is not kept any more."""


class Course(Struct):
    """How an endpoint has got on. Where nothing was tried for a day nobody knows how it was meanwhile: days of failure
    are counted anew."""

    failures: int
    failing_since: datetime | None
    last_failure_at: datetime | None
    succeeded_at: datetime | None = None

    def note(self, reply: Reply, now: datetime) -> None:
        if reply.failure is None:
            self.failures, self.failing_since, self.succeeded_at = 0, None, now
        else:
            is_going_on = self.last_failure_at is not None and now - self.last_failure_at < QUIET
            self.failing_since = self.failing_since if self.failing_since and is_going_on else now
            self.failures, self.last_failure_at = self.failures + 1, now


async def claim_due(parts: Parts, *, is_well: bool, places: int, running: Counter[UUID], cap: int) -> list[Endpoint]:
    """At most so many, and of no tenant more than `cap` with those that `running` has already."""
    full = [tenant_id for tenant_id, count in running.items() if count >= cap]
    asked = {"is_well": is_well, "full": full, "most": places * CANDIDATES}
    claimed: list[Endpoint] = []
    async with parts.sessions.begin(None) as session:
        due = await locked_rows(session, "due_webhooks(:is_well, CAST(:full AS uuid[]), :most)", **asked)
        for tenant_id, webhook_ids in by_tenant(in_turn(due, places, running, cap, attrgetter("tenant_id"))).items():
            await enter_tenant(session, tenant_id)
            claimed += await _claim(parts, session, webhook_ids)
    return claimed


async def _claim(parts: Parts, session: AsyncSession, webhook_ids: list[UUID]) -> list[Endpoint]:
    """Of the tenant in which the session is."""
    lease_id = uuid7()
    rows = (await session.execute(_CLAIM, {"ids": webhook_ids, "lease_id": lease_id})).all()
    found = (await session.execute(_SECRETS, {"ids": webhook_ids})).all()
    secrets = {
        webhook_id: opened(parts.key_ring, each) for webhook_id, each in groupby(found, lambda row: row.webhook_id)
    }
    return [Endpoint(**row._mapping, lease_id=lease_id, secrets=secrets.get(row.id, [])) for row in rows]


class Held:
    """What a worker reads and writes of an endpoint that it has claimed."""

    def __init__(self, parts: Parts, endpoint: Endpoint) -> None:
        self._parts = parts
        self._endpoint = endpoint
        self._it = {"id": endpoint.id, "lease_id": endpoint.lease_id}

    async def renew(self) -> bool:
        """False where somebody else has it by now, or it was changed or switched off."""
        async with self._parts.sessions.begin(self._endpoint.tenant_id) as session:
            return bool(await session.scalar(_HOLD, self._it))

    async def due(self, most: int) -> list[DueDelivery]:
        """The oldest, once those are given up whose time is over."""
        async with self._parts.sessions.begin(self._endpoint.tenant_id) as session:
            await session.execute(_EXPIRE, {"id": self._endpoint.id})
            rows = (await session.execute(_DUE, {"id": self._endpoint.id, "most": most})).all()
        return [_due(row) for row in rows]

    async def note(self, delivery: DueDelivery, reply: Reply, failure: str | None, next_at: datetime | None) -> None:
        """What came of an attempt; with a failure when the next one is."""
        said: dict[str, Any] = {
            "id": delivery.id,
            "at": datetime.now(UTC),
            "attempts": delivery.attempts + 1,
            "response_status": reply.status,
            "duration_ms": reply.duration_ms,
        }
        async with self._parts.sessions.begin(self._endpoint.tenant_id) as session:
            if failure is None:
                await session.execute(_NOTE_DELIVERED, said)
            else:
                await session.execute(_NOTE_FAILED, said | {"failure": failure, "next": next_at})

    async def release(self, course: Course, paused_until: datetime | None) -> None:
        said = {
            "id": self._endpoint.id,
            "failures": course.failures,
            "failing_since": course.failing_since,
            "last_failure_at": course.last_failure_at,
            "succeeded_at": course.succeeded_at,
            "paused_until": paused_until,
        }
        async with self._parts.sessions.begin(self._endpoint.tenant_id) as session:
            if await session.scalar(_LOCK, self._it):
                await session.execute(_RELEASE, said)

    async def put_back(self) -> None:
        """As it was, for whoever comes next."""
        async with self._parts.sessions.begin(self._endpoint.tenant_id) as session:
            await session.execute(_PUT_BACK, self._it)


def _due(row: Any) -> DueDelivery:
    message = None
    if row.type is not None:
        message = CloudEvent(
            id=row.event_id, type=row.type, source=row.source, subject=row.subject, time=row.time, data=row.data
        )
    return DueDelivery(row.id, row.event_id, row.subject or "", row.attempts, row.expires_at, message)
