"""What rights hung on before it was changed or went: written by triggers of the database, read for the past."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Identity
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Tenanted


class RightsHistory(Tenanted, Base):
    """Something that rights hang on, as it was for a while. What it is now stands in its own row."""

    __tablename__ = "rights_history"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    kind: Mapped[str]
    """`role`, `data_domain`, `data_source`, `user` or `service_account`."""
    row_id: Mapped[UUID]
    valid_from: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    valid_to: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
