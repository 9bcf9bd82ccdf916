"""Which rows make an assignment on the wire, which of them are in force, and which users and roles are shown with."""

from collections.abc import Iterator, Set
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    and_,
    any_,
    bindparam,
    case,
    column,
    func,
    literal_column,
    not_,
    or_,
    select,
    table,
)

from app.core.database import Repository, json_object
from app.core.extent import UUIDS, Scoped
from app.core.lists.filters import Filter, boolean_filter, choice_filter, is_among, plainly, time_filter, uuid_filter
from app.core.lists.listing import Listing, Sort
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.schemas import SCOPE_TYPES, SUBJECT_TYPES, AssignmentOut

IS_OPEN = RoleAssignment.ended_at.is_(None)
HAS_NOT_PASSED: ColumnElement[bool] = and_(
    IS_OPEN, or_(RoleAssignment.expires_at.is_(None), RoleAssignment.expires_at > func.statement_timestamp())
)
"""Is in force, or will be."""
IN_FORCE: ColumnElement[bool] = and_(HAS_NOT_PASSED, RoleAssignment.starts_at <= func.statement_timestamp())
"""By the database's clock, read by each statement anew: a transaction that had to wait for a lock began before what it
now finds."""
LASTS: ColumnElement[bool] = and_(
    RoleAssignment.expires_at.is_(None), func.coalesce(RoleAssignment.via_type, "person") == "person"
)
"""Hangs on no date, request, review or directory."""
OF_WHOLE_TENANT: ColumnElement[bool] = and_(
    RoleAssignment.scope_id.is_(None), RoleAssignment.subject_type == literal_column("'user'")
)
"""Given to the users themselves, for the whole tenant: what users and roles are shown with."""


class AssignmentRepository(Repository[RoleAssignment]):
    model_type = RoleAssignment
    computed = {
        "subject": json_object({"type": RoleAssignment.subject_type, "id": RoleAssignment.subject_id}),
        "scope": json_object({"type": RoleAssignment.scope_type, "id": RoleAssignment.scope_id}),
        "via": case(
            (
                RoleAssignment.via_type.is_not(None),
                json_object({"type": RoleAssignment.via_type, "id": RoleAssignment.via_id}),
            )
        ),
    }


# Lists ----------------------------------------------------------------------------------------------------------------


ENDS_AT = "least(coalesce(expires_at, 'infinity'), coalesce(ended_at, 'infinity'))"
_ENDS_AT = literal_column(ENDS_AT, DateTime(timezone=True))
"""As its index has it."""
VALIDITY_INDEX = "role_assignments_validity_idx"
"""Behind row-level security it is looked in by a function of the owner, as the index of a search is."""


def _at_moment(moment: ColumnElement[Any]) -> ColumnElement[bool]:
    return is_among(RoleAssignment.id, getattr(func, f"found_by_{VALIDITY_INDEX}")(moment))


def _share_at(moment: ColumnElement[Any]) -> ColumnElement[float]:
    share: ColumnElement[float] = getattr(func, f"share_by_{VALIDITY_INDEX}")(moment)
    return share


def _at_moment_unindexed(moment: ColumnElement[Any]) -> ColumnElement[bool]:
    return and_(
        RoleAssignment.starts_at + literal_column("interval '0'") <= moment,
        _ENDS_AT + literal_column("interval '0'") > moment,
    )


def _in_force() -> Filter:
    """What is common is found along the list, what is rare by when it begins and ends."""
    plain = boolean_filter(RoleAssignment.ended_at, index=VALIDITY_INDEX)
    now: ColumnElement[Any] = func.statement_timestamp()

    is_true = _at_moment_unindexed(now)
    indexed = {True: plainly(_at_moment(now)), False: plainly(or_(now >= _ENDS_AT, RoleAssignment.starts_at > now))}
    unindexed = {True: plainly(is_true), False: plainly(not_(is_true))}
    return Filter(
        where=indexed[True],
        choose=indexed.__getitem__,
        along=unindexed.__getitem__,
        share=lambda wanted: lambda _: _share_at(now) if wanted else literal_column("1.0") - _share_at(now),
        row_id=RoleAssignment.id,
        parse=plain.parse,
        schema=plain.schema,
        index=VALIDITY_INDEX,
        description="Whether they are in force at this moment.",
    )


def _at() -> Filter:
    plain = time_filter(RoleAssignment.starts_at, bound="to")

    def indexed(name: str) -> ColumnElement[bool]:
        return _at_moment(bindparam(name, type_=RoleAssignment.starts_at.type))

    def unindexed(name: str) -> ColumnElement[bool]:
        return _at_moment_unindexed(bindparam(name, type_=RoleAssignment.starts_at.type))

    return Filter(
        where=indexed,
        along=lambda _: unindexed,
        share=lambda _: lambda name: _share_at(bindparam(name, type_=RoleAssignment.starts_at.type)),
        row_id=RoleAssignment.id,
        parse=plain.parse,
        schema=plain.schema,
        index=VALIDITY_INDEX,
        description="Those that were, or will be, in force at this moment.",
    )


_SOURCES = table("data_sources", column("id"), column("data_domain_id"))


class ScopedByPlace(Scoped, frozen=True):
    """Assignments for a domain or a source are where that is."""

    def _conditions(self, parts: Set[str] | tuple[str, ...]) -> Iterator[ColumnElement[bool]]:
        yield from super()._conditions(parts)
        if "domains" in parts:
            inside = _SOURCES.c.data_domain_id == any_(bindparam("extent_domains", type_=UUIDS))
            yield RoleAssignment.scope_id.in_(select(_SOURCES.c.id).where(inside))


def _index(name: str) -> str:
    return f"role_assignments_{name}_{{sort}}_idx"


ASSIGNMENT = AssignmentRepository.selection_by_id(AssignmentOut)
ASSIGNMENTS = Listing(
    AssignmentRepository.selection(AssignmentOut),
    name="role assignments",
    id_column=RoleAssignment.id,
    sorts={"created_at": Sort(RoleAssignment.created_at, "role_assignments_tenant_id_created_at_id_idx")},
    default_sort="-created_at",
    scoped=ScopedByPlace(RoleAssignment.scope_id, RoleAssignment.scope_id),
    filters={
        "subject_type": choice_filter(RoleAssignment.subject_type, SUBJECT_TYPES, index=_index("subject_type")),
        "subject_id": uuid_filter(RoleAssignment.subject_id, index=_index("subject_id")),
        "role_id": uuid_filter(RoleAssignment.role_id, index=_index("role_id")),
        "scope_type": choice_filter(RoleAssignment.scope_type, SCOPE_TYPES, index=_index("scope_type")),
        "scope_id": uuid_filter(RoleAssignment.scope_id, index=_index("scope_id")),
        "in_force": _in_force(),
        "at": _at(),
    },
)
