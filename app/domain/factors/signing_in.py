"""Signing in with a second factor, or with a passkey alone, and stepping up."""

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from sqlalchemy import bindparam, select

from app.core.errors import BadRequest, Fault, Forbidden, Unauthenticated
from app.domain.auth import services as passwords
from app.domain.auth.schemas import Login, TokenPair
from app.domain.auth.services import FactorNeeded, admitted_user, count_failure, forget_failures
from app.domain.auth.sessions import NOBODY, Authenticated, open_session
from app.domain.factors import passkeys
from app.domain.factors.challenges import Challenge, opened
from app.domain.factors.checking import Given, shown_factor
from app.domain.factors.repositories import has_recovery_codes, ids_of_passkeys
from app.domain.factors.schemas import (
    Credential,
    FactorMethod,
    Mfa,
    MfaErrorBody,
    MfaSignIn,
    PasskeyOptions,
    PasskeySignIn,
    StepUp,
)
from app.domain.factors.stepping_up import note_step_up
from app.domain.requests import HubRequest
from app.domain.tenants.models import Tenant
from app.domain.users.models import User
from app.domain.work import UnitOfWork, work_of_its_own

T = TypeVar("T")
Then = Callable[[UnitOfWork, Authenticated], Awaitable[T]]
OF_FACTORS = "factors"
"""Guesses at factors are counted apart from those at passwords."""


class MfaRequired(Unauthenticated):
    body_type = MfaErrorBody

    def __init__(self, mfa: Mfa) -> None:
        super().__init__(code="mfa_required")
        self.mfa = mfa


async def login(request: HubRequest, given: Login) -> TokenPair:
    """Raises Unauthenticated, and MfaRequired for the right password of who has a second factor."""
    try:
        return await passwords.login(request, given)
    except FactorNeeded as needed:
        raise MfaRequired(await what_is_needed(request, needed)) from None


async def what_is_needed(request: HubRequest, needed: FactorNeeded) -> Mfa:
    """What goes on with a password that was right."""
    challenge = Challenge(user_id=needed.user_id, tenant_id=needed.tenant_id, version=needed.version, amr=("pwd",))
    methods: list[FactorMethod] = ["totp"] if "totp" in needed.factors else []
    options = None
    async with request.parts.sessions(needed.tenant_id) as session:
        if "passkey" in needed.factors:
            methods.append("webauthn")
            known = await ids_of_passkeys(session, needed.user_id)
            options = passkeys.request_options(request.parts.settings, challenge.challenge, known)
        if await has_recovery_codes(session, needed.user_id):
            methods.append("recovery")
    return Mfa(challenge.sealed(request.parts.key_ring, "mfa"), methods, options)


async def sign_in_with_factor(request: HubRequest, given: MfaSignIn) -> TokenPair:
    pending = opened(request.parts.key_ring, "mfa", given.mfa_token)
    return await with_factor(request, pending, Given(given.method, given.code, given.credential), open_session)


async def with_factor(request: HubRequest, pending: Challenge | None, given: Given, then: Then[T]) -> T:
    """What `then` makes of who has given their password and a second factor, in the transaction that lets them in.
    `pending`: as `opened` gives it.

    A factor that is not right counts like a wrong password, and ends as one does where the account is locked:
    Unauthenticated. Raises it, too, for a token that is over, and TooManyRequests for too many guesses.
    """
    if pending is None or pending.user_id is None or pending.tenant_id is None:
        raise Unauthenticated(code="invalid_mfa_token")
    await request.parts.limits.charge_account(request.exchange, OF_FACTORS, str(pending.user_id))
    async with work_of_its_own(request) as work:
        work.move_to(pending.tenant_id)
        user = await admitted_user(work, pending.user_id)
        if user is not None and user.version != pending.version:
            raise Unauthenticated(code="invalid_mfa_token")
        if user is not None and (shown := await shown_factor(work, user.id, given, pending)) is not None:
            await forget_failures(work, user.id)
            who = Authenticated(user_id=user.id, email=user.email, amr=(*pending.amr, *shown))  # type: ignore[arg-type]
            return await then(work, who)
        await count_failure(work, user.id if user is not None else NOBODY)
        _record_failure(work, user, given.method)
    raise Unauthenticated(code="invalid_factor")


def _record_failure(work: UnitOfWork, user: User | None, method: str) -> None:
    by = {"actor_id": user.id, "actor_name": user.email} if user is not None else {}
    work.audit("auth.login", "session", None, outcome="failure", detail=method, **by)


# A passkey alone ------------------------------------------------------------------------------------------------------


def passkey_options(request: HubRequest) -> PasskeyOptions:
    """For whoever it is: the browser shows the passkeys that it has for this hub."""
    challenge, parts = Challenge(), request.parts
    options = passkeys.request_options(parts.settings, challenge.challenge, None)
    return PasskeyOptions(challenge.sealed(parts.key_ring, "passkey"), options)


async def sign_in_with_passkey(request: HubRequest, given: PasskeySignIn) -> TokenPair:
    return await with_passkey(request, given.token, given.credential, open_session)


async def with_passkey(request: HubRequest, token: str, credential: Credential, then: Then[T]) -> T:
    """What `then` makes of who has shown a passkey and nothing else. Raises Unauthenticated."""
    pending = opened(request.parts.key_ring, "passkey", token)
    if pending is None:
        raise Unauthenticated(code="invalid_mfa_token")
    owner = passkeys.owner_of(credential)
    if owner is not None and not await _is_tenant(request, owner[0]):
        owner = None
    async with work_of_its_own(request) as work:
        user = None
        if owner is not None:
            work.move_to(owner[0])
            user = await admitted_user(work, owner[1])
        given = Given("webauthn", credential=credential)
        if user is not None and (shown := await shown_factor(work, user.id, given, pending)) is not None:
            await forget_failures(work, user.id)
            return await then(work, Authenticated(user_id=user.id, email=user.email, amr=shown))
        _record_failure(work, user, "passkey")
    raise Unauthenticated(code="invalid_factor")


async def _is_tenant(request: HubRequest, tenant_id: UUID) -> bool:
    return bool(await request.parts.reads.rows(_TENANT, {"tenant_id": tenant_id}))


_TENANT = select(Tenant.id).where(Tenant.id == bindparam("tenant_id", type_=Tenant.id.type), Tenant.is_active)


# Step-up --------------------------------------------------------------------------------------------------------------


async def step_up_options(request: HubRequest) -> PasskeyOptions:
    """For the caller's passkeys, in this session."""
    principal, parts = request.principal, request.parts
    challenge = Challenge(user_id=principal.id, tenant_id=principal.tenant_id, session_id=principal.own_session_id)
    async with parts.sessions(principal.tenant_id) as session:
        known = await ids_of_passkeys(session, principal.id)
    options = passkeys.request_options(parts.settings, challenge.challenge, known)
    return PasskeyOptions(challenge.sealed(parts.key_ring, "step-up"), options)


async def step_up(request: HubRequest, given: StepUp) -> None:
    """Raises BadRequest for a wrong password or factor, which count like those of a sign-in, and Forbidden for the
    password of whoever has a second factor."""
    principal = request.principal
    await request.parts.limits.charge_account(request.exchange, OF_FACTORS, str(principal.id))
    if given.method is None:
        await _step_up_by_password(request, given)
        return
    pending = opened(request.parts.key_ring, "step-up", given.token)
    if pending is not None and (pending.user_id, pending.session_id) != (principal.id, principal.session_id):
        pending = None
    async with work_of_its_own(request) as work:
        user = await admitted_user(work, principal.id)
        factor = Given(given.method, given.code, given.credential)
        if user is not None and (shown := await shown_factor(work, user.id, factor, pending)) is not None:
            await forget_failures(work, user.id)
            await note_step_up(work, shown)
            work.audit("auth.step_up", "session", principal.session_id, detail=given.method)
            return
        await count_failure(work, user.id if user is not None else NOBODY)
        work.audit("auth.step_up", "session", principal.session_id, outcome="failure", detail=given.method)
    raise BadRequest(code="wrong_factor")


async def _step_up_by_password(request: HubRequest, given: StepUp) -> None:
    if given.password is None:
        raise BadRequest(errors=[Fault("password", "required", "is required, or a method")])

    async def note(work: UnitOfWork, user: User) -> None:
        if user.factors:
            raise Forbidden("You have a second factor: show that in place of the password.", code="factor_required")
        await note_step_up(work)
        work.audit("auth.step_up", "session", work.actor.session_id, detail="password")

    await passwords.confirmed_by_password(request, given.password, note, action="auth.step_up", path="password")
