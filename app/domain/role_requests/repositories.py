"""Which rows make a role request on the wire, which lists of them there are, and who sees one."""

from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY

from app.core.database import Repository, json_object
from app.core.lists.filters import Filter, boolean_filter, choice_filter, plainly, uuid_filter
from app.core.lists.listing import Listing, Sort
from app.domain.role_requests.deciders import MAY_DECIDE, TO_DECIDE
from app.domain.role_requests.models import RoleRequest, RoleRequestEntry
from app.domain.role_requests.schemas import STATUSES, EntryOut, RoleRequestOut


def is_written(status: str) -> ColumnElement[bool]:
    return RoleRequest.status == literal_column(f"'{status}'")


IS_PENDING = and_(is_written("pending"), RoleRequest.pending_until > func.statement_timestamp())
IS_OVER = and_(is_written("pending"), RoleRequest.pending_until <= func.statement_timestamp())
"""Expired, by the database's clock, and not written down yet."""
HAS_EXPIRED = or_(is_written("expired"), RoleRequest.pending_until <= func.statement_timestamp())
_PENDING_OR_EXPIRED = RoleRequest.status.in_([literal_column("'pending'"), literal_column("'expired'")])


class RoleRequestRepository(Repository[RoleRequest]):
    model_type = RoleRequest
    computed = {
        "scope": json_object({"type": RoleRequest.scope_type, "id": RoleRequest.scope_id}),
        "status": case((IS_OVER, literal_column("'expired'", Text())), else_=RoleRequest.status),
        "awaits": case((IS_PENDING, RoleRequest.awaits), else_=literal_column("'{}'::uuid[]", ARRAY(Uuid))),
        "decided_at": case((IS_OVER, RoleRequest.pending_until), else_=RoleRequest.decided_at),
    }


class EntryRepository(Repository[RoleRequestEntry]):
    model_type = RoleRequestEntry


def _by_status() -> Filter:
    plain = choice_filter(RoleRequest.status, STATUSES, index="role_requests_pending_{sort}_idx")

    conditions = {status: is_written(status) for status in STATUSES}
    conditions |= {"pending": IS_PENDING, "expired": and_(_PENDING_OR_EXPIRED, HAS_EXPIRED)}
    by_status = {status: plainly(condition) for status, condition in conditions.items()}
    return Filter(
        where=by_status["pending"],
        choose=by_status.__getitem__,
        parse=plain.parse,
        schema=plain.schema,
        index=plain.index,
        index_of=lambda status: f"role_requests_{status}_{{sort}}_idx",
    )


def _where_true(condition: ColumnElement[bool], *, index: str, description: str) -> Filter:
    """For `?name=true`; with false it narrows nothing."""
    plain = boolean_filter(RoleRequest.status, index=index, description=description)

    by_value = {True: plainly(condition), False: plainly(true())}
    return Filter(
        where=by_value[True],
        choose=by_value.__getitem__,
        parse=plain.parse,
        schema=plain.schema,
        index=index,
        index_of=lambda wanted: index if wanted else "{sort_index}",
        description=description,
    )


def _of_actor(condition: str) -> ColumnElement[bool]:
    return cast(ColumnElement[bool], text(condition))


_ACTOR_ID = bindparam("actor_id", type_=RoleRequest.user_id.type)
ROLE_REQUEST = RoleRequestRepository.selection_by_id(RoleRequestOut)
ROLE_REQUESTS = Listing(
    RoleRequestRepository.selection(RoleRequestOut),
    name="role requests",
    id_column=RoleRequest.id,
    sorts={"created_at": Sort(RoleRequest.created_at, "role_requests_created_at_idx")},
    default_sort="-created_at",
    filters={
        "status": _by_status(),
        "user_id": uuid_filter(RoleRequest.user_id, index="role_requests_user_id_{sort}_idx"),
        "role_id": uuid_filter(RoleRequest.role_id, index="role_requests_role_id_{sort}_idx"),
        "mine": _where_true(
            RoleRequest.user_id == _ACTOR_ID,
            index="role_requests_user_id_{sort}_idx",
            description="Those that one makes oneself.",
        ),
        "to_decide": _where_true(
            _of_actor(TO_DECIDE),
            index="role_requests_pending_{sort}_idx",
            description="Those that wait for one's own decision.",
        ),
    },
)
TIMELINE = Listing(
    EntryRepository.selection(EntryOut).where(
        RoleRequestEntry.request_id == bindparam("request_id", type_=RoleRequestEntry.request_id.type)
    ),
    name="timeline",
    id_column=RoleRequestEntry.id,
    sorts={"created_at": Sort(RoleRequestEntry.created_at, "role_request_entries_request_id_created_at_idx")},
    default_sort="created_at",
)
SEEN: Any = select(RoleRequest.id).where(
    RoleRequest.tenant_id == bindparam("tenant_id", type_=RoleRequest.tenant_id.type),
    RoleRequest.id == bindparam("id", type_=RoleRequest.id.type),
    or_(
        RoleRequest.user_id == _ACTOR_ID,
        select(RoleRequestEntry.id)
        .where(RoleRequestEntry.request_id == RoleRequest.id, RoleRequestEntry.actor_id == _ACTOR_ID)
        .exists(),
        _of_actor(MAY_DECIDE),
    ),
)
"""One that the actor makes, has said something about, or may decide on."""
