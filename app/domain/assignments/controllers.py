"""Role assignments: who holds which role, where, and until when."""

from uuid import UUID

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import requires
from app.domain.assignments.repositories import ASSIGNMENTS
from app.domain.assignments.schemas import AssignmentCreate, AssignmentOut, AssignmentPatch
from app.domain.assignments.services import READ, WRITE, AssignmentService, visible_assignment
from app.domain.dry_runs.services import DRY_RUN, rehearsed
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.roles.confirming import CONFIRMING, confirmable
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
PATH = "/api/v1/role-assignments"

GIVING = outcomes("already_assigned", "exceeds_own_permissions", "holders_unconfirmed", "system_role")
CHANGING = outcomes("assignment_ended", "exceeds_own_permissions", "last_admin", "system_role")


class AssignmentController(Controller):
    path = "/role-assignments"
    tags = ["roles"]

    @get("/", opt=requires(READ, on="data_domain", listing=ASSIGNMENTS), summary="List role assignments")
    async def list_assignments(self, request: HubRequest) -> Answer[Page[AssignmentOut]]:
        """Those that are in force and those that were, a page at a time. Whoever may see a part of the tenant sees
        those that were given for that part."""
        query = ASSIGNMENTS.parse(request.query_string).within(request.principal.extent(READ))
        return answer(
            request.exchange,
            await request.parts.reads.page(ASSIGNMENTS, query, AssignmentOut, tenant_id=request.principal.tenant_id),
        )

    @get("/{assignment_id:uuid}", opt=requires(READ, on="data_domain"), summary="Get a role assignment")
    async def get_assignment(self, request: HubRequest, assignment_id: FromPath[UUID]) -> Tagged[AssignmentOut]:
        """One assignment."""
        return entity(request.exchange, await visible_assignment(request.parts.reads, request.principal, assignment_id))

    @post("/", opt=requires(WRITE, on="data_domain", parameters=DRY_RUN | CONFIRMING) | GIVING, summary="Give a role")
    @confirmable
    @rehearsed
    @idempotent
    async def create_assignment(
        self, request: HubRequest, work: Work, data: RequestBody[AssignmentCreate]
    ) -> Tagged[AssignmentOut]:
        """To a user, a group or a service account; for the whole tenant, a data domain with all below it, or one data
        source; from now on or later, for good or until a day. One gives what one holds there oneself."""
        assignment = await AssignmentService(work).create(data)
        return created(request.exchange, assignment, f"{PATH}/{assignment.id}")

    @patch(
        "/{assignment_id:uuid}",
        opt=requires(WRITE, on="data_domain", parameters=DRY_RUN) | CHANGING,
        summary="Change a role assignment",
    )
    @rehearsed
    async def update_assignment(
        self, request: HubRequest, work: Work, assignment_id: FromPath[UUID], data: RequestBody[AssignmentPatch]
    ) -> Tagged[AssignmentOut]:
        """Another end, or with null none. What has ended stays as it was."""
        return entity(request.exchange, await AssignmentService(work).update(assignment_id, data), changed=True)

    @delete(
        "/{assignment_id:uuid}",
        opt=requires(WRITE, on="data_domain", parameters=DRY_RUN) | CHANGING,
        summary="End a role assignment",
    )
    @rehearsed
    async def end_assignment(self, request: HubRequest, work: Work, assignment_id: FromPath[UUID]) -> Answer[None]:
        """It takes effect on every worker within a second. The assignment can still be read: it is ended, not
        deleted."""
        await AssignmentService(work).end(assignment_id)
        return no_content()
