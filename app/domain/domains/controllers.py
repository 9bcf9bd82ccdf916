"""Data domains: the folders of data sources."""

from uuid import UUID

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import requires
from app.domain.domains.repositories import DATA_DOMAIN, DATA_DOMAINS
from app.domain.domains.schemas import DataDomainCreate, DataDomainOut, DataDomainPatch
from app.domain.domains.services import DataDomainService
from app.domain.dry_runs.services import DRY_RUN, rehearsed
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.roles.confirming import CONFIRMING, confirmable
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]

CREATING = outcomes("domain_too_deep", "exceeds_own_permissions", "holders_unconfirmed", "name_taken")
CHANGING = outcomes("domain_cycle", "domain_too_deep", "exceeds_own_permissions", "holders_unconfirmed", "name_taken")
READ = "data-domains:read"
WRITE = "data-domains:write"
REACHING = requires(WRITE, on="data_domain", parameters=DRY_RUN)


class DataDomainController(Controller):
    path = "/data-domains"
    tags = ["data domains"]

    @get("/", opt=requires(READ, on="data_domain", listing=DATA_DOMAINS), summary="List data domains")
    async def list_domains(self, request: HubRequest) -> Answer[Page[DataDomainOut]]:
        """Every domain that the caller may see, a page at a time."""
        query, tenant_id = DATA_DOMAINS.parse(request.query_string), request.principal.tenant_id
        query = query.within(request.principal.extent(READ))
        return answer(
            request.exchange, await request.parts.reads.page(DATA_DOMAINS, query, DataDomainOut, tenant_id=tenant_id)
        )

    @get("/{domain_id:uuid}", opt=requires(READ, on="data_domain"), summary="Get a data domain")
    async def get_domain(self, request: HubRequest, domain_id: FromPath[UUID]) -> Tagged[DataDomainOut]:
        """One domain. Of those above it, its `path` has the names."""
        tenant_id = request.principal.tenant_id
        domain = await request.parts.reads.one(DATA_DOMAIN, DataDomainOut, id=domain_id, tenant_id=tenant_id)
        return entity(request.exchange, domain)

    @post("/", opt=requires(WRITE, on="data_domain", parameters=CONFIRMING) | CREATING, summary="Create a data domain")
    @confirmable
    @idempotent
    async def create_domain(
        self, request: HubRequest, work: Work, data: RequestBody[DataDomainCreate]
    ) -> Tagged[DataDomainOut]:
        """Where the caller may write: at the top, that is for the whole tenant. Domains are at most eight deep. An
        owner is set by those who hold there what owning brings."""
        domain = await DataDomainService(work).create(data)
        return created(request.exchange, domain, f"/api/v1/data-domains/{domain.id}")

    @patch(
        "/{domain_id:uuid}",
        opt=requires(WRITE, on="data_domain", parameters=DRY_RUN | CONFIRMING) | CHANGING,
        summary="Change a data domain",
    )
    @confirmable
    @rehearsed
    async def update_domain(
        self, request: HubRequest, work: Work, domain_id: FromPath[UUID], data: RequestBody[DataDomainPatch]
    ) -> Tagged[DataDomainOut]:
        """JSON Merge Patch (RFC 7396). Another `parent_id` moves it with all that is in it. For that one may write
        there, too, and holds here what is held there by anybody: it is theirs within a second."""
        return entity(request.exchange, await DataDomainService(work).update(domain_id, data), changed=True)

    @delete("/{domain_id:uuid}", opt=REACHING, summary="Delete a data domain")
    @rehearsed
    async def delete_domain(self, request: HubRequest, work: Work, domain_id: FromPath[UUID]) -> Answer[None]:
        """One that is empty. Roles that were given for it end."""
        await DataDomainService(work).delete(domain_id)
        return no_content()
