"""Webhooks: where events are sent to, how that goes, and sending something again."""

from uuid import UUID

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.limits.prices import costs
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import requires
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.webhooks.repositories import DELIVERIES, WEBHOOK, WEBHOOKS
from app.domain.webhooks.schemas import (
    DeliveryOut,
    SecretRotated,
    TestOfWebhook,
    WebhookCreate,
    WebhookCreated,
    WebhookOut,
    WebhookPatch,
)
from app.domain.webhooks.services import READ, WRITE, DeliveryService, WebhookService
from app.domain.webhooks.testing import WebhookTest
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
READING = requires(READ, on="webhook")
WRITING = requires(WRITE, on="webhook")


class WebhookController(Controller):
    path = "/webhooks"
    tags = ["webhooks"]

    @get("/", opt=requires(READ, on="webhook", listing=WEBHOOKS), summary="List webhooks")
    async def list_webhooks(self, request: HubRequest) -> Answer[Page[WebhookOut]]:
        """Every webhook of the tenant, or of the data domains for which the caller may see them."""
        query, tenant_id = WEBHOOKS.parse(request.query_string), request.principal.tenant_id
        query = query.within(request.principal.extent(READ))
        return answer(
            request.exchange, await request.parts.reads.page(WEBHOOKS, query, WebhookOut, tenant_id=tenant_id)
        )

    @get("/{webhook_id:uuid}", opt=READING, summary="Get a webhook")
    async def get_webhook(self, request: HubRequest, webhook_id: FromPath[UUID]) -> Tagged[WebhookOut]:
        """One webhook, and how it gets on. Its secret is never shown again."""
        return entity(request.exchange, await _webhook(request, webhook_id))

    @post("/", opt=WRITING | outcomes("permission_missing", "too_many_webhooks"), summary="Create a webhook")
    @idempotent
    async def create_webhook(
        self, request: HubRequest, work: Work, data: RequestBody[WebhookCreate]
    ) -> Tagged[WebhookCreated]:
        """Every event from now on is sent there, as CloudEvents 1.0 in JSON and signed as Standard Webhooks has it, or
        those of the named types, or those about a data domain and what is in it. `secret` is shown this once.

        What is not answered with 2xx within 15 seconds is sent again for a day, under the same `webhook-id`; a 410
        switches the webhook off, as days without a success do. For somebody who may see the events that it is sent,
        there or for the whole tenant.
        """
        webhook = await WebhookService(work).create(data)
        return created(request.exchange, webhook, f"/api/v1/webhooks/{webhook.id}")

    @patch("/{webhook_id:uuid}", opt=WRITING | outcomes("permission_missing"), summary="Change a webhook")
    async def update_webhook(
        self, request: HubRequest, work: Work, webhook_id: FromPath[UUID], data: RequestBody[WebhookPatch]
    ) -> Tagged[WebhookOut]:
        """JSON Merge Patch (RFC 7396). Switched on again, it is sent what happens from then on. Of other types or of
        another domain, what still waits is not sent; in another domain earlier deliveries are no longer shown."""
        return entity(request.exchange, await WebhookService(work).update(webhook_id, data), changed=True)

    @delete("/{webhook_id:uuid}", opt=WRITING, summary="Delete a webhook")
    async def delete_webhook(self, request: HubRequest, work: Work, webhook_id: FromPath[UUID]) -> Answer[None]:
        """Nothing more is sent there."""
        await WebhookService(work).delete(webhook_id)
        return no_content()

    @post(
        "/{webhook_id:uuid}/test",
        opt=WRITING | outcomes("secret_unreadable") | costs("connector run"),
        status_code=200,
        summary="Test a webhook",
    )
    async def test_webhook(self, request: HubRequest, webhook_id: FromPath[UUID]) -> Answer[TestOfWebhook]:
        """An event `webhook.test` is sent at once, also where the webhook is switched off. Whatever comes of it is a
        200 that says so; where it was taken, what waits for the webhook follows."""
        return answer(request.exchange, await WebhookTest(request).run(webhook_id))

    @post("/{webhook_id:uuid}/rotate-secret", opt=WRITING, status_code=200, summary="Rotate a webhook's secret")
    @idempotent
    async def rotate_secret(self, request: HubRequest, work: Work, webhook_id: FromPath[UUID]) -> Answer[SecretRotated]:
        """A new one, shown this once. For a day the one before signs as well; those before that sign no more."""
        return answer(request.exchange, await WebhookService(work).rotate_secret(webhook_id))

    @get(
        "/{webhook_id:uuid}/deliveries",
        opt=requires(READ, on="webhook", listing=DELIVERIES),
        summary="List a webhook's deliveries",
    )
    async def list_deliveries(self, request: HubRequest, webhook_id: FromPath[UUID]) -> Answer[Page[DeliveryOut]]:
        """What was sent there, or will be, newest first: how often it was tried, and what came of the last time."""
        query = DELIVERIES.parse(request.query_string)
        await _webhook(request, webhook_id)
        place = {"tenant_id": request.principal.tenant_id, "webhook_id": webhook_id}
        return answer(request.exchange, await request.parts.reads.page(DELIVERIES, query, DeliveryOut, **place))


class DeliveryController(Controller):
    path = "/deliveries"
    tags = ["webhooks"]

    @post(
        "/{delivery_id:uuid}/retry",
        opt=requires(WRITE, on="delivery") | outcomes("event_gone", "webhook_inactive", "permission_missing"),
        status_code=200,
        summary="Retry a delivery",
    )
    async def retry_delivery(self, request: HubRequest, work: Work, delivery_id: FromPath[UUID]) -> Answer[DeliveryOut]:
        """It is sent again at once, whatever became of it, under the same `webhook-id`, and tried for another day. For
        somebody who may see the event."""
        return answer(request.exchange, await DeliveryService(work).retry(delivery_id))


async def _webhook(request: HubRequest, webhook_id: UUID) -> WebhookOut:
    """Raises NotFound."""
    return await request.parts.reads.one(WEBHOOK, WebhookOut, id=webhook_id, tenant_id=request.principal.tenant_id)
