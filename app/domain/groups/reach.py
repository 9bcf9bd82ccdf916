"""What a group brings to its members, and where: now, or from a moment on that has not come yet."""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select

from app.core.extent import Place
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.owned import exceeds_by_owning
from app.domain.assignments.repositories import HAS_NOT_PASSED
from app.domain.roles.models import Role
from app.domain.sources.models import DataSource
from app.domain.work import UnitOfWork


class Brought(NamedTuple):
    permissions: frozenset[str]
    place: Place | None
    """None for the whole tenant."""
    owner: UUID | None
    """The role, where it brings more by owning."""


async def is_within_reach(work: UnitOfWork, group_id: UUID) -> bool:
    """Whether the actor holds all that the group brings, wherever it brings it."""
    brought = await _brought_by(work, group_id)
    if not all(work.actor.holds_all(each.permissions, each.place) for each in brought):
        return False
    owners = [each.owner for each in brought if each.owner is not None]
    return not owners or not await exceeds_by_owning(work, owners)


async def _brought_by(work: UnitOfWork, group_id: UUID) -> list[Brought]:
    source = DataSource
    given = (
        select(RoleAssignment.scope_type, RoleAssignment.scope_id, Role.id, Role.permissions, Role.is_owner)
        .add_columns(source.data_domain_id, source.owner_role_id)
        .join(Role, (Role.id == RoleAssignment.role_id) & (Role.tenant_id == RoleAssignment.tenant_id))
        .outerjoin(source, source.id == RoleAssignment.scope_id)
        .where(RoleAssignment.tenant_id == work.tenant_id, RoleAssignment.subject_id == group_id, HAS_NOT_PASSED)
    )
    rows = await work.session.execute(given)
    return [
        Brought(
            frozenset(permissions),
            _place(scope_type, scope_id, domain_id, owner_id),
            role_id if scope_type == "tenant" and is_owner else None,
        )
        for scope_type, scope_id, role_id, permissions, is_owner, domain_id, owner_id in rows
    ]


def _place(scope_type: str, scope_id: UUID, domain_id: UUID | None, owner_id: UUID | None) -> Place | None:
    if scope_type == "tenant":
        return None
    return Place(domain_id=scope_id) if scope_type == "data_domain" else Place(scope_id, domain_id, owner_id)
