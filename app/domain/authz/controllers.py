"""Who may do what: checks for other services, and the grounds of every right."""

from uuid import UUID

from litestar import Controller, get, post
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, answer
from app.core.limits.prices import costs
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import requires, signed_in
from app.domain.authz import services
from app.domain.authz.lists import PARAMETERS, access_to, effective_permissions
from app.domain.authz.schemas import AccessOut, CheckResults, Checks, EffectivePermission
from app.domain.requests import HubRequest


class AuthzController(Controller):
    path = "/authz"
    tags = ["authorization"]

    @post(
        "/check",
        opt=signed_in() | outcomes("permission_missing") | costs("read"),
        status_code=200,
        summary="Check rights",
    )
    async def check_rights(self, request: HubRequest, data: RequestBody[Checks]) -> Answer[CheckResults]:
        """Whether somebody may do something: up to a hundred questions at once, answered in their order with what each
        right comes from. About oneself anybody may ask; about others who has `authz:check`."""
        return answer(request.exchange, await services.check(request, data.checks))


TAGS = ["authorization"]


@get(
    "/users/{user_id:uuid}/effective-permissions",
    opt=signed_in(parameters=PARAMETERS),
    tags=TAGS,
    summary="List a user's effective permissions",
)
async def list_effective_permissions(request: HubRequest, user_id: FromPath[UUID]) -> Answer[Page[EffectivePermission]]:
    """Everything that a user may do, each permission with where it holds and all that it comes from: for the tenant
    first, then in data domains, then on data sources. Of oneself anybody may ask, of others who has `users:read`."""
    page = await effective_permissions(request.parts.reads, request.principal, user_id, request.query_string)
    return answer(request.exchange, page)


@get(
    "/data-sources/{source_id:uuid}/access",
    opt=requires("role-assignments:read", on="data_source", parameters=PARAMETERS),
    tags=TAGS,
    summary="List who may do what on a data source",
)
async def list_access_to_source(request: HubRequest, source_id: FromPath[UUID]) -> Answer[Page[AccessOut]]:
    """Every user and service account with a right there, in the order of their ids: which permissions, and all that
    they come from. Of roles that are held for the whole tenant it tells what is about data sources and domains."""
    page = await access_to(request.parts.reads, request.principal, "data_source", source_id, request.query_string)
    return answer(request.exchange, page)


@get(
    "/data-domains/{domain_id:uuid}/access",
    opt=requires("role-assignments:read", on="data_domain", parameters=PARAMETERS),
    tags=TAGS,
    summary="List who may do what in a data domain",
)
async def list_access_to_domain(request: HubRequest, domain_id: FromPath[UUID]) -> Answer[Page[AccessOut]]:
    """As of a data source: everybody who has a right in the domain itself, and so in all below it."""
    page = await access_to(request.parts.reads, request.principal, "data_domain", domain_id, request.query_string)
    return answer(request.exchange, page)
