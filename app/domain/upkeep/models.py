"""How upkeep goes, for the metrics: it runs in workers, which nobody scrapes."""

from datetime import datetime

from sqlalchemy import BigInteger, DateTime
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base


class UpkeepState(Base):
    __tablename__ = "upkeep"

    kind: Mapped[str] = mapped_column(primary_key=True)
    rows_done: Mapped[int] = mapped_column(BigInteger)
    """Removed or filled in, ever."""
    failures: Mapped[int] = mapped_column(BigInteger)
    last_success_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
