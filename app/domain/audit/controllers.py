"""The audit log: read only, for everyone who may."""

import msgspec
from litestar import get

from app.core.answers import Answer, answer
from app.core.listing import Page, link_to_next
from app.core.outcomes import outcomes
from app.core.security import requires
from app.domain.audit.repositories import AUDIT_EVENTS
from app.domain.audit.schemas import AuditEventOut
from app.domain.requests import HubRequest

NDJSON = "application/x-ndjson"


@get(
    "/audit-events",
    opt=requires("audit-events:read", listing=AUDIT_EVENTS) | outcomes(also_as=(NDJSON,)),
    tags=["audit"],
    summary="List audit events",
)
async def list_audit_events(request: HubRequest) -> Answer[Page[AuditEventOut]]:
    """Newest first. With `Accept: application/x-ndjson` one event per line; `Link` then leads to the next page."""
    query, tenant_id = AUDIT_EVENTS.parse(request.query_string), request.principal.tenant_id
    page = await request.parts.reads.page(AUDIT_EVENTS, query, AuditEventOut, tenant_id=tenant_id)
    if request.exchange.accepts(NDJSON):
        return _lines(request, page)
    return answer(request.exchange, page)


def _lines(request: HubRequest, page: Page[AuditEventOut]) -> Answer[Page[AuditEventOut]]:
    headers = [(b"content-type", NDJSON.encode())]
    if page.next_cursor is not None:
        path = f"{request.exchange.base_path}/api/v1/audit-events"
        headers.append(link_to_next(path, request.query_string, page.next_cursor))
    return Answer(200, headers, msgspec.json.Encoder().encode_lines(page.items))
