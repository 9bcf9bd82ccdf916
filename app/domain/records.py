"""What a transaction leaves behind: new rows, audit rows, outbox rows and notifications, in one statement.

One round trip for all of them: what is on record from the first write must not cost more than the write
(`bench/RESULTS.md`). PostgreSQL runs a single statement in a transaction of its own, so that a change which is nothing
but new rows needs no BEGIN and COMMIT around it either.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from itertools import zip_longest
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Base
from app.core.rows import in_json, insertion
from app.core.slices import in_parts
from app.domain.audit.services import AuditRow
from app.domain.events.services import EventRow

_RECORDS = """
audited AS (
  INSERT INTO audit_events (id, tenant_id, occurred_at, actor_id, actor_name, api_key_id, action, resource_type,
                            resource_id, outcome, address, request_id, detail, before, after)
  SELECT * FROM jsonb_to_recordset($1::text::jsonb) AS row (
    id uuid, tenant_id uuid, occurred_at timestamptz, actor_id uuid, actor_name text, api_key_id uuid, action text,
    resource_type text, resource_id uuid, outcome text, address text, request_id text, detail text, before jsonb,
    after jsonb)
), announced AS (
  INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data, traceparent, data_source_id,
                             data_domain_id)
  SELECT id, tenant_id, type, source, subject, "time", data, traceparent, data_source_id, {domain}
  FROM jsonb_to_recordset($2::text::jsonb) AS row (
    id uuid, tenant_id uuid, type text, source text, subject text, "time" timestamptz, data jsonb,
    traceparent text, data_source_id uuid, data_domain_id uuid)
)
SELECT pg_notify($3, payload) FROM unnest($4::text[]) AS payload
"""
_LOOKED_UP = """coalesce(data_domain_id, (
      SELECT place.data_domain_id FROM data_sources AS place
      WHERE place.id = row.data_source_id AND place.tenant_id = row.tenant_id))"""


class NewRow(Struct):
    model: type[Base]
    columns: dict[str, object]


class Records:
    """Collected during the work, written at its end."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self.added: NewRow | None = None
        """The new row of a change that is nothing but one new row."""
        self.audits: list[AuditRow] = []
        self.events: list[EventRow] = []
        self.notifications: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.added or self.audits or self.events or self.notifications)

    async def write(self, connection: asyncpg.Connection) -> None:
        """On a connection of asyncpg's. Raises its errors, and then nothing of the transaction may be kept."""
        arguments = [_json(self.audits), _json(self.events), self._channel, self.notifications]
        if self.added is not None:
            arguments.append(_json([in_json(self.added.columns)]))
        looks_up = any(event.data_source_id and event.data_domain_id is None for event in self.events)
        await connection.execute(_statement(self.added and self.added.model, looks_up=looks_up), *arguments)

    def _by_tenant(self, first: UUID) -> Iterator[tuple[UUID, "Records"]]:
        """What is no row of a tenant's log or outbox goes with the first one."""
        others = {row.tenant_id for row in self.audits} | {row.tenant_id for row in self.events}
        others.discard(first)
        if not others:
            yield first, self
            return
        for tenant_id in (first, *others):
            theirs = Records(self._channel)
            theirs.audits = [row for row in self.audits if row.tenant_id == tenant_id]
            theirs.events = [row for row in self.events if row.tenant_id == tenant_id]
            if tenant_id == first:
                theirs.added, theirs.notifications = self.added, self.notifications
            yield tenant_id, theirs

    def _parts(self) -> Iterator["Records"]:
        """One, but for a change of hundreds of things: while all that is on record of them is encoded, everybody else
        would have to wait."""
        rest = Records(self._channel)
        rest.added, rest.notifications = self.added, self.notifications
        for audits, events in zip_longest(in_parts(self.audits), in_parts(self.events), fillvalue=()):
            rest.audits, rest.events = list(audits), list(events)
            yield rest
            rest = Records(self._channel)

    async def write_in(self, session: AsyncSession) -> None:
        """Inside of the session's transaction, as the last that it does: what is on record of another tenant is written
        in that one."""
        async with _driver_of(session) as connection:
            if not connection.is_in_transaction():
                await session.execute(text("SELECT"))  # the adapter begins a transaction with its first statement
            for tenant_id, theirs in self._by_tenant(session.info["tenant_id"]):
                if tenant_id != session.info["tenant_id"]:
                    await connection.enter_in_transaction(tenant_id)
                for part in theirs._parts():
                    await part.write(connection)

    async def write_here(self, session: AsyncSession) -> None:
        """In the middle of the session's transaction, and all in the tenant in which that is at this moment."""
        async with _driver_of(session) as connection:
            for part in self._parts():
                await part.write(connection)


@asynccontextmanager
async def _driver_of(session: AsyncSession) -> AsyncIterator[Any]:
    connection = (await (await session.connection()).get_raw_connection()).driver_connection
    assert connection is not None
    try:
        yield connection
    except (asyncio.CancelledError, TimeoutError):
        # SQLAlchemy knows nothing of these statements, and its rollback would wait until the last one is answered.
        await session.invalidate()
        raise


@cache
def _statement(added: type[Base] | None, *, looks_up: bool) -> str:
    """Data sources are asked for their domains only where an event needs it: whoever has that table locked would hold
    every change up."""
    records = _RECORDS.format(domain=_LOOKED_UP if looks_up else "data_domain_id")
    return f"WITH {records}" if added is None else f"WITH added AS ({insertion(added, '$5::text::jsonb')}), {records}"


def _json(rows: Sequence[object]) -> str:
    return msgspec.json.encode(rows).decode()
