"""Which sources are due, and who takes them: some at a time, by whichever worker comes first.

A due source is claimed by moving its next test on (`FOR UPDATE SKIP LOCKED`), so that no two workers test it and a
worker that is killed costs one test at most. The pause doubles with each test that failed in a row, up to `MAX_BACKOFF`
intervals and not beyond `MAX_BACKOFF_S`: dead sources are asked less and less often, those that are well at their
interval. Tenants take turns: one with ten thousand due sources gets no more than its share while others have any.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from uuid import UUID

from msgspec import Struct
from sqlalchemy import ARRAY, Uuid, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.across_tenants import by_tenant, locked_rows
from app.core.database import enter_tenant
from app.core.lanes import Lane, in_turn
from app.domain.auth.principals import CHANNEL
from app.domain.parts import Parts
from app.domain.records import Records
from app.domain.source_work.history import JITTER
from app.domain.sources.models import DataSourceSecret
from app.domain.sources.reach import Reach
from app.domain.sources.secrets.uses import KEPT, SecretUse, row_of_schedule

MAX_BACKOFF = 16
MAX_BACKOFF_S = 3600
CANDIDATES = 8
"""Due sources that are looked at for each place: those of hosts that are busy are passed over."""

_PAUSE = f"""least(test_interval_s * least(power(2, least(test_failures, 16)), {MAX_BACKOFF}),
                   greatest(test_interval_s, {MAX_BACKOFF_S}))"""


_CLAIM = text(
    f"""UPDATE data_sources SET next_test_at =
          now() + make_interval(secs => {_PAUSE} * (1 - {JITTER} + random() * 2 * {JITTER}))
        WHERE id = ANY(:ids) RETURNING id, type, config, host"""  # noqa: S608 - all is ours
).bindparams(bindparam("ids", type_=ARRAY(Uuid)))
_SECRETS = select(*KEPT).order_by(DataSourceSecret.data_source_id, DataSourceSecret.name)
_PUT_OFF = text(
    """UPDATE data_sources SET next_test_at = now() + make_interval(secs => 5 + random() * 10)
       WHERE id = :id AND next_test_at IS NOT NULL"""
)


class DueTest(Struct):
    """A claimed source with all that its test needs."""

    source_id: UUID
    tenant_id: UUID
    host: str | None
    lag_s: float
    reach: Reach


async def claim_due(
    parts: Parts,
    lane: Lane,
    places: int,
    *,
    running: Mapping[str, int],
    host_cap: int,
    busy_tenants: Sequence[UUID] = (),
) -> list[DueTest]:
    """At most so many. `running` are the tests that go on here, by host; `busy_tenants` has the tenant of each.

    The secrets are read while the sources are held: one that moves meanwhile would have the new ones sent to the old
    place. What will be opened of them is on record with the claims.
    """
    full = [host for host, count in running.items() if count >= host_cap]
    claimed: list[DueTest] = []
    async with parts.sessions.begin(None) as session:
        question = f"due_in_turn_{lane}(:full ::text[], :busy ::uuid[], :most)"
        due = await locked_rows(session, question, full=full, busy=list(busy_tenants), most=places * CANDIDATES)
        chosen = in_turn(due, places, running, host_cap, attrgetter("host"))
        lags = {row.id: row.lag_s for row in chosen}
        for tenant_id, source_ids in by_tenant(chosen).items():
            await enter_tenant(session, tenant_id)
            some = await _claim(session, tenant_id, source_ids, lags)
            await _record(parts, session, some)
            claimed += some
    for test in claimed:
        test.reach.secrets.note_record()
    return sorted(claimed, key=lambda each: -each.lag_s)


async def _claim(
    session: AsyncSession, tenant_id: UUID, source_ids: list[UUID], lags: Mapping[UUID, float]
) -> list[DueTest]:
    """Of the tenant in which the session is."""
    rows = (await session.execute(_CLAIM, {"ids": source_ids})).all()
    found = await session.execute(_SECRETS.where(DataSourceSecret.data_source_id.in_(source_ids)))
    kept = {source_id: list(each) for source_id, each in groupby(found.all(), lambda row: row.data_source_id)}
    uses = {row.id: SecretUse("scheduled test", tenant_id, row.id, kept.get(row.id, []), {}) for row in rows}
    return [
        DueTest(row.id, tenant_id, row.host, lags[row.id], Reach(row.type, row.config, uses[row.id])) for row in rows
    ]


async def _record(parts: Parts, session: AsyncSession, claimed: Sequence[DueTest]) -> None:
    """One statement for those of a tenant."""
    records = Records(CHANNEL)
    rows = (row_of_schedule(parts.key_ring, test.reach.secrets) for test in claimed)
    records.audits = [row for row in rows if row is not None]
    if records:
        await records.write_here(session)


async def put_off(parts: Parts, due: DueTest) -> None:
    """For some seconds: it could not be tested, and whose fault that was is not known."""
    async with parts.sessions.begin(due.tenant_id) as session:
        await session.execute(_PUT_OFF, {"id": due.source_id})
