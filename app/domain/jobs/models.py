"""Jobs: work that outlives a request. The row is the queue entry, the progress and the result in one."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, SmallInteger
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Entity, Tenanted
from app.core.rows import left_empty


class Job(Tenanted, Entity):
    __tablename__ = "jobs"

    kind: Mapped[str]
    status: Mapped[str] = mapped_column(default="queued")
    """queued, running, succeeded, failed or cancelled."""
    subject_id: Mapped[UUID | None]
    """What the job is about, such as the data source it discovers."""
    arguments: Mapped[dict[str, Any]] = mapped_column(JSONB)
    traceparent: Mapped[str | None] = mapped_column(default=left_empty)
    """Of the request that made it, where traces are sent."""
    progress_done: Mapped[int] = mapped_column(default=0)
    progress_total: Mapped[int | None] = mapped_column(default=left_empty)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True), default=left_empty)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True), default=left_empty)
    attempts: Mapped[int] = mapped_column(default=0)
    """Since it was last queued: more than one where a worker was lost."""
    priority: Mapped[int] = mapped_column(SmallInteger, default=0)
    """What is higher goes first."""
    host: Mapped[str | None] = mapped_column(default=left_empty)
    """That is dialled, in one spelling, where it is about a source of one host: few jobs of one host run at once."""
    retries: Mapped[int] = mapped_column(default=0)
    run_after: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    """A job that failed, and may succeed later, waits until then."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    lease_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    """A running job's worker renews it; a job whose lease ran out is taken up by another worker."""
    lease_id: Mapped[UUID | None] = mapped_column(default=left_empty)
    """Which run holds the job; a worker that lost its lease can change nothing any more."""
