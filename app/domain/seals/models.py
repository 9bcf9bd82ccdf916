"""What proves the audit log. The application's role reads it; owner's functions write it (migration 0025)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Computed,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    LargeBinary,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Tenanted, TransactionId


class AuditSeal(Tenanted, Base):
    """A signed range of a tenant's rows. Hashes and the signature are in hex."""

    __tablename__ = "audit_seals"
    __table_args__ = (UniqueConstraint("ordinal", name="audit_seals_ordinal_key"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[UUID] = mapped_column(Computed("last_id", persisted=True))
    """That of the last row: no other seal has it."""
    ordinal: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    """Among the seals of all tenants: one is made at a time, so that it is the order of their commits."""
    first_position: Mapped[int] = mapped_column(BigInteger)
    last_position: Mapped[int] = mapped_column(BigInteger)
    first_id: Mapped[UUID]
    last_id: Mapped[UUID]
    count: Mapped[int] = mapped_column(BigInteger)
    root: Mapped[str]
    previous_hash: Mapped[str]
    sealed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    kid: Mapped[str]
    signature: Mapped[str]
    hash: Mapped[str]
    written_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=text("clock_timestamp()"))
    """By the database, whatever the seal says: before its rows are old enough by this, nobody drops them."""


class AuditLeaf(Tenanted, Base):
    """A row's place in its tenant's chain, and what it hashed to when it was sealed."""

    __tablename__ = "audit_leaves"
    __table_args__ = (
        UniqueConstraint("tenant_id", "event_id", name="audit_leaves_event_id_key"),
        ForeignKeyConstraint(
            ("tenant_id", "seal_number"),
            ("audit_seals.tenant_id", "audit_seals.number"),
            name="audit_leaves_seal_fkey",
            deferrable=True,
            initially="DEFERRED",
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[UUID]
    leaf_hash: Mapped[bytes] = mapped_column(LargeBinary)
    seal_number: Mapped[int] = mapped_column(BigInteger)


class AuditWatermark(Base):
    """Up to where rows are sealed, in the order of (transaction, sequence) and over all tenants: one row."""

    __tablename__ = "audit_watermark"

    is_it: Mapped[bool] = mapped_column(primary_key=True, default=True)
    transaction_id: Mapped[int] = mapped_column(TransactionId)
    sequence: Mapped[int] = mapped_column(BigInteger)
    event_id: Mapped[UUID | None]


class SealingKey(Base):
    """The public half of each key that ever sealed."""

    __tablename__ = "sealing_keys"

    kid: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[str]
    """PEM."""
    first_used_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class AuditAnchor(Base):
    """Up to which seal, by its ordinal, a place outside of the database has copies."""

    __tablename__ = "audit_anchors"

    place: Mapped[str] = mapped_column(primary_key=True)
    last_ordinal: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
