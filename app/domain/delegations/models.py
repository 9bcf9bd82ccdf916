"""Delegations: somebody's decisions on role requests are another one's for a while."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Entity, Tenanted


class Delegation(Tenanted, Entity):
    """It brings what its giver may decide at the moment of each decision, and nothing once they may not."""

    __tablename__ = "delegations"

    user_id: Mapped[UUID]
    """Whose decisions they are."""
    to_user_id: Mapped[UUID]
    starts_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ends_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
