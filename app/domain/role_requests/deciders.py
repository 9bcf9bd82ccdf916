"""Who decides on a request: the slots that it has, and who can fill them.

A slot is a role of which one holder has to approve. Somebody can fill it who holds it at the request's scope, is active
and not the one who asks, and has all permissions of the wanted role there; of a role that owns something also what
owning brings. That is said once, in `_eligible`.
"""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import TextClause, select, text

from app.core.errors import Conflict, Forbidden
from app.domain.role_requests.matching import filled
from app.domain.role_requests.models import RoleRequest
from app.domain.roles.built_in import admin_role_id
from app.domain.roles.models import Role
from app.domain.roles.ownership import OWNER_BRINGS
from app.domain.tenants.repositories import settings_of
from app.domain.work import UnitOfWork

_OWNER_BRINGS = f"ARRAY[{', '.join(repr(name) for name in sorted(OWNER_BRINGS))}]"
_NOW = "statement_timestamp()"


def _eligible(people: str) -> str:
    """For a row of `role_requests`, among the people of a select of ids: `person.id`, and `here.role_ids`, which they
    hold at its scope."""
    return f"""
    FROM roles AS wanted
    CROSS JOIN LATERAL (
      SELECT coalesce((SELECT place.reach FROM place_at(role_requests.tenant_id, role_requests.scope_type,
        role_requests.scope_id, {_NOW}) AS place), '{{}}') AS reach) AS scope
    CROSS JOIN LATERAL ({people}) AS candidate
    JOIN users AS person ON person.id = candidate.id AND person.tenant_id = role_requests.tenant_id
      AND person.is_active AND person.id <> role_requests.user_id
    CROSS JOIN LATERAL (
      SELECT coalesce(array_agg(DISTINCT held.role_id) FILTER (WHERE NOT held.is_owner), '{{}}') AS role_ids,
        coalesce(array_agg(DISTINCT name), '{{}}') AS permissions
      FROM rights_at(role_requests.tenant_id, person.id, {_NOW}, {_OWNER_BRINGS}) AS held
      LEFT JOIN LATERAL unnest(held.permissions) AS name ON true
      WHERE held.scope_id IS NULL OR held.scope_id = ANY (scope.reach)) AS here
    WHERE wanted.id = role_requests.role_id AND wanted.tenant_id = role_requests.tenant_id
      AND wanted.permissions <@ here.permissions
      AND (NOT wanted.is_owner OR role_requests.scope_type <> 'tenant' OR wanted.id = ANY (here.role_ids)
        OR {_OWNER_BRINGS} <@ here.permissions)
"""  # noqa: S608 - names of ours


ACTOR = f"""
    SELECT CAST(:actor_id AS uuid) AS id
    UNION SELECT user_id FROM delegations WHERE tenant_id = CAST(:tenant_id AS uuid)
      AND to_user_id = CAST(:actor_id AS uuid) AND starts_at <= {_NOW} AND ends_at > {_NOW}
"""  # noqa: S608
"""The actor, and those in whose place they decide at this moment."""
_MEMBERS = f"""
    SELECT DISTINCT coalesce(member.user_id, given.subject_id) AS id
    FROM assignments_at(role_requests.tenant_id, {_NOW}) AS given
    LEFT JOIN members_at(role_requests.tenant_id, {_NOW}) AS member
      ON given.subject_type = 'group' AND member.group_id = given.subject_id
    WHERE given.role_id = CAST(:slot AS uuid) AND (given.scope_id IS NULL OR given.scope_id = ANY (scope.reach))
"""  # noqa: S608
MAY_DECIDE = f"EXISTS (SELECT {_eligible(ACTOR)} AND role_requests.slots && here.role_ids)"
"""Of a row: whether the actor can fill one of its slots."""
TO_DECIDE = f"""(
    role_requests.status = 'pending' AND role_requests.pending_until > {_NOW}
    AND role_requests.awaits && ARRAY(
      SELECT held.role_id FROM ({ACTOR}) AS candidate
      CROSS JOIN LATERAL held_at(CAST(:tenant_id AS uuid), candidate.id, {_NOW}) AS held)
    AND NOT EXISTS (SELECT FROM role_request_entries AS entry WHERE entry.request_id = role_requests.id
      AND entry.kind = 'approved' AND NOT entry.is_void
      AND CAST(:actor_id AS uuid) IN (entry.actor_id, entry.on_behalf_of))
    AND EXISTS (SELECT {_eligible(ACTOR)} AND role_requests.awaits && here.role_ids
      AND NOT EXISTS (SELECT FROM role_request_entries AS entry WHERE entry.request_id = role_requests.id
        AND entry.kind = 'approved' AND NOT entry.is_void
        AND person.id IN (entry.actor_id, entry.on_behalf_of))))"""  # noqa: S608
"""Of a row: whether it waits for the actor. Roles that they hold anywhere are looked at first, once for all rows."""


def _of_request(people: str) -> TextClause:
    """Of one that need not be stored yet."""
    return text(
        f"""SELECT found.id, found.role_ids
            FROM (SELECT CAST(:tenant_id AS uuid) AS tenant_id, CAST(:user_id AS uuid) AS user_id,
              CAST(:role_id AS uuid) AS role_id, CAST(:scope_type AS text) AS scope_type,
              CAST(:scope_id AS uuid) AS scope_id) AS role_requests
            CROSS JOIN LATERAL (
              SELECT person.id, here.role_ids {_eligible(people)} LIMIT :most) AS found"""  # noqa: S608
    )


_ACTOR_OF_REQUEST, _MEMBERS_FOR_REQUEST = _of_request(ACTOR), _of_request(_MEMBERS)
_PEOPLE_OF_REQUEST = _of_request("SELECT unnest(CAST(:people AS uuid[])) AS id")
_APPROVER_ROLES = text(
    "SELECT approver_role_id FROM role_approvers WHERE role_id = :role_id AND tenant_id = :tenant_id ORDER BY 1"
)
_OWNER_ROLES = text(
    f"""SELECT owner.role_id
        FROM place_at(CAST(:tenant_id AS uuid), CAST(:scope_type AS text), CAST(:scope_id AS uuid), {_NOW}) AS place
        CROSS JOIN LATERAL (
          SELECT place.owner_role_id AS role_id, 100 AS depth
          UNION ALL SELECT owner_role_id, cardinality(lineage) FROM data_domains WHERE id = ANY (place.reach)) AS owner
        WHERE owner.role_id IS NOT NULL ORDER BY owner.depth DESC"""  # noqa: S608
)

MOST_GIVERS = 1000
Abilities = dict[UUID, frozenset[UUID]]
"""By person the slots that they can fill."""


async def abilities_of_actor(work: UnitOfWork, request: RoleRequest) -> Abilities:
    """The slots that the actor can fill, themselves and in the place of others; none where they may not decide. Raises
    Forbidden where they could with a second factor only."""
    values = _asked(request) | {"actor_id": work.actor_id, "most": MOST_GIVERS}
    able = await _abilities(work, _ACTOR_OF_REQUEST, request, values)
    if work.actor.has_factor or not able:
        return able
    if (await settings_of(work.session, work.tenant_id)).requires_mfa:
        raise Forbidden(code="factor_required")  # in whose place ever they decide
    asking = select(Role.id).where(Role.id.in_(request.slots), Role.requires_mfa)
    asks = frozenset(await work.session.scalars(asking))
    brought = await work.session.scalar(select(Role.permissions).where(Role.id == request.role_id)) or ()
    left = {person: slots - asks for person, slots in able.items() if slots - asks}
    if not left or any(map(work.actor.would_somewhere_with_factor, brought)):
        raise Forbidden(code="factor_required")
    return left


async def abilities_of(work: UnitOfWork, request: RoleRequest, people: Collection[UUID]) -> Abilities:
    """The slots that these people can fill at this moment."""
    values = _asked(request) | {"people": list(people), "most": len(people)}
    return await _abilities(work, _PEOPLE_OF_REQUEST, request, values)


async def _abilities(
    work: UnitOfWork, statement: TextClause, request: RoleRequest, values: dict[str, object]
) -> Abilities:
    slots, able = frozenset(request.slots), {}
    for person, role_ids in await work.session.execute(statement, values):
        if own := slots & frozenset(role_ids):
            able[person] = own
    return able


async def choose_slots(work: UnitOfWork, request: RoleRequest) -> list[UUID]:
    """The approver roles of the wanted role, or else the owner role nearest to the scope of which somebody can decide,
    or else `admin`."""
    of_role = {"role_id": request.role_id, "tenant_id": work.tenant_id}
    if approver_roles := list(await work.session.scalars(_APPROVER_ROLES, of_role)):
        return approver_roles
    at = {name: value for name, value in _asked(request).items() if name in ("tenant_id", "scope_type", "scope_id")}
    for role_id in dict.fromkeys(await work.session.scalars(_OWNER_ROLES, at)):
        if await _members(work, request, role_id, most=1):
            return [role_id]
    return [admin_role_id(work.tenant_id)]


async def require_deciders(work: UnitOfWork, request: RoleRequest) -> None:
    """Raises Conflict where too few can decide: each slot needs somebody of its own. As many people as there are slots
    are enough to know of each of them: whoever else is needed elsewhere, one is left."""
    found: Abilities = {}
    for slot in request.slots:
        found |= await _members(work, request, slot, most=len(request.slots))
    if len(filled(request.slots, list(found.values()))) < len(request.slots):
        raise Conflict(code="no_eligible_approver")


async def _members(work: UnitOfWork, request: RoleRequest, slot: UUID, *, most: int) -> Abilities:
    rows = await work.session.execute(_MEMBERS_FOR_REQUEST, _asked(request) | {"slot": slot, "most": most})
    return {person: frozenset(role_ids) for person, role_ids in rows}


def _asked(request: RoleRequest) -> dict[str, object]:
    return {name: getattr(request, name) for name in ("tenant_id", "user_id", "role_id", "scope_type", "scope_id")}
