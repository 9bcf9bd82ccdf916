"""Re-sealing: every stored secret brought under the current key, batch by batch.

Each batch is a transaction of its own and leaves whole secrets behind, so it can be killed at any moment and run again:
what is under the current key already is not touched. The values stay the same, so no version and no time of theirs
changes.
"""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy import Row, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.across_tenants import tenant_ids
from app.core.database import enter_tenant
from app.core.sealing import KeyRing, SealingError
from app.domain.parts import Parts
from app.domain.sources.models import DataSourceSecret
from app.domain.sources.secrets.sealed import sealed_field
from app.domain.work import UnitOfWork, unit_of_work_of

BATCH = 200

_PLACE = (DataSourceSecret.data_source_id, DataSourceSecret.name)
Found = Row[Any]
"""Of the columns of `_ROW`."""
_ROW = (*_PLACE, DataSourceSecret.tenant_id, DataSourceSecret.sealed)
_IS_SEALED = DataSourceSecret.sealed.is_not(None)


class Resealed(Struct):
    done: int = 0
    unopened: int = 0
    """Left as they were, because no key of the ring opens them."""


async def secrets_by_key(session: AsyncSession) -> dict[str, int]:
    """How many stored secrets are under each key id, in all tenants."""
    rows = await session.execute(text("SELECT key_id, stored FROM public.secrets_of_each_key()"))
    return dict(rows.tuples().all())


async def count_unopened(session: AsyncSession, ring: KeyRing) -> int:
    """How many stored secrets no key of the ring opens: its key is gone, or another one goes by the same id."""
    unopened = 0
    for tenant_id in await tenant_ids(session):
        await enter_tenant(session, tenant_id)
        rows = await session.stream(select(*_ROW).where(_IS_SEALED).execution_options(yield_per=BATCH))
        unopened += len([row async for row in rows if _opened(ring, row) is None])
    return unopened


async def reseal(parts: Parts, on_batch: Callable[[Resealed], None] = lambda _: None) -> Resealed:
    """Seal what is under another key with the current one. `on_batch` sees the sums after each commit."""
    total = Resealed()
    async with parts.sessions(None) as session:
        tenants = await tenant_ids(session)
    for tenant_id in tenants:
        await _reseal_tenant(parts, tenant_id, total, on_batch)
    return total


async def _reseal_tenant(parts: Parts, tenant_id: UUID, total: Resealed, on_batch: Callable[[Resealed], None]) -> None:
    after: tuple[object, ...] = ()
    while True:
        async with unit_of_work_of(parts, tenant_id=tenant_id) as work:
            rows = await _next_batch(work.session, parts.key_ring, after)
            if not rows:
                return
            await _reseal_batch(work, rows, total)
        after = (rows[-1].data_source_id, rows[-1].name)
        on_batch(total)


async def _next_batch(session: AsyncSession, ring: KeyRing, after: tuple[Any, ...]) -> Sequence[Found]:
    """Locked, so that a secret given anew at this moment is not overwritten with the old one."""
    wanted = select(*_ROW).where(_IS_SEALED, DataSourceSecret.key_id != ring.current_id)
    if after:
        wanted = wanted.where(tuple_(*_PLACE) > tuple_(*after))
    return (await session.execute(wanted.order_by(*_PLACE).limit(BATCH).with_for_update())).all()


async def _reseal_batch(work: UnitOfWork, rows: Sequence[Found], total: Resealed) -> None:
    ring, done = work.parts.key_ring, 0
    for row in rows:
        value = _opened(ring, row)
        if value is None:
            total.unopened += 1
            continue
        sealed = ring.seal(value, tenant_id=row.tenant_id, row_id=row.data_source_id, field=sealed_field(row.name))
        here = (DataSourceSecret.data_source_id == row.data_source_id, DataSourceSecret.name == row.name)
        await work.session.execute(update(DataSourceSecret).where(*here).values(sealed=sealed, key_id=ring.current_id))
        done += 1
    if done:
        total.done += done
        work.audit(
            "data_source_secrets.reseal", "data_source_secret", None, after={"count": done, "key_id": ring.current_id}
        )


def _opened(ring: KeyRing, row: Found) -> bytes | None:
    try:
        return ring.open(row.sealed, tenant_id=row.tenant_id, row_id=row.data_source_id, field=sealed_field(row.name))
    except SealingError:
        return None
