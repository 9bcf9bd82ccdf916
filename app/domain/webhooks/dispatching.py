"""From events to deliveries: each webhook has looked at all events up to a position, and has a delivery of each that
concerns it.

Deliveries and position are written in one transaction, while the webhook's row is held, by whichever worker comes first
(`FOR UPDATE SKIP LOCKED`). For an endpoint that takes nothing only so many wait; the rest waits in the outbox.
"""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.across_tenants import by_tenant, locked_rows
from app.core.database import enter_tenant
from app.core.event_names import type_of
from app.core.rows import insertion, values_of_row
from app.core.turns import keep_doing
from app.domain.parts import Parts
from app.domain.webhooks.event_types import short_name
from app.domain.webhooks.models import WebhookDelivery
from app.domain.webhooks.retries import KEPT_TRYING

log = logging.getLogger("hub.webhooks")

EVERY_S: Final = 0.5
"""Between two looks where no webhook is behind."""
WEBHOOKS_AT_ONCE: Final = 20
EVENTS_AT_ONCE: Final = 500
MOST_WAITING: Final = 1000
"""Deliveries of one webhook."""
LOOK_AGAIN_S: Final = 30
"""Where so many wait."""

_BEHIND = text(
    """SELECT webhook.position, event_types, data_domain_id, ends.last_position,
         (SELECT count(*) FROM (SELECT FROM webhook_deliveries AS delivery
            WHERE delivery.webhook_id = webhook.id AND status = 'pending' LIMIT :most) AS waiting) AS waiting
       FROM webhooks AS webhook JOIN outbox_ends AS ends ON ends.tenant_id = webhook.tenant_id
       WHERE webhook.id = :id AND webhook.tenant_id = :tenant_id"""
)
# What is about a domain: the domain itself, the sources that stand in it now, or stood there when they were deleted,
# and the jobs about these. Domains that are gone count below those that they were in.
_EVENTS = text(
    """WITH next AS MATERIALIZED (
         SELECT id, type, subject, position, split_part(subject, '/', 1) AS kind FROM outbox_events
         WHERE tenant_id = :tenant_id AND position > :position ORDER BY position LIMIT :most
       ), chosen AS (
         SELECT *, CASE WHEN kind IN ('data-sources', 'data-domains', 'jobs')
                        THEN split_part(subject, '/', 2)::uuid END AS subject_id
         FROM next WHERE cardinality(:event_types) = 0 OR type = ANY (:event_types)
       ), about AS (
         SELECT *, CASE kind WHEN 'data-sources' THEN subject_id WHEN 'jobs' THEN (
           SELECT job.subject_id FROM jobs AS job
           WHERE job.id = chosen.subject_id AND job.tenant_id = :tenant_id) END AS source_id
         FROM chosen
       ), placed AS (
         SELECT about.*, CASE WHEN kind = 'data-domains' THEN about.subject_id
                              WHEN source.id IS NOT NULL THEN source.data_domain_id
                              ELSE (SELECT (data ->> 'data_domain_id')::uuid FROM rights_history
                                    WHERE row_id = about.source_id AND kind = 'data_source'
                                      AND rights_history.tenant_id = :tenant_id
                                    ORDER BY valid_to DESC LIMIT 1) END AS domain_id
         FROM about LEFT JOIN data_sources AS source
           ON source.id = about.source_id AND source.tenant_id = :tenant_id
       )
       SELECT span.last, concerned.id, type, subject, position
       FROM (SELECT max(position) AS last FROM next) AS span LEFT JOIN (
         SELECT id, type, subject, position FROM placed
         WHERE CAST(:domain_id AS uuid) IS NULL OR EXISTS (
           SELECT FROM data_domains AS domain WHERE domain.id = placed.domain_id AND domain.tenant_id = :tenant_id
             AND domain.lineage @> ARRAY[CAST(:domain_id AS uuid)])
         OR (NOT EXISTS (SELECT FROM data_domains WHERE data_domains.id = placed.domain_id)
             AND (SELECT data -> 'lineage' FROM rights_history
                  WHERE row_id = placed.domain_id AND kind = 'data_domain' AND rights_history.tenant_id = :tenant_id
                  ORDER BY valid_to DESC LIMIT 1) ? CAST(:domain_id AS text))) AS concerned ON true
       ORDER BY position"""
).bindparams(bindparam("event_types", type_=ARRAY(Text)), bindparam("domain_id", type_=Uuid))
"""One row at least, which says how far was looked; of no event where none concerns it."""
_INSERT = text(insertion(WebhookDelivery, ":rows")).bindparams(bindparam("rows", type_=JSONB))
_ADVANCE = text(
    """UPDATE webhooks SET position = :position, dispatch_at = clock_timestamp(),
         due_at = CASE WHEN :is_due THEN least(due_at, greatest(now(), paused_until)) ELSE due_at END
       WHERE id = :id"""
)
_LOOK_LATER = text("UPDATE webhooks SET dispatch_at = now() + make_interval(secs => :seconds) WHERE id = :id")


async def make_deliveries(parts: Parts, most: int = WEBHOOKS_AT_ONCE) -> int:
    """Of the next events of some webhooks that are behind. How many webhooks that were."""
    async with parts.sessions.begin(None) as session:
        behind = await locked_rows(session, "webhooks_behind(:most)", most=most)
        for tenant_id, webhook_ids in by_tenant(behind).items():
            await enter_tenant(session, tenant_id)
            for webhook_id in webhook_ids:
                await _make_deliveries_of(session, tenant_id, webhook_id)
    return len(behind)


async def _make_deliveries_of(session: AsyncSession, tenant_id: UUID, webhook_id: UUID) -> None:
    place = {"id": webhook_id, "tenant_id": tenant_id}
    webhook = (await session.execute(_BEHIND, place | {"most": MOST_WAITING})).one()
    room = min(EVENTS_AT_ONCE, MOST_WAITING - webhook.waiting)
    if room <= 0:
        await session.execute(_LOOK_LATER, {"id": webhook_id, "seconds": LOOK_AGAIN_S})
        return
    span = {"tenant_id": tenant_id, "position": webhook.position, "most": room}
    asked = {"event_types": [type_of(name) for name in webhook.event_types], "domain_id": webhook.data_domain_id}
    found = (await session.execute(_EVENTS, span | asked)).all()
    last = found[0].last  # none where upkeep has removed all of them
    events = [event for event in found if event.id is not None]
    if events:
        await session.execute(_INSERT, {"rows": list(_rows(tenant_id, webhook_id, events))})
    position = webhook.last_position if last is None else last
    await session.execute(_ADVANCE, {"id": webhook_id, "position": position, "is_due": bool(events)})


def _rows(tenant_id: UUID, webhook_id: UUID, events: Iterable[Any]) -> Iterable[dict[str, Any]]:
    now = datetime.now(UTC)
    for event in events:
        yield values_of_row(
            WebhookDelivery(
                id=uuid7(),
                tenant_id=tenant_id,
                webhook_id=webhook_id,
                event_id=event.id,
                event_type=short_name(event.type),
                subject=event.subject,
                position=event.position,
                status="pending",
                created_at=now,
                expires_at=now + KEPT_TRYING,
                next_attempt_at=now,
                last_attempt_at=None,
                response_status=None,
                duration_ms=None,
                failure=None,
            )
        )


async def dispatch_forever(parts: Parts) -> None:
    """Until cancelled."""
    await keep_doing(
        lambda: make_deliveries(parts),
        full=1,
        every_s=EVERY_S,
        log=log,
        put_off="no deliveries are made for now",
    )
