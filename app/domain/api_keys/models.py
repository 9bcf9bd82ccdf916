"""API keys: what a program sends in place of an access token."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Computed, DateTime, ForeignKey, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Entity, Tenanted
from app.core.rows import left_empty


class ApiKey(Tenanted, Entity):
    """Two may have one name, as while one takes the other's place: a key is told by its prefix."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("tenant_id", "prefix", name="api_keys_prefix_key"),)

    name: Mapped[str]
    prefix: Mapped[str]
    """The beginning of the key's text, which says its id and nothing of its secret."""
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the key's text."""
    owner_type: Mapped[str]
    owner_id: Mapped[UUID]
    permissions: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    """Null: all that the owner holds."""
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    """The hour in which it was last used."""
    user_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), Computed("CASE WHEN owner_type = 'user' THEN owner_id END")
    )
    service_account_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("service_accounts.id", ondelete="CASCADE"),
        Computed("CASE WHEN owner_type = 'service_account' THEN owner_id END"),
    )
