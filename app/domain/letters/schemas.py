"""Letters on the wire: of events, and of answers that say how one is sent."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from app.core.mail import MailFailure
from app.core.schemas import Output

LetterKind = Literal[
    "confirm_email", "email_changed", "invitation", "password_changed", "password_reset", "reset_password"
]
LetterStatus = Literal["waiting", "sent", "failed", "shown"]
LetterFailure = Literal[MailFailure, "ended", "expired", "not_configured", "taken"]
LinkToken = Annotated[str, Meta(min_length=1, max_length=200, extra_json_schema={"writeOnly": True})]
"""Of the link in a letter."""


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
