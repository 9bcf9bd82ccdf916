"""One-time codes: given to the browser at the end of a sign-in, exchanged by the client for the hub's own tokens."""

import hmac
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select, update
from uuid_utils.compat import uuid7

from app.core.base64url import encoded_sha256
from app.core.database import Repository
from app.core.opaque_tokens import new_token, read_token
from app.domain.auth.models import Session, SignInCode
from app.domain.auth.schemas import TokenPair
from app.domain.auth.sessions import Authenticated, open_session
from app.domain.requests import HubRequest
from app.domain.sign_in.pending import PendingSignIn
from app.domain.tenants.models import Tenant
from app.domain.users.models import User
from app.domain.work import UnitOfWork, work_of_its_own

LIVES = timedelta(seconds=60)
KIND = "dfc"


class SignInCodeRepository(Repository[SignInCode]):
    model_type = SignInCode


def issue_code(work: UnitOfWork, pending: PendingSignIn, who: Authenticated) -> str:
    """The text of a new code, stored as its digest with this transaction. `work` is in the user's tenant."""
    code_id = uuid7()
    made = new_token(KIND, work.tenant_id, code_id)
    work.add(
        SignInCode,
        id=code_id,
        tenant_id=work.tenant_id,
        digest=made.digest,
        user_id=who.user_id,
        client_id=pending.client_id,
        redirect_uri=pending.redirect_uri,
        code_challenge=pending.code_challenge,
        scope=pending.scope,
        amr=list(who.amr),
        provider=who.provider,
        provider_subject=who.provider_subject,
        provider_session=who.provider_session,
        created_at=work.now,
        expires_at=work.now + LIVES,
    )
    return made.text


async def redeem_code(
    request: HubRequest,
    code: str,
    *,
    client_id: str | None,
    redirect_uri: str,
    code_verifier: str,
    held: Callable[[UnitOfWork], Awaitable[bool]],
) -> TokenPair | None:
    """A new session for it. None where it is not genuine, over, of another client, redirect URI or verifier, or where
    its user may not sign in any more. A code that comes a second time ends the session that the first one opened.

    `held` keeps the client from ending before this transaction has; False where it is gone.
    """
    given = read_token(KIND, code)
    if given is None:
        return None
    async with work_of_its_own(request) as work:
        work.move_to(given.tenant_id)
        if not await held(work):
            return None
        await _hold_user(work, given.row_id)
        found = await SignInCodeRepository(work.session).get_one_or_none(id=given.row_id, with_for_update=True)
        if found is None or not given.fits(found.digest):
            return None
        if found.session_id is not None:
            await _end(work, found)
            return None
        is_for_them = (found.client_id, found.redirect_uri) == (client_id, redirect_uri)
        if found.expires_at <= work.now or not is_for_them or not _answers(code_verifier, found.code_challenge):
            return None
        who = await _live(work, found)
        if who is None:
            return None
        found.session_id = uuid7()
        await SignInCodeRepository(work.session).update(found)
        return await open_session(work, who, client_id, session_id=found.session_id)


async def _hold_user(work: UnitOfWork, code_id: UUID) -> None:
    """Before the code is: in this order it is ended by who holds the user, such as for a new password."""
    whose = select(User.id).join(SignInCode, SignInCode.user_id == User.id).where(SignInCode.id == code_id)
    await work.session.execute(whose.with_for_update(of=User, key_share=True))


def _answers(code_verifier: str, code_challenge: str) -> bool:
    """RFC 7636 section 4.6, S256 only."""
    return hmac.compare_digest(encoded_sha256(code_verifier).encode(), code_challenge.encode())


async def _live(work: UnitOfWork, code: SignInCode) -> Authenticated | None:
    statement = select(User.email).join(Tenant, Tenant.id == User.tenant_id)
    email = await work.session.scalar(statement.where(User.id == code.user_id, User.is_active, Tenant.is_active))
    if email is None:
        return None
    kept = ("user_id", "amr", "provider", "provider_subject", "provider_session")
    return Authenticated(email=email, **{name: getattr(code, name) for name in kept})


async def _end(work: UnitOfWork, code: SignInCode) -> None:
    """RFC 9700 section 4.5: somebody else has had it."""
    assert code.session_id is not None
    statement = update(Session).where(Session.id == code.session_id, Session.revoked_at.is_(None))
    ended = await work.session.execute(
        statement.values(revoked_at=work.now, updated_at=work.now).returning(Session.id),
        execution_options={"synchronize_session": False},
    )
    if ended.scalar_one_or_none() is not None:
        work.forget("session", code.session_id)
        work.audit("auth.code_reused", "session", code.session_id, outcome="refused", actor_id=code.user_id)
