"""Reading events: in pages, or as they come."""

from contextlib import AbstractAsyncContextManager

from litestar import get

from app.core.answers import Answer, Stream, answer
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import requires
from app.core.server_sent_events import MEDIA_TYPE
from app.domain.events.news import READ, beginning, narrowing, opened
from app.domain.events.repositories import EVENTS
from app.domain.events.schemas import EventOut
from app.domain.following import News, follow
from app.domain.requests import HubRequest


@get(
    "/events",
    opt=requires(READ, on="data_source", listing=EVENTS) | outcomes("too_many_streams", also_as=(MEDIA_TYPE,)),
    tags=["events"],
    summary="List events, or follow them",
)
async def list_events(request: HubRequest) -> Answer[Page[EventOut]] | Stream[str]:
    """Newest first; `sort=position` for the order in which they came. Whoever holds the permission for a data source or
    a data domain sees the events about that source, or about what is or was in that domain: the sources, their objects,
    tests and jobs, and the domains themselves.

    With `Accept: text/event-stream` it goes on: server-sent events whose `id` is the position, from `Last-Event-ID` on,
    or from now. `type` and `subject` narrow a stream, too; other parameters are for pages. It ends with the access
    token, the session and the right: connect again with a fresh token and the last `id`, and nothing is missing and
    nothing comes twice. Events are kept for as long as the hub's history; who comes back later begins with the oldest.
    Twenty streams may be open at a time.
    """
    if request.exchange.accepts(MEDIA_TYPE):
        return follow(request, await _opened(request))
    query, tenant_id = EVENTS.parse(request.query_string), request.principal.tenant_id
    query = query.within(request.principal.extent(READ))
    return answer(request.exchange, await request.parts.reads.page(EVENTS, query, EventOut, tenant_id=tenant_id))


async def _opened(request: HubRequest) -> AbstractAsyncContextManager[News]:
    """Raises BadRequest."""
    feed, tenant_id = request.parts.events, request.principal.tenant_id
    wanted, end = narrowing(request.query_string), await feed.end(tenant_id)
    return opened(feed, tenant_id, end, beginning(request.exchange, end), wanted)
