"""Sessions: opened for who has proven to be themselves, carried on by refresh tokens, ended by a reused one."""

import hmac
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Literal
from uuid import UUID

from msgspec import Struct
from sqlalchemy import and_, exists, func, not_, select, update
from uuid_utils.compat import uuid7

from app.core import base64url
from app.core.across_tenants import tenant_of_session
from app.core.errors import Unauthenticated
from app.core.sealing import KeyRing, SealingError
from app.core.security import ACCESS_TOKEN_S
from app.domain.auth.models import Session
from app.domain.auth.repositories import SessionRepository
from app.domain.auth.schemas import TokenPair
from app.domain.requests import HubRequest
from app.domain.tenants.models import Tenant, TenantSettings
from app.domain.tenants.schemas import TenantSettingsGiven
from app.domain.users.models import User
from app.domain.work import UnitOfWork, work_of_its_own

USUAL = TenantSettingsGiven()
"""Where a tenant has decided nothing."""
REFRESH_GRACE = timedelta(seconds=10)
"""A client that lost the answer to its refresh may ask again for that long and gets the same successor."""

NOBODY = UUID(int=0)

Method = Literal["pwd", "otp", "hwk", "kba", "fed", "mfa"]
"""How somebody has proven to be themselves (RFC 8176): by password, one-time code, passkey, recovery code, identity
provider; `mfa` stands beside what counts as two factors. `fed` is no value of the RFC's registry, but in wide use."""


class Authenticated(Struct, frozen=True, kw_only=True):
    """A user who has proven to be themselves."""

    user_id: UUID
    email: str
    amr: Sequence[Method] = ("pwd",)
    provider: str | None = None
    """Name of the identity provider that vouched for them, with what it calls them and their session there."""
    provider_subject: str | None = None
    provider_session: str | None = None


async def open_session(
    work: UnitOfWork, who: Authenticated, client_id: str | None = None, *, session_id: UUID | None = None
) -> TokenPair:
    """A new one, with its first pair of tokens. `client_id` is the OAuth client that it is for; None: the hub's API."""
    device = work.exchange.header(b"user-agent") if work.exchange else None
    device = device[:300] if device else None
    found = await _note_sign_in(work, who.user_id, device)
    opened = work.add(
        Session,
        id=session_id or uuid7(),
        version=1,
        **(work.stamp() | {"created_by": who.user_id, "updated_by": who.user_id}),
        user_id=who.user_id,
        key_id=work.parts.key_ring.current_id,
        generation=1,
        rotated_at=work.now,
        last_seen_at=work.now,
        idle_expires_at=work.now + timedelta(days=found.idle_days),
        expires_at=work.now + timedelta(days=found.days),
        device=device,
        address=work.address,
        client_id=client_id,
        amr=list(who.amr),
        authenticated_at=work.now,
        provider=who.provider,
        provider_subject=who.provider_subject,
        provider_session=who.provider_session,
    )
    session = Session(**opened)
    work.audit("auth.login", "session", session.id, actor_id=who.user_id, actor_name=who.email)
    if found.is_new_device:
        told = {"id": str(who.user_id), "session_id": str(session.id), "device": device, "address": session.address}
        work.announce("user.signed_in_from_new_device", f"users/{who.user_id}", told)
    return _pair(work, session)


class SignIn(Struct, frozen=True):
    """What a new session has to know of its user and tenant."""

    idle_days: int
    """As the tenant has it: until a session ends that nobody refreshes."""
    days: int
    """Until any ends."""
    is_new_device: bool
    """Whether the user has sessions, and none from this program and address, of those that are kept. Their first one is
    no news."""


async def _note_sign_in(work: UnitOfWork, user_id: UUID, device: str | None) -> SignIn:
    """In the user's row, which answers the rest by the way."""
    of_tenant = select(TenantSettings).where(TenantSettings.tenant_id == work.tenant_id).limit(1)
    idle_days, days = (
        of_tenant.with_only_columns(column).scalar_subquery()
        for column in (TenantSettings.session_idle_days, TenantSettings.session_days)
    )
    of_user = select(1).where(Session.user_id == user_id)
    is_alike = (Session.device.is_not_distinct_from(device), Session.address.is_not_distinct_from(work.address))
    is_new = and_(exists(of_user), not_(exists(of_user.where(*is_alike))))
    known = (func.coalesce(idle_days, USUAL.session_idle_days), func.coalesce(days, USUAL.session_days), is_new)
    noted = update(User).where(User.id == user_id).values(last_sign_in_at=work.now).returning(*known)
    row = (await work.session.execute(noted, execution_options={"synchronize_session": False})).one()
    return SignIn(*row)


async def refresh(request: HubRequest, refresh_token: str, *, client_id: str | None = None) -> TokenPair:
    """Rotate, for the OAuth client that the session was opened for; None: the hub's own API. For any other it is no
    token at all, and none of its uses is counted.

    A token that was used before ends the whole session, but for ten seconds in which it gets the same successor.
    """
    session_id, generation = read_refresh_token(request.parts.key_ring, refresh_token)
    tenant_id = await tenant_of_session(request.parts.reads, session_id)
    async with work_of_its_own(request) as work:
        work.move_to(tenant_id or work.tenant_id)
        session = await SessionRepository(work.session).get_one_or_none(id=session_id, with_for_update=True)
        live = await _live_user(work, session) if session is not None else None
        if session is not None and live is not None and session.client_id == client_id:
            email, idle_days = live
            if generation == session.generation:
                return await _rotate(work, session, email, timedelta(days=idle_days))
            if generation == session.generation - 1 and work.now - session.rotated_at <= REFRESH_GRACE:
                _record_refresh(work, session, email, detail="repeated")
                return _pair(work, session)
            await _end_reused(work, session, email)
    raise Unauthenticated("The refresh token is not valid any more. Sign in again.", code="invalid_refresh_token")


async def _live_user(work: UnitOfWork, session: Session) -> tuple[str, int] | None:
    """The email of whoever the session is of, and after how many idle days it ends; None once it, they or their tenant
    has ended."""
    if session.revoked_at is not None or min(session.idle_expires_at, session.expires_at) <= work.now:
        return None
    idle_days = func.coalesce(TenantSettings.session_idle_days, USUAL.session_idle_days)
    statement = select(User.email, idle_days).join(Tenant, Tenant.id == User.tenant_id)
    statement = statement.outerjoin(TenantSettings, TenantSettings.tenant_id == Tenant.id)
    is_live = (User.id == session.user_id, User.is_active, Tenant.is_active)
    row = (await work.session.execute(statement.where(*is_live))).one_or_none()
    return None if row is None else (row[0], row[1])


async def _rotate(work: UnitOfWork, session: Session, email: str, idle: timedelta) -> TokenPair:
    session.generation += 1
    session.key_id = work.parts.key_ring.current_id
    session.rotated_at = session.last_seen_at = session.updated_at = work.now
    session.idle_expires_at = work.now + idle
    await SessionRepository(work.session).update(session)
    _record_refresh(work, session, email)
    return _pair(work, session)


def _record_refresh(work: UnitOfWork, session: Session, email: str, *, detail: str | None = None) -> None:
    work.audit("auth.refresh", "session", session.id, actor_id=session.user_id, actor_name=email, detail=detail)


async def _end_reused(work: UnitOfWork, session: Session, email: str) -> None:
    session.revoked_at = session.updated_at = work.now
    await SessionRepository(work.session).update(session)
    work.forget("session", session.id)
    by = {"actor_id": session.user_id, "actor_name": email}
    work.audit("auth.refresh_reused", "session", session.id, outcome="refused", **by)


def _pair(work: UnitOfWork, session: Session) -> TokenPair:
    until = min(session.idle_expires_at, session.expires_at)
    try:
        successor = refresh_token_of(work.parts.key_ring, session.key_id, session.id, session.generation)
    except SealingError:
        raise Unauthenticated(code="session_ended") from None
    return TokenPair(
        access_token=work.parts.tokens.issue(
            subject=session.user_id,
            session=session.id,
            tenant=session.tenant_id,
            client_id=session.client_id,
            amr=session.amr,
            auth_time=session.authenticated_at,
        ),
        token_type="bearer",  # noqa: S106
        expires_in=ACCESS_TOKEN_S,
        refresh_token=successor,
        refresh_expires_in=int((until - work.now).total_seconds()),
    )


def refresh_token_of(ring: KeyRing, key_id: str, session_id: UUID, generation: int) -> str:
    """Derived, never stored: the same session and generation always have the same token.

    Raises SealingError for a lost key.
    """
    message = session_id.bytes + generation.to_bytes(8)
    mac = hmac.new(ring.derive("refresh tokens", key_id), message, sha256).digest()
    return f"dfr_{session_id.hex}_{generation}_{base64url.encode(mac).replace('_', '.')}"


def read_refresh_token(ring: KeyRing, token: str) -> tuple[UUID, int]:
    """Session and generation of a genuine token. Raises Unauthenticated without asking the database."""
    parts = token.split("_")
    if len(parts) == 4 and len(parts[1]) == 32 and parts[2].isascii() and parts[2].isdigit() and len(parts[2]) < 10:
        try:
            session_id, generation = UUID(parts[1]), int(parts[2])
        except ValueError:
            session_id, generation = NOBODY, 0
        genuine = (refresh_token_of(ring, key_id, session_id, generation) for key_id in ring.ids)
        if any(hmac.compare_digest(candidate.encode(), token.encode()) for candidate in genuine):
            return session_id, generation
    raise Unauthenticated(code="invalid_refresh_token")
