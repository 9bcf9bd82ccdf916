"""What the hub keeps for sign-in by SAML: its own key to each provider, the last good copy of the provider's metadata,
and who has arrived from there and not been let in yet."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Tenanted

Moment = DateTime(timezone=True)


class SamlKey(Tenanted, Base):
    """Of a provider, of a tenant or of the settings: each knows another certificate of ours."""

    __tablename__ = "saml_keys"
    __table_args__ = (UniqueConstraint("tenant_id", "provider_id", name="saml_keys_provider_key"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    provider_id: Mapped[UUID]
    certificate: Mapped[bytes]
    """DER."""
    sealed: Mapped[bytes]
    """The private key."""
    key_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(Moment)


class SamlMetadata(Tenanted, Base):
    """Of a provider whose metadata is at a URL: the last copy that could be used."""

    __tablename__ = "saml_metadata"
    __table_args__ = (UniqueConstraint("tenant_id", "provider_id", name="saml_metadata_provider_key"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    provider_id: Mapped[UUID]
    url: Mapped[str]
    document: Mapped[str]
    fetched_at: Mapped[datetime] = mapped_column(Moment)


class SamlArrival(Tenanted, Base):
    """What a provider has said of somebody, until their browser has shown that it began the sign-in."""

    __tablename__ = "saml_arrivals"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    digest: Mapped[bytes]
    """Of the token in the address to which the browser is sent."""
    provider_id: Mapped[UUID]
    request_id: Mapped[str]
    """Of the request that the provider has answered."""
    said: Mapped[dict[str, Any]] = mapped_column(JSONB)
    expires_at: Mapped[datetime] = mapped_column(Moment)
