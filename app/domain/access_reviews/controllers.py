"""Access reviews: looking at who holds what, and keeping or ending each of it."""

from uuid import UUID

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity
from app.core.lists.listing import Page, link_to_next
from app.core.outcomes import outcomes
from app.core.security import requires
from app.core.spreadsheets import csv_line, disarmed
from app.domain.access_reviews.repositories import ACCESS_REVIEW, ACCESS_REVIEWS, REVIEW_ITEMS, TOTALS
from app.domain.access_reviews.schemas import (
    STATES,
    AccessReviewCreate,
    AccessReviewOut,
    Report,
    ReviewAnswer,
    ReviewItemOut,
)
from app.domain.access_reviews.services import AccessReviewService
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
READ, WRITE = "access-reviews:read", "access-reviews:write"
PATH = "/api/v1/access-reviews"
CSV = "text/csv"
CREATING = outcomes("exceeds_own_permissions", "role_is_public")
DECIDING = requires(WRITE, needs_session=True)
"""By a person: what a review is for."""
KEEPING = outcomes("assignment_ended", "exceeds_own_permissions", "own_assignment", "review_closed")
ENDING = outcomes("assignment_ended", "exceeds_own_permissions", "last_admin", "review_closed")
CLOSING = outcomes("exceeds_own_permissions", "review_closed")


class AccessReviewController(Controller):
    path = "/access-reviews"
    tags = ["access reviews"]

    @get("/", opt=requires(READ, listing=ACCESS_REVIEWS), summary="List access reviews")
    async def list_access_reviews(self, request: HubRequest) -> Answer[Page[AccessReviewOut]]:
        """Every review of the tenant, those that are over, too."""
        query, tenant_id = ACCESS_REVIEWS.parse(request.query_string), request.principal.tenant_id
        page = await request.parts.reads.page(ACCESS_REVIEWS, query, AccessReviewOut, tenant_id=tenant_id)
        return answer(request.exchange, page)

    @get("/{review_id:uuid}", opt=requires(READ), summary="Get an access review")
    async def get_access_review(self, request: HubRequest, review_id: FromPath[UUID]) -> Tagged[AccessReviewOut]:
        """One review."""
        return entity(request.exchange, await _review(request, review_id))

    @post("/", opt=requires(WRITE) | CREATING, summary="Begin an access review")
    @idempotent
    async def create_access_review(
        self, request: HubRequest, work: Work, data: RequestBody[AccessReviewCreate]
    ) -> Tagged[AccessReviewOut]:
        """Of a role, of a data domain with all that is in it and below it, or of a data source: each assignment that is
        in force becomes a line. One reviews what one could give oneself."""
        made = await AccessReviewService(work).create(data)
        return created(request.exchange, made, f"{PATH}/{made.id}")

    @get("/{review_id:uuid}/items", opt=requires(READ, listing=REVIEW_ITEMS), summary="List the lines of a review")
    async def list_review_items(self, request: HubRequest, review_id: FromPath[UUID]) -> Answer[Page[ReviewItemOut]]:
        """Who holds what, since when, by whose decision, and when they were last active."""
        await _review(request, review_id)
        return answer(request.exchange, await _items(request, review_id))

    @post(
        "/{review_id:uuid}/items/{item_id:uuid}/keep",
        opt=DECIDING | KEEPING,
        status_code=200,
        summary="Keep a reviewed assignment",
    )
    async def keep_review_item(
        self,
        request: HubRequest,
        work: Work,
        review_id: FromPath[UUID],
        item_id: FromPath[UUID],
        data: RequestBody[ReviewAnswer | None] = None,
    ) -> Answer[ReviewItemOut]:
        """What one could give oneself, and not one's own right, be it by a group. It can still be ended while the
        review is open."""
        reason = (data or ReviewAnswer()).reason
        return answer(request.exchange, await AccessReviewService(work).answer(review_id, item_id, "keep", reason))

    @post(
        "/{review_id:uuid}/items/{item_id:uuid}/end",
        opt=DECIDING | ENDING,
        status_code=200,
        summary="End a reviewed assignment",
    )
    async def end_review_item(
        self,
        request: HubRequest,
        work: Work,
        review_id: FromPath[UUID],
        item_id: FromPath[UUID],
        data: RequestBody[ReviewAnswer | None] = None,
    ) -> Answer[ReviewItemOut]:
        """At once: it takes effect on every worker within a second."""
        reason = (data or ReviewAnswer()).reason
        return answer(request.exchange, await AccessReviewService(work).answer(review_id, item_id, "end", reason))

    @post(
        "/{review_id:uuid}/close",
        opt=DECIDING | CLOSING,
        status_code=200,
        summary="Close a review",
    )
    async def close_access_review(
        self, request: HubRequest, work: Work, review_id: FromPath[UUID]
    ) -> Tagged[AccessReviewOut]:
        """Before its day: no more answers are taken, and lines without one are kept or ended as the review says. By who
        could give all that is reviewed."""
        return entity(request.exchange, await AccessReviewService(work).close(review_id), changed=True)

    @get(
        "/{review_id:uuid}/report",
        opt=requires(READ, listing=REVIEW_ITEMS) | outcomes(also_as=(CSV,)),
        summary="Get the report of a review",
    )
    async def get_review_report(self, request: HubRequest, review_id: FromPath[UUID]) -> Answer[Report]:
        """The review, how many lines are in which state, and a page of the lines, as they were and were answered.
        With `Accept: text/csv` the lines alone; `Link` then leads to the next page."""
        review, page = await _review(request, review_id), await _items(request, review_id)
        if request.exchange.accepts(CSV):
            return _as_csv(request, page)
        of_review = {"tenant_id": request.principal.tenant_id, "review_id": review_id}
        totals = dict.fromkeys(STATES, 0) | dict(await request.parts.reads.rows(TOTALS, of_review))
        return answer(request.exchange, Report(review, totals, page.items, page.next_cursor))


async def _review(request: HubRequest, review_id: UUID) -> AccessReviewOut:
    of_tenant = {"id": review_id, "tenant_id": request.principal.tenant_id}
    return await request.parts.reads.one(ACCESS_REVIEW, AccessReviewOut, **of_tenant)


async def _items(request: HubRequest, review_id: UUID) -> Page[ReviewItemOut]:
    query = REVIEW_ITEMS.parse(request.query_string)
    of_review = {"tenant_id": request.principal.tenant_id, "review_id": review_id}
    return await request.parts.reads.page(REVIEW_ITEMS, query, ReviewItemOut, **of_review)


COLUMNS = (
    "id", "assignment_id", "subject_type", "subject_id", "subject_name", "role_id", "role_name", "scope_type",
    "scope_id", "since", "expires_at", "via_type", "via_id", "last_active_at", "state", "answered_at", "answered_by",
    "reason",
)  # fmt: skip


def _as_csv(request: HubRequest, page: Page[ReviewItemOut]) -> Answer[Report]:
    lines = [csv_line(COLUMNS), *(csv_line(_texts(item)) for item in page.items)]
    headers = [(b"content-type", b"text/csv; charset=utf-8")]
    if page.next_cursor is not None:
        path = request.exchange.base_path + request.scope["path"]
        headers.append(link_to_next(path, request.query_string, page.next_cursor))
    return Answer(200, headers, "".join(lines).encode())


def _texts(item: ReviewItemOut) -> list[str | None]:
    """`subject.name` as `subject_name`."""
    row: dict[str, object] = {}
    for name, value in msgspec.to_builtins(item).items():
        parts = value if isinstance(value, dict) else {"": value}
        row |= {f"{name}_{part}" if part else name: each for part, each in parts.items()}
    return [None if (value := row.get(name)) is None else disarmed(str(value)) for name in COLUMNS]
