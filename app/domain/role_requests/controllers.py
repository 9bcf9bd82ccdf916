"""Role requests: asking for a role, and deciding on what others ask for."""

from urllib.parse import urlencode
from uuid import UUID

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, location_header
from app.core.lists.listing import ListQuery, Page
from app.core.lists.parameters import parse_parameters
from app.core.outcomes import outcomes
from app.core.security import signed_in
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.role_requests.repositories import ROLE_REQUESTS, TIMELINE
from app.domain.role_requests.schemas import CommentCreate, Decision, EntryOut, RoleRequestCreate, RoleRequestOut
from app.domain.role_requests.services import READ, RoleRequestService, visible_request
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
PATH = "/api/v1/role-requests"

AS_A_PERSON = signed_in(needs_session=True)
"""None of it takes a permission to which a key could be narrowed."""
ASKING = outcomes(
    "admin_not_requestable",
    "already_assigned",
    "no_eligible_approver",
    "not_found",
    "request_pending",
    "role_is_public",
)
APPROVING = outcomes(
    "already_approved",
    "already_assigned",
    "approval_not_needed",
    "factor_required",
    "not_an_approver",
    "own_request",
    "request_decided",
)
DENYING = outcomes("factor_required", "not_an_approver", "own_request", "request_decided")
CANCELLING = outcomes("factor_required", "not_your_request", "request_decided")
REVOKING = outcomes(
    "assignment_ended", "factor_required", "last_admin", "not_an_approver", "own_request", "request_not_approved"
)


class RoleRequestController(Controller):
    path = "/role-requests"
    tags = ["role requests"]

    @get("/", opt=signed_in(listing=ROLE_REQUESTS), summary="List role requests")
    async def list_role_requests(self, request: HubRequest) -> Answer[Page[RoleRequestOut]]:
        """One's own; with `to_decide=true` those that wait for one's own decision; with `role-requests:read`
        everybody's."""
        principal = request.principal
        query, of_caller = _narrowed(request), {"tenant_id": principal.tenant_id, "actor_id": principal.id}
        page = await request.parts.reads.page(ROLE_REQUESTS, query, RoleRequestOut, **of_caller)
        return answer(request.exchange, page)

    @get("/{request_id:uuid}", opt=signed_in(), summary="Get a role request")
    async def get_role_request(self, request: HubRequest, request_id: FromPath[UUID]) -> Tagged[RoleRequestOut]:
        """One's own, one that one may decide on, or with `role-requests:read` anybody's."""
        return entity(request.exchange, await visible_request(request.parts.reads, request.principal, request_id))

    @post("/", opt=AS_A_PERSON | ASKING, summary="Ask for a role")
    @idempotent
    async def create_role_request(
        self, request: HubRequest, work: Work, data: RequestBody[RoleRequestCreate]
    ) -> Tagged[RoleRequestOut]:
        """A role that `is_requestable`, for the whole tenant, a data domain or one data source. One holder of each of
        its approver roles has to approve; where it has none, one of the owner role nearest to the scope, or else an
        admin. With `renews` the new assignment comes in the place of one that will expire."""
        made = await RoleRequestService(work).create(data)
        return created(request.exchange, made, f"{PATH}/{made.id}")

    @post("/{request_id:uuid}/approve", opt=AS_A_PERSON | APPROVING, status_code=200, summary="Approve a role request")
    async def approve_role_request(
        self, request: HubRequest, work: Work, request_id: FromPath[UUID], data: RequestBody[Decision | None] = None
    ) -> Tagged[RoleRequestOut]:
        """By somebody who holds one of the roles that it awaits, and all permissions of the wanted role at its scope.
        With the last approval the role is given. One person approves once, and nobody what they ask for themselves."""
        approved = await RoleRequestService(work).approve(request_id, (data or Decision()).reason)
        return entity(request.exchange, approved, changed=True)

    @post("/{request_id:uuid}/deny", opt=AS_A_PERSON | DENYING, status_code=200, summary="Deny a role request")
    async def deny_role_request(
        self, request: HubRequest, work: Work, request_id: FromPath[UUID], data: RequestBody[Decision | None] = None
    ) -> Tagged[RoleRequestOut]:
        """By anybody who may approve it; one is enough."""
        denied = await RoleRequestService(work).deny(request_id, (data or Decision()).reason)
        return entity(request.exchange, denied, changed=True)

    @post("/{request_id:uuid}/cancel", opt=AS_A_PERSON | CANCELLING, status_code=200, summary="Cancel a role request")
    async def cancel_role_request(
        self, request: HubRequest, work: Work, request_id: FromPath[UUID]
    ) -> Tagged[RoleRequestOut]:
        """One's own, as long as it is pending."""
        return entity(request.exchange, await RoleRequestService(work).cancel(request_id), changed=True)

    @post("/{request_id:uuid}/revoke", opt=AS_A_PERSON | REVOKING, status_code=200, summary="Revoke a role request")
    async def revoke_role_request(
        self, request: HubRequest, work: Work, request_id: FromPath[UUID], data: RequestBody[Decision | None] = None
    ) -> Tagged[RoleRequestOut]:
        """End the assignment that was given by it: by those who may decide on it, and by admins."""
        revoked = await RoleRequestService(work).revoke(request_id, (data or Decision()).reason)
        return entity(request.exchange, revoked, changed=True)

    @get("/{request_id:uuid}/timeline", opt=signed_in(listing=TIMELINE), summary="Get a role request's timeline")
    async def get_timeline(self, request: HubRequest, request_id: FromPath[UUID]) -> Answer[Page[EntryOut]]:
        """Decisions and comments, one after the other."""
        await visible_request(request.parts.reads, request.principal, request_id)
        query, of_request = TIMELINE.parse(request.query_string), {"request_id": request_id}
        tenant_id = request.principal.tenant_id
        page = await request.parts.reads.page(TIMELINE, query, EntryOut, tenant_id=tenant_id, **of_request)
        return answer(request.exchange, page)

    @post("/{request_id:uuid}/comments", opt=AS_A_PERSON, summary="Comment on a role request")
    @idempotent
    async def create_comment(
        self, request: HubRequest, work: Work, request_id: FromPath[UUID], data: RequestBody[CommentCreate]
    ) -> Answer[EntryOut]:
        """By anybody who sees it, whatever its state. It stands in the timeline."""
        entry = await RoleRequestService(work).comment(request_id, data.text)
        response = answer(request.exchange, entry, status=201)
        response.wire_headers.append(location_header(request.exchange, f"{PATH}/{request_id}/timeline"))
        return response


def _narrowed(request: HubRequest) -> ListQuery:
    """Whoever may not see others' requests asks for their own, whatever they ask for, or for those to decide on."""
    query_string = request.query_string
    if not request.principal.may(READ):
        given = parse_parameters(query_string)
        if given.get("to_decide") != "true" and given.get("mine", "true") in ("true", "false"):
            query_string = urlencode(given | {"mine": "true"}).encode()
    return ROLE_REQUESTS.parse(query_string)
