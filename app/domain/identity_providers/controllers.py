"""Identity providers: which there are for signing in, and those that a tenant keeps itself."""

from uuid import UUID

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.errors import BadRequest, Fault
from app.core.lists.keyed import IN_MEMORY_PARAMETERS, page_of_names
from app.core.lists.listing import Page
from app.core.lists.parameters import parse_parameters
from app.core.outcomes import outcomes
from app.core.security import open_to_all, requires
from app.domain.idempotency.services import idempotent
from app.domain.identity_providers.registry import (
    DEFAULT_SLUG,
    shown_by_id,
    shown_providers,
    tenant_meant,
    ways_to_sign_in,
)
from app.domain.identity_providers.schemas import (
    TENANT,
    IdentityProviderCreate,
    IdentityProviderOut,
    IdentityProviderPatch,
    ProviderOut,
)
from app.domain.identity_providers.services import READ, WRITE, IdentityProviderService
from app.domain.requests import HubRequest
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
CREATING = outcomes("name_taken", "too_many_providers")
CHANGING = outcomes("managed_by_settings", "secret_reentry_required")


@get("/auth/providers", opt=open_to_all(parameters=TENANT), tags=["auth"], summary="List ways to sign in")
async def list_providers(request: HubRequest) -> Answer[Page[ProviderOut]]:
    """The identity providers by which members of a tenant sign in: what to call each, and where that begins. Whoever
    sends the browser there adds `redirect_uri`, `code_challenge`, `code_challenge_method=S256` and `state`. A tenant
    that is not there has none."""
    given = parse_parameters(request.query_string)
    if unknown := given.keys() - TENANT.keys():
        faults = [Fault(name, "unknown_field", "is no parameter of this call") for name in sorted(unknown)]
        raise BadRequest(code="invalid_parameter", errors=faults)
    if not 1 <= len(given.get("tenant", DEFAULT_SLUG)) <= 63:
        raise BadRequest("`tenant` is the slug of a tenant.", code="invalid_parameter")
    found = await ways_to_sign_in(request.parts, tenant_meant(request, given.get("tenant")))
    return answer(request.exchange, Page(items=found, next_cursor=None, total=len(found)))


class IdentityProviderController(Controller):
    path = "/identity-providers"
    tags = ["identity providers"]

    @get("/", opt=requires(READ, parameters=IN_MEMORY_PARAMETERS), summary="List identity providers")
    async def list_identity_providers(self, request: HubRequest) -> Answer[Page[IdentityProviderOut]]:
        """Every one of the tenant by its name: those that its admins keep, and those of the hub's settings."""
        found = await shown_providers(request.parts, request.principal.tenant_id)
        return answer(request.exchange, page_of_names(found, request.query_string))

    @get("/{provider_id:uuid}", opt=requires(READ), summary="Get an identity provider")
    async def get_identity_provider(
        self, request: HubRequest, provider_id: FromPath[UUID]
    ) -> Tagged[IdentityProviderOut]:
        """One provider. Its secret is never shown."""
        return entity(request.exchange, await shown_by_id(request.parts, request.principal.tenant_id, provider_id))

    @post("/", opt=requires(WRITE) | CREATING, summary="Create an identity provider")
    @idempotent
    async def create_identity_provider(
        self, request: HubRequest, work: Work, data: RequestBody[IdentityProviderCreate]
    ) -> Tagged[IdentityProviderOut]:
        """From now on members sign in by it. At the provider, register `/api/v1/auth/oidc/{name}/callback` of this hub
        as redirect URI and `/api/v1/auth/oidc/{name}/backchannel-logout` for its back-channel logout, both with
        `?tenant=` for another tenant than `default`. Nothing is dialled before somebody signs in."""
        provider = await IdentityProviderService(work).create(data)
        return created(request.exchange, provider, f"/api/v1/identity-providers/{provider.id}")

    @patch("/{provider_id:uuid}", opt=requires(WRITE) | CHANGING, summary="Change an identity provider")
    async def update_identity_provider(
        self, request: HubRequest, work: Work, provider_id: FromPath[UUID], data: RequestBody[IdentityProviderPatch]
    ) -> Tagged[IdentityProviderOut]:
        """JSON Merge Patch (RFC 7396). Another issuer needs the secret again. Those of the hub's settings stay as they
        are."""
        return entity(request.exchange, await IdentityProviderService(work).update(provider_id, data), changed=True)

    @delete(
        "/{provider_id:uuid}",
        opt=requires(WRITE) | outcomes("managed_by_settings"),
        summary="Delete an identity provider",
    )
    async def delete_identity_provider(
        self, request: HubRequest, work: Work, provider_id: FromPath[UUID]
    ) -> Answer[None]:
        """Nobody signs in by it any more; who is signed in stays so."""
        await IdentityProviderService(work).delete(provider_id)
        return no_content()
