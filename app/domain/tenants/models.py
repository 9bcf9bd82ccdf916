"""The organisations that a hub serves. A single-tenant user never meets them: there is one, named `default`."""

from uuid import UUID

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Entity

DEFAULT_TENANT_ID = UUID("00000000-0000-7000-8000-000000000001")
"""Written by the first migration, so that it is the same in every hub."""


class Tenant(Entity):
    __tablename__ = "tenants"
    __table_args__ = (UniqueConstraint("slug", name="tenants_slug_key"),)

    slug: Mapped[str]
    name: Mapped[str]
    is_active: Mapped[bool] = mapped_column(default=True)
