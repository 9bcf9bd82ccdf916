"""Signing in by an identity provider that speaks SAML 2.0."""

from typing import Annotated

from litestar import Controller, get, post
from litestar.enums import RequestEncodingType
from litestar.params import Body, FromPath

from app.core.answers import Answer, tells_errors_by
from app.core.errors import NotFound
from app.core.limits.prices import costs
from app.core.outcomes import outcomes
from app.core.security import open_to_all
from app.domain.identity_providers.registry import Provider, provider_named, tenant_meant
from app.domain.identity_providers.schemas import TENANT
from app.domain.identity_providers.sign_ins import parameters_of
from app.domain.requests import HubRequest
from app.domain.saml.own_side import own_side, require_packages
from app.domain.saml.requests import send_to_provider
from app.domain.saml.responses import take_response, take_up
from app.domain.saml.schemas import OF_FINISH, OF_LOGIN, SamlForm
from app.domain.sign_in.views import ON_THE_WAY, error_told_on_the_way

METADATA_TYPE = "application/samlmetadata+xml"
FORM_BYTES = 524_288
REFUSED = outcomes(
    "saml_malformed", "saml_forbidden_xml", "saml_comment", "saml_unsigned", "saml_altered", "saml_wrong_key",
    "saml_weak_algorithm", "saml_wrapped", "saml_undecipherable", "saml_unknown_issuer", "saml_unsolicited",
    "saml_wrong_request", "saml_wrong_destination", "saml_wrong_recipient", "saml_wrong_audience", "saml_expired",
    "saml_not_yet_valid", "saml_replayed", "saml_no_subject", "saml_not_successful", "saml_bad_metadata",
    "saml_not_installed", "saml_metadata_unavailable", "secret_unreadable", "sign_in_invalid",
)  # fmt: skip
BEGINNING = outcomes(
    "sign_in_invalid", "saml_bad_metadata", "saml_not_installed", "saml_metadata_unavailable", "secret_unreadable"
)
FINISHING = outcomes("sign_in_invalid", "saml_not_installed")
DESCRIBING = outcomes("saml_not_installed", "secret_unreadable", "sign_in_invalid")
SHOWN = tells_errors_by(error_told_on_the_way)


class SamlController(Controller):
    path = "/auth/saml/{provider_name:str}"
    tags = ["auth"]
    exception_handlers = ON_THE_WAY

    @get(
        "/metadata",
        opt=open_to_all(parameters=TENANT) | DESCRIBING,
        media_type=METADATA_TYPE,
        summary="Describe this hub to a SAML provider",
    )
    async def get_saml_metadata(self, request: HubRequest, provider_name: FromPath[str]) -> Answer[bytes]:
        """The metadata of this service provider, for the provider's administrators: its id, where responses go, and
        the certificate of its key, with which it is signed. Each provider knows another key."""
        from app.core.saml.metadata import write_metadata

        provider, _ = await _provider(request, provider_name)
        document = write_metadata(await own_side(request.parts, provider))
        return Answer(200, [(b"content-type", METADATA_TYPE.encode())], document)

    @get(
        "/login",
        opt=open_to_all(parameters=OF_LOGIN) | BEGINNING | SHOWN | costs("login"),
        status_code=302,
        summary="Sign in by a SAML provider",
    )
    async def go_to_saml_provider(self, request: HubRequest, provider_name: FromPath[str]) -> Answer[None]:
        """For a browser: on to the provider, with a signed request. To a provider that takes requests by HTTP-POST
        only, a page of the hub sends it (200). The sign-in ends at `redirect_uri` with `code` and `state`, or with
        `error`; the code is exchanged at `POST /auth/token`. Other parameters are not looked at."""
        provider, given = await _provider(request, provider_name)
        return await send_to_provider(request, provider, given)

    @post(
        "/acs",
        opt=open_to_all(parameters=TENANT, takes_form=True, form_bytes=FORM_BYTES) | REFUSED | SHOWN | costs("login"),
        status_code=303,
        summary="Take a SAML response",
    )
    async def take_saml_response(
        self,
        request: HubRequest,
        provider_name: FromPath[str],
        data: Annotated[SamlForm, Body(media_type=RequestEncodingType.URL_ENCODED)],
    ) -> Answer[None]:
        """For the form that a provider makes the browser send: a response to a request of this hub, with an assertion
        that is signed itself. Whatever is wrong with it has a code of its own. The browser is led on to where its
        cookies come along, for other sites' forms bring none."""
        provider, _ = await _provider(request, provider_name)
        address = await take_response(request, provider, data)
        return Answer(303, [(b"location", address.encode()), (b"cache-control", b"no-store")], b"")

    @get(
        "/finish",
        opt=open_to_all(parameters=OF_FINISH) | FINISHING | SHOWN | costs("login"),
        status_code=303,
        summary="End a sign-in by a SAML provider",
    )
    async def finish_saml_sign_in(self, request: HubRequest, provider_name: FromPath[str]) -> Answer[None]:
        """For the browser that began the sign-in, once: on to `redirect_uri`, or to the next step of the hub's own
        page where more is asked of somebody."""
        provider, given = await _provider(request, provider_name)
        return await take_up(request, provider, given)


async def _provider(request: HubRequest, name: str) -> tuple[Provider, dict[str, str]]:
    """Raises NotFound for a name that no provider of the tenant has, and Unavailable where SAML is not installed."""
    given = parameters_of(request.query_string)
    provider = await provider_named(request.parts, "saml", name, tenant_meant(request, given.get("tenant")))
    if provider is None:
        raise NotFound
    require_packages()
    return provider, given
