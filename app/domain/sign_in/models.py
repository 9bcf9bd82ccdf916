"""One-time codes: what a browser carries from the hub's sign-in page to the client that had sent it there."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, DateTime, ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Tenanted
from app.core.rows import left_empty


class SignInCode(Tenanted, Base):
    __tablename__ = "sign_in_codes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    digest: Mapped[bytes]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    client_id: Mapped[str | None]
    """The OAuth client that it is for; null for a page of HUB_SIGN_IN_REDIRECTS."""
    redirect_uri: Mapped[str]
    code_challenge: Mapped[str]
    """S256 (RFC 7636)."""
    scope: Mapped[str | None]
    amr: Mapped[list[str]] = mapped_column(ARRAY(Text))
    provider: Mapped[str | None]
    provider_subject: Mapped[str | None]
    provider_session: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    session_id: Mapped[UUID | None] = mapped_column(default=left_empty)
    """What it was exchanged for: a code that comes a second time ends that session (RFC 9700 section 4.5)."""
