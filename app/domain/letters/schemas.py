"""Letters on the wire: of events, and of answers that say how one is sent."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from app.core.schemas import Output

LetterKind = Literal[
    "confirm_email", "email_changed", "invitation", "password_changed", "password_reset", "reset_password"
]
LetterStatus = Literal["waiting", "sent", "failed", "shown"]
LetterFailure = Literal[
    "authentication_failed",
    "deferred",
    "disconnected",
    "ended",
    "expired",
    "not_configured",
    "refused",
    "taken",
    "timeout",
    "tls_failed",
    "unreachable",
]


class LetterOut(Output):
    """Never with its link: whoever sees events, or is sent them, could act as whoever the letter is for."""

    id: UUID
    kind: LetterKind
    email: str
    """To whom it goes."""
    user_id: UUID | None
    invitation_id: UUID | None
    status: LetterStatus
    failure: LetterFailure | None
    created_at: datetime
    expires_at: datetime


class Accepted(Output):
    """The same whatever comes of it."""

    message: str
