"""What is asked before it is known whose it is, and what is asked of all tenants: by functions of the owner.

Row-level security shows a connection the rows of its tenant alone. These functions run with the owner's rights, each
answers one narrow question, and nobody but the application's role may call them (migration 0023). Whoever learns from
one whose a row is goes on in that tenant.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.reads import Reads

KIND: Final = "tenants"
"""Of work, where database connections are shared out."""


async def tenant_of_session(reads: Reads, session_id: UUID) -> UUID | None:
    return await _asked(reads, "SELECT public.tenant_of_session($1)", session_id)


async def tenant_of_service_account(reads: Reads, account_id: UUID) -> UUID | None:
    return await _asked(reads, "SELECT public.tenant_of_service_account($1)", account_id)


async def tenants_of_address(reads: Reads, email_key: str) -> list[UUID]:
    """In which somebody has that address and may sign in: two at most, for more tell no more."""
    async with reads.connection(KIND, None) as connection:
        rows = await connection.fetch("SELECT public.tenants_of_address($1)", email_key)
    return [row[0] for row in rows]


async def tenant_of_slug(reads: Reads, slug: str) -> UUID | None:
    """None for one that is suspended or was deleted, as for one that never was."""
    return await _asked(reads, "SELECT public.tenant_of_slug($1)", slug)


async def are_there_several_tenants(reads: Reads) -> bool:
    """Whether more than one has ever been made and not deleted."""
    async with reads.connection(KIND, None) as connection:
        return len(await connection.fetch("SELECT public.tenant_ids() LIMIT 2")) > 1


async def _asked(reads: Reads, question: str, value: object) -> UUID | None:
    async with reads.connection(KIND, None) as connection:
        found: UUID | None = await connection.fetchval(question, value)
    return found


async def tenant_ids(session: AsyncSession) -> list[UUID]:
    """Of all tenants, the suspended ones too."""
    return list(await session.scalars(text("SELECT public.tenant_ids()")))


async def locked_rows(session: AsyncSession, question: str, **values: object) -> Sequence[Any]:
    """What a function of the owner has chosen and locked: `id` and `tenant_id` of each row, and what else it says."""
    rows = await session.execute(text(f"SELECT * FROM public.{question}"), values)  # noqa: S608 - names of ours
    return rows.all()


def by_tenant(rows: Sequence[Any]) -> dict[UUID, list[UUID]]:
    """The ids of `locked_rows`."""
    found: dict[UUID, list[UUID]] = {}
    for row in rows:
        found.setdefault(row.tenant_id, []).append(row.id)
    return found
