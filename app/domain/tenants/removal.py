"""What a deleted tenant leaves, removed some rows at a time (`upkeep`).

Its audit log with the seals over it and the history of its rights stay, which nobody may alter, and its own row, on
which they hang: so its slug is given to nobody else, whose folder of files and host name would be those of the one
before.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, Table, TextClause, text

from app.core.database import METADATA
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.audit.models import AuditEvent
from app.domain.authz.models import RightsHistory
from app.domain.events.models import OutboxEnd
from app.domain.parts import Parts
from app.domain.seals.models import AuditLeaf, AuditSeal
from app.domain.tenants.repositories import note_emptied, tenant_to_empty
from app.domain.work import unit_of_work_of

KEPT = frozenset(model.__tablename__ for model in (AuditEvent, AuditLeaf, AuditSeal, OutboxEnd, RightsHistory))
UNDER_WAY = timedelta(minutes=1)
"""After the deletion: longer than any request that had begun before it."""


async def remove_deleted(parts: Parts, now: datetime, most: int) -> int:
    """At most so many rows of deleted tenants; fewer, and none is left."""
    done = 0
    while done < most:
        async with parts.sessions(DEFAULT_TENANT_ID) as session:
            tenant_id = await tenant_to_empty(session, now - UNDER_WAY)
        if tenant_id is None:
            break
        done += await _empty(parts, tenant_id, most - done)
    return done


async def _empty(parts: Parts, tenant_id: UUID, most: int) -> int:
    """Noted once nothing of the tenant is left."""
    done = 0
    for statement in _removals():
        while found := await _run(parts, statement, tenant_id, most - done):
            done += found
            if done >= most:
                return done
    async with unit_of_work_of(parts) as work:
        await note_emptied(work.session, tenant_id)
        work.audit("tenant.empty", "tenant", tenant_id)
    return done


async def _run(parts: Parts, statement: TextClause, tenant_id: UUID, most: int) -> int:
    async with parts.sessions.begin(tenant_id) as session:
        result = await session.execute(statement, {"tenant_id": tenant_id, "most": most})
    return cast(CursorResult[Any], result).rowcount


def _removals() -> Iterator[TextClause]:
    """In the order in which nothing refers to what goes; each is run until it finds nothing more."""
    for table in reversed(METADATA.sorted_tables):
        if "tenant_id" in table.columns and table.name not in KEPT:
            yield from _knots_of(table)
            yield _some(f"DELETE FROM {table.name}", table)  # noqa: S608 - ours


def _knots_of(table: Table) -> Iterator[TextClause]:
    """Of rows that refer to others of their table: first those go that nobody refers to, so that trees go from the ends
    of their branches. What is left then refers to each other, and is taken apart."""
    if columns := [key.parent.name for key in table.foreign_keys if key.column.table is table]:
        is_end = " ".join(
            f"AND NOT EXISTS (SELECT FROM {table.name} AS other WHERE other.{column} = {table.name}.id)"
            for column in columns
        )
        yield _some(f"DELETE FROM {table.name}", table, is_end)  # noqa: S608
    for column in columns:
        yield _some(f"UPDATE {table.name} SET {column} = NULL", table, f"AND {column} IS NOT NULL")  # noqa: S608


def _some(change: str, table: Table, which: str = "") -> TextClause:
    """At most so many of the tenant's rows."""
    these = f"SELECT ctid FROM {table.name} WHERE tenant_id = :tenant_id {which} LIMIT :most"  # noqa: S608
    return text(f"{change} WHERE ctid = ANY (ARRAY({these}))")
