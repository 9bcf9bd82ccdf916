"""The organisations that a hub serves. A single-tenant user never meets them: there is one, named `default`."""

from datetime import datetime

from sqlalchemy import DateTime, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import UNIQUE_SENTENCES, Entity, Tenanted
from app.core.rows import left_empty
from app.core.tenancy import DEFAULT_TENANT_ID

__all__ = ["DEFAULT_TENANT_ID", "Tenant", "TenantSettings"]


class Tenant(Entity):
    __tablename__ = "tenants"
    __table_args__ = (UniqueConstraint("slug", name="tenants_slug_key"),)

    slug: Mapped[str]
    """Names it at sign-in and among the folders of files; nobody else's ever, not even once it is deleted."""
    name: Mapped[str]
    is_active: Mapped[bool] = mapped_column(default=True)
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    """From then on it is not there for anybody. The row stays, with the tenant's audit log."""
    emptied_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    """When the last of its other rows was removed."""


class TenantSettings(Tenanted, Entity):
    """One row for each tenant, with the tenant's id."""

    __tablename__ = "tenant_settings"
    __table_args__ = (UniqueConstraint("tenant_id", name="tenant_settings_tenant_id_key"),)

    max_key_days: Mapped[int]
    is_admin_requestable: Mapped[bool]
    password_min_length: Mapped[int | None]
    """Null: as the deployment has it."""
    requires_mfa: Mapped[bool]
    allowed_email_domains: Mapped[list[str]] = mapped_column(ARRAY(Text))
    session_idle_days: Mapped[int]
    session_days: Mapped[int]


UNIQUE_SENTENCES["tenants_slug_key"] = ("slug", "slug_taken", "A tenant has, or had, this slug.")
