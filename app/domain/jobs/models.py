"""Jobs: work that outlives a request. The row is the queue entry, the progress and the result in one."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Entity, Tenanted


class Job(Tenanted, Entity):
    __tablename__ = "jobs"

    kind: Mapped[str]
    status: Mapped[str] = mapped_column(default="queued")
    """queued, running, succeeded, failed or cancelled."""
    subject_id: Mapped[UUID | None]
    """What the job is about, such as the data source it discovers."""
    arguments: Mapped[dict[str, Any]] = mapped_column(JSONB)
    progress_done: Mapped[int] = mapped_column(default=0)
    progress_total: Mapped[int | None]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    attempts: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    lease_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """A running job's worker renews it; a job whose lease ran out is taken up by another worker."""
    lease_id: Mapped[UUID | None]
    """Which run holds the job; a worker that lost its lease can change nothing any more."""
