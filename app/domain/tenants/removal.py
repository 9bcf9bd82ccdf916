"""What a deleted tenant leaves, removed some rows at a time (`upkeep`).

Its audit log stays, which nobody may alter, and the tenant's own row that the log hangs on: so its slug is given to
nobody else, whose folder of files and host name would be those of the one before.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Column, CursorResult, Table, TextClause, text

from app.core.database import METADATA
from app.domain.audit.models import AuditEvent
from app.domain.parts import Parts
from app.domain.tenants.repositories import note_emptied, tenant_to_empty
from app.domain.work import unit_of_work_of

KEPT = frozenset((AuditEvent.__tablename__,))
UNDER_WAY = timedelta(minutes=1)
"""After the deletion: longer than any request that had begun before it."""


async def remove_deleted(parts: Parts, now: datetime, most: int) -> int:
    """At most so many rows of deleted tenants; fewer, and none is left."""
    done = 0
    while done < most:
        async with parts.sessions() as session:
            tenant_id = await tenant_to_empty(session, now - UNDER_WAY)
        if tenant_id is None:
            break
        done += await _empty(parts, tenant_id, most - done)
    return done


async def _empty(parts: Parts, tenant_id: UUID, most: int) -> int:
    """Noted once nothing of the tenant is left."""
    done = 0
    for statement in _removals():
        async with parts.sessions.begin() as session:
            result = await session.execute(statement, {"tenant_id": tenant_id, "most": most - done})
            done += cast(CursorResult[Any], result).rowcount
        if done >= most:
            return done
    async with unit_of_work_of(parts) as work:
        await note_emptied(work.session, tenant_id)
        work.audit("tenant.empty", "tenant", tenant_id)
    return done


def _removals() -> Iterator[TextClause]:
    """In the order in which nothing refers to what goes."""
    for table in reversed(METADATA.sorted_tables):
        if "tenant_id" in table.columns and table.name not in KEPT:
            for column in _references_to_itself(table):
                yield _some(f"UPDATE {table.name} SET {column.name} = NULL", table, f"AND {column.name} IS NOT NULL")  # noqa: S608 - ours
            yield _some(f"DELETE FROM {table.name}", table)  # noqa: S608


def _references_to_itself(table: Table) -> Iterator[Column[Any]]:
    return (key.parent for key in table.foreign_keys if key.column.table is table)


def _some(change: str, table: Table, which: str = "") -> TextClause:
    """At most so many of the tenant's rows."""
    these = f"SELECT ctid FROM {table.name} WHERE tenant_id = :tenant_id {which} LIMIT :most"  # noqa: S608
    return text(f"{change} WHERE ctid = ANY (ARRAY({these}))")
