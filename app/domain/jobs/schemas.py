"""Jobs on the wire."""

from datetime import datetime
from typing import Any
from uuid import UUID

from app.core.schemas import EntityOut, Output


class Progress(Output):
    done: int
    total: int | None
    """Null while it is not known."""


class JobError(Output):
    code: str
    message: str
    can_retry: bool


class JobOut(EntityOut):
    kind: str
    status: str
    """queued, running, succeeded, failed or cancelled."""
    subject_id: UUID | None
    """What the job is about, such as the data source it discovers."""
    progress: Progress
    result: dict[str, Any] | None
    error: JobError | None
    started_at: datetime | None
    finished_at: datetime | None
