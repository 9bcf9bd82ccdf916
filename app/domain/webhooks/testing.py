"""The test of a webhook: one event of its own, sent at once, while somebody waits for what comes of it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from msgspec import Struct
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.core.errors import Conflict, TooManyRequests
from app.core.event_names import type_of
from app.core.outbound import Destination, Reply
from app.domain.audit.schemas import Outcome
from app.domain.events.envelope import CloudEvent
from app.domain.events.services import SOURCE
from app.domain.requests import HubRequest
from app.domain.webhooks.models import WebhookDelivery
from app.domain.webhooks.repositories import DeliveryRepository, WebhookRepository
from app.domain.webhooks.schemas import TestOfWebhook
from app.domain.webhooks.secrets import LIVE, opened
from app.domain.webhooks.services import require_right
from app.domain.webhooks.signing import body_of, headers_of
from app.domain.work import UnitOfWork, work_of_its_own

TYPE: Final = "webhook.test"
AT_ONCE: Final = 4
"""Of one tenant, in a process."""

_running: Counter[UUID] = Counter()
_TAKEN = text(
    """UPDATE webhooks SET failures = 0, failing_since = NULL, paused_until = NULL, last_success_at = :now,
         due_at = CASE WHEN is_active THEN now() END
       WHERE id = :id AND tenant_id = :tenant_id AND url = :url"""
)
"""Whoever has mended their endpoint need not wait for the next probe."""


class _Tested(Struct):
    url: str
    secrets: list[str]


class WebhookTest:
    def __init__(self, request: HubRequest) -> None:
        self._request = request

    async def run(self, webhook_id: UUID) -> TestOfWebhook:
        """No transaction is open while it is sent. Raises Conflict where nothing can be signed, TooManyRequests where
        the tenant tests too many at once."""
        async with work_of_its_own(self._request) as work:
            tested = await _tested(work, webhook_id)
            now = work.now
        message = CloudEvent(
            id=uuid7(),
            type=type_of(TYPE),
            source=SOURCE,
            subject=f"webhooks/{webhook_id}",
            time=now,
            data={"id": webhook_id},
        )
        body = body_of(message)
        parts, tenant_id = self._request.parts, self._request.principal.tenant_id
        with _place_for(tenant_id):
            destination = Destination(tested.url, parts.egress, lookup=parts.look_ups.of(tenant_id))
            try:
                reply = await destination.post(headers_of(message, body, tested.secrets, now), body)
            finally:
                await destination.close()
        async with work_of_its_own(self._request) as work:
            return await _record(work, webhook_id, tested.url, message, reply)


@contextmanager
def _place_for(tenant_id: UUID) -> Iterator[None]:
    if _running[tenant_id] >= AT_ONCE:
        raise TooManyRequests("Too many webhooks are tested at once. Wait for one test to end.")
    _running[tenant_id] += 1
    try:
        yield
    finally:
        _running[tenant_id] -= 1
        if not _running[tenant_id]:
            del _running[tenant_id]


async def _tested(work: UnitOfWork, webhook_id: UUID) -> _Tested:
    webhook = await WebhookRepository(work.session, tenant_id=work.tenant_id).get_one(id=webhook_id)
    require_right(work, webhook)
    asked = {"webhook_id": webhook_id, "tenant_id": work.tenant_id, "now": work.now}
    secrets = opened(work.parts.key_ring, await work.session.execute(LIVE, asked))
    if not secrets:
        raise Conflict(
            "No secret of this webhook can be opened: the key that they were sealed with is gone. Make a new one.",
            code="secret_unreadable",
        )
    return _Tested(webhook.url, secrets)


async def _record(work: UnitOfWork, webhook_id: UUID, url: str, message: CloudEvent, reply: Reply) -> TestOfWebhook:
    delivery = WebhookDelivery(
        id=uuid7(),
        tenant_id=work.tenant_id,
        webhook_id=webhook_id,
        event_id=message.id,
        event_type=TYPE,
        subject=message.subject,
        position=None,
        status="failed" if reply.failure else "delivered",
        attempts=1,
        created_at=message.time,
        expires_at=message.time,
        next_attempt_at=None,
        last_attempt_at=message.time,
        response_status=reply.status,
        duration_ms=reply.duration_ms,
        failure=reply.failure,
    )
    await DeliveryRepository(work.session, tenant_id=work.tenant_id).add(delivery)
    if reply.failure is None:
        await work.session.execute(
            _TAKEN, {"id": webhook_id, "tenant_id": work.tenant_id, "url": url, "now": message.time}
        )
    result = TestOfWebhook(
        message.id,
        delivery.id,
        "failed" if reply.failure else "delivered",
        reply.status,
        reply.duration_ms,
        reply.failure,
    )
    outcome: Outcome = "failure" if reply.failure else "success"
    work.audit("webhook.test", "webhook", webhook_id, outcome=outcome, after=result)
    return result
