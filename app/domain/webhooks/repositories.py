"""Which rows make webhooks and deliveries on the wire, and which lists of them there are."""

from sqlalchemy import bindparam

from app.core.database import Repository
from app.core.extent import Scoped
from app.core.lists.filters import choice_filter
from app.core.lists.listing import Listing, Sort
from app.domain.webhooks.models import Webhook, WebhookDelivery, WebhookSecret
from app.domain.webhooks.schemas import STATUSES, DeliveryOut, WebhookOut


class WebhookRepository(Repository[Webhook]):
    model_type = Webhook


class WebhookSecretRepository(Repository[WebhookSecret]):
    model_type = WebhookSecret


class DeliveryRepository(Repository[WebhookDelivery]):
    model_type = WebhookDelivery


WEBHOOK = WebhookRepository.selection_by_id(WebhookOut)
WEBHOOKS = Listing(
    WebhookRepository.selection(WebhookOut),
    name="webhooks",
    id_column=Webhook.id,
    sorts={"created_at": Sort(Webhook.created_at, "webhooks_tenant_id_created_at_id_idx")},
    default_sort="created_at",
    scoped=Scoped(domain_id=Webhook.data_domain_id),
)
DELIVERIES = Listing(
    DeliveryRepository.selection(DeliveryOut).where(
        WebhookDelivery.webhook_id == bindparam("webhook_id", type_=WebhookDelivery.webhook_id.type)
    ),
    name="deliveries",
    id_column=WebhookDelivery.id,
    sorts={"created_at": Sort(WebhookDelivery.created_at, "webhook_deliveries_webhook_id_created_at_idx")},
    default_sort="-created_at",
    filters={
        "status": choice_filter(WebhookDelivery.status, STATUSES, index="webhook_deliveries_status_{sort}_idx"),
    },
)
