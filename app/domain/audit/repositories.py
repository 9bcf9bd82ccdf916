"""Which rows make audit events on the wire, and the list of them."""

from app.core.database import Repository
from app.core.lists.filters import choice_filter, text_filter, time_filter, uuid_filter
from app.core.lists.listing import Listing, Sort
from app.domain.audit.models import AuditEvent
from app.domain.audit.schemas import AuditEventOut


class AuditEventRepository(Repository[AuditEvent]):
    model_type = AuditEvent


AUDIT_EVENTS = Listing(
    AuditEventRepository.selection(AuditEventOut),
    name="audit events",
    id_column=AuditEvent.id,
    sorts={"occurred_at": Sort(AuditEvent.occurred_at, "audit_events_tenant_id_occurred_at_id_idx")},
    default_sort="-occurred_at",
    filters={
        "actor_id": uuid_filter(AuditEvent.actor_id, index="audit_events_actor_id_{sort}_idx"),
        "api_key_id": uuid_filter(
            AuditEvent.api_key_id,
            index="audit_events_api_key_id_{sort}_idx",
            description="What was done with this key.",
        ),
        "action": text_filter(
            AuditEvent.action, index="audit_events_action_{sort}_idx", description="As in `role.create`."
        ),
        "resource_type": text_filter(
            AuditEvent.resource_type,
            index="audit_events_resource_type_{sort}_idx",
            description="Singular snake_case, as in `data_source`.",
        ),
        "resource_id": uuid_filter(
            AuditEvent.resource_id, index="audit_events_tenant_id_resource_id_occurred_at_id_idx"
        ),
        "outcome": choice_filter(
            AuditEvent.outcome, ("success", "failure", "refused"), index="audit_events_outcome_{sort}_idx"
        ),
        "request_id": text_filter(
            AuditEvent.request_id,
            index="audit_events_request_id_{sort}_idx",
            description="As in the `X-Request-ID` of an answer.",
        ),
        "address": text_filter(
            AuditEvent.address,
            index="audit_events_address_{sort}_idx",
            description="From where it was asked for, as it is on record.",
        ),
        "from": time_filter(AuditEvent.occurred_at, bound="from", description="At this moment or later."),
        "to": time_filter(AuditEvent.occurred_at, bound="to", description="Before this moment."),
    },
)
