"""Service accounts: what programs act as."""

from uuid import UUID

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import requires
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.service_accounts.repositories import SERVICE_ACCOUNT, SERVICE_ACCOUNTS
from app.domain.service_accounts.schemas import ServiceAccountCreate, ServiceAccountOut, ServiceAccountPatch
from app.domain.service_accounts.services import ServiceAccountService
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
CREATING = outcomes("name_taken")
CHANGING = outcomes("exceeds_own_permissions", "name_taken")
DELETING = outcomes("exceeds_own_permissions")


class ServiceAccountController(Controller):
    path = "/service-accounts"
    tags = ["service accounts"]

    @get("/", opt=requires("service-accounts:read", listing=SERVICE_ACCOUNTS), summary="List service accounts")
    async def list_service_accounts(self, request: HubRequest) -> Answer[Page[ServiceAccountOut]]:
        """Every service account of the tenant, a page at a time."""
        query, tenant_id = SERVICE_ACCOUNTS.parse(request.query_string), request.principal.tenant_id
        page = await request.parts.reads.page(SERVICE_ACCOUNTS, query, ServiceAccountOut, tenant_id=tenant_id)
        return answer(request.exchange, page)

    @get("/{account_id:uuid}", opt=requires("service-accounts:read"), summary="Get a service account")
    async def get_service_account(self, request: HubRequest, account_id: FromPath[UUID]) -> Tagged[ServiceAccountOut]:
        """One service account."""
        tenant_id = request.principal.tenant_id
        account = await request.parts.reads.one(SERVICE_ACCOUNT, ServiceAccountOut, id=account_id, tenant_id=tenant_id)
        return entity(request.exchange, account)

    @post("/", opt=requires("service-accounts:write") | CREATING, summary="Create a service account")
    @idempotent
    async def create_service_account(
        self, request: HubRequest, work: Work, data: RequestBody[ServiceAccountCreate]
    ) -> Tagged[ServiceAccountOut]:
        """It has no password and no session: a program acts as it with a key (`POST /api/v1/api-keys`), or with the
        access token that `/auth/token` gives for a key, or for what one of its `jwks` has signed."""
        account = await ServiceAccountService(work).create(data)
        return created(request.exchange, account, f"/api/v1/service-accounts/{account.id}")

    @patch("/{account_id:uuid}", opt=requires("service-accounts:write") | CHANGING, summary="Change a service account")
    async def update_service_account(
        self, request: HubRequest, work: Work, account_id: FromPath[UUID], data: RequestBody[ServiceAccountPatch]
    ) -> Tagged[ServiceAccountOut]:
        """JSON Merge Patch (RFC 7396). One that is not active lets nobody in, within a second."""
        return entity(request.exchange, await ServiceAccountService(work).update(account_id, data), changed=True)

    @delete("/{account_id:uuid}", opt=requires("service-accounts:write") | DELETING, summary="Delete a service account")
    async def delete_service_account(self, request: HubRequest, work: Work, account_id: FromPath[UUID]) -> Answer[None]:
        """Its keys are gone with it. The audit log keeps the name under which it acted."""
        await ServiceAccountService(work).delete(account_id)
        return no_content()
