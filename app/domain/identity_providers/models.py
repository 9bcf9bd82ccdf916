"""Identity providers of tenants, and whom they have vouched for."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import UNIQUE_SENTENCES, Base, Entity, Tenanted
from app.core.rows import left_empty

Moment = DateTime(timezone=True)


class IdentityProvider(Tenanted, Entity):
    """Kept by the admins of its tenant. Those of HUB_OIDC_* and HUB_SAML_* are in no table."""

    __tablename__ = "identity_providers"
    __table_args__ = (UniqueConstraint("tenant_id", "name", name="identity_providers_name_key"),)

    kind: Mapped[str]
    name: Mapped[str]
    """Stands in the addresses that the provider knows: it never changes."""
    label: Mapped[str]
    is_active: Mapped[bool]
    issuer: Mapped[str | None]
    client_id: Mapped[str | None]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    groups_claim: Mapped[str | None]
    allowed_domains: Mapped[list[str]] = mapped_column(ARRAY(Text))
    metadata_xml: Mapped[str | None]
    metadata_url: Mapped[str | None]
    attribute_email: Mapped[str | None]
    attribute_first_name: Mapped[str | None]
    attribute_last_name: Mapped[str | None]
    attribute_groups: Mapped[str | None]
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary, default=left_empty)
    """The client's secret at the provider."""
    key_id: Mapped[str | None] = mapped_column(default=left_empty)


class UserIdentity(Tenanted, Base):
    """Who it is that a provider calls by this subject. The issuer is the one that signs, whatever the provider is
    called here."""

    __tablename__ = "user_identities"
    __table_args__ = (UniqueConstraint("tenant_id", "kind", "issuer", "subject", name="user_identities_subject_key"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[str]
    provider: Mapped[str]
    """Its name, when the identity was last used."""
    issuer: Mapped[str]
    subject: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(Moment)
    last_used_at: Mapped[datetime | None] = mapped_column(Moment)


UNIQUE_SENTENCES["identity_providers_name_key"] = ("name", "name_taken", "A provider of this name exists already.")
