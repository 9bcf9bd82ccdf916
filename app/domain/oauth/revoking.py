"""The revocation endpoint (RFC 7009): a client says that it needs a token no more, and what it rests on ends."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from app.core.across_tenants import tenant_of_session
from app.core.errors import Unauthenticated
from app.core.security import Claims
from app.domain.api_keys.keys import BEGINNING
from app.domain.auth.models import ServiceToken, Session
from app.domain.auth.sessions import read_refresh_token
from app.domain.oauth.authentication import Program, authenticate, is_first_use
from app.domain.oauth.clients import Client
from app.domain.oauth.faults import OAuthRefused, invalid_client, invalid_grant
from app.domain.oauth.schemas import RevocationForm
from app.domain.requests import HubRequest
from app.domain.users.models import User
from app.domain.work import UnitOfWork, work_of_its_own

_NO_SYNC = {"synchronize_session": False}


async def revoke(request: HubRequest, form: RevocationForm) -> None:
    """A refresh token ends its session, and so does an access token of it; what is no token of the hub's, or is over,
    ends nothing. Raises OAuthRefused for a token of another client, and what `authenticate` does."""
    if not form.token:
        raise OAuthRefused("invalid_request", "`token` is missing.")
    client = await authenticate(request, form)
    await _use_up_assertion(request, client)
    if form.token.encode("utf-8", "replace").startswith(BEGINNING):
        raise OAuthRefused("unsupported_token_type", "An API key is revoked by `DELETE /api/v1/api-keys/{id}`.")
    claims = _access_token(request, form.token)
    if claims is not None and claims.is_of_program:
        await _end_program(request, client, claims)
        return
    session_id = claims.sid if claims is not None else _session_of(request, form.token)
    tenant_id = None if session_id is None else await tenant_of_session(request.parts.reads, session_id)
    if session_id is not None and tenant_id is not None:
        await _end_session(request, client, session_id, tenant_id)


async def _use_up_assertion(request: HubRequest, client: Client | Program) -> None:
    """Raises OAuthRefused for one that was used before."""
    if not isinstance(client, Program) or client.assertion is None:
        return
    async with work_of_its_own(request) as work:
        work.move_to(client.tenant_id)
        if await is_first_use(work, client):
            return
    raise invalid_client()


def _access_token(request: HubRequest, token: str) -> Claims | None:
    try:
        return request.parts.tokens.verify(token.encode("ascii", "replace"))
    except Unauthenticated:
        return None


def _session_of(request: HubRequest, token: str) -> UUID | None:
    """Of a refresh token, however old: to whoever has it, it was given."""
    try:
        return read_refresh_token(request.parts.key_ring, token)[0]
    except Unauthenticated:
        return None


async def _end_session(request: HubRequest, client: Client | Program, session_id: UUID, tenant_id: UUID) -> None:
    async with work_of_its_own(request) as work:
        work.move_to(tenant_id)
        found = await _live_session(work, session_id)
        if found is None:
            return
        if isinstance(client, Program) or found.client_id != client.id:
            raise invalid_grant()
        ending = update(Session).where(Session.id == session_id).values(revoked_at=work.now, updated_at=work.now)
        await work.session.execute(ending, execution_options=_NO_SYNC)
        work.forget("session", session_id)
        work.audit("auth.revoke", "session", session_id, actor_id=found.user_id, actor_name=found.email)


async def _live_session(work: UnitOfWork, session_id: UUID) -> Any:
    """With its user's email, and locked: of two at once, one ends it."""
    wanted = select(Session.client_id, Session.user_id, User.email).join(User, User.id == Session.user_id)
    live = wanted.where(Session.id == session_id, Session.revoked_at.is_(None)).with_for_update(of=Session)
    return (await work.session.execute(live)).one_or_none()


async def _end_program(request: HubRequest, client: Client | Program, claims: Claims) -> None:
    if not isinstance(client, Program) or client.account_id != claims.sub:
        raise invalid_grant()
    async with work_of_its_own(request) as work:
        work.move_to(client.tenant_id)
        live = (ServiceToken.id == claims.sid, ServiceToken.revoked_at.is_(None))
        ending = update(ServiceToken).where(*live).values(revoked_at=work.now).returning(ServiceToken.id)
        if await work.session.scalar(ending, execution_options=_NO_SYNC) is not None:
            work.forget("service_token", claims.sid)
            work.audit("auth.revoke", "service_token", claims.sid, actor_id=client.account_id, actor_name=client.name)
