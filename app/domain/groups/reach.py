"""What a group brings to its members, and where: now, or from a moment on that has not come yet."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import any_, literal, select

from app.core.extent import UUIDS, Place
from app.core.security import Principal
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import HAS_NOT_PASSED
from app.domain.auth.rights import Rights, lasting_rights
from app.domain.domains.models import DataDomain
from app.domain.roles.models import Role
from app.domain.roles.ownership import OWNER_BRINGS
from app.domain.sources.models import DataSource
from app.domain.work import UnitOfWork


class Brought(NamedTuple):
    permissions: frozenset[str]
    place: Place | None
    """None for the whole tenant."""
    until: datetime | None
    """None for good."""


async def is_within_reach(work: UnitOfWork, group_id: UUID, *, for_good: bool = False) -> bool:
    """Whether the actor holds all that the group brings, wherever it brings it, and with `for_good` as long as it does.
    Its roles are locked: nobody fills one meanwhile without seeing who has joined."""
    brought = [each async for each in _brought_by(work, group_id)]
    if not _holds_all(work.actor, brought):
        return False
    if not for_good:
        return True
    ends = [each.until for each in brought if each.until is not None]
    return await _holds_until(work, None, [each for each in brought if each.until is None]) and (
        not ends or await _holds_until(work, max(ends), [each for each in brought if each.until is not None])
    )


async def _holds_until(work: UnitOfWork, until: datetime | None, brought: list[Brought]) -> bool:
    return not brought or _holds_all(await lasting_rights(work.session, work.actor, until), brought)


def _holds_all(holder: Principal | Rights, brought: list[Brought]) -> bool:
    return all(holder.holds_all(each.permissions, each.place) for each in brought)


async def _brought_by(work: UnitOfWork, group_id: UUID) -> AsyncIterator[Brought]:
    source = DataSource
    given = (
        select(RoleAssignment.scope_type, RoleAssignment.scope_id, Role.id, Role.permissions, Role.is_owner)
        .add_columns(source.data_domain_id, source.owner_role_id, RoleAssignment.expires_at)
        .join(Role, (Role.id == RoleAssignment.role_id) & (Role.tenant_id == RoleAssignment.tenant_id))
        .outerjoin(source, source.id == RoleAssignment.scope_id)
        .where(RoleAssignment.tenant_id == work.tenant_id, RoleAssignment.subject_id == group_id, HAS_NOT_PASSED)
        .with_for_update(read=True, key_share=True, of=Role)
    )
    owners: dict[UUID, datetime | None] = {}
    for scope_type, scope_id, role_id, permissions, is_owner, *there, until in await work.session.execute(given):
        yield Brought(frozenset(permissions), _place(scope_type, scope_id, *there), until)
        if scope_type == "tenant" and is_owner:
            owners[role_id] = until
    if owners:
        last = None if None in owners.values() else max(filter(None, owners.values()))
        for place in await _owned_by(work, [*owners]):
            yield Brought(OWNER_BRINGS, place, last)


def _place(scope_type: str, scope_id: UUID, domain_id: UUID | None, owner_id: UUID | None) -> Place | None:
    if scope_type == "tenant":
        return None
    return Place(domain_id=scope_id) if scope_type == "data_domain" else Place(scope_id, domain_id, owner_id)


async def _owned_by(work: UnitOfWork, role_ids: list[UUID]) -> list[Place]:
    """Where the roles own something. Sources of one owner in one domain are one place."""
    among = literal(role_ids, UUIDS)
    domains = select(DataDomain.id).where(
        DataDomain.tenant_id == work.tenant_id, DataDomain.owner_role_id == any_(among)
    )
    sources = select(DataSource.data_domain_id, DataSource.owner_role_id).where(
        DataSource.tenant_id == work.tenant_id, DataSource.owner_role_id == any_(among)
    )
    found = [Place(domain_id=domain_id) for domain_id in await work.session.scalars(domains)]
    rows = await work.session.execute(sources.distinct())
    return found + [Place(domain_id=domain_id, owner_role_id=owner_id) for domain_id, owner_id in rows]
