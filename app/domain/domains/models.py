"""Data domains: folders for data sources, in which rights are given."""

from uuid import UUID

from sqlalchemy import ForeignKey, UniqueConstraint, Uuid
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import IN_USE_SENTENCES, UNIQUE_SENTENCES, Entity, Tenanted
from app.domain.assignments.kinds import SCOPES, ScopeKind


class DataDomain(Tenanted, Entity):
    __tablename__ = "data_domains"
    __table_args__ = (
        UniqueConstraint(
            "tenant_id", "parent_id", "name_key", name="data_domains_name_key", postgresql_nulls_not_distinct=True
        ),
    )

    name: Mapped[str]
    name_key: Mapped[str]
    description: Mapped[str | None]
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("data_domains.id"))
    lineage: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    """The ids from the top down to this domain's own: what holds in one of them holds here."""
    owner_role_id: Mapped[UUID | None] = mapped_column(ForeignKey("roles.id"))


UNIQUE_SENTENCES["data_domains_name_key"] = ("name", "name_taken", "A data domain of this name is there already.")
IN_USE_SENTENCES["data_domains_parent_id_fkey"] = "Other data domains are in this one. Move or delete them first."
IN_USE_SENTENCES["data_domains_owner_role_id_fkey"] = "The role owns data domains. Give them another owner first."
SCOPES["data_domain"] = ScopeKind(DataDomain, {"domain_id": DataDomain.id}, "unknown_domain", "data-domains:read")
