"""The end of memberships: the rows stay, so that the past can be asked."""

from collections.abc import Awaitable
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update

from app.domain.groups.models import GroupMember
from app.domain.jobs.rounds import end_in_rounds
from app.domain.jobs.runner import JobRun
from app.domain.jobs.services import FIRST, JobService
from app.domain.work import UnitOfWork

IS_OPEN = GroupMember.ended_at.is_(None)
END_OF_GROUP: Final = "group.end_memberships"
AT_ONCE = 5000
"""Rows that are ended within a request: some tenths of a second."""


async def end_memberships(
    work: UnitOfWork, *which: ColumnElement[bool], at_most: int | None = None, ended_by: UUID | None = None
) -> int:
    """End those that have not ended; returns how many. The caller has the principals forgotten."""
    conditions = (GroupMember.tenant_id == work.tenant_id, IS_OPEN, *which)
    if at_most is not None:
        conditions = (GroupMember.id.in_(select(GroupMember.id).where(*conditions).limit(at_most)),)
    ending = update(GroupMember).where(*conditions)
    ending = ending.values(ended_at=func.statement_timestamp(), ended_by=ended_by or work.actor_id)
    found = await work.session.execute(ending, execution_options={"synchronize_session": False})
    return int(getattr(found, "rowcount", 0))


async def end_memberships_of_group(work: UnitOfWork, group_id: UUID) -> None:
    """Of one that is deleted, which brings nothing any more; those that are too many for the request by a job."""
    if await end_memberships(work, GroupMember.group_id == group_id, at_most=AT_ONCE) == AT_ONCE:
        await JobService(work).enqueue(END_OF_GROUP, subject_id=group_id, priority=FIRST)


async def end_the_rest(run: JobRun) -> dict[str, object]:
    """The handler of `group.end_memberships`."""

    def end_some(work: UnitOfWork) -> Awaitable[int]:
        is_of_group = GroupMember.group_id == run.subject_id
        return end_memberships(work, is_of_group, at_most=AT_ONCE, ended_by=run.created_by)

    return await end_in_rounds(run, end_some, at_once=AT_ONCE)
