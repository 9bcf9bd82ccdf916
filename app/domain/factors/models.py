"""Second factors, recovery codes, and the challenges that were answered."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Entity, Tenanted
from app.core.rows import left_empty


class Factor(Tenanted, Entity):
    """What its use changes (`last_step`, `sign_count`, `last_used_at`) counts no version."""

    __tablename__ = "factors"
    __table_args__ = (UniqueConstraint("tenant_id", "credential_id", name="factors_credential_id_key"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    type: Mapped[str]
    name: Mapped[str]
    confirmed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """Until when it is to be confirmed; null once it is."""
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    sealed: Mapped[bytes | None]
    """The secret of one-time passwords."""
    key_id: Mapped[str | None]
    """The key that sealed it."""
    last_step: Mapped[int] = mapped_column(BigInteger, default=0)
    """The last time step of which a code was taken: neither it nor an earlier one is taken again."""
    challenge: Mapped[bytes | None]
    """That a new passkey has to answer; null once it has."""
    credential_id: Mapped[bytes | None] = mapped_column(default=left_empty)
    credential: Mapped[bytes | None] = mapped_column(default=left_empty)
    """Attested credential data of a passkey (WebAuthn section 6.5.1): its id and its public key."""
    sign_count: Mapped[int] = mapped_column(BigInteger, default=0)

    @property
    def is_confirmed(self) -> bool:
        return self.confirmed_at is not None


class RecoveryCode(Tenanted, Base):
    """One that was not used yet."""

    __tablename__ = "recovery_codes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    digest: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
