"""The end of memberships: the rows stay, so that the past can be asked."""

from sqlalchemy import ColumnElement, func, update

from app.domain.groups.models import GroupMember
from app.domain.work import UnitOfWork

IS_OPEN = GroupMember.ended_at.is_(None)


async def end_memberships(work: UnitOfWork, *which: ColumnElement[bool]) -> int:
    """End those that have not ended; returns how many. The caller has the principals forgotten."""
    statement = update(GroupMember).where(GroupMember.tenant_id == work.tenant_id, IS_OPEN, *which)
    ending = statement.values(ended_at=func.statement_timestamp(), ended_by=work.actor_id)
    found = await work.session.execute(ending, execution_options={"synchronize_session": False})
    return int(getattr(found, "rowcount", 0))
