"""Tenants, for the hub's operators, and the settings of one's own."""

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
from app.domain.tenants.repositories import SETTINGS, TENANT, TENANTS
from app.domain.tenants.schemas import (
    TenantCreate,
    TenantCreated,
    TenantOut,
    TenantPatch,
    TenantSettingsOut,
    TenantSettingsPatch,
)
from app.domain.tenants.services import TenantService, update_settings
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]

CREATING = outcomes("folder_taken", "login_busy", "slug_taken", "weak_password")
ENDING = outcomes("default_tenant")


class TenantController(Controller):
    path = "/tenants"
    tags = ["tenants"]

    @get("/", opt=requires("tenants:read", listing=TENANTS), summary="List tenants")
    async def list_tenants(self, request: HubRequest) -> Answer[Page[TenantOut]]:
        """Every tenant of the hub, a page at a time. What is inside of them only their own members see."""
        query, tenant_id = TENANTS.parse(request.query_string), request.principal.tenant_id
        return answer(request.exchange, await request.parts.reads.page(TENANTS, query, TenantOut, tenant_id=tenant_id))

    @get("/{tenant_id:uuid}", opt=requires("tenants:read"), summary="Get a tenant")
    async def get_tenant(self, request: HubRequest, tenant_id: FromPath[UUID]) -> Tagged[TenantOut]:
        """One tenant."""
        asks = request.principal.tenant_id
        return entity(request.exchange, await request.parts.reads.one(TENANT, TenantOut, id=tenant_id, tenant_id=asks))

    @post("/", opt=requires("tenants:write") | CREATING, summary="Create a tenant")
    @idempotent
    async def create_tenant(
        self, request: HubRequest, work: Work, data: RequestBody[TenantCreate]
    ) -> Tagged[TenantCreated]:
        """With its own roles `admin` and `public`, and its first admin, who signs in with the slug as `tenant`. Without
        a password the first admin gets a letter with a link, and chooses one."""
        tenant = await TenantService(work).create(data)
        return created(request.exchange, tenant, f"/api/v1/tenants/{tenant.id}")

    @patch("/{tenant_id:uuid}", opt=requires("tenants:write"), summary="Rename a tenant")
    async def update_tenant(
        self, request: HubRequest, work: Work, tenant_id: FromPath[UUID], data: RequestBody[TenantPatch]
    ) -> Tagged[TenantOut]:
        """JSON Merge Patch (RFC 7396). The slug stays what it is."""
        return entity(request.exchange, await TenantService(work).update(tenant_id, data), changed=True)

    @post(
        "/{tenant_id:uuid}/suspend",
        opt=requires("tenants:write") | ENDING,
        status_code=200,
        summary="Suspend a tenant",
    )
    async def suspend_tenant(self, request: HubRequest, work: Work, tenant_id: FromPath[UUID]) -> Tagged[TenantOut]:
        """Within a second its members are signed out and its jobs, schedules and streams stop. Nothing is lost: what
        waits goes on when the tenant is resumed."""
        return entity(request.exchange, await TenantService(work).suspend(tenant_id), changed=True)

    @delete("/{tenant_id:uuid}", opt=requires("tenants:write") | ENDING, status_code=204, summary="Delete a tenant")
    async def delete_tenant(self, request: HubRequest, work: Work, tenant_id: FromPath[UUID]) -> Answer[None]:
        """It is gone at once. All that belongs to it is removed soon after, but for its audit log; its slug is never
        given again."""
        await TenantService(work).delete(tenant_id)
        return no_content()

    @post("/{tenant_id:uuid}/resume", opt=requires("tenants:write"), status_code=200, summary="Resume a tenant")
    async def resume_tenant(self, request: HubRequest, work: Work, tenant_id: FromPath[UUID]) -> Tagged[TenantOut]:
        """All goes on where it stopped, sessions that have not run out too."""
        return entity(request.exchange, await TenantService(work).resume(tenant_id), changed=True)


class TenantSettingsController(Controller):
    path = "/tenant-settings"
    tags = ["tenants"]

    @get("/", opt=requires("tenant-settings:read"), summary="Get one's tenant's settings")
    async def get_tenant_settings(self, request: HubRequest) -> Tagged[TenantSettingsOut]:
        """What one's own tenant has decided for itself."""
        tenant_id = request.principal.tenant_id
        return entity(request.exchange, await request.parts.reads.one(SETTINGS, TenantSettingsOut, tenant_id=tenant_id))

    @patch("/", opt=requires("tenant-settings:write"), summary="Change one's tenant's settings")
    async def update_tenant_settings(
        self, request: HubRequest, work: Work, data: RequestBody[TenantSettingsPatch]
    ) -> Tagged[TenantSettingsOut]:
        """JSON Merge Patch (RFC 7396). Null gives a setting its default back."""
        return entity(request.exchange, await update_settings(work, data), changed=True)
