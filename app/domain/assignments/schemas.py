"""Role assignments on the wire."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from app.core.errors import Fault
from app.core.schemas import EntityOut, Input, Output, Text

SubjectType = Annotated[Literal["user", "group", "service_account"], Meta(title="SubjectType")]
ScopeType = Annotated[Literal["tenant", "data_domain", "data_source"], Meta(title="ScopeType")]
ViaType = Annotated[Literal["person", "request", "review", "directory"], Meta(title="ViaType")]
SUBJECT_TYPES: tuple[str, ...] = get_args(get_args(SubjectType)[0])
SCOPE_TYPES: tuple[str, ...] = get_args(get_args(ScopeType)[0])
FIRST_YEAR_TOO_FAR = 9999
"""The last moment that Python knows is endless to the database's driver."""
Moment = Annotated[datetime, Meta(tz=True, examples=["2030-01-31T18:00:00Z"])]


def well_scoped(scope: Any, path: str) -> Iterator[Fault]:
    """Rule: of the whole tenant no id is given, of a part of it one is."""
    has_id = scope.get("id") is not None
    if scope["type"] == "tenant" and has_id:
        yield Fault(f"{path}.id", "not_allowed", "is not given with the type `tenant`")
    elif scope["type"] != "tenant" and not has_id:
        yield Fault(f"{path}.id", "required", f"is needed with the type `{scope['type']}`")


def storable_moment(value: Any, path: str) -> Iterator[Fault]:
    """Rule: what the database can hold."""
    try:
        is_storable = msgspec.convert(value, datetime).astimezone(UTC).year < FIRST_YEAR_TOO_FAR
    except OverflowError:
        is_storable = False
    if not is_storable:
        yield Fault(path, "too_large", f"must lie before the year {FIRST_YEAR_TOO_FAR}")


class Subject(Input):
    type: SubjectType
    id: UUID


class Scope(Input):
    type: ScopeType
    id: UUID | None = None
    """Of the data domain or data source; absent for the whole tenant."""


class Via(Struct, frozen=True):
    """By whose decision."""

    type: ViaType
    id: UUID


class AssignmentCreate(Input):
    rules = {
        "scope": well_scoped,
        "starts_at": storable_moment,
        "expires_at": storable_moment,
    }

    subject: Subject
    role_id: UUID
    scope: Scope = field(default_factory=lambda: Scope(type="tenant"))
    """Absent: the whole tenant."""
    starts_at: Moment | None = None
    """Now, where it is absent or past."""
    expires_at: Moment | None = None
    """Absent: it holds until somebody ends it."""
    reason: Text | None = None


class AssignmentPatch(Input):
    rules = {"expires_at": storable_moment}

    expires_at: Moment | None | UnsetType = UNSET


class SubjectOut(Output):
    type: SubjectType
    id: UUID


class ScopeOut(Output):
    type: ScopeType
    id: UUID | None
    """Null for the whole tenant."""


class ViaOut(Output):
    type: ViaType
    id: UUID


class AssignmentOut(EntityOut):
    subject: SubjectOut
    role_id: UUID
    scope: ScopeOut
    starts_at: datetime
    expires_at: datetime | None
    """Null: until somebody ends it."""
    reason: str | None
    via: ViaOut | None
    """By whose decision it was given; null for the hub itself."""
    ended_at: datetime | None
    """When it was ended; null for one that is in force, has not begun, or has just expired."""
    ended_by: UUID | None
