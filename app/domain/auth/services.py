"""The rules about signing in with a password, and about what one may do with one's own sessions."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from msgspec import Struct
from sqlalchemy import Select, and_, bindparam, case, func, select, update

from app.core.across_tenants import tenant_of_slug, tenants_of_address
from app.core.answers import Answer, answer
from app.core.errors import BadRequest, Fault, Forbidden, Hidden, NotFound, TooManyRequests, Unauthenticated
from app.core.security import Claims, KeyLimits, Principal, Tokens
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.auth.bearer import identify
from app.domain.auth.models import Session
from app.domain.auth.repositories import SessionRepository
from app.domain.auth.schemas import ChangePassword, Introspection, Login, Register, TokenPair
from app.domain.auth.sessions import NOBODY, Authenticated, open_session
from app.domain.letters.services import notify
from app.domain.requests import HubRequest
from app.domain.tenants.models import Tenant
from app.domain.users.identity import email_key
from app.domain.users.models import User
from app.domain.users.repositories import UserRepository
from app.domain.users.schemas import UserCreate, UserOut
from app.domain.users.services import UserService, end_sessions, hash_new_password
from app.domain.work import UnitOfWork, work_of_its_own


class FactorNeeded(Exception):
    """A second factor is set up: `then` has to wait for it."""

    def __init__(self, tenant_id: UUID, user_id: UUID, email: str, admitted: "Admitted") -> None:
        super().__init__()
        self.tenant_id = tenant_id
        self.user_id = user_id
        self.email = email
        self.factors = admitted.factors
        """The types of their factors."""
        self.version = admitted.version
        """Of the user: what was begun before a change of them is not ended after it."""


class Admitted(Struct, frozen=True):
    """What the row of somebody says who may sign in."""

    factors: list[str]
    version: int


FAILURES_UNTIL_LOCKED = 10
LOCKED_FOR = timedelta(minutes=15)
T = TypeVar("T")


async def register(request: HubRequest, work: UnitOfWork, new: Register) -> UserOut:
    """Raises Forbidden where registration is closed, as it is to a tenant that is not there."""
    if work.parts.settings.registration == "closed":
        raise Forbidden(code="registration_closed")
    if (slug := slug_of(request, new.tenant)) is not None:
        tenant_id = await tenant_of_slug(request.parts.reads, slug)
        if tenant_id is None:
            raise Forbidden(code="registration_closed")
        work.move_to(tenant_id)
    user = UserCreate(email=new.email, password=new.password, first_name=new.first_name, last_name=new.last_name)
    return await UserService(work).create(user, is_registration=True)


async def login(request: HubRequest, given: Login) -> TokenPair:
    """Open a session. Raises as `with_password`."""
    return await with_password(request, given, open_session)


async def with_password(
    request: HubRequest, given: Login, then: Callable[[UnitOfWork, Authenticated], Awaitable[T]]
) -> T:
    """What `then` makes of who has given the right password, in the transaction that lets them in.

    Unknown, wrong, disabled, locked and password-less end alike, after the same work: Unauthenticated. Raises
    TooManyRequests for too many sign-ins by one name, whether they succeed or not, and FactorNeeded where the password
    is right and does not do by itself.
    """
    slug = slug_of(request, given.tenant)
    await request.parts.limits.charge_account(request.exchange, slug, email_key(given.email))
    tenant_id, user = await _find(request, given)
    fits = await request.parts.passwords.verify(user.password_hash if user else None, given.password)
    stronger = await _stronger_hash(request, user, given.password) if user is not None and fits else None
    async with work_of_its_own(request) as work:
        work.move_to(tenant_id)  # its audit log, not the default tenant's
        admitted = await _admit(work, user, given.password) if user is not None and fits else None
        if user is None or admitted is None:
            await count_failure(work, user.id if user and user.password_hash and not fits else NOBODY)
            _record_failed_login(work, user)
        else:
            if stronger is not None:
                await _replace_hash(work, user, stronger)
            if not admitted.factors:
                return await then(work, Authenticated(user_id=user.id, email=user.email))
            work.audit("auth.mfa_required", "user", user.id, actor_id=user.id, actor_name=user.email)
    if user is not None and admitted is not None:
        raise FactorNeeded(tenant_id, user.id, user.email, admitted)
    raise Unauthenticated(code="invalid_credentials")


class Candidate(Struct, frozen=True):
    """A user as the check of a password found them."""

    id: UUID
    email: str
    password_hash: str | None
    """None where no password lets them in now."""


async def _find(request: HubRequest, given: Login) -> tuple[UUID, Candidate | None]:
    """The tenant that was named and the user there who has that address; where none was named, the one user who has it
    in any tenant. Nobody, where several have."""
    address, slug, reads = email_key(given.email), slug_of(request, given.tenant), request.parts.reads
    meant = await tenants_of_address(reads, address) if slug is None else [await tenant_of_slug(reads, slug)]
    tenant_id = meant[0] if len(meant) == 1 else None
    rows = await reads.rows(_CANDIDATE, {"email_key": address, "tenant_id": tenant_id or NOBODY})
    if not rows:
        return DEFAULT_TENANT_ID, None
    tenant_id, *user = rows[0]
    return tenant_id, Candidate(*user) if user[0] is not None else None


def slug_of(request: HubRequest, given: str | None) -> str | None:
    """The tenant that is named by the request itself, or else by the host that it went to."""
    return request.parts.settings.slug_by_host.get(request.exchange.host_name) if given is None else given


_UNLOCKED = func.coalesce(User.locked_until, func.to_timestamp(0)) <= func.now()


def _candidate() -> Select[Any]:
    is_meant = (User.tenant_id == Tenant.id, User.email_key == bindparam("email_key", type_=User.email_key.type))
    password_hash = case((and_(User.is_active, _UNLOCKED), User.password_hash), else_=None)
    columns = (Tenant.id, User.id, User.email, password_hash)
    tenant = Tenant.id == bindparam("tenant_id", type_=Tenant.id.type)
    return select(*columns).select_from(Tenant).outerjoin(User, and_(*is_meant)).where(tenant, Tenant.is_active)


_CANDIDATE = _candidate()


async def _admit(work: UnitOfWork, user: Candidate | User, password: str) -> Admitted | None:
    """As `_admitted_by`; a hash that another login has just made stronger is checked once more."""
    if (admitted := await _admitted_by(work, user, user.password_hash)) is not None:
        return admitted
    other = select(User.password_hash).where(User.id == user.id, User.password_hash != user.password_hash)
    changed = await work.session.scalar(other)
    if changed is None or not await work.parts.passwords.verify(changed, password):
        return None
    return await _admitted_by(work, user, changed)


async def _admitted_by(work: UnitOfWork, user: Candidate | User, password_hash: str | None) -> Admitted | None:
    """None where the user may not sign in at this moment with the password that this hash was checked against.

    Asked of the row after the check of the password: of many guesses made in parallel, those that come back after ten
    failures were counted are refused, the right one too. So at most ten answers are worth anything. The failures of who
    has a second factor are not forgotten before they have shown it: else whoever knows the password could guess at its
    codes for ever.
    """
    checked = {"checked_id": user.id, "checked_hash": password_hash}
    row = (await work.session.execute(_ADMIT, checked, execution_options=_NO_SYNC)).one_or_none()
    return None if row is None else Admitted(*row)


_HAS_NO_FACTOR = func.cardinality(User.factors) == 0
_ADMIT = (
    update(User)
    .where(User.id == bindparam("checked_id"), User.password_hash == bindparam("checked_hash"))
    .where(User.is_active, _UNLOCKED)
    .values(
        failed_logins=case((_HAS_NO_FACTOR, 0), else_=User.failed_logins),
        locked_until=case((_HAS_NO_FACTOR, None), else_=User.locked_until),
    )
    .returning(User.factors, User.version)
)


async def admitted_user(work: UnitOfWork, user_id: UUID) -> User | None:
    """The user as they are, nobody else being let in at this moment: guesses at a factor are judged one after the
    other. None for who may not sign in."""
    statement = (
        select(User)
        .join(Tenant, Tenant.id == User.tenant_id)
        .where(User.id == user_id, User.is_active, Tenant.is_active, _UNLOCKED)
        .with_for_update(of=User)
    )
    found: User | None = await work.session.scalar(statement)
    return found


async def forget_failures(work: UnitOfWork, user_id: UUID) -> None:
    statement = update(User).where(User.id == user_id).values(failed_logins=0, locked_until=None)
    await work.session.execute(statement, execution_options=_NO_SYNC)


async def count_failure(work: UnitOfWork, user_id: UUID) -> None:
    """Of a password or of a second factor. Runs for unknown users too, so that all failures take alike. A lock that ran
    out starts the count anew."""
    now = func.now()
    failures = case((User.locked_until <= now, 1), else_=User.failed_logins + 1)
    until = case((failures >= FAILURES_UNTIL_LOCKED, now + LOCKED_FOR), else_=None)
    statement = update(User).where(User.id == user_id, _UNLOCKED).values(failed_logins=failures, locked_until=until)
    locked = await work.session.scalar(statement.returning(User.locked_until), execution_options=_NO_SYNC)
    if locked is not None:
        work.forget("user", user_id)
        work.audit("user.lock", "user", user_id, after={"locked_until": locked})


_NO_SYNC = {"synchronize_session": False}


def _record_failed_login(work: UnitOfWork, user: Candidate | None) -> None:
    """What was typed as an address is not repeated where nobody has it: at times it is a password."""
    by = {"actor_id": user.id if user else None, "actor_name": user.email if user else None}
    work.audit("auth.login", "session", None, outcome="failure", **by)


async def _stronger_hash(request: HubRequest, user: Candidate, password: str) -> str | None:
    """In place of one made with weaker parameters than today's, while the password is at hand. None where there is no
    need, and where too many wait for a hash now: then at the next login."""
    passwords = request.parts.passwords
    if user.password_hash is not None and passwords.needs_rehash(user.password_hash):
        with suppress(TooManyRequests):
            return await passwords.hash(password)
    return None


async def _replace_hash(work: UnitOfWork, user: Candidate, stronger: str) -> None:
    await work.session.execute(
        update(User).where(User.id == user.id, User.password_hash == user.password_hash).values(password_hash=stronger),
        execution_options=_NO_SYNC,
    )


async def logout(work: UnitOfWork, scope: str) -> None:
    actor = work.actor
    if scope == "all":
        await end_sessions(work, actor.id)
    else:
        await _revoke(work, actor.own_session_id)
    work.audit("auth.logout", "session", actor.own_session_id, detail=scope)


async def _revoke(work: UnitOfWork, session_id: UUID) -> None:
    """Raises NotFound for a session of the actor's that has ended, and Hidden for what is not theirs, there or not."""
    statement = (
        update(Session)
        .where(Session.id == session_id, Session.user_id == work.actor.id, Session.revoked_at.is_(None))
        .values(revoked_at=work.now, updated_at=work.now)
        .returning(Session.id)
    )
    if await work.session.scalar(statement, execution_options=_NO_SYNC) is None:
        raise NotFound if await SessionRepository(work.session).exists(id=session_id, user_id=work.actor.id) else Hidden
    work.forget("session", session_id)


async def end_session(work: UnitOfWork, session_id: UUID) -> None:
    await _revoke(work, session_id)
    work.audit("session.revoke", "session", session_id)


async def change_password(request: HubRequest, given: ChangePassword) -> None:
    """Other sessions end. Raises as `confirmed_by_password`."""

    async def change(work: UnitOfWork, user: User) -> None:
        own = (user.email, user.first_name, user.last_name)
        await _set_password(work, user, await hash_new_password(work, given.new_password, own, path="new_password"))

    await confirmed_by_password(request, given.current_password, change, action="auth.change_password")


async def confirmed_by_password(
    request: HubRequest,
    password: str,
    then: Callable[[UnitOfWork, User], Awaitable[T]],
    *,
    action: str,
    path: str = "current_password",
) -> T:
    """What `then` does for whoever is signed in, once they have given their password again. A wrong one counts towards
    the lock like a failed login, and is on record as a failure of the action: BadRequest."""
    user = await _signed_in_user(request)
    fits = await request.parts.passwords.verify(user.password_hash, password)
    async with work_of_its_own(request) as work:
        if fits and await _admit(work, user, password) is not None:
            return await then(work, user)
        await count_failure(work, NOBODY if fits else user.id)
        work.audit(action, "user", user.id, outcome="failure")
    raise BadRequest(code="wrong_password", errors=[Fault(path, "wrong_password", "is not your current password")])


async def _signed_in_user(request: HubRequest) -> User:
    async with request.parts.sessions(request.principal.tenant_id) as session:
        user = await UserRepository(session).get_one_or_none(id=request.principal.id)
    if user is None:
        raise Unauthenticated
    return user


async def _set_password(work: UnitOfWork, user: User, password_hash: str) -> None:
    principal = work.actor
    changed = {
        "password_hash": password_hash,
        "updated_at": work.now,
        "updated_by": principal.id,
        "version": User.version + 1,
    }
    await work.session.execute(update(User).where(User.id == user.id).values(changed), execution_options=_NO_SYNC)
    await end_sessions(work, user.id, keep=principal.own_session_id)
    work.audit("auth.change_password", "user", user.id)
    work.announce("user.password_changed", f"users/{user.id}", {"id": str(user.id)})
    await notify(work, "password_changed", user.email, user.id)


async def introspect(request: HubRequest, token: str) -> Answer[Introspection]:
    """RFC 7662: what a token is worth now. Another tenant's token is not active for this caller."""
    try:
        credential = identify(request.parts.tokens, token.encode("ascii", "replace"))
        signed = await request.parts.principals.of(credential)
    except Unauthenticated:
        return answer(request.exchange, Introspection(active=False))
    if signed.principal.tenant_id != request.principal.tenant_id:
        return answer(request.exchange, Introspection(active=False))
    tokens = request.parts.tokens
    if isinstance(credential, Claims):
        return signed.answer(
            request.exchange, credential.jti, lambda: _introspected(tokens, credential, signed.principal)
        )
    key = signed.principal.key
    assert key is not None
    request.parts.key_uses.note(key.id)
    return signed.answer(request.exchange, "key", lambda: _introspected_key(tokens, key, signed.principal))


def _introspected(tokens: Tokens, claims: Claims, principal: Principal) -> Introspection:
    return Introspection(
        active=True,
        scope=claims.scope,
        client_id=claims.client_id,
        username=principal.name,
        token_type="Bearer",  # noqa: S106
        exp=claims.exp,
        iat=claims.iat,
        sub=str(claims.sub),
        aud=tokens.audience,
        iss=tokens.issuer,
        jti=claims.jti,
        sid=str(claims.sid),
        tid=str(claims.tid),
        permissions=sorted(principal.permissions),
    )


def _introspected_key(tokens: Tokens, key: KeyLimits, principal: Principal) -> Introspection:
    return Introspection(
        active=True,
        scope="api",
        username=principal.name,
        token_type="Bearer",  # noqa: S106
        exp=int(key.expires_at.timestamp()),
        sub=str(principal.id),
        aud=tokens.audience,
        iss=tokens.issuer,
        jti=str(key.id),
        tid=str(principal.tenant_id),
        permissions=sorted(principal.permissions),
    )
