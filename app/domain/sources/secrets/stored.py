"""Secrets of data sources in their table: sealed when given, opened for connector work."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy import Row, bindparam, delete, select, text
from sqlalchemy.dialects.postgresql import JSONB

from app.core.errors import Conflict, Fault
from app.core.sealing import KeyRing, SealingError
from app.domain.sources.models import DataSource, DataSourceSecret
from app.domain.sources.schemas import SecretReference, Value, Values
from app.domain.sources.secrets.sealed import sealed_field
from app.domain.work import UnitOfWork

LOST = (
    "A stored secret cannot be opened: the key that it was sealed with is gone. Give it again, or bring back the key."
)


class NewSecret(Struct):
    """A row to write."""

    data_source_id: UUID
    tenant_id: UUID
    name: str
    sealed: str | None
    """In PostgreSQL's hexadecimal form."""
    key_id: str | None
    reference: str | None
    updated_at: datetime
    updated_by: UUID | None


STORE = text(
    """INSERT INTO data_source_secrets
         (data_source_id, tenant_id, name, sealed, key_id, reference, version, updated_at, updated_by)
       SELECT data_source_id, tenant_id, name, sealed, key_id, reference, 1, updated_at, updated_by
       FROM jsonb_to_recordset(:rows) AS given (
         data_source_id uuid, tenant_id uuid, name text, sealed bytea, key_id text, reference text,
         updated_at timestamptz, updated_by uuid)
       ON CONFLICT (data_source_id, name) DO UPDATE SET
         sealed = EXCLUDED.sealed, key_id = EXCLUDED.key_id, reference = EXCLUDED.reference,
         updated_at = EXCLUDED.updated_at, updated_by = EXCLUDED.updated_by,
         version = data_source_secrets.version + 1"""
).bindparams(bindparam("rows", type_=JSONB))
"""The earlier value is overwritten: what is not needed is not kept."""


async def change_secrets(work: UnitOfWork, source: DataSource, secrets: Values) -> None:
    """Seal what is given, remove what is null. Each time a secret is given its version counts up."""
    if removed := [name for name, value in secrets.items() if value is None]:
        gone = (DataSourceSecret.data_source_id == source.id, DataSourceSecret.name.in_(removed))
        await work.session.execute(delete(DataSourceSecret).where(*gone))
    given = {name: value for name, value in secrets.items() if value is not None}
    await store_secrets(work, [new_secret(work, source.id, name, value) for name, value in given.items()])


def new_secret(work: UnitOfWork, source_id: UUID, name: str, value: Value) -> NewSecret:
    ring, sealed, key_id = work.parts.key_ring, None, None
    if isinstance(value, str):
        whole = ring.seal(value.encode(), tenant_id=work.tenant_id, row_id=source_id, field=sealed_field(name))
        sealed, key_id = "\\x" + whole.hex(), ring.current_id
    reference = value.ref if isinstance(value, SecretReference) else None
    return NewSecret(source_id, work.tenant_id, name, sealed, key_id, reference, work.now, work.actor_id)


async def store_secrets(work: UnitOfWork, rows: Sequence[NewSecret]) -> None:
    """In one statement, of however many sources they are."""
    if rows:
        await work.session.execute(STORE, {"rows": rows})


class Stored(Struct):
    """The secrets of a source at one moment."""

    values: dict[str, Value]
    versions: dict[str, int]


async def open_secrets(work: UnitOfWork, source: DataSource, *, but: Iterable[str] = ()) -> Stored:
    """The values, for connector work and nothing else. Raises Conflict naming those that no key of the ring opens."""
    rows = await work.session.execute(
        select(
            DataSourceSecret.name, DataSourceSecret.sealed, DataSourceSecret.reference, DataSourceSecret.version
        ).where(DataSourceSecret.data_source_id == source.id, DataSourceSecret.name.not_in(list(but)))
    )
    return opened(work.parts.key_ring, source.tenant_id, source.id, rows.all())


def opened(ring: KeyRing, tenant_id: UUID, source_id: UUID, rows: Sequence[Row[Any]]) -> Stored:
    """The secrets of one source, of which all rows are given. Raises Conflict as `open_secrets` does."""
    values: dict[str, Value] = {}
    lost = []
    for row in rows:
        if (value := _value_of(ring, tenant_id, source_id, row)) is None:
            lost.append(row.name)
        else:
            values[row.name] = value
    if lost:
        faults = [
            Fault(f"secrets.{name}", "secret_unreadable", "give it again: it cannot be opened") for name in sorted(lost)
        ]
        raise Conflict(LOST, code="secret_unreadable", errors=faults)
    return Stored(values, {row.name: row.version for row in rows})


def _value_of(ring: KeyRing, tenant_id: UUID, source_id: UUID, row: Row[Any]) -> Value | None:
    """None where no key of the ring opens it, or it belongs elsewhere."""
    if row.reference is not None:
        return SecretReference(ref=row.reference)
    try:
        return ring.open(row.sealed, tenant_id=tenant_id, row_id=source_id, field=sealed_field(row.name)).decode()
    except SealingError:
        return None
