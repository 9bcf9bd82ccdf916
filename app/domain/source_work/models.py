"""What work at a source leaves behind: results of tests, and the objects that discovery found."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base, Tenanted


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
    notes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """Sentences of the connector for the reader."""
    discovered_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
