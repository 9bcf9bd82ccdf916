"""The end of a role that very many hold: its rights are gone with the role itself, its assignments some at a time."""

from collections.abc import Awaitable
from typing import Final
from uuid import UUID

from app.domain.assignments.endings import end_assignments
from app.domain.assignments.models import RoleAssignment
from app.domain.jobs.rounds import end_in_rounds
from app.domain.jobs.runner import JobRun
from app.domain.jobs.services import FIRST, JobService
from app.domain.work import UnitOfWork

END_OF_ROLE: Final = "role.end_assignments"
AT_ONCE = 2500
"""Rows that are ended within a request: some tenths of a second."""


async def end_assignments_of_role(work: UnitOfWork, role_id: UUID) -> None:
    """Of one that is deleted; those that are too many for the request by a job."""
    if await end_assignments(work, RoleAssignment.role_id == role_id, at_most=AT_ONCE) == AT_ONCE:
        await JobService(work).enqueue(END_OF_ROLE, subject_id=role_id, priority=FIRST)


async def end_the_rest(run: JobRun) -> dict[str, object]:
    """The handler of `role.end_assignments`."""

    def end_some(work: UnitOfWork) -> Awaitable[int]:
        is_of_role = RoleAssignment.role_id == run.subject_id
        return end_assignments(work, is_of_role, at_most=AT_ONCE, ended_by=run.created_by)

    return await end_in_rounds(run, end_some, at_once=AT_ONCE)
