"""Data sources, their sealed secrets, their tests, and what was found inside."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import IN_USE_SENTENCES, UNIQUE_SENTENCES, Base, Entity, Tenanted
from app.core.rows import left_empty
from app.domain.assignments.kinds import SCOPES, ScopeKind


class DataSource(Tenanted, Entity):
    __tablename__ = "data_sources"
    __table_args__ = (UniqueConstraint("tenant_id", "name_key", name="data_sources_name_key"),)

    name: Mapped[str]
    name_key: Mapped[str]
    description: Mapped[str | None]
    type: Mapped[str]
    category: Mapped[str]
    config: Mapped[dict[str, Any]] = mapped_column(JSONB)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    owner_role_id: Mapped[UUID | None] = mapped_column(ForeignKey("roles.id"))
    data_domain_id: Mapped[UUID | None] = mapped_column(ForeignKey("data_domains.id"))
    is_paused: Mapped[bool] = mapped_column(default=False)
    test_interval_s: Mapped[int | None]
    discover_schedule: Mapped[str | None] = mapped_column(default=left_empty)
    """Five fields of cron."""
    discover_time_zone: Mapped[str] = mapped_column(default="UTC")
    next_discovery_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    """When a worker has the source discovered; set with `discover_schedule`. Outside of `version`."""
    status: Mapped[str] = mapped_column(default="untested")
    """Of the last saved test: untested, passed, failed or unsupported. Outside of `version`."""
    status_since: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    last_tested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=left_empty)
    next_test_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When a worker tests the source; set with `test_interval_s`. Outside of `version`."""
    test_failures: Mapped[int] = mapped_column(default=0)
    """Saved tests that failed in a row; the pause before the next one grows with them. Outside of `version`."""
    secret_states: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """By name, as `SecretState` shows them (`secrets/states.py`)."""
    host: Mapped[str | None]
    """That is dialled, in one spelling, where `config` names one: few of one host are tested at once."""
    fingerprint: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Of the place that `config` means (`duplicates.fingerprint`); equal for sources of one server and database."""


class DataSourceTag(Tenanted, Base):
    """A source carries a tag. Kept by triggers of the database, with copies of what sources are sorted by: an index
    over an array has no order, and none reaches over to another table."""

    __tablename__ = "data_source_tags"

    data_source_id: Mapped[UUID] = mapped_column(ForeignKey("data_sources.id", ondelete="CASCADE"), primary_key=True)
    tag: Mapped[str] = mapped_column(primary_key=True)
    source_created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    source_updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    source_name_key: Mapped[str]


class DataSourceSecret(Tenanted, Base):
    """One secret field of a source: a value sealed to its place, or a reference to where the hub finds it. The value is
    written and used, never shown."""

    __tablename__ = "data_source_secrets"

    data_source_id: Mapped[UUID] = mapped_column(ForeignKey("data_sources.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    key_id: Mapped[str | None]
    reference: Mapped[str | None]
    """`env:NAME` or `file:path`; then nothing is sealed."""
    version: Mapped[int]
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_by: Mapped[UUID | None]


UNIQUE_SENTENCES["data_sources_name_key"] = ("name", "name_taken", "A data source of this name exists already.")
IN_USE_SENTENCES["data_sources_data_domain_id_fkey"] = "Data sources are in this domain. Move or delete them first."
IN_USE_SENTENCES["data_sources_owner_role_id_fkey"] = "The role owns data sources. Give them another owner first."
SCOPES["data_source"] = ScopeKind(
    DataSource,
    {"source_id": DataSource.id, "domain_id": DataSource.data_domain_id, "owner_role_id": DataSource.owner_role_id},
    "unknown_source",
    "data-sources:read",
)
