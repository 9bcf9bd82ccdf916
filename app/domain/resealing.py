"""Re-sealing: every stored secret brought under the current key, batch by batch.

Each batch is a transaction of its own and leaves whole secrets behind, so it can be killed at any moment and run again:
what is under the current key already is not touched. The values stay the same, so no version and no time of theirs
changes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy import Row, Select, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.across_tenants import tenant_ids
from app.core.database import Attribute, enter_tenant
from app.core.sealing import KeyRing, SealingError
from app.domain.factors.models import Factor
from app.domain.factors.sealed import FIELD as SECRET_OF_FACTOR
from app.domain.identity_providers.models import IdentityProvider
from app.domain.identity_providers.sealed import FIELD as SECRET_OF_PROVIDER
from app.domain.parts import Parts
from app.domain.saml.models import SamlKey
from app.domain.saml.sealed import FIELD as OWN_SAML_KEY
from app.domain.sources.models import DataSourceSecret
from app.domain.sources.secrets.sealed import sealed_field
from app.domain.webhooks.models import WebhookSecret
from app.domain.webhooks.sealed import FIELD as SECRET_OF_WEBHOOK
from app.domain.work import UnitOfWork, unit_of_work_of

BATCH = 200
Found = Row[Any]
"""Of the columns of `SealedTable.rows`."""


class SealedTable(Struct, frozen=True):
    """A table of secrets: `sealed` under `key_id`, bound to a row and a field."""

    model: Any
    place: tuple[Attribute, ...]
    """Its primary key."""
    row_id: Attribute
    """To which a secret is bound."""
    field: Callable[[Found], str]
    resource_type: str
    by_key: str
    """The function of the owner that counts them."""

    @property
    def rows(self) -> Select[Any]:
        columns = (self.model.tenant_id, self.row_id.label("bound_to"), self.model.sealed)
        return select(*self.place, *columns).where(self.model.sealed.is_not(None))

    def place_of(self, row: Found) -> tuple[Any, ...]:
        return tuple(getattr(row, column.key) for column in self.place)

    def bound(self, row: Found) -> dict[str, Any]:
        return {"tenant_id": row.tenant_id, "row_id": row.bound_to, "field": self.field(row)}

    def opened(self, ring: KeyRing, row: Found) -> bytes | None:
        try:
            return ring.open(row.sealed, **self.bound(row))
        except SealingError:
            return None


TABLES = (
    SealedTable(
        DataSourceSecret,
        (DataSourceSecret.data_source_id, DataSourceSecret.name),
        DataSourceSecret.data_source_id,
        lambda row: sealed_field(row.name),
        "data_source_secret",
        "secrets_of_each_key()",
    ),
    SealedTable(
        WebhookSecret,
        (WebhookSecret.id,),
        WebhookSecret.id,
        lambda _: SECRET_OF_WEBHOOK,
        "webhook_secret",
        "webhook_secrets_of_each_key()",
    ),
    SealedTable(
        Factor,
        (Factor.id,),
        Factor.id,
        lambda _: SECRET_OF_FACTOR,
        "factor",
        "factors_of_each_key()",
    ),
    SealedTable(
        IdentityProvider,
        (IdentityProvider.id,),
        IdentityProvider.id,
        lambda _: SECRET_OF_PROVIDER,
        "identity_provider_secret",
        "identity_provider_secrets_of_each_key()",
    ),
    SealedTable(SamlKey, (SamlKey.id,), SamlKey.id, lambda _: OWN_SAML_KEY, "saml_key", "saml_keys_of_each_key()"),
)
"""All that `hub keys rotate` seals anew. What lives for a day, such as first answers, is left alone."""


class Resealed(Struct):
    done: int = 0
    unopened: int = 0
    """Left as they were, because no key of the ring opens them."""


async def secrets_by_key(session: AsyncSession) -> dict[str, int]:
    """How many stored secrets are under each key id, in all tenants."""
    total: Counter[str] = Counter()
    for table in TABLES:
        rows = await session.execute(text(f"SELECT key_id, stored FROM public.{table.by_key}"))  # noqa: S608 - ours
        total.update(dict(rows.tuples().all()))
    return dict(total)


async def count_unopened(session: AsyncSession, ring: KeyRing) -> int:
    """How many stored secrets no key of the ring opens: its key is gone, or another one goes by the same id."""
    unopened = 0
    for tenant_id in await tenant_ids(session):
        await enter_tenant(session, tenant_id)
        for table in TABLES:
            rows = await session.stream(table.rows.execution_options(yield_per=BATCH))
            unopened += len([row async for row in rows if table.opened(ring, row) is None])
    return unopened


async def reseal(parts: Parts, on_batch: Callable[[Resealed], None] = lambda _: None) -> Resealed:
    """Seal what is under another key with the current one. `on_batch` sees the sums after each commit."""
    total = Resealed()
    async with parts.sessions(None) as session:
        tenants = await tenant_ids(session)
    for tenant_id in tenants:
        for table in TABLES:
            await _reseal_table(parts, tenant_id, table, total, on_batch)
    return total


async def _reseal_table(
    parts: Parts, tenant_id: UUID, table: SealedTable, total: Resealed, on_batch: Callable[[Resealed], None]
) -> None:
    after: tuple[object, ...] = ()
    while True:
        async with unit_of_work_of(parts, tenant_id=tenant_id) as work:
            rows = await _next_batch(work.session, table, parts.key_ring, after)
            if not rows:
                return
            await _reseal_batch(work, table, rows, total)
        after = table.place_of(rows[-1])
        on_batch(total)


async def _next_batch(
    session: AsyncSession, table: SealedTable, ring: KeyRing, after: tuple[Any, ...]
) -> Sequence[Found]:
    """Locked, so that a secret given anew at this moment is not overwritten with the old one."""
    wanted = table.rows.where(table.model.key_id != ring.current_id)
    if after:
        wanted = wanted.where(tuple_(*table.place) > tuple_(*after))
    return (await session.execute(wanted.order_by(*table.place).limit(BATCH).with_for_update())).all()


async def _reseal_batch(work: UnitOfWork, table: SealedTable, rows: Sequence[Found], total: Resealed) -> None:
    ring, done = work.parts.key_ring, 0
    for row in rows:
        value = table.opened(ring, row)
        if value is None:
            total.unopened += 1
            continue
        here = [column == part for column, part in zip(table.place, table.place_of(row), strict=True)]
        changes = {"sealed": ring.seal(value, **table.bound(row)), "key_id": ring.current_id}
        await work.session.execute(update(table.model).where(*here).values(changes))
        done += 1
    if done:
        total.done += done
        after = {"count": done, "key_id": ring.current_id}
        work.audit(f"{table.resource_type}s.reseal", table.resource_type, None, after=after)
