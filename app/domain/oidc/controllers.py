"""OpenID Connect over HTTP: to the provider and back, its word that somebody has signed out, and linked identities."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.enums import RequestEncodingType
from litestar.params import Body, FromPath, RequestBody

from app.core.answers import Answer, answer, found_there, no_content, tells_errors_by
from app.core.errors import Unavailable
from app.core.limits.prices import costs
from app.core.lists.keyed import IN_MEMORY_PARAMETERS, page_of_names
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import open_to_all, signed_in
from app.domain.factors.stepping_up import require_step_up
from app.domain.identity_providers.linking import identities_of, unlink_identity
from app.domain.identity_providers.registry import tenant_meant
from app.domain.identity_providers.schemas import IdentityOut
from app.domain.identity_providers.sign_ins import parameters_of
from app.domain.oauth.faults import TOLD, OAuthRefused
from app.domain.oidc import services
from app.domain.oidc.beginning import begin_link
from app.domain.oidc.logout import LogoutRefused, log_out
from app.domain.oidc.schemas import LinkBegin, LinkBegun, LogoutForm
from app.domain.requests import HubRequest
from app.domain.sign_in import views
from app.domain.sign_in.pending import cookie_header
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
TEXT: dict[str, Any] = {"type": "string", "maxLength": 8192}


TO_PROVIDER = {
    "redirect_uri": TEXT | {"description": "A page of HUB_SIGN_IN_REDIRECTS, or a port of one's own machine."},
    "code_challenge": TEXT | {"description": "S256 of the verifier (RFC 7636)."},
    "code_challenge_method": TEXT | {"description": "`S256`."},
    "state": TEXT | {"description": "Comes back with the code."},
    "tenant": TEXT | {"description": "Slug of the tenant that is meant, where the host does not say it."},
    "request": TEXT | {"description": "In place of all these: a sign-in of the hub's own page, sealed."},
    "link": TEXT | {"description": "Likewise: a link that `POST /auth/identities` has begun."},
}
TENANT = {"tenant": TO_PROVIDER["tenant"]}
FROM_PROVIDER = dict.fromkeys(("code", "state", "iss", "error", "error_description"), TEXT) | {
    "tenant": TEXT | {"description": "Part of the redirect URI of every other tenant than `default`."}
}


class OidcController(Controller):
    path = "/auth/oidc/{name:str}"
    tags = ["auth"]
    exception_handlers = views.ON_THE_WAY

    @get(
        "/login",
        opt=open_to_all(parameters=TO_PROVIDER)
        | outcomes("sign_in_invalid", "provider_unavailable")
        | tells_errors_by(views.error_told_on_the_way)
        | costs("login"),
        status_code=302,
        summary="Sign in by an OpenID provider",
    )
    async def go_to_provider(self, request: HubRequest, name: FromPath[str]) -> Answer[None]:
        """Send a browser here: it goes on to the provider, comes back, and ends at `redirect_uri` with `code`, `state`
        and `iss`. The code is exchanged at `POST /auth/token` within a minute. A provider that is away is a 503 of this
        sign-in alone."""
        going = await services.begin(request, name, parameters_of(request.query_string))
        cookies = [cookie_header(request.parts.settings, going.new_browser)] if going.new_browser else []
        return found_there(going.location, *cookies)

    @get(
        "/callback",
        opt=open_to_all(parameters=FROM_PROVIDER)
        | outcomes("sign_in_invalid")
        | tells_errors_by(views.error_told_on_the_way),
        status_code=302,
        summary="Come back from an OpenID provider",
    )
    async def come_back(self, request: HubRequest, name: FromPath[str]) -> Answer[None]:
        """The redirect URI that is registered at the provider, with `?tenant=` for another tenant than `default`. Until
        `state` is known to be the hub's own, of this browser and of this redirect URI, whatever is wrong is answered
        here; after that the browser goes on to the client with `error`."""
        return found_there(await services.come_back(request, name, parameters_of(request.query_string)))

    @post(
        "/backchannel-logout",
        opt=open_to_all(parameters=TENANT, takes_form=True) | TOLD | costs("login"),
        status_code=200,
        summary="Hear that somebody has signed out at a provider",
    )
    async def backchannel_logout(
        self,
        request: HubRequest,
        name: FromPath[str],
        data: Annotated[LogoutForm, Body(media_type=RequestEncodingType.URL_ENCODED)],
    ) -> Answer[None]:
        """OpenID Connect Back-Channel Logout: the sessions that the provider's `logout_token` names end within a
        second. Where it cannot be believed the answer is a 400 that says no more."""
        tenant = tenant_meant(request, parameters_of(request.query_string).get("tenant"))
        try:
            await log_out(request, name, tenant, data.logout_token)
        except LogoutRefused as refused:
            told = OAuthRefused("invalid_request", "The logout token does not hold.")
            if refused.is_away:
                raise Unavailable(code="provider_unavailable", retry_after_s=5) from None
            return told.answer(request.exchange)  # type: ignore[return-value]
        return Answer(200, [], b"")


class IdentityController(Controller):
    path = "/auth/identities"
    tags = ["auth"]

    @get(
        "/", opt=signed_in(parameters=IN_MEMORY_PARAMETERS, needs_session=True), summary="List one's linked identities"
    )
    async def list_identities(self, request: HubRequest) -> Answer[Page[IdentityOut]]:
        """What identity providers call one, by the name of the provider."""
        principal = request.principal
        found = await identities_of(request.parts.reads, principal.id, principal.tenant_id)
        return answer(request.exchange, page_of_names(found, request.query_string))

    @post(
        "/",
        opt=signed_in(needs_session=True) | outcomes("not_found", "sign_in_invalid", "step_up_required"),
        status_code=200,
        summary="Link an identity",
    )
    async def link_identity(self, request: HubRequest, work: Work, data: RequestBody[LinkBegin]) -> Answer[LinkBegun]:
        """An address for this browser, which goes to the provider; whoever signs in there is linked to the account of
        this session. The browser ends at `redirect_uri`, with `linked` or with `error`. The call sets a cookie, and
        the address works where it comes along."""
        await require_step_up(work)
        begun, browser = await begin_link(request, data)
        told = answer(request.exchange, begun)
        if browser is not None:
            told.wire_headers.append(cookie_header(request.parts.settings, browser))
        return told

    @delete(
        "/{identity_id:uuid}",
        opt=signed_in(needs_session=True) | outcomes("last_way_in", "step_up_required"),
        status_code=204,
        summary="Take a linked identity away",
    )
    async def unlink_identity(self, request: HubRequest, work: Work, identity_id: FromPath[UUID]) -> Answer[None]:
        """By this identity nobody comes in any more. The last one of somebody without a password stays."""
        await unlink_identity(work, identity_id)
        return no_content()
