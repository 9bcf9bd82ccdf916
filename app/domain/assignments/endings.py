"""The end of assignments: the rows stay, so that the past can be asked."""

from uuid import UUID

from sqlalchemy import ColumnElement, case, func, select, update

from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import IS_OPEN
from app.domain.work import UnitOfWork

_QUIETLY = {"synchronize_session": False}


async def end_assignments(
    work: UnitOfWork, *which: ColumnElement[bool], at_most: int | None = None, ended_by: UUID | None = None
) -> int:
    """End those that have not ended, at this moment or when they expired; returns how many. The caller has the
    principals forgotten."""
    ended_at = case(
        (RoleAssignment.expires_at < func.statement_timestamp(), RoleAssignment.expires_at),
        else_=func.statement_timestamp(),
    )
    by = ended_by or work.actor_id
    changes = {"ended_at": ended_at, "ended_by": by, "updated_at": work.now, "updated_by": by}
    conditions = (RoleAssignment.tenant_id == work.tenant_id, IS_OPEN, *which)
    if at_most is not None:
        some = select(RoleAssignment.id).where(*conditions).limit(at_most)
        conditions = (RoleAssignment.id.in_(some),)
    counted = update(RoleAssignment).where(*conditions).values(**changes, version=RoleAssignment.version + 1)
    found = await work.session.execute(counted, execution_options=_QUIETLY)
    return int(getattr(found, "rowcount", 0))
