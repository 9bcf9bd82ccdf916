"""The token endpoint (RFC 6749 section 3.2): codes, refresh tokens and the credentials of programs become tokens."""

import re
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from app.core.errors import Unauthenticated
from app.core.opaque_tokens import read_token
from app.core.security import ACCESS_TOKEN_S, SCOPE
from app.domain.auth import sessions
from app.domain.auth.models import ServiceToken
from app.domain.auth.schemas import TokenPair
from app.domain.oauth.authentication import Program, authenticate, is_first_use
from app.domain.oauth.clients import Client, hold_client
from app.domain.oauth.faults import OAuthRefused, invalid_client, invalid_grant
from app.domain.oauth.schemas import Granted, TokenForm
from app.domain.requests import HubRequest
from app.domain.sign_in.codes import KIND as CODE
from app.domain.sign_in.codes import redeem_code
from app.domain.work import UnitOfWork, work_of_its_own

GRANTS: Final = ("authorization_code", "refresh_token", "client_credentials")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
"""RFC 7636 section 4.1."""


async def grant(request: HubRequest, form: TokenForm) -> Granted:
    """Raises OAuthRefused, and what `authenticate` does."""
    if not form.grant_type:
        raise OAuthRefused("invalid_request", "`grant_type` is missing.")
    client = await authenticate(request, form)
    if form.grant_type not in GRANTS:
        raise OAuthRefused("unsupported_grant_type", f"`grant_type` is one of {', '.join(GRANTS)}.")
    if form.grant_type == "client_credentials":
        return await _to_program(request, client)
    if isinstance(client, Program):
        raise OAuthRefused("unauthorized_client", "Nobody signs in to a service account.")
    if form.grant_type == "authorization_code":
        return _granted(await _by_code(request, form, client))
    return _granted(await _by_refresh_token(request, form, client))


def _granted(pair: TokenPair) -> Granted:
    return Granted(
        access_token=pair.access_token,
        token_type="Bearer",  # noqa: S106
        expires_in=pair.expires_in,
        scope=SCOPE,
        refresh_token=pair.refresh_token,
        refresh_expires_in=pair.refresh_expires_in,
    )


async def _by_code(request: HubRequest, form: TokenForm, client: Client) -> TokenPair:
    """A code of another tenant than the client's is no code, whoever made it, and neither is one for an address that is
    the client's no more: a sign-in that began before has its code sent there."""
    missing = [name for name in ("code", "redirect_uri", "code_verifier") if not getattr(form, name)]
    if missing:
        raise OAuthRefused("invalid_request", f"`{'`, `'.join(missing)}` missing.")
    code, redirect_uri, verifier = form.code or "", form.redirect_uri or "", form.code_verifier or ""
    if not _VERIFIER.fullmatch(verifier):
        raise OAuthRefused("invalid_request", "`code_verifier` has 43 to 128 letters, digits, or any of -._~")
    given = read_token(CODE, code)
    if given is None or client.tenant_id not in (None, given.tenant_id):
        raise invalid_grant()
    if client.id is not None and not client.allows(redirect_uri):
        raise invalid_grant()
    pair = await redeem_code(
        request,
        code,
        client_id=client.id,
        redirect_uri=redirect_uri,
        code_verifier=verifier,
        held=lambda work: hold_client(work, client),
    )
    if pair is None:
        raise invalid_grant()
    return pair


async def _by_refresh_token(request: HubRequest, form: TokenForm, client: Client) -> TokenPair:
    if not form.refresh_token:
        raise OAuthRefused("invalid_request", "`refresh_token` is missing.")
    try:
        return await sessions.refresh(request, form.refresh_token, client_id=client.id)
    except Unauthenticated:
        raise invalid_grant() from None


# Programs -------------------------------------------------------------------------------------------------------------


async def _to_program(request: HubRequest, client: Client | Program) -> Granted:
    """RFC 6749 section 4.4: as long as any access token, and never longer than the API key. No refresh token."""
    if not isinstance(client, Program):
        if client.id is None:
            raise invalid_client()
        raise OAuthRefused("unauthorized_client", "Service accounts alone get tokens without a user.")
    async with work_of_its_own(request) as work:
        work.move_to(client.tenant_id)
        if await is_first_use(work, client):
            return _issue(work, client)
    raise invalid_client()


def _issue(work: UnitOfWork, program: Program) -> Granted:
    token_id, lasts_s = uuid7(), _seconds(work.now, program.ends_at)
    work.session.add(
        ServiceToken(
            id=token_id,
            tenant_id=program.tenant_id,
            service_account_id=program.account_id,
            api_key_id=program.api_key_id,
            jwk_id=program.jwk_id,
            created_at=work.now,
            expires_at=work.now + timedelta(seconds=lasts_s),
        )
    )
    work.audit("auth.token", "service_token", token_id, actor_id=program.account_id, actor_name=program.name)
    return Granted(
        access_token=_access_token(work, program, token_id, lasts_s),
        token_type="Bearer",  # noqa: S106
        expires_in=lasts_s,
        scope=SCOPE,
    )


def _access_token(work: UnitOfWork, program: Program, token_id: UUID, lasts_s: int) -> str:
    return work.parts.tokens.issue(
        subject=program.account_id,
        session=token_id,
        tenant=program.tenant_id,
        lasts_s=lasts_s,
        client_id=str(program.account_id),
    )


def _seconds(now: datetime, ends_at: datetime | None) -> int:
    left = ACCESS_TOKEN_S if ends_at is None else int((ends_at - now).total_seconds())
    return max(min(left, ACCESS_TOKEN_S), 1)
