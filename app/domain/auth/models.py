"""Sessions: one sign-in on one device, carried on by refreshing; and access tokens of programs, which have none."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, DateTime, ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Entity, Tenanted
from app.core.rows import left_empty


class Session(Tenanted, Entity):
    __tablename__ = "sessions"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    key_id: Mapped[str]
    """Which key of the ring the refresh tokens are derived with."""
    generation: Mapped[int] = mapped_column(default=1)
    """Which refresh token is the valid one; rotation adds one."""
    rotated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    idle_expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    last_seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    device: Mapped[str | None]
    """The User-Agent of the sign-in."""
    address: Mapped[str | None]
    client_id: Mapped[str | None]
    """The OAuth client that it was opened for; null for the hub's own API."""
    amr: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """How the user has proven to be themselves: `app.domain.auth.sessions.Method`."""
    authenticated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    stepped_up_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    """When they last proved it anew within the session."""
    provider: Mapped[str | None]
    """The identity provider that vouched for them, with what it calls them and their session there."""
    provider_subject: Mapped[str | None]
    provider_session: Mapped[str | None]


class ServiceToken(Tenanted, Base):
    """What an access token of a service account rests on: the credential that it was given for, and its own end."""

    __tablename__ = "service_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    service_account_id: Mapped[UUID] = mapped_column(ForeignKey("service_accounts.id", ondelete="CASCADE"))
    api_key_id: Mapped[UUID | None] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    jwk_id: Mapped[UUID | None]
    """Or the public key of the account by which it had signed (`app.domain.service_accounts.jwks.id_of_key`)."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)


class SignInCode(Tenanted, Base):
    """One-time code: what a browser carries from the sign-in page to the client that had sent it there."""

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
