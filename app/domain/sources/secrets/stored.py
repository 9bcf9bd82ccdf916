"""Secrets of data sources on their way into their table: sealed when given. The way out is `uses`."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from sqlalchemy import bindparam, delete, text
from sqlalchemy.dialects.postgresql import JSONB

from app.domain.sources.models import DataSource, DataSourceSecret
from app.domain.sources.schemas import SecretReference, Value, Values
from app.domain.sources.secrets.sealed import sealed_field
from app.domain.work import UnitOfWork


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
