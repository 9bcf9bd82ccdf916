"""OAuth clients: programs to which people sign in with the hub; and what programs have signed to show who they are."""

from sqlalchemy import LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import UNIQUE_SENTENCES, Entity, Tenanted


class OAuthClient(Tenanted, Entity):
    __tablename__ = "oauth_clients"
    __table_args__ = (UniqueConstraint("tenant_id", "name_key", name="oauth_clients_name_key"),)

    client_id: Mapped[str]
    """`dfo_` and the place of this row, so that nobody has to look for it in all tenants."""
    name: Mapped[str]
    name_key: Mapped[str]
    redirect_uris: Mapped[list[str]] = mapped_column(ARRAY(Text))
    is_confidential: Mapped[bool]
    secret_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    """SHA-256 of the secret; null for a public client."""


UNIQUE_SENTENCES["oauth_clients_name_key"] = ("name", "name_taken", "An OAuth client of this name exists already.")
