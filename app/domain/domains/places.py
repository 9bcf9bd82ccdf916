"""Into which domain somebody may put something, and what those who have rights there would gain by it."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from sqlalchemy import any_, exists, func, literal, select

from app.core.errors import BadRequest, Fault, Forbidden
from app.core.extent import UUIDS, Place
from app.core.security import Principal
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import HAS_NOT_PASSED
from app.domain.domains.models import DataDomain
from app.domain.roles.models import Role
from app.domain.roles.ownership import OWNER_BRINGS
from app.domain.work import UnitOfWork

Lineage = tuple[UUID, ...]
"""The ids from the top down; empty outside of all domains."""
Rooms = Mapping[UUID | None, Lineage]
"""The lineages of domains that are there, by their ids, and of what is in none."""
_SHOWN_BY = ("data-domains:read", "data-sources:read")


async def rooms_of(work: UnitOfWork, domain_ids: Iterable[UUID | None]) -> Rooms:
    """Those of the domains that are there, and the one outside of all."""
    wanted = {each for each in domain_ids if each is not None}
    found: dict[UUID | None, Lineage] = {None: ()}
    if wanted:
        among = DataDomain.id == any_(literal(sorted(wanted), UUIDS))
        rows = select(DataDomain.id, DataDomain.lineage).where(DataDomain.tenant_id == work.tenant_id, among)
        found |= {domain_id: tuple(lineage) for domain_id, lineage in await work.session.execute(rows)}
    return found


def fault_of_room(actor: Principal, permission: str, rooms: Rooms, domain_id: UUID | None, path: str) -> Fault | None:
    """Why the actor may not put something there; outside of all domains that needs the permission for the whole tenant.
    A domain with which they have nothing to do looks like one that is not there."""
    place = Place(domain_id=domain_id)
    if actor.may_at(permission, place):
        return None if domain_id in rooms else _unknown(path)
    if domain_id is None:
        return Fault(path, "permission_missing", f"outside of data domains you need `{permission}` for all")
    if domain_id in rooms and any(actor.may_at(name, place) for name in _SHOWN_BY):
        return Fault(path, "permission_missing", f"there you need `{permission}`")
    return _unknown(path)


def _unknown(path: str) -> Fault:
    return Fault(path, "unknown_domain", "is not a data domain")


async def require_room(work: UnitOfWork, permission: str, domain_id: UUID | None, path: str) -> Lineage:
    """The lineage of the domain in which something is put. Raises Forbidden and BadRequest by `fault_of_room`."""
    rooms = await rooms_of(work, [domain_id])
    fault = fault_of_room(work.actor, permission, rooms, domain_id, path)
    if fault is None:
        return rooms[domain_id]
    if fault.code == "permission_missing":
        raise Forbidden(f"There this needs the permission `{permission}`.", code="permission_missing", errors=[fault])
    raise BadRequest(errors=[fault])


async def refuse_gain(work: UnitOfWork, entered: Iterable[UUID], place: Place, path: str) -> None:
    """What comes below these domains is open to everybody who has rights there: nobody gives what they do not hold
    where it stands now, be it to use the thing, to give others roles on it or to see its jobs. Raises Forbidden."""
    actor, domain_ids = work.actor, list(entered)
    if domain_ids and not actor.holds_all(await _held_in(work, domain_ids), place):
        fault = Fault(path, "exceeds_own_permissions", "is where others may do more than you may with what you move")
        raise Forbidden(code="exceeds_own_permissions", errors=[fault])


async def _held_in(work: UnitOfWork, domain_ids: list[UUID]) -> frozenset[str]:
    """What anybody may do, or will, because of these domains."""
    among = any_(literal(domain_ids, UUIDS))
    given = (
        select(func.unnest(Role.permissions))
        .join(RoleAssignment, RoleAssignment.role_id == Role.id)
        .where(RoleAssignment.tenant_id == work.tenant_id, RoleAssignment.scope_id == among, HAS_NOT_PASSED)
        .distinct()
    )
    found = frozenset(await work.session.scalars(given))
    is_owned = (DataDomain.tenant_id == work.tenant_id, DataDomain.id == among, DataDomain.owner_role_id.is_not(None))
    return found | OWNER_BRINGS if await work.session.scalar(select(exists().where(*is_owned))) else found
