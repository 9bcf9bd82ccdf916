"""Delegations on the wire."""

from datetime import datetime
from uuid import UUID

from app.core.schemas import EntityOut, Input
from app.domain.assignments.schemas import Moment, storable_moment


class DelegationOut(EntityOut):
    user_id: UUID
    """Whose decisions they are."""
    to_user_id: UUID
    """Who decides in their place, too."""
    starts_at: datetime
    ends_at: datetime


class DelegationCreate(Input):
    rules = {"starts_at": storable_moment, "ends_at": storable_moment}

    to_user_id: UUID
    ends_at: Moment
    starts_at: Moment | None = None
    """Now, where it is absent or past."""
