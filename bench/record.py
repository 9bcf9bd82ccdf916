"""What is on record: how quickly the audit log is sealed and verified, and events get their positions.

Rates are by the CPU of one core, PostgreSQL's included, as the goal has it: on a busy machine the clock tells of
others. How quickly events reach ActiveMQ is measured beside a real one, by `python -m tests.relay_speed`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg

from app.core import embedded
from app.domain.events.sequencing import give_positions
from app.domain.parts import Parts
from app.domain.seals.reading import items_in_database
from app.domain.seals.sealing import seal_rows
from app.domain.seals.verifying import Verifier
from app.runtime import load_sealing_keys, prepare_parts
from app.settings import load
from bench import contestants, processes
from bench.contestants import Server
from bench.footprint import data_folder
from bench.page import Findings
from bench.report import Bound
from bench.rounds import Bench

ROWS = 60_000
TENANTS = 9
"""Beside the first one."""
GOAL_SEALED_PER_S = 5_000.0
GOAL_POSITIONS_PER_S = 2_000.0

_OTHERS = """INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at)
    SELECT gen_random_uuid(), 't' || i, 'T', true, now(), now() FROM generate_series(1, $1::int) AS i"""
_OF_TENANTS = "(SELECT id, row_number() OVER () - 1 AS n, count(*) OVER () AS all_of_them FROM tenants) AS tenant"
_DOCUMENT = (
    "jsonb_build_object('name', 'Shop ' || i, 'description', repeat('x', 200), 'config', '{\"port\": 5432}'::jsonb)"
)
_AUDITED = f"""INSERT INTO audit_events (id, tenant_id, occurred_at, actor_id, actor_name, action, resource_type,
      resource_id, outcome, address, request_id, before, after)
    SELECT gen_random_uuid(), tenant.id, now(), gen_random_uuid(), 'ada@example.org', 'data_source.update',
      'data_source', gen_random_uuid(), 'success', '203.0.113.7', md5(i::text), {_DOCUMENT}, {_DOCUMENT}
    FROM generate_series(1, $1::int) AS i JOIN {_OF_TENANTS} ON tenant.n = i % tenant.all_of_them"""
_ANNOUNCED = f"""INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data)
    SELECT gen_random_uuid(), tenant.id, 'org.datafusionhub.data_source.updated', '/api/v1', 'data-sources/' || i,
      now(), {_DOCUMENT}
    FROM generate_series(1, $1::int) AS i JOIN {_OF_TENANTS} ON tenant.n = i % tenant.all_of_them"""
_WITHOUT_POSITION = "SELECT count(*) FROM outbox_events WHERE position IS NULL"


def measure(bench: Bench, rows: int) -> Findings:
    """A hub makes the database and is stopped: nobody else seals."""
    with data_folder() as data_dir:
        with Server(contestants.hub(data_dir, {}), data_dir.parent / "hub.log"):
            pass
        with embedded.running(data_dir) as database:
            bounds = asyncio.run(_measure(bench, data_dir, database, rows))
    return Findings(bounds=bounds, text=f"{rows:,} rows of about 1 kB, of {TENANTS + 1} tenants in turn.")


async def _measure(bench: Bench, data_dir: Path, database: Any, rows: int) -> list[Bound]:
    settings = load({"HUB_DATA_DIR": str(data_dir)}, env_file=None)
    parts = prepare_parts(settings, database.app_url)
    parts.sealing_keys = load_sealing_keys(settings)
    owner = await asyncpg.connect(database.superuser_url)
    try:
        await owner.execute(_OTHERS, TENANTS)
        await owner.execute(_AUDITED, rows)
        await owner.execute(_ANNOUNCED, rows)
        return [bound async for bound in _bounds(bench, parts, owner, database, rows)]
    finally:
        await owner.close()
        await parts.close()


async def _bounds(bench: Bench, parts: Parts, owner: Any, database: Any, rows: int) -> AsyncIterator[Bound]:
    sealed = await _per_cpu_second(database.pid, lambda: seal_rows(parts))
    yield Bound("rows sealed", sealed, GOAL_SEALED_PER_S, "/s of CPU", is_least=True)
    verifier, reading = Verifier(), await asyncpg.connect(database.app_url)
    began = time.process_time()
    async for item in items_in_database(reading):
        verifier.take(item)
    await reading.close()
    found = verifier.finish()
    if found.wrong or found.rows < rows:
        bench.problem(f"record: {found.rows} of {rows} rows verified, {found.wrong[:1]}")
    verified = found.rows / (time.process_time() - began)
    yield Bound("rows verified, without PostgreSQL's share", verified, GOAL_SEALED_PER_S, "/s of CPU", is_least=True)
    given = await _per_cpu_second(database.pid, lambda: give_positions(parts))
    if left := await owner.fetchval(_WITHOUT_POSITION):
        bench.problem(f"record: {left} events have no position")
    yield Bound("events that get a position", given, GOAL_POSITIONS_PER_S, "/s of CPU", is_least=True)


async def _per_cpu_second(postgres_pid: int, turn: Callable[[], Awaitable[int]]) -> float:
    """Of this process and PostgreSQL together, until a turn finds nothing more."""
    before, own = _cpu_of(postgres_pid), time.process_time()
    done = 0
    while found := await turn():
        done += found
    return done / (_cpu_of(postgres_pid) - before + time.process_time() - own)


def _cpu_of(root_pid: int) -> float:
    return sum(processes.cpu_by_process(root_pid).values())
