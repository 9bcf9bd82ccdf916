"""Where a thing stands that a request is about: looked up for those alone whose rights do not reach everywhere."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Uuid, bindparam, select

from app.core.extent import Place
from app.core.reads import Reads
from app.core.security import ScopedKind
from app.domain.domains.models import DataDomain
from app.domain.sources.models import DataSource
from app.domain.webhooks.models import Webhook, WebhookDelivery

ID_IN_PATH: Mapping[ScopedKind, str] = {
    "data_source": "source_id",
    "data_domain": "domain_id",
    "webhook": "webhook_id",
    "delivery": "delivery_id",
}
"""How the paths of routes name what they are about."""


def _one_of(model: Any, *columns: Any) -> Select[Any]:
    return select(*columns).where(
        model.id == bindparam("id", type_=Uuid()), model.tenant_id == bindparam("tenant_id", type_=Uuid())
    )


_SOURCE = _one_of(DataSource, DataSource.id, DataSource.data_domain_id, DataSource.owner_role_id)
_DOMAIN = _one_of(DataDomain, DataDomain.id)
_WEBHOOK = _one_of(Webhook, Webhook.data_domain_id)
_OF_DELIVERY = (Webhook.id == WebhookDelivery.webhook_id) & (Webhook.tenant_id == WebhookDelivery.tenant_id)
_DELIVERY = _one_of(WebhookDelivery, Webhook.data_domain_id).select_from(WebhookDelivery).join(Webhook, _OF_DELIVERY)
_STATEMENTS: Mapping[ScopedKind, Select[Any]] = {
    "data_source": _SOURCE,
    "data_domain": _DOMAIN,
    "webhook": _WEBHOOK,
    "delivery": _DELIVERY,
}


async def place_of(reads: Reads, kind: ScopedKind, row_id: UUID, tenant_id: UUID) -> Place | None:
    """None for what is not there."""
    rows = await reads.rows(_STATEMENTS[kind], {"id": row_id, "tenant_id": tenant_id})
    if not rows:
        return None
    return Place(*rows[0]) if kind == "data_source" else Place(domain_id=rows[0][0])
