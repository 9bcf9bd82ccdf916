"""Which sources are due, and who takes them: some at a time, by whichever worker comes first.

A due source is claimed by moving its next test on (`FOR UPDATE SKIP LOCKED`), so that no two workers test it and a
worker that is killed costs one test at most. The pause doubles with each test that failed in a row, up to `MAX_BACKOFF`
intervals and not beyond `MAX_BACKOFF_S`: dead sources are asked less and less often, those that are well at their
interval.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct
from sqlalchemy import ARRAY, Integer, Text, bindparam, select, text

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


def _claim(lane: Lane) -> Any:
    return text(
        f"""WITH due AS (
              SELECT id, host, next_test_at FROM data_sources
              WHERE next_test_at <= now() AND NOT is_paused AND status {"=" if lane == "well" else "<>"} 'passed'
                AND (host IS NULL OR host <> ALL(:full_hosts))
                AND tenant_id <> ALL (ARRAY(SELECT tenants.id FROM tenants WHERE NOT tenants.is_active))
              ORDER BY next_test_at LIMIT :places * {CANDIDATES} FOR UPDATE SKIP LOCKED),
            in_turn AS (
              SELECT id, next_test_at, host,
                     row_number() OVER (PARTITION BY host ORDER BY next_test_at) + coalesce(busy.running, 0) AS of_host
              FROM due LEFT JOIN unnest(CAST(:hosts AS text[]), CAST(:running AS integer[])) AS busy (host, running)
                USING (host)),
            chosen AS (
              SELECT id, next_test_at FROM in_turn WHERE host IS NULL OR of_host <= :host_cap
              ORDER BY next_test_at LIMIT :places)
            UPDATE data_sources AS source SET next_test_at =
              now() + make_interval(secs => {_PAUSE} * (1 - {JITTER} + random() * 2 * {JITTER}))
            FROM chosen WHERE source.id = chosen.id
            RETURNING source.id, source.tenant_id, source.type, source.config, source.host,
                      extract(epoch FROM now() - chosen.next_test_at)::float8 AS lag_s"""  # noqa: S608 - all is ours
    ).bindparams(
        bindparam("full_hosts", type_=ARRAY(Text)),
        bindparam("hosts", type_=ARRAY(Text)),
        bindparam("running", type_=ARRAY(Integer)),
    )


_CLAIMS = {lane: _claim(lane) for lane in ("well", "doubtful")}
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
    parts: Parts, lane: Lane, places: int, *, running: Mapping[str, int], host_cap: int
) -> list[DueTest]:
    """At most so many. `running` are the tests that go on here, by host.

    The secrets are read while the sources are held: one that moves meanwhile would have the new ones sent to the old
    place.
    """
    values = {
        "places": places,
        "host_cap": host_cap,
        "hosts": list(running),
        "running": list(running.values()),
        "full_hosts": [host for host, count in running.items() if count >= host_cap],
    }
    async with parts.sessions.begin() as session:
        rows = (await session.execute(_CLAIMS[lane], values)).all()
        if not rows:
            return []
        found = await session.execute(_SECRETS.where(DataSourceSecret.data_source_id.in_([row.id for row in rows])))
        secrets = {source_id: list(each) for source_id, each in groupby(found.all(), lambda row: row.data_source_id)}
    return [_due(parts, row, secrets.get(row.id, [])) for row in rows]


def _due(parts: Parts, row: Any, secrets: list[Any]) -> DueTest:
    try:
        kept: Stored = opened(parts.key_ring, row.tenant_id, row.id, secrets)
        reach: Reach | Conflict = Reach(row.type, row.config, kept.values, kept.versions)
    except Conflict as error:
        reach = error
    return DueTest(row.id, row.tenant_id, row.host, row.lag_s, reach)


async def put_off(parts: Parts, source_id: UUID) -> None:
    """For some seconds: it could not be tested, and whose fault that was is not known."""
    async with parts.sessions.begin() as session:
        await session.execute(_PUT_OFF, {"id": source_id})
