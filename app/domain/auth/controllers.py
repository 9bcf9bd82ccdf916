"""Signing in and out, sessions, introspection."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.enums import RequestEncodingType
from litestar.params import Body, FromPath, RequestBody
from msgspec import Meta, Struct

from app.core.answers import Answer, Tagged, answer, created, no_content
from app.core.limits.prices import costs
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import open_to_all, signed_in
from app.domain.auth import services, sessions
from app.domain.auth.principals import Signed
from app.domain.auth.repositories import SESSIONS
from app.domain.auth.schemas import (
    ChangePassword,
    Introspection,
    JsonWebKeySet,
    Logout,
    Me,
    Refresh,
    Register,
    SessionOut,
    TokenPair,
)
from app.domain.requests import HubRequest
from app.domain.users.schemas import UserOut
from app.domain.work import UnitOfWork

REGISTERING = outcomes("email_taken", "login_busy", "registration_closed", "weak_password")


class IntrospectionForm(Struct):
    token: Annotated[str, Meta(min_length=1, max_length=8192)]
    token_type_hint: str | None = None


class AuthController(Controller):
    path = "/auth"
    tags = ["auth"]

    @post("/register", opt=open_to_all() | REGISTERING | costs("login"), summary="Register")
    async def register(
        self, request: HubRequest, work: NamedDependency[UnitOfWork], data: RequestBody[Register]
    ) -> Tagged[UserOut]:
        """Create an account for oneself, where the deployment allows it."""
        user = await services.register(request, work, data)
        return created(request.exchange, user, f"/api/v1/users/{user.id}")

    @post("/refresh", opt=open_to_all() | outcomes("invalid_refresh_token"), status_code=200, summary="Refresh tokens")
    async def refresh(self, request: HubRequest, data: RequestBody[Refresh]) -> Answer[TokenPair]:
        """Exchange a refresh token for a new pair. Each one works once; using an old one again ends the session."""
        return answer(request.exchange, await sessions.refresh(request, data.refresh_token))

    @post("/logout", opt=signed_in(needs_session=True), status_code=204, summary="Sign out")
    async def logout(
        self, request: HubRequest, work: NamedDependency[UnitOfWork], data: RequestBody[Logout | None] = None
    ) -> Answer[None]:
        """End this session, or all of one's own."""
        await services.logout(work, (data or Logout()).scope)
        return no_content()

    @get("/me", opt=signed_in(), summary="Who am I")
    async def get_me(self, request: HubRequest) -> Answer[Me]:
        """The user or service account, roles, permissions and tenant behind the access token or API key."""
        signed: Signed = request.exchange.signed
        return signed.answer(request.exchange, "me", lambda: signed.me)

    @post(
        "/change-password",
        opt=signed_in(needs_session=True) | outcomes("login_busy", "weak_password", "wrong_password"),
        status_code=204,
        summary="Change one's password",
    )
    async def change_password(self, request: HubRequest, data: RequestBody[ChangePassword]) -> Answer[None]:
        """All other sessions of the user end."""
        await services.change_password(request, data)
        return no_content()

    @get("/sessions", opt=signed_in(listing=SESSIONS, needs_session=True), summary="List one's sessions")
    async def list_sessions(self, request: HubRequest) -> Answer[Page[SessionOut]]:
        """Where one is signed in."""
        principal = request.principal
        own = {"tenant_id": principal.tenant_id, "user_id": principal.id, "current_session_id": principal.session_id}
        query = SESSIONS.parse(request.query_string)
        return answer(request.exchange, await request.parts.reads.page(SESSIONS, query, SessionOut, **own))

    @delete("/sessions/{session_id:uuid}", opt=signed_in(needs_session=True), summary="End one's session")
    async def end_session(
        self, request: HubRequest, work: NamedDependency[UnitOfWork], session_id: FromPath[UUID]
    ) -> Answer[None]:
        """Sign out another device."""
        await services.end_session(work, session_id)
        return no_content()

    @post("/introspect", opt=signed_in(takes_form=True) | costs("read"), status_code=200, summary="Introspect a token")
    async def introspect(
        self, request: HubRequest, data: Annotated[IntrospectionForm, Body(media_type=RequestEncodingType.URL_ENCODED)]
    ) -> Answer[Introspection]:
        """RFC 7662, for other services: whether an access token or API key is valid at this moment, and whose it is."""
        return await services.introspect(request, data.token)


@get("/.well-known/jwks.json", opt=open_to_all() | costs("nothing"), tags=["auth"], summary="Public keys")
async def get_jwks(request: HubRequest) -> Answer[JsonWebKeySet]:
    """RFC 7517: the keys with which other services verify access tokens themselves."""
    found = answer(request.exchange, JsonWebKeySet(request.parts.tokens.jwks()["keys"]))
    found.wire_headers.append((b"cache-control", b"public, max-age=300"))
    return found
