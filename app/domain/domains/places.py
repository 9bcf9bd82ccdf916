"""Into which domain somebody may put something, and what those who have rights there would gain by it."""

from collections.abc import Iterable
from typing import Final
from uuid import UUID

from sqlalchemy import any_, exists, func, literal, select

from app.core.errors import BadRequest, Fault, Forbidden
from app.core.extent import UUIDS, Place
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import MAY_COME_TO_FORCE
from app.domain.domains.models import DataDomain
from app.domain.domains.repositories import DataDomainRepository
from app.domain.roles.models import Role
from app.domain.roles.ownership import OWNER_BRINGS
from app.domain.work import UnitOfWork

TOP: Final[tuple[UUID, ...]] = ()
"""The lineage of what is in no domain."""
_SHOWN_BY = ("data-domains:read", "data-sources:read")
_HELD_IN_PLACES = ("data-domains:", "data-sources:")


async def require_room(work: UnitOfWork, permission: str, domain_id: UUID | None, path: str) -> tuple[UUID, ...]:
    """The lineage of the domain in which something is to be put; outside of all domains it needs the permission for the
    whole tenant.

    Raises BadRequest for a domain that is not there, or with which the actor has nothing to do, which looks the same;
    Forbidden where they have, and lack this permission.
    """
    lineage = TOP if domain_id is None else await _lineage_of(work, domain_id)
    place = Place(domain_id=domain_id)
    may_put = work.actor.may_at(permission, place)
    if lineage is None or not (domain_id is None or may_put or any(work.actor.may_at(name, place) for name in _SHOWN_BY)):
        raise BadRequest(errors=[unknown_domain(path)])
    if not may_put:
        where = "for the whole tenant" if domain_id is None else "in that domain"
        raise Forbidden(f"This needs the permission `{permission}` {where}.", code="permission_missing")
    return lineage


def unknown_domain(path: str) -> Fault:
    return Fault(path, "unknown_domain", "is not a data domain")


async def _lineage_of(work: UnitOfWork, domain_id: UUID) -> tuple[UUID, ...] | None:
    domains = DataDomainRepository(work.session, tenant_id=work.tenant_id)
    domain = await domains.get_one_or_none(id=domain_id)
    return None if domain is None else tuple(domain.lineage)


async def refuse_gain(work: UnitOfWork, entered: Iterable[UUID], place: Place) -> None:
    """What moves below these domains is given to everybody who has rights there: nobody gives what they do not hold
    where the thing stands now. Raises Forbidden."""
    if not work.actor.holds_all(await _brought_in(work, list(entered)), place):
        sentence = "Some have rights there that you do not hold on what you move."
        raise Forbidden(sentence, code="exceeds_own_permissions")


async def _brought_in(work: UnitOfWork, domain_ids: list[UUID]) -> set[str]:
    """The permissions that anybody holds, or will, because of these domains."""
    if not domain_ids:
        return set()
    among = any_(literal(domain_ids, UUIDS))
    given = (
        select(func.unnest(Role.permissions))
        .join(RoleAssignment, RoleAssignment.role_id == Role.id)
        .where(RoleAssignment.tenant_id == work.tenant_id, RoleAssignment.scope_id == among, MAY_COME_TO_FORCE)
        .distinct()
    )
    found = {name for name in await work.session.scalars(given) if name.startswith(_HELD_IN_PLACES)}
    is_owned = DataDomain.owner_role_id.is_not(None)
    mine = (DataDomain.tenant_id == work.tenant_id, DataDomain.id == among)
    return found | OWNER_BRINGS if await work.session.scalar(select(exists().where(*mine, is_owned))) else found
