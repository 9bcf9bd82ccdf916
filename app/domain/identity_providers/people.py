"""Who it is that a provider has vouched for: somebody it has vouched for before, or a new member of its tenant.

    SignInRefused    the provider is right about who it is, and still they do not come in

What a provider says of an email address never leads to somebody who is here already: an address is a claim about a
mailbox, and who signs in by it would be whoever the provider says. That link is made from within a session.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from msgspec import Struct
from sqlalchemy import ColumnElement, select, text
from uuid_utils.compat import uuid7

from app.core.errors import BadRequest
from app.core.lookalikes import written_alike
from app.core.schemas import single_spaced
from app.domain.auth.sessions import Authenticated, Method
from app.domain.identity_providers.groups import keep_groups
from app.domain.identity_providers.models import UserIdentity
from app.domain.identity_providers.registry import Provider, provider_named
from app.domain.users.identity import checked_email, email_key, is_email
from app.domain.users.models import User
from app.domain.users.schemas import UserCreate
from app.domain.users.services import UserService
from app.domain.work import UnitOfWork

MOST_OF_NAME: Final = 100
SENTENCES: Final = {
    "email_taken": "Somebody here has this email address already. Sign in as before, then link this provider to your "
    "account.",
    "email_missing": "The provider says no email address of yours.",
    "email_unverified": "The provider has not verified your email address.",
    "domain_not_allowed": "Email addresses of this domain are not let in here.",
    "user_inactive": "Your account is switched off. Ask an administrator.",
    "identity_taken": "This account of the provider belongs to somebody else here.",
    "session_ended": "The session that wanted this link has ended. Sign in again.",
    "access_denied": "The provider has not let you in.",
    "answer_invalid": "What the provider has answered does not hold. Ask an administrator.",
    "provider_unavailable": "The provider does not answer now. Try again in a moment.",
}


class SignInRefused(Exception):
    """`detail` is for the audit log alone."""

    def __init__(self, code: str, detail: str | None = None, *, user_id: UUID | None = None) -> None:
        self.code, self.detail, self.user_id = code, detail, user_id
        super().__init__(code)

    @property
    def sentence(self) -> str:
        return SENTENCES[self.code]


class Vouched(Struct, frozen=True, kw_only=True):
    """What a provider has said of somebody, verified."""

    issuer: str
    subject: str
    email: str | None
    is_email_verified: bool | None
    """None: the provider says nothing of that."""
    first_name: str = ""
    last_name: str = ""
    groups: Sequence[str] | None = None
    """None: the provider is not asked for groups."""
    session: str | None = None
    is_multi_factor: bool = False


async def let_in(work: UnitOfWork, provider: Provider, vouched: Vouched) -> Authenticated:
    """The member it is, made where they were never here, in the groups that the provider says. `work` is in the
    provider's tenant. Raises SignInRefused."""
    await one_at_a_time(work, vouched)
    _require_domain(provider, vouched)
    identity = await _identity_of(work, provider, vouched)
    if identity is None:
        user_id, email = await _join(work, provider, vouched)
    else:
        await _refuse_anothers(work, identity, provider)
        user_id, email = await _known(work, identity, provider)
    if vouched.groups is not None:
        await keep_groups(work, provider.manager, user_id, vouched.groups)
    methods: tuple[Method, ...] = ("fed", "mfa") if vouched.is_multi_factor else ("fed",)
    return Authenticated(
        user_id=user_id,
        email=email,
        amr=methods,
        provider=provider.name,
        provider_subject=vouched.subject,
        provider_session=vouched.session,
    )


async def one_at_a_time(work: UnitOfWork, vouched: Vouched) -> None:
    """Two sign-ins of one new person make one member, and of two accounts that want one identity one has it."""
    whose = f"{work.tenant_id} {vouched.issuer} {vouched.subject}"
    await work.session.execute(_LOCK, {"whose": whose})
    if vouched.email is not None:
        await work.session.execute(_LOCK, {"whose": f"{work.tenant_id} {email_key(vouched.email)}"})


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('identity ' || CAST(:whose AS text), 0))")


def _require_domain(provider: Provider, vouched: Vouched) -> None:
    """At every sign-in: whoever has left the domain stays out."""
    if not provider.allowed_domains:
        return
    if vouched.email is None:
        raise SignInRefused("email_missing")
    if vouched.is_email_verified is not True:
        raise SignInRefused("email_unverified")
    if vouched.email.rpartition("@")[2].lower() not in provider.allowed_domains:
        raise SignInRefused("domain_not_allowed")


async def _identity_of(work: UnitOfWork, provider: Provider, vouched: Vouched) -> UserIdentity | None:
    wanted = select(UserIdentity).where(*is_identity_of(work, provider, vouched))
    found: UserIdentity | None = await work.session.scalar(wanted.with_for_update())
    return found


def is_identity_of(work: UnitOfWork, provider: Provider, vouched: Vouched) -> tuple[ColumnElement[bool], ...]:
    return (
        UserIdentity.tenant_id == work.tenant_id,
        UserIdentity.kind == provider.kind,
        UserIdentity.issuer == vouched.issuer,
        UserIdentity.subject == vouched.subject,
    )


async def _refuse_anothers(work: UnitOfWork, identity: UserIdentity, provider: Provider) -> None:
    """A SAML provider says of itself which one it is, and nothing checks that: whoever was let in by one is not let in
    by a second one of the same id, with keys of its own, while the first is there. An OpenID provider is who it is by
    its address. Raises SignInRefused."""
    if provider.kind != "saml" or identity.provider == provider.name:
        return
    if await provider_named(work.parts, "saml", identity.provider, provider.tenant) is not None:
        raise SignInRefused("identity_taken", f"is saml:{identity.provider}'s", user_id=identity.user_id)


async def _known(work: UnitOfWork, identity: UserIdentity, provider: Provider) -> tuple[UUID, str]:
    wanted = select(User).where(User.id == identity.user_id, User.tenant_id == work.tenant_id)
    user = await work.session.scalar(wanted.with_for_update(key_share=True))
    if user is None or not user.is_active:
        raise SignInRefused("user_inactive", user_id=identity.user_id)
    identity.provider, identity.last_used_at = provider.name, work.now
    await work.session.flush()
    return user.id, user.email


async def _join(work: UnitOfWork, provider: Provider, vouched: Vouched) -> tuple[UUID, str]:
    """A new member, without a password."""
    email = _own_address(vouched)
    has_address = (User.tenant_id == work.tenant_id, User.email_key == email_key(email))
    if await work.session.scalar(select(User.id).where(*has_address)) is not None:
        raise SignInRefused("email_taken")
    first_name, last_name = _name(vouched.first_name), _name(vouched.last_name)
    try:
        user = await UserService(work).create(UserCreate(email=email, first_name=first_name, last_name=last_name))
    except BadRequest as error:
        raise SignInRefused("domain_not_allowed", error.detail) from None
    add_identity(work, provider, vouched, user.id)
    return user.id, user.email


def _own_address(vouched: Vouched) -> str:
    """Nobody takes an address that may be another's: its owner could not come in any more."""
    if vouched.email is None:
        raise SignInRefused("email_missing")
    if vouched.is_email_verified is False:
        raise SignInRefused("email_unverified")
    if len(vouched.email) > 254 or any(is_email(vouched.email, "email")):
        raise SignInRefused("email_missing", "is no address")
    return checked_email(vouched.email)


def _name(said: str) -> str:
    """As it is stored; one that could be taken for another name, or that nobody could read, is left out."""
    name = single_spaced("".join(each for each in said if each.isprintable()))[:MOST_OF_NAME]
    return "" if any(written_alike(name, "name")) else name


def add_identity(work: UnitOfWork, provider: Provider, vouched: Vouched, user_id: UUID) -> UserIdentity:
    identity = UserIdentity(
        id=uuid7(),
        tenant_id=work.tenant_id,
        user_id=user_id,
        kind=provider.kind,
        provider=provider.name,
        issuer=vouched.issuer,
        subject=vouched.subject,
        created_at=work.now,
        last_used_at=work.now,
    )
    work.session.add(identity)
    return identity
