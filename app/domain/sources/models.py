"""Data sources, their sealed secrets, their tests, and what was found inside."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import UNIQUE_SENTENCES, Base, Entity, Tenanted


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
    is_paused: Mapped[bool] = mapped_column(default=False)
    test_interval_s: Mapped[int | None]
    status: Mapped[str] = mapped_column(default="untested")
    """Of the last saved test: untested, passed, failed or unsupported. Outside of `version`."""
    status_since: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_tested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    next_test_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When a worker tests the source; set with `test_interval_s`. Outside of `version`."""
    fingerprint: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Of the place that `config` means (`duplicates.fingerprint`); equal for sources of one server and database."""


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


class DataSourceTest(Tenanted, Base):
    __tablename__ = "data_source_tests"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    data_source_id: Mapped[UUID] = mapped_column(ForeignKey("data_sources.id", ondelete="CASCADE"))
    status: Mapped[str]
    steps: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    server: Mapped[dict[str, Any]] = mapped_column(JSONB)
    duration_ms: Mapped[float]
    secret_versions: Mapped[dict[str, int]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_by: Mapped[UUID | None]


class SourceObject(Tenanted, Base):
    """A table, collection, dataset ... that discovery found in a source."""

    __tablename__ = "source_objects"
    __table_args__ = (UniqueConstraint("data_source_id", "qualified_name", name="source_objects_name_key"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    data_source_id: Mapped[UUID] = mapped_column(ForeignKey("data_sources.id", ondelete="CASCADE"))
    name: Mapped[str]
    path: Mapped[list[str]] = mapped_column(ARRAY(Text))
    qualified_name: Mapped[str]
    kind: Mapped[str]
    is_active: Mapped[bool]
    """False once a discovery no longer found it."""
    fields: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    """`{name, type, native_type, is_nullable, position}` in order of position."""
    discovered_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


UNIQUE_SENTENCES["data_sources_name_key"] = ("name", "name_taken", "A data source of this name exists already.")
