"""The end of assignments: the rows stay, so that the past can be asked."""

from sqlalchemy import ColumnElement, case, func, update

from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import IS_OPEN
from app.domain.work import UnitOfWork

_QUIETLY = {"synchronize_session": False}


async def end_assignments(work: UnitOfWork, *which: ColumnElement[bool]) -> int:
    """End those that have not ended, at this moment or when they expired; returns how many. The caller has the
    principals forgotten."""
    ended_at = case(
        (RoleAssignment.expires_at < func.statement_timestamp(), RoleAssignment.expires_at),
        else_=func.statement_timestamp(),
    )
    changes = {"ended_at": ended_at, "ended_by": work.actor_id, "updated_at": work.now, "updated_by": work.actor_id}
    statement = update(RoleAssignment).where(RoleAssignment.tenant_id == work.tenant_id, IS_OPEN, *which)
    counted = statement.values(**changes, version=RoleAssignment.version + 1)
    found = await work.session.execute(counted, execution_options=_QUIETLY)
    return int(getattr(found, "rowcount", 0))
