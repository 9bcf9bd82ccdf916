"""Back-channel logout: a provider says that somebody has signed out there, and their sessions here end
(OpenID Connect Back-Channel Logout 1.0).

    LogoutRefused    `is_away` where the provider's keys could not be had
"""

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, update

from app.domain.auth.models import Session, SignInCode
from app.domain.identity_providers.registry import Provider, provider_named
from app.domain.oidc.discovery import ProviderAway
from app.domain.oidc.services import verified_by
from app.domain.oidc.tokens import OLDEST_S, SKEW_S, TokenRefused, require_logout_token
from app.domain.requests import HubRequest
from app.domain.spent.services import moment_of, spend
from app.domain.work import UnitOfWork, work_of_its_own

log = logging.getLogger("hub.oidc")


class LogoutRefused(Exception):
    def __init__(self, reason: str, *, is_away: bool = False) -> None:
        self.reason, self.is_away = reason, is_away
        super().__init__(reason)


async def log_out(request: HubRequest, name: str, slug: str, token: str) -> None:
    """Ends what the token names. Raises LogoutRefused."""
    provider = await provider_named(request.parts, "oidc", name, slug, also_inactive=True)
    if provider is None:
        raise LogoutRefused("provider")
    try:
        claims = await verified_by(request, provider, token, types=(None, "jwt", "logout+jwt"))
        require_logout_token(claims, issuer=provider.issuer or "", client_id=provider.client_id or "")
    except TokenRefused as refused:
        log.warning("identity provider %s of %s: logout token refused: %s", name, slug, refused.reason)
        raise LogoutRefused(refused.reason) from None
    except ProviderAway as away:
        log.warning("identity provider %s of %s is away: %s", name, slug, away.reason)
        raise LogoutRefused(away.reason, is_away=True) from None
    await _end(request, provider, claims)


async def _end(request: HubRequest, provider: Provider, claims: Mapping[str, Any]) -> None:
    async with work_of_its_own(request) as work:
        work.move_to(provider.tenant_id)
        said = f"{provider.id} {claims['jti']}".encode()
        if not await spend(work, "oidc logout", said, moment_of(claims["iat"] + OLDEST_S + 2 * SKEW_S)):
            raise LogoutRefused("replayed")
        # First, so that a code that is being exchanged is waited for, and its session is there to be ended.
        await work.session.execute(delete(SignInCode).where(*_meant(SignInCode, work, provider, claims)))
        await _end_sessions(work, provider, claims)


async def _end_sessions(work: UnitOfWork, provider: Provider, claims: Mapping[str, Any]) -> None:
    ending = update(Session).where(*_meant(Session, work, provider, claims), Session.revoked_at.is_(None))
    ending_them = ending.values(revoked_at=work.now, updated_at=work.now).returning(Session.id, Session.user_id)
    for session_id, user_id in await work.session.execute(
        ending_them, execution_options={"synchronize_session": False}
    ):
        work.forget("session", session_id)
        work.audit("auth.logout", "session", session_id, actor_id=user_id, detail=f"{provider.manager}: back-channel")


def _meant(model: Any, work: UnitOfWork, provider: Provider, claims: Mapping[str, Any]) -> list[Any]:
    """Of one session there where the token names one, or else of all of somebody's."""
    which = [model.tenant_id == work.tenant_id, model.provider == provider.name]
    if "sub" in claims:
        which.append(model.provider_subject == claims["sub"])
    if "sid" in claims:
        which.append(model.provider_session == claims["sid"])
    return which
