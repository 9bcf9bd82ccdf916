"""Keys of directories: what Entra ID, Okta and their like send to keep users and groups (SCIM, RFC 7644)."""

from datetime import datetime

from sqlalchemy import DateTime, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Entity, Tenanted
from app.core.rows import left_empty


class ScimKey(Tenanted, Entity):
    """Two may have one name, as while one takes the other's place."""

    __tablename__ = "scim_keys"

    name: Mapped[str]
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the key's text."""
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    """The hour in which it was last used."""
