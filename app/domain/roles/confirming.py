"""Who already holds what is about to be filled, by the hand of somebody who could not give what it will bring.

A role that brings nothing may be given by anybody who may give roles, themselves included; so may an empty group have
members. Whoever fills one later gives to all of them, and has to have seen them: to confirm how many they are
(decision 0040).
"""

from collections.abc import Collection, Mapping
from functools import wraps
from typing import Any, Final
from uuid import UUID

from sqlalchemy import TextClause, select

from app.core.errors import BadRequest, Conflict, Fault
from app.core.extent import Place
from app.domain.dry_runs.services import Handler, given_parameters
from app.domain.dry_runs.statements import AS_EVER, PLANNING, rights_of_pairs
from app.domain.requests import HubRequest
from app.domain.roles.models import Role
from app.domain.roles.ownership import OWNER_BRINGS
from app.domain.work import UnitOfWork

PARAMETER: Final = "confirm_holders"
MOST_HOLDERS: Final = 2_000_000_000
CONFIRMING: dict[str, Mapping[str, object]] = {
    PARAMETER: {
        "type": "integer",
        "minimum": 0,
        "maximum": MOST_HOLDERS,
        "description": "How many hold what is filled, where some hold it by the hand of somebody who could not give "
        "them what it will bring. A dry run, where there is one, shows who gains; the refusal says how many hold it.",
    }
}
"""For the `parameters` of a route whose handler is `confirmable`."""

_OF_ROLE = """
    SELECT subject_id, subject_type, scope_type, scope_id, updated_by AS given_by FROM role_assignments
    WHERE tenant_id = :tenant_id AND role_id = :row_id AND ended_at IS NULL
      AND (expires_at IS NULL OR expires_at > statement_timestamp())"""
_HOLDERS_OF_ROLE = f"""
    SELECT coalesce(member.user_id, held.subject_id), held.scope_type, held.scope_id, held.given_by
    FROM ({_OF_ROLE}) AS held LEFT JOIN group_members AS member
      ON held.subject_type = 'group' AND member.group_id = held.subject_id AND member.ended_at IS NULL
    WHERE held.subject_type <> 'group' OR member.user_id IS NOT NULL
    UNION ALL
    SELECT member.user_id, held.scope_type, held.scope_id, member.created_by
    FROM ({_OF_ROLE}) AS held JOIN group_members AS member
      ON held.subject_type = 'group' AND member.group_id = held.subject_id AND member.ended_at IS NULL"""  # noqa: S608
_OWNERS = f"""
    SELECT holder_id, :scope_type, :scope_id, giver_id
    FROM ({_HOLDERS_OF_ROLE}) AS held (holder_id, scope_type, scope_id, giver_id) WHERE scope_id IS NULL"""  # noqa: S608
_MEMBERS_OF_GROUP = """
    SELECT user_id, :scope_type, :scope_id, created_by FROM group_members
    WHERE tenant_id = :tenant_id AND group_id = :row_id AND ended_at IS NULL"""


def _counted(given: str) -> TextClause:
    """How many hold it, and how many of them by somebody who lacks at that place what is added."""
    return rights_of_pairs(
        f"""given (holder_id, scope_type, scope_id, giver_id) AS MATERIALIZED ({given})""",
        "SELECT giver_id AS user_id, scope_type, scope_id FROM given WHERE giver_id <> :actor_id",
        """SELECT count(DISTINCT holder_id), count(DISTINCT holder_id) FILTER (
             WHERE giver_id <> :actor_id AND NOT coalesce(rights.permissions @> :added, false))
           FROM given LEFT JOIN pairs ON pairs.user_id = giver_id AND pairs.scope_id IS NOT DISTINCT FROM given.scope_id
           LEFT JOIN rights ON rights.user_id = pairs.user_id AND rights.place = pairs.place""",
    )


_FILLED = _counted(_HOLDERS_OF_ROLE)
_OWNING = _counted(_OWNERS)
_JOINED = _counted(_MEMBERS_OF_GROUP)


async def confirm_filling(work: UnitOfWork, role_id: UUID, added: Collection[str]) -> None:
    """The role, which is locked, is to bring more. Raises Conflict, as the others do."""
    if added:
        await _confirm(work, _FILLED, role_id, added, None, "permissions")


async def confirm_owning(work: UnitOfWork, role_id: UUID, place: Place) -> None:
    """The role is to own what stands there. It is locked: whoever gives it meanwhile waits, and finds that it owns."""
    one = select(Role.id).where(Role.id == role_id, Role.tenant_id == work.tenant_id)
    await work.session.execute(one.with_for_update())
    await _confirm(work, _OWNING, role_id, OWNER_BRINGS, place, "owner_role_id")


async def confirm_giving(work: UnitOfWork, group_id: UUID, added: Collection[str], place: Place | None) -> None:
    """The group, which is locked, is to hold more at that place, or with None in the whole tenant."""
    if added:
        await _confirm(work, _JOINED, group_id, added, place, "subject.id")


async def _confirm(
    work: UnitOfWork, statement: TextClause, row_id: UUID, added: Collection[str], place: Place | None, path: str
) -> None:
    """In a dry run nothing has to be confirmed: it is there to look."""
    if work.rehearsal is not None or work.actor_id is None:
        return
    scope_type, scope_id = _scope_of(place)
    values = {
        "tenant_id": work.tenant_id,
        "row_id": row_id,
        "actor_id": work.actor_id,
        "added": sorted(added),
        "owner_brings": sorted(OWNER_BRINGS),
        "moment": None,
        "scope_type": scope_type,
        "scope_id": scope_id,
    }
    wanted = {name: values[name] for name in statement.compile().params}
    await work.session.execute(PLANNING)
    holders, doubtful = (await work.session.execute(statement, wanted)).one()
    await work.session.execute(AS_EVER)
    if doubtful and work.confirmed_holders != holders:
        sentence = (
            f"You give this to {holders}, and {doubtful} of them are there by the hand of somebody who could not give "
            f"it. Look at who they are, then confirm it with `{PARAMETER}={holders}`."
        )
        fault = Fault(path, "holders_unconfirmed", f"is held by {holders} who have to be confirmed")
        raise Conflict(sentence, code="holders_unconfirmed", errors=[fault])


def _scope_of(place: Place | None) -> tuple[str, UUID | None]:
    if place is not None and place.source_id is not None:
        return "data_source", place.source_id
    if place is not None and place.domain_id is not None:
        return "data_domain", place.domain_id
    return "tenant", None


def confirmable(handler: Handler) -> Handler:
    """Wrap a handler that takes `request` and `work`, around all others."""

    @wraps(handler)
    async def confirming(*args: Any, request: HubRequest, work: UnitOfWork, **kwargs: Any) -> Any:
        work.confirmed_holders = _confirmed(request)
        return await handler(*args, request=request, work=work, **kwargs)

    return confirming  # type: ignore[return-value]


def _confirmed(request: HubRequest) -> int | None:
    """Raises BadRequest for what is no number, and what the route does not take."""
    given = given_parameters(request).get(PARAMETER)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 10 and int(given) <= MOST_HOLDERS):
        fault = Fault(PARAMETER, "invalid_parameter", "must be a whole number")
        raise BadRequest(code="invalid_parameter", errors=[fault])
    return int(given)
