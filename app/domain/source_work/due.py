"""Which sources are due, and who takes them: some at a time, by whichever worker comes first.

A due source is claimed by moving its next test on (`FOR UPDATE SKIP LOCKED`), so that no two workers test it and a
worker that is killed costs one test at most. The pause doubles with each test that failed in a row, up to `MAX_BACKOFF`
intervals and not beyond `MAX_BACKOFF_S`: dead sources are asked less and less often, those that are well at their
interval. Tenants take turns: one with ten thousand due sources gets no more than its share while others have any.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct
from sqlalchemy import ARRAY, Uuid, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.across_tenants import by_tenant, locked_rows
from app.core.database import enter_tenant
from app.core.errors import Conflict
from app.domain.parts import Parts
from app.domain.source_work.history import JITTER
from app.domain.sources.models import DataSourceSecret
from app.domain.sources.reach import Reach
from app.domain.sources.secrets.stored import Stored, opened

MAX_BACKOFF = 16
MAX_BACKOFF_S = 3600
CANDIDATES = 8
"""Due sources that are looked at for each place: those of hosts that are busy are passed over."""

Lane = Literal["well", "doubtful"]
"""Sources whose last test passed, and all others: each lane has an index, and places that the other cannot take."""

_PAUSE = f"""least(test_interval_s * least(power(2, least(test_failures, 16)), {MAX_BACKOFF}),
                   greatest(test_interval_s, {MAX_BACKOFF_S}))"""


_CLAIM = text(
    f"""UPDATE data_sources SET next_test_at =
          now() + make_interval(secs => {_PAUSE} * (1 - {JITTER} + random() * 2 * {JITTER}))
        WHERE id = ANY(:ids) RETURNING id, tenant_id, type, config, host"""  # noqa: S608 - all is ours
).bindparams(bindparam("ids", type_=ARRAY(Uuid)))
_SECRETS = select(
    DataSourceSecret.data_source_id,
    DataSourceSecret.name,
    DataSourceSecret.sealed,
    DataSourceSecret.reference,
    DataSourceSecret.version,
).order_by(DataSourceSecret.data_source_id)
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
    reach: Reach | Conflict
    """Or why its secrets cannot be opened."""


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
    place.
    """
    full = [host for host, count in running.items() if count >= host_cap]
    claimed: list[DueTest] = []
    async with parts.sessions.begin(None) as session:
        question = f"due_in_turn_{lane}(:full ::text[], :busy ::uuid[], :most)"
        due = await locked_rows(session, question, full=full, busy=list(busy_tenants), most=places * CANDIDATES)
        chosen = _in_turn(due, places, running, host_cap)
        lags = {row.id: row.lag_s for row in chosen}
        for tenant_id, source_ids in by_tenant(chosen).items():
            await enter_tenant(session, tenant_id)
            claimed += await _claim(parts, session, source_ids, lags)
    return sorted(claimed, key=lambda each: -each.lag_s)


def _in_turn(due: Sequence[Any], places: int, running: Mapping[str, int], host_cap: int) -> list[Any]:
    """The first ones, but of no host more than it may have at once."""
    taken = Counter(running)
    chosen: list[Any] = []
    for row in due:
        if len(chosen) == places:
            break
        if row.host is None or taken[row.host] < host_cap:
            chosen.append(row)
            taken[row.host] += 1
    return chosen


async def _claim(
    parts: Parts, session: AsyncSession, source_ids: list[UUID], lags: Mapping[UUID, float]
) -> list[DueTest]:
    """Of the tenant in which the session is."""
    rows = (await session.execute(_CLAIM, {"ids": source_ids})).all()
    found = await session.execute(_SECRETS.where(DataSourceSecret.data_source_id.in_(source_ids)))
    secrets = {source_id: list(each) for source_id, each in groupby(found.all(), lambda row: row.data_source_id)}
    return [_due(parts, row, lags[row.id], secrets.get(row.id, [])) for row in rows]


def _due(parts: Parts, row: Any, lag_s: float, secrets: list[Any]) -> DueTest:
    try:
        kept: Stored = opened(parts.key_ring, row.tenant_id, row.id, secrets)
        reach: Reach | Conflict = Reach(row.type, row.config, kept.values, kept.versions)
    except Conflict as error:
        reach = error
    return DueTest(row.id, row.tenant_id, row.host, lag_s, reach)


async def put_off(parts: Parts, due: DueTest) -> None:
    """For some seconds: it could not be tested, and whose fault that was is not known."""
    async with parts.sessions.begin(due.tenant_id) as session:
        await session.execute(_PUT_OFF, {"id": due.source_id})
