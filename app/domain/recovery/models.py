"""Passwords that somebody says are forgotten: noted as it was typed, and looked at by a worker."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Tenanted


class ForgottenPassword(Tenanted, Base):
    """In the tenant of the operators: whose it is, is not looked up in the request, whose time would tell."""

    __tablename__ = "forgotten_passwords"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    """As it was typed, which may be anything: gone within seconds."""
    slug: Mapped[str | None]
    """Of the tenant that is meant, where the request or its host says so."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
