"""Jobs on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta

from app.connectors.contract import failures
from app.core.error_codes import Code
from app.core.schemas import EntityOut, Output


class Progress(Output):
    done: int
    total: int | None
    """Null while it is not known."""


JobStatus = Annotated[
    Literal["queued", "running", "succeeded", "failed", "cancelled"],
    Meta(title="JobStatus"),
]
JobErrorCode = Annotated[Literal[Code, failures.Code, "worker_lost"], Meta(title="JobErrorCode")]
"""Of the hub, or of the connector that did the work."""


class JobError(Output):
    code: JobErrorCode
    message: str
    can_retry: bool


class JobOut(EntityOut):
    kind: str
    status: JobStatus
    subject_id: UUID | None
    """What the job is about, such as the data source it discovers."""
    progress: Progress
    result: dict[str, Any] | None
    error: JobError | None
    """Of a job that waits: why it failed the last time."""
    priority: int
    """What is higher goes first: 0 for what somebody has asked for, more for what ends rights, less for what is due on
    a schedule."""
    retries: int
    """How often it was tried again after a failure that may pass."""
    run_after: datetime | None
    """When a job that failed is tried again; null for all others."""
    started_at: datetime | None
    finished_at: datetime | None
