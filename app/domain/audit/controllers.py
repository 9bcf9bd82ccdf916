"""The audit log: read only, for everyone who may."""

from litestar import get

from app.core.answers import Answer, answer
from app.core.exports import Export
from app.core.lists.listing import ListQuery, Page, link_to_next
from app.core.outcomes import outcomes
from app.core.security import requires
from app.domain.audit.exports import CSV, NDJSON, READ, as_csv, as_lines, pages_of, with_first
from app.domain.audit.repositories import AUDIT_EVENTS
from app.domain.audit.schemas import AuditEventOut
from app.domain.requests import HubRequest


@get(
    "/audit-events",
    opt=requires(READ, listing=AUDIT_EVENTS) | outcomes("too_many_streams", also_as=(NDJSON, CSV), streams=True),
    tags=["audit"],
    summary="List audit events",
)
async def list_audit_events(request: HubRequest) -> Answer[Page[AuditEventOut]]:
    """Newest first.

    With `Accept: application/x-ndjson` or `text/csv` the whole list comes in one answer, or as many rows of it as
    `limit` says: a row in each line. An answer that cannot be finished is broken off. In CSV a text that a spreadsheet
    would run as a formula has an apostrophe before it. Twenty may be under way at a time.
    """
    for media_type in (NDJSON, CSV):
        if request.exchange.accepts(media_type):
            return await _export(request, media_type)
    query, tenant_id = AUDIT_EVENTS.parse(request.query_string), request.principal.tenant_id
    page = await request.parts.reads.page(AUDIT_EVENTS, query, AuditEventOut, tenant_id=tenant_id)
    return answer(request.exchange, page)


async def _export(request: HubRequest, media_type: str) -> Answer[Page[AuditEventOut]]:
    """What keeps the list from being read is told before the answer begins."""
    query = AUDIT_EVENTS.parse_whole(request.query_string)
    request.parts.streams.admit(request.exchange)
    pages = pages_of(request, query)
    first = await anext(pages)
    rows = with_first(first, pages, request)
    parts = as_csv(rows) if media_type == CSV else as_lines(rows)
    return Export(request.exchange, _headers(request, media_type, query, first), parts)


def _headers(
    request: HubRequest, media_type: str, query: ListQuery, first: Page[AuditEventOut]
) -> list[tuple[bytes, bytes]]:
    """With the link to what comes behind, where that is known already: a few rows were asked for."""
    headers = [(b"content-type", b"text/csv; charset=utf-8" if media_type == CSV else NDJSON.encode())]
    if first.next_cursor is not None and len(first.items) == query.limit:
        path = f"{request.exchange.base_path}/api/v1/audit-events"
        headers.append(link_to_next(path, request.query_string, first.next_cursor))
    return headers
