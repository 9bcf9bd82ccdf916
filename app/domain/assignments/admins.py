"""There is always an admin: somebody who is active, can sign in, and whose `admin` has no end and hangs on nothing."""

from uuid import UUID

from sqlalchemy import select, text

from app.core.errors import Conflict
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import IN_FORCE, LASTS, OF_WHOLE_TENANT
from app.domain.roles.built_in import admin_role_id
from app.domain.roles.models import Role
from app.domain.work import UnitOfWork

_CAN_SIGN_IN = text(
    """EXISTS (SELECT FROM users WHERE users.id = role_assignments.subject_id AND users.is_active
               AND users.password_hash IS NOT NULL)"""
)


async def keep_an_admin(work: UnitOfWork, leaving: UUID) -> None:
    """Raises Conflict where nobody but this user is one.

    The role's row is locked, so that two cannot leave at once.
    """
    admin_id = admin_role_id(work.tenant_id)
    await work.session.execute(select(Role.id).where(Role.id == admin_id).with_for_update())
    admins = select(RoleAssignment.subject_id).where(
        RoleAssignment.tenant_id == work.tenant_id,
        RoleAssignment.role_id == admin_id,
        OF_WHOLE_TENANT,
        IN_FORCE,
        LASTS,
        _CAN_SIGN_IN,
    )
    if set(await work.session.scalars(admins)) == {leaving}:
        raise Conflict(code="last_admin")
