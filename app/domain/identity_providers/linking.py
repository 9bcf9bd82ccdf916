"""Identities of providers that are linked to an account by whoever is signed in as its owner, and taken away again."""

from uuid import UUID

from msgspec import Struct
from sqlalchemy import func, select

from app.core.errors import Conflict
from app.core.event_names import EventName
from app.core.reads import Reads
from app.domain.auth.models import Session
from app.domain.factors.stepping_up import require_step_up
from app.domain.identity_providers.models import UserIdentity
from app.domain.identity_providers.people import SignInRefused, Vouched, add_identity, is_identity_of, one_at_a_time
from app.domain.identity_providers.registry import Provider
from app.domain.identity_providers.repositories import IDENTITIES, UserIdentityRepository
from app.domain.identity_providers.schemas import IdentityEvent, IdentityOut
from app.domain.users.models import User
from app.domain.work import UnitOfWork


class LinkFor(Struct, frozen=True):
    """Who wants a provider's identity to be theirs as well, and in which session they have said so."""

    user_id: UUID
    session_id: UUID


async def link_identity(work: UnitOfWork, provider: Provider, vouched: Vouched, link: LinkFor) -> None:
    """Raises SignInRefused where the session has ended, or the identity is somebody else's."""
    await one_at_a_time(work, vouched)
    owner = select(User).join(Session, Session.user_id == User.id).where(
        User.id == link.user_id, User.tenant_id == work.tenant_id, User.is_active,
        Session.id == link.session_id, Session.revoked_at.is_(None),
        func.least(Session.idle_expires_at, Session.expires_at) > func.now(),
    )  # fmt: skip
    user = await work.session.scalar(owner.with_for_update(of=User, key_share=True))
    if user is None:
        raise SignInRefused("session_ended", user_id=link.user_id)
    holder = await work.session.scalar(select(UserIdentity.user_id).where(*is_identity_of(work, provider, vouched)))
    if holder is not None and holder != user.id:
        raise SignInRefused("identity_taken", user_id=user.id)
    if holder is None:
        identity = add_identity(work, provider, vouched, user.id)
        _record(work, "user.link_identity", "user.identity_linked", identity, user)


async def identities_of(reads: Reads, user_id: UUID, tenant_id: UUID) -> dict[str, IdentityOut]:
    rows = await reads.rows(IDENTITIES, {"tenant_id": tenant_id, "user_id": user_id})
    found = [IdentityOut(*row) for row in rows]
    return {f"{each.provider} {each.subject}": each for each in found}


async def unlink_identity(work: UnitOfWork, identity_id: UUID) -> None:
    """Raises NotFound for what is not the actor's, Conflict where nothing else would let them in, and Forbidden where
    they have not just shown that it is them."""
    await require_step_up(work)
    identities = UserIdentityRepository(work.session, tenant_id=work.tenant_id)
    user = await work.session.get_one(User, work.actor.id, with_for_update={"key_share": True})
    identity = await identities.get_one(id=identity_id, user_id=user.id)
    has_other = user.password_hash is not None or "passkey" in user.factors
    if not has_other and await identities.count(UserIdentity.user_id == user.id) == 1:
        raise Conflict(code="last_way_in")
    await identities.delete(identity_id)
    _record(work, "user.unlink_identity", "user.identity_unlinked", identity, user)


def _record(work: UnitOfWork, action: str, event: EventName, identity: UserIdentity, user: User) -> None:
    """By its owner, who is known by a session even where the browser alone comes back."""
    said = IdentityEvent(user.id, identity.kind, identity.provider)  # type: ignore[arg-type]
    work.audit(action, "user", user.id, after=said, actor_id=user.id, actor_name=user.email)
    work.announce(event, f"users/{user.id}", said)
