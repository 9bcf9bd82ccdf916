"""What a transaction leaves behind besides its change: audit rows, outbox rows and notifications, in one statement.

One round trip for all of them, on the driver's own connection and inside of the session's transaction: what is on record from the
first write must not cost more than the write (`bench/RESULTS.md`).
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.audit.services import AuditRow
from app.domain.events.services import EventRow

WRITE = """
WITH audited AS (
  INSERT INTO audit_events (id, tenant_id, occurred_at, actor_id, actor_name, action, resource_type, resource_id, outcome,
                            address, request_id, detail, before, after)
  SELECT * FROM jsonb_to_recordset($1::jsonb) AS row (
    id uuid, tenant_id uuid, occurred_at timestamptz, actor_id uuid, actor_name text, action text, resource_type text,
    resource_id uuid, outcome text, address text, request_id text, detail text, before jsonb, after jsonb)
), announced AS (
  INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data)
  SELECT * FROM jsonb_to_recordset($2::jsonb) AS row (
    id uuid, tenant_id uuid, type text, source text, subject text, "time" timestamptz, data jsonb)
)
SELECT pg_notify($3, payload) FROM unnest($4::text[]) AS payload
"""


async def write_records(
    session: AsyncSession,
    *,
    audits: Sequence[AuditRow] = (),
    events: Sequence[EventRow] = (),
    channel: str = "",
    notifications: Sequence[str] = (),
) -> None:
    """Add the rows to the session's transaction. Raises asyncpg's errors, and then nothing of the transaction may be kept."""
    connection = (await (await session.connection()).get_raw_connection()).driver_connection
    assert connection is not None
    if not connection.is_in_transaction():
        await session.execute(text("SELECT"))  # the adapter begins a transaction with its first statement
    await connection.execute(WRITE, _json(audits), _json(events), channel, notifications)


def _json(rows: Sequence[AuditRow] | Sequence[EventRow]) -> str:
    return msgspec.json.encode(rows).decode()
