"""A webhook that is switched off by the hub itself, aloud: on record, as an event, in the log and counted."""

import logging
from typing import Literal
from uuid import UUID

from app.domain.parts import Parts
from app.domain.webhooks import metrics
from app.domain.webhooks.repositories import WebhookRepository
from app.domain.webhooks.services import event_of, give_up_waiting, noted, shown_webhook
from app.domain.work import unit_of_work_of

log = logging.getLogger("hub.webhooks")

Because = Literal["gone", "failing"]


async def disable(parts: Parts, tenant_id: UUID, webhook_id: UUID, lease_id: UUID, because: Because) -> None:
    """Unless it was changed since it was claimed: what is known is of an endpoint of before."""
    async with unit_of_work_of(parts, tenant_id=tenant_id) as work:
        webhooks = WebhookRepository(work.session, tenant_id=tenant_id)
        webhook = await webhooks.get_one_or_none(id=webhook_id, with_for_update=True)
        if webhook is None or webhook.lease_id != lease_id:
            return
        before = shown_webhook(webhook)
        work.apply(webhook, {"is_active": False, "disabled_because": because, "disabled_at": work.now})
        webhook.due_at = webhook.lease_id = webhook.lease_until = None
        await webhooks.update(webhook)
        await give_up_waiting(work, webhook_id)
        work.audit("webhook.disable", "webhook", webhook_id, before=noted(before), after=noted(shown_webhook(webhook)))
        work.announce("webhook.disabled", f"webhooks/{webhook_id}", event_of(webhook))
        work.once_committed(lambda: _tell(tenant_id, webhook_id, because))


def _tell(tenant_id: UUID, webhook_id: UUID, because: Because) -> None:
    metrics.disabled.labels(because).inc()
    log.warning("webhook %s of tenant %s is disabled: %s", webhook_id, tenant_id, because)
