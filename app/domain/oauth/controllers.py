"""OAuth 2.0: the hub as authorization server, and the clients that a tenant registers with it."""

from typing import Annotated, TypeVar
from uuid import UUID

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.enums import RequestEncodingType
from litestar.params import Body, FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content, tells_errors_by
from app.core.bodies import form_fields
from app.core.limits.prices import costs
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import open_to_all, requires
from app.domain.idempotency.services import idempotent
from app.domain.oauth.authorizing import authorize
from app.domain.oauth.endpoints import resource_metadata, server_metadata
from app.domain.oauth.faults import TOLD, OAuthRefused
from app.domain.oauth.granting import grant
from app.domain.oauth.repositories import OAUTH_CLIENT, OAUTH_CLIENTS
from app.domain.oauth.revoking import revoke
from app.domain.oauth.schemas import (
    AUTHORIZATION,
    Granted,
    OAuthClientCreate,
    OAuthClientCreated,
    OAuthClientOut,
    OAuthClientPatch,
    ResourceMetadata,
    RevocationForm,
    ServerMetadata,
    TokenForm,
)
from app.domain.oauth.services import OAuthClientService
from app.domain.requests import HubRequest
from app.domain.sign_in.views import error_told
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
READ, WRITE = "oauth-clients:read", "oauth-clients:write"
FORM = RequestEncodingType.URL_ENCODED
T = TypeVar("T")


class OAuthController(Controller):
    path = "/auth"
    tags = ["auth"]

    @get(
        "/authorize",
        opt=open_to_all(parameters=AUTHORIZATION)
        | outcomes("unknown_client", "unregistered_redirect")
        | tells_errors_by(error_told),
        status_code=302,
        summary="Sign in for a client",
    )
    async def authorize(self, request: HubRequest) -> Answer[None]:
        """RFC 6749 section 4.1 with PKCE (RFC 7636): the browser is sent to the hub's sign-in page, and from there with
        a `code`, `state` and `iss` (RFC 9207) to the `redirect_uri`. What is wrong with the request goes there as
        `error`; a client that is not known, or an address that is not its, is told here. Unknown parameters are
        ignored."""
        return await authorize(request)

    @post("/token", opt=open_to_all(takes_form=True) | TOLD, status_code=200, summary="Get tokens")
    async def get_tokens(
        self, request: HubRequest, data: Annotated[TokenForm, Body(media_type=FORM)]
    ) -> Answer[Granted]:
        """RFC 6749: `authorization_code` with the `code_verifier`, `refresh_token`, or `client_credentials` for a
        service account, whose `client_id` is its id and whose secret is one of its API keys. A client shows who it is
        by Basic, by `client_secret`, or by `private_key_jwt` (RFC 7523, service accounts); a public one says its
        `client_id`. Errors have the shape of RFC 6749."""
        try:
            await _refuse_repeated(request)
            return answer(request.exchange, await grant(request, data))
        except OAuthRefused as refused:
            return refused.answer(request.exchange)  # type: ignore[return-value]

    @post("/revoke", opt=open_to_all(takes_form=True) | TOLD, status_code=200, summary="Revoke a token")
    async def revoke_token(
        self, request: HubRequest, data: Annotated[RevocationForm, Body(media_type=FORM)]
    ) -> Answer[None]:
        """RFC 7009: a refresh token, or an access token of the session, ends the session, within a second everywhere; a
        program's access token ends alone. 200 as well for what is no token, or is over already."""
        try:
            await _refuse_repeated(request)
            await revoke(request, data)
            return Answer(200, [], b"")
        except OAuthRefused as refused:
            return refused.answer(request.exchange)  # type: ignore[return-value]


async def _refuse_repeated(request: HubRequest) -> None:
    """RFC 6749 section 3.2, of what nobody reads as well. Raises OAuthRefused."""
    if any(isinstance(value, list) for value in form_fields(await request.body()).values()):
        raise OAuthRefused("invalid_request", "A parameter is given more than once.")


class OAuthClientController(Controller):
    path = "/oauth-clients"
    tags = ["oauth clients"]

    @get("/", opt=requires(READ, listing=OAUTH_CLIENTS), summary="List OAuth clients")
    async def list_oauth_clients(self, request: HubRequest) -> Answer[Page[OAuthClientOut]]:
        """Every client of the tenant. `hub-cli`, for programs that listen on the loopback interface, is built in."""
        query, tenant_id = OAUTH_CLIENTS.parse(request.query_string), request.principal.tenant_id
        page = await request.parts.reads.page(OAUTH_CLIENTS, query, OAuthClientOut, tenant_id=tenant_id)
        return answer(request.exchange, page)

    @get("/{oauth_client_id:uuid}", opt=requires(READ), summary="Get an OAuth client")
    async def get_oauth_client(self, request: HubRequest, oauth_client_id: FromPath[UUID]) -> Tagged[OAuthClientOut]:
        """One client, without its secret."""
        place = {"id": oauth_client_id, "tenant_id": request.principal.tenant_id}
        return entity(request.exchange, await request.parts.reads.one(OAUTH_CLIENT, OAuthClientOut, **place))

    @post("/", opt=requires(WRITE) | outcomes("name_taken", "too_many_clients"), summary="Register an OAuth client")
    @idempotent
    async def create_oauth_client(
        self, request: HubRequest, work: Work, data: RequestBody[OAuthClientCreate]
    ) -> Tagged[OAuthClientCreated]:
        """Members of the tenant can sign in to it from then on. `client_secret`, which a confidential one has, is shown
        this once."""
        client = await OAuthClientService(work).create(data)
        return created(request.exchange, client, f"/api/v1/oauth-clients/{client.id}")

    @patch("/{oauth_client_id:uuid}", opt=requires(WRITE) | outcomes("name_taken"), summary="Change an OAuth client")
    async def update_oauth_client(
        self, request: HubRequest, work: Work, oauth_client_id: FromPath[UUID], data: RequestBody[OAuthClientPatch]
    ) -> Tagged[OAuthClientOut]:
        """JSON Merge Patch (RFC 7396). A code that is sent to a redirect URI of before is worth nothing."""
        return entity(request.exchange, await OAuthClientService(work).update(oauth_client_id, data), changed=True)

    @delete("/{oauth_client_id:uuid}", opt=requires(WRITE), summary="Delete an OAuth client")
    async def delete_oauth_client(
        self, request: HubRequest, work: Work, oauth_client_id: FromPath[UUID]
    ) -> Answer[None]:
        """Whoever is signed in to it is signed out, within a second."""
        await OAuthClientService(work).delete(oauth_client_id)
        return no_content()


@get(
    "/.well-known/oauth-authorization-server",
    opt=open_to_all() | costs("nothing"),
    tags=["auth"],
    summary="Metadata for OAuth clients",
)
async def get_server_metadata(request: HubRequest) -> Answer[ServerMetadata]:
    """RFC 8414: where the endpoints are, and what they can do."""
    return _for_a_while(answer(request.exchange, server_metadata(request.parts)))


@get(
    "/.well-known/oauth-protected-resource",
    opt=open_to_all() | costs("nothing"),
    tags=["auth"],
    summary="Metadata of the API",
)
async def get_resource_metadata(request: HubRequest) -> Answer[ResourceMetadata]:
    """RFC 9728: whose access tokens this API takes."""
    return _for_a_while(answer(request.exchange, resource_metadata(request.parts)))


def _for_a_while(found: Answer[T]) -> Answer[T]:
    found.wire_headers.append((b"cache-control", b"public, max-age=300"))
    return found
