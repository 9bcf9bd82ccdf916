"""Service accounts: what programs act as."""

from typing import Any

from sqlalchemy import UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import UNIQUE_SENTENCES, Entity, Tenanted
from app.domain.assignments.kinds import SUBJECTS


class ServiceAccount(Tenanted, Entity):
    """It has no password and no session: whoever acts as one comes with a key of its, or with what it got for one."""

    __tablename__ = "service_accounts"
    __table_args__ = (UniqueConstraint("tenant_id", "name_key", name="service_accounts_name_key"),)

    name: Mapped[str]
    name_key: Mapped[str]
    """The form under which names are compared."""
    description: Mapped[str | None]
    is_active: Mapped[bool] = mapped_column(default=True)
    jwks: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """Public keys (RFC 7517)."""


UNIQUE_SENTENCES["service_accounts_name_key"] = ("name", "name_taken", "A service account of this name exists already.")
SUBJECTS["service_account"] = ServiceAccount
