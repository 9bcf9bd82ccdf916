"""Where roles own something, and so bring more than their permissions to who holds them for the whole tenant."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import any_, literal, select

from app.core.extent import UUIDS, Place
from app.domain.assignments.kinds import SCOPES
from app.domain.roles.ownership import OWNER_BRINGS
from app.domain.work import UnitOfWork


async def exceeds_by_owning(work: UnitOfWork, role_ids: Sequence[UUID]) -> bool:
    """Whether the actor lacks anywhere what these roles bring by owning."""
    if work.actor.holds_all(OWNER_BRINGS):
        return False
    return any(not work.actor.holds_all(OWNER_BRINGS, place) for place in await _places_owned(work, role_ids))


async def _places_owned(work: UnitOfWork, role_ids: Sequence[UUID]) -> list[Place]:
    """Sources of one owner in one domain are one place: each of them may be many."""
    among, found = any_(literal(list(role_ids), UUIDS)), []
    for kind in SCOPES.values():
        columns = [column.label(name) for name, column in kind.place.items() if name != "source_id"]
        owned = select(*columns).where(kind.model.tenant_id == work.tenant_id, kind.model.owner_role_id == among)
        found += [Place(**row._mapping) for row in await work.session.execute(owned.distinct())]
    return found
