"""Second factors: signing in with one, one's own, step-up, and resetting somebody else's."""

from typing import Any
from uuid import UUID

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.errors import HubError
from app.core.limits.prices import costs
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import open_to_all, requires, signed_in
from app.domain.auth.schemas import Login, TokenPair
from app.domain.factors import pages, signing_in
from app.domain.factors.repositories import FACTOR, FACTORS
from app.domain.factors.schemas import (
    FactorConfirm,
    FactorCreate,
    FactorCreated,
    FactorOut,
    MfaErrorBody,
    MfaSignIn,
    PasskeyOptions,
    PasskeySignIn,
    RecoveryCodes,
    StepUp,
)
from app.domain.factors.services import FactorService
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.sign_in.page_routes import (
    HANDLERS,
    SENT,
    SHOWN,
    SHOWN_AGAIN,
    page_again,
    read_form,
    read_query,
    see_other,
    text_of,
)
from app.domain.sign_in.services import go_on, pending_of
from app.domain.sign_in.views import told
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
LOGIN = outcomes("invalid_credentials", "login_busy", "mfa_required", by_status={401: MfaErrorBody})
OWN = signed_in(needs_session=True)
SHOWING = outcomes("invalid_factor", "invalid_mfa_token")


class LoginController(Controller):
    path = "/auth"
    tags = ["auth"]

    @post("/login", opt=open_to_all() | LOGIN | costs("login"), status_code=200, summary="Sign in")
    async def login(self, request: HubRequest, data: RequestBody[Login]) -> Answer[TokenPair]:
        """Open a session. After too many failures in a row an account is locked for a while.

        Where several organisations share the hub, `tenant` says which one, unless the host does or the address is
        known in one only.

        Who has set up a second factor is told so by 401 `mfa_required` once the password was right: `mfa.token` goes to
        `/api/v1/auth/mfa`, within five minutes, with any one of `mfa.methods`.
        """
        return answer(request.exchange, await signing_in.login(request, data))

    @post("/mfa", opt=open_to_all() | SHOWING | costs("login"), status_code=200, summary="Show a second factor")
    async def sign_in_with_factor(self, request: HubRequest, data: RequestBody[MfaSignIn]) -> Answer[TokenPair]:
        """Go on with a sign-in whose password was right: `code` for `totp` and `recovery`, `credential` for `webauthn`.
        A wrong one counts like a wrong password; a right one works once."""
        return answer(request.exchange, await signing_in.sign_in_with_factor(request, data))

    @post(
        "/passkey/options",
        opt=open_to_all() | costs("read"),
        status_code=200,
        summary="Begin to sign in with a passkey",
    )
    async def begin_with_passkey(self, request: HubRequest) -> Answer[PasskeyOptions]:
        """What a browser needs to ask for a passkey of this hub. Nobody has to say who they are."""
        return answer(request.exchange, signing_in.passkey_options(request))

    @post("/passkey", opt=open_to_all() | SHOWING | costs("login"), status_code=200, summary="Sign in with a passkey")
    async def sign_in_with_passkey(self, request: HubRequest, data: RequestBody[PasskeySignIn]) -> Answer[TokenPair]:
        """Open a session by a passkey alone. It counts as two factors: the key, and what unlocks it."""
        return answer(request.exchange, await signing_in.sign_in_with_passkey(request, data))

    @post("/step-up/options", opt=OWN | costs("read"), status_code=200, summary="Begin a step-up with a passkey")
    async def begin_step_up(self, request: HubRequest) -> Answer[PasskeyOptions]:
        """What a browser needs to ask for one of the caller's passkeys."""
        return answer(request.exchange, await signing_in.step_up_options(request))

    @post(
        "/step-up",
        opt=OWN | outcomes("factor_required", "login_busy", "wrong_factor", "wrong_password"),
        status_code=204,
        summary="Prove anew to be oneself",
    )
    async def step_up(self, request: HubRequest, data: RequestBody[StepUp]) -> Answer[None]:
        """By the password, or by a second factor, which makes this session one of two factors; who has one shows it,
        and no password will do. It is good for five minutes of this session, as a sign-in is. A wrong one counts like a
        wrong password at a sign-in."""
        await signing_in.step_up(request, data)
        return no_content()


class FactorController(Controller):
    path = "/auth/factors"
    tags = ["second factors"]

    @get("/", opt=signed_in(listing=FACTORS, needs_session=True), summary="List one's second factors")
    async def list_factors(self, request: HubRequest) -> Answer[Page[FactorOut]]:
        """One's own, those that wait to be confirmed included."""
        query = FACTORS.parse(request.query_string)
        return answer(request.exchange, await request.parts.reads.page(FACTORS, query, FactorOut, **_own(request)))

    @get("/{factor_id:uuid}", opt=OWN, summary="Get one of one's second factors")
    async def get_factor(self, request: HubRequest, factor_id: FromPath[UUID]) -> Tagged[FactorOut]:
        """Its secret is never shown again."""
        found = await request.parts.reads.one(FACTOR, FactorOut, id=factor_id, **_own(request))
        return entity(request.exchange, found)

    @post("/", opt=OWN | outcomes("step_up_required", "too_many_factors"), summary="Set up a second factor")
    @idempotent
    async def create_factor(
        self, request: HubRequest, work: Work, data: RequestBody[FactorCreate]
    ) -> Tagged[FactorCreated]:
        """An authenticator app (`totp`: `secret` and `otpauth_uri` are shown this once) or a passkey (`options`). It
        counts once it is confirmed, within an hour. Needs a sign-in or step-up of the last five minutes."""
        factor = await FactorService(work).create(data)
        return created(request.exchange, factor, f"/api/v1/auth/factors/{factor.id}")

    @post(
        "/{factor_id:uuid}/confirm",
        opt=OWN | outcomes("wrong_factor"),
        status_code=200,
        summary="Confirm a second factor",
    )
    async def confirm_factor(
        self, request: HubRequest, work: Work, factor_id: FromPath[UUID], data: RequestBody[FactorConfirm]
    ) -> Tagged[FactorOut]:
        """By a code of the authenticator app, or by what `navigator.credentials.create` gave. From now on a sign-in by
        password asks for a second factor."""
        return entity(request.exchange, await FactorService(work).confirm(factor_id, data), changed=True)

    @delete("/{factor_id:uuid}", opt=OWN | outcomes("step_up_required"), summary="Remove a second factor")
    async def delete_factor(self, request: HubRequest, work: Work, factor_id: FromPath[UUID]) -> Answer[None]:
        """One's own. Recovery codes go with the last one. Needs a sign-in or step-up of the last five minutes."""
        await FactorService(work).delete(factor_id)
        return no_content()


@post(
    "/auth/recovery-codes",
    opt=OWN | outcomes("step_up_required"),
    status_code=200,
    tags=["second factors"],
    summary="Make new recovery codes",
)
async def renew_recovery_codes(request: HubRequest, work: Work) -> Answer[RecoveryCodes]:
    """Ten of them, shown this once: each works once in place of a factor, and those of before do no more. Needs a
    sign-in or step-up of the last five minutes."""
    return answer(request.exchange, await FactorService(work).renew_recovery_codes())


@post(
    "/users/{user_id:uuid}/reset-factors",
    opt=requires("users:write", needs_session=True) | outcomes("exceeds_own_permissions", "step_up_required"),
    status_code=204,
    tags=["users"],
    summary="Take a user's second factors away",
)
async def reset_factors(request: HubRequest, work: Work, user_id: FromPath[UUID]) -> Answer[None]:
    """For who has lost all of theirs: factors, recovery codes and sessions are gone, and their password does until they
    set up another. Needs a sign-in or step-up of one's own of the last five minutes."""
    await FactorService(work).reset(user_id)
    return no_content()


class PasskeyPageController(Controller):
    path = "/sign-in/passkey"
    include_in_schema = False
    exception_handlers = HANDLERS

    @get(opt=SHOWN)
    async def show(self, request: HubRequest) -> Answer[bytes]:
        """A button, and the way back to the password."""
        return _passkey_page(request, text_of(read_query(request), "request"))

    @post(opt=SENT, status_code=303)
    async def sign_in(self, request: HubRequest) -> Answer[bytes]:
        """On to the client with a code."""
        form = await read_form(request)
        sealed = text_of(form, "request")
        pending = pending_of(request, sealed)
        try:
            credential, token = pages.credential_of(form), text_of(form, "token")
            place = await signing_in.with_passkey(
                request, token, credential, lambda work, who: go_on(work, pending, who)
            )
        except SHOWN_AGAIN as error:
            return _passkey_page(request, sealed, error)
        return see_other(place)


def _passkey_page(request: HubRequest, sealed: str, wrong: HubError | None = None) -> Answer[bytes]:
    pending = pending_of(request, sealed)
    page = pages.passkey_page(request, sealed, None if wrong is None else told(wrong))
    return page_again(request.exchange, page, pending.redirect_uri, wrong)


def _own(request: HubRequest) -> dict[str, Any]:
    return {"tenant_id": request.principal.tenant_id, "user_id": request.principal.id}
