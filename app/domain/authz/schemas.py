"""Checks and their grounds on the wire."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from app.core.schemas import Input, Output

MAX_CHECKS = 100

ResourceType = Literal["data_source", "data_domain"]


class Check(Input):
    """Whether somebody may do something: oneself where `user_id` is not given, now where `at` is not."""

    action: Annotated[str, Meta(min_length=1, max_length=100, examples=["data-sources:read"])]
    """A permission, of the hub's own or of another service."""
    resource_type: ResourceType | None = None
    """With `resource_id`; without them the whole tenant is meant."""
    resource_id: UUID | None = None
    user_id: UUID | None = None
    at: Annotated[datetime, Meta(tz=True)] | None = None
    """A moment in the past."""


class Checks(Input):
    checks: Annotated[list[Check], Meta(min_length=1, max_length=MAX_CHECKS)]


class RightScope(Output):
    type: Literal["tenant", "data_domain", "data_source"]
    id: UUID | None
    """Null for the whole tenant."""


class RightVia(Output):
    """What a right comes from."""

    type: Literal["assignment", "owner", "public"]
    """`owner`: the role owns the thing, or a domain above it. `public`: everybody has the role."""
    role_id: UUID
    assignment_id: UUID | None
    """By which the role is held; null for `public`."""
    group_id: UUID | None
    """Of which the user is a member, where the role is the group's."""
    scope: RightScope
    request_id: UUID | None
    """The request that led to the assignment."""


class CheckResult(Output):
    allowed: bool
    via: list[RightVia]
    """Everything that the right comes from; empty where it is not there."""


class CheckResults(Output):
    results: list[CheckResult]
    """One for each check, in their order."""


class EffectivePermission(Output):
    permission: str
    scope: RightScope
    via: list[RightVia]


class AccessVia(RightVia):
    permissions: list[str]
    """Those of the access that come from this."""


class AccessOut(Output):
    """What one user or service account may do there."""

    subject_type: Literal["user", "service_account"]
    user_id: UUID
    """Of the user, or of the service account."""
    email: str | None
    permissions: list[str]
    via: list[AccessVia]
