"""What is good once: a row is there from its use until it would be over anyhow."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Tenanted


class SpentToken(Tenanted, Base):
    __tablename__ = "spent_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """Made of what was said, so that whoever says it again finds its place taken."""
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
