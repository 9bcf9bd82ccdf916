"""Sources as connector work finds them: held while their secrets are read, and only where a rehearsal may be played."""

from uuid import UUID

from sqlalchemy import select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import Conflict
from app.core.schemas import changes_of
from app.domain.service_accounts.models import ServiceAccount
from app.domain.source_work.schemas import ConnectionPatch
from app.domain.sources.models import DataSource
from app.domain.sources.reach import Reach, changed_reach, secrets_to_change, stored_reach
from app.domain.sources.repositories import DataSourceRepository
from app.domain.sources.secrets import references
from app.domain.sources.secrets.uses import SYSTEM, Actor, Purpose
from app.domain.sources.types import is_offered
from app.domain.users.models import User
from app.domain.work import UnitOfWork


async def connection_of(
    work: UnitOfWork, source_id: UUID, purpose: Purpose, *, on_behalf_of: Actor | None = None
) -> Reach:
    """What connector work needs; its secrets can be read once the work is committed. Raises Conflict for a rehearsal
    that may not be played."""
    source = await _held(work, source_id)
    if not is_offered(work.parts.settings, source.type):
        raise Conflict("This is a rehearsal, which only a hub in development plays.", code="unsupported")
    return await stored_reach(work, source, purpose, on_behalf_of=on_behalf_of)


async def reach_of(work: UnitOfWork, source_id: UUID, changes: ConnectionPatch | None = None) -> Reach:
    """What a test needs; with changes, as an update with them would save it. Raises as that update would."""
    named = changes_of(changes) if changes is not None else {}
    references.judge_given(work, named.get("secrets") or {})
    source = await _held(work, source_id)
    if not named:
        return await stored_reach(work, source, "test")
    given = secrets_to_change(source, named)
    return await changed_reach(work, source, named.get("config", {}), given)


async def actor_of_job(session: AsyncSession, created_by: UUID | None) -> Actor:
    """By the name that they have now; whose jobs nobody has asked for are the hub's own."""
    if created_by is None:
        return SYSTEM
    of_user = select(User.email).where(User.id == created_by)
    of_account = select(ServiceAccount.name).where(ServiceAccount.id == created_by)
    return Actor(created_by, await session.scalar(union_all(of_user, of_account)))


async def _held(work: UnitOfWork, source_id: UUID) -> DataSource:
    """A source that moves while its secrets are read would have the new ones sent to the old place."""
    sources = DataSourceRepository(work.session, tenant_id=work.tenant_id)
    return await sources.get_one(id=source_id, with_for_update={"read": True})
