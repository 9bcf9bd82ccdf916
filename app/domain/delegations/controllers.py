"""Delegations: who decides in somebody's place while they are away."""

from urllib.parse import urlencode
from uuid import UUID

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.lists.listing import Page
from app.core.lists.parameters import parse_parameters
from app.core.outcomes import outcomes
from app.core.security import signed_in
from app.domain.delegations.repositories import DELEGATION, DELEGATIONS
from app.domain.delegations.schemas import DelegationCreate, DelegationOut
from app.domain.delegations.services import DelegationService
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]


class DelegationController(Controller):
    path = "/delegations"
    tags = ["role requests"]

    @get("/", opt=signed_in(listing=DELEGATIONS), summary="List delegations")
    async def list_delegations(self, request: HubRequest) -> Answer[Page[DelegationOut]]:
        """Those that one gave, or with `received=true` was given."""
        given = {"received": "false"} | parse_parameters(request.query_string)
        query = DELEGATIONS.parse(urlencode(given).encode())
        of_caller = {"tenant_id": request.principal.tenant_id, "actor_id": request.principal.id}
        return answer(request.exchange, await request.parts.reads.page(DELEGATIONS, query, DelegationOut, **of_caller))

    @get("/{delegation_id:uuid}", opt=signed_in(), summary="Get a delegation")
    async def get_delegation(self, request: HubRequest, delegation_id: FromPath[UUID]) -> Tagged[DelegationOut]:
        """One that one gave or was given."""
        of_caller = {"tenant_id": request.principal.tenant_id, "actor_id": request.principal.id}
        return entity(
            request.exchange, await request.parts.reads.one(DELEGATION, DelegationOut, id=delegation_id, **of_caller)
        )

    @post("/", opt=signed_in(needs_session=True) | outcomes("factor_required"), summary="Delegate decisions")
    @idempotent
    async def create_delegation(
        self, request: HubRequest, work: Work, data: RequestBody[DelegationCreate]
    ) -> Tagged[DelegationOut]:
        """Somebody decides on role requests in one's place, from one moment to another: on what one may decide oneself
        at that moment, and under both names."""
        made = await DelegationService(work).create(data)
        return created(request.exchange, made, f"/api/v1/delegations/{made.id}")

    @delete("/{delegation_id:uuid}", opt=signed_in(needs_session=True), summary="End a delegation")
    async def delete_delegation(self, request: HubRequest, work: Work, delegation_id: FromPath[UUID]) -> Answer[None]:
        """One that one gave or was given. What was decided by it stays."""
        await DelegationService(work).delete(delegation_id)
        return no_content()
