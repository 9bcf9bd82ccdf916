"""Sources as connector work finds them: held while their secrets are read, and only where a rehearsal may be played."""

from uuid import UUID

from app.core.errors import Conflict
from app.core.schemas import changes_of
from app.domain.source_work.schemas import ConnectionPatch
from app.domain.sources.models import DataSource
from app.domain.sources.reach import Reach, changed_reach, secrets_to_change, stored_reach
from app.domain.sources.repositories import DataSourceRepository
from app.domain.sources.secrets import references
from app.domain.sources.types import is_offered
from app.domain.work import UnitOfWork


async def connection_of(work: UnitOfWork, source_id: UUID) -> tuple[DataSource, dict[str, str]]:
    """The source and its secrets, opened and read, for connector work. Raises Conflict where one cannot be."""
    source = await _held(work, source_id)
    if not is_offered(work.parts.settings, source.type):
        raise Conflict("This is a rehearsal, which only a hub in development plays.", code="unsupported")
    reach = await stored_reach(work, source)
    return source, await references.resolved(work.parts.settings, source.type, reach.secrets)


async def reach_of(work: UnitOfWork, source_id: UUID, changes: ConnectionPatch | None = None) -> Reach:
    """What a test needs; with changes, as an update with them would save it. Raises as that update would."""
    named = changes_of(changes) if changes is not None else {}
    references.judge_given(work, named.get("secrets") or {})
    source = await _held(work, source_id)
    if not named:
        return await stored_reach(work, source)
    given = secrets_to_change(source, named)
    return await changed_reach(work, source, named.get("config", {}), given)


async def _held(work: UnitOfWork, source_id: UUID) -> DataSource:
    """A source that moves while its secrets are read would have the new ones sent to the old place."""
    sources = DataSourceRepository(work.session, tenant_id=work.tenant_id)
    return await sources.get_one(id=source_id, with_for_update={"read": True})
