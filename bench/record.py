"""What is on record: how quickly the audit log is sealed and verified, what writers feel of it, and how quickly events
get their positions.

Rates are by the CPU of one core, PostgreSQL's included, as the goal has it: on a busy machine the clock tells of
others. How quickly events reach ActiveMQ is measured beside a real one, by `python -m tests.relay_speed`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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
from bench.report import Bound, Goal, Work
from bench.rounds import Bench, Entry
from bench.seeding import new_role, sign_in

ROWS = 60_000
TENANTS = 9
"""Beside the first one."""
GOAL_SEALED_PER_S = 5_000.0
GOAL_POSITIONS_PER_S = 2_000.0
GOAL_WRITERS_WAIT = 1.1
WRITES_PER_S = 1_000
_WRITERS = 16

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
_UNSEALED = """SELECT count(*) FROM audit_events AS event, audit_watermark AS mark
    WHERE (event.transaction_id, event.sequence) > (mark.transaction_id, mark.sequence)"""
_WITHOUT_POSITION = "SELECT count(*) FROM outbox_events WHERE position IS NULL"


def measure(bench: Bench, rows: int) -> Findings:
    """A hub makes the database and is stopped: nobody else seals."""
    with data_folder() as data_dir:
        with Server(contestants.hub(data_dir, {}), data_dir.parent / "hub.log"):
            pass
        with embedded.running(data_dir) as database:
            bounds = asyncio.run(_measure(bench, data_dir, database, rows))
    works = list(_writers(bench, rows))
    return Findings(works, bounds, text=f"{rows:,} rows of about 1 kB, of {TENANTS + 1} tenants in turn.")


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


def _writers(bench: Bench, rows: int) -> Iterator[Work]:
    """Those who write at a steady pace while the hub seals what was left to it, against those beside whom it has their
    own rows to seal and no others."""
    work = Work(f"POST /roles, {WRITES_PER_S:,} a second", [Goal("beside sealing", "alone", GOAL_WRITERS_WAIT, "p99")])
    with data_folder() as data_dir, Server(contestants.hub(data_dir, {}), data_dir.parent / "hub.log") as hub:
        entry = Entry(hub, sign_in(hub.url).request("POST", "/roles", new_role("bench {n}")), 201)
        with embedded.running(data_dir) as database:
            for _ in range(bench.pace.rounds):
                _wait_until_unsealed(database.superuser_url, 0)
                _add(bench, work, "alone", entry)
                _leave_to_seal(database.superuser_url, rows)
                _add(bench, work, "beside sealing", entry)
                if _unsealed(database.superuser_url) < WRITES_PER_S:  # as many are the writers' own
                    bench.problem(f"record: {rows:,} rows were sealed before the writers were measured")
    yield work


def _add(bench: Bench, work: Work, name: str, entry: Entry) -> None:
    _, sample = bench.measure_steady(entry, _WRITERS, WRITES_PER_S)
    bench.tell(f"{work.name}, {name}: {sample.per_second:,.0f}/s, p99 {sample.p99_ms:.1f} ms")
    work.add(name, sample)


def _leave_to_seal(superuser_url: str, rows: int) -> None:
    """Ends with the first of them sealed, so that the others are about to be."""
    asyncio.run(_run(superuser_url, _AUDITED, rows))
    asyncio.run(_run(superuser_url, "CHECKPOINT"))  # not meanwhile
    _wait_until_unsealed(superuser_url, rows - 1)


def _wait_until_unsealed(superuser_url: str, most: int) -> None:
    while _unsealed(superuser_url) > most:
        time.sleep(0.05)


def _unsealed(superuser_url: str) -> int:
    found: int = asyncio.run(_run(superuser_url, _UNSEALED))
    return found


async def _run(superuser_url: str, sql: str, *arguments: object) -> Any:
    """Its first value."""
    owner = await asyncpg.connect(superuser_url)
    try:
        return await owner.fetchval(sql, *arguments)
    finally:
        await owner.close()


async def _per_cpu_second(postgres_pid: int, turn: Callable[[], Awaitable[int]]) -> float:
    """Of this process and PostgreSQL together, until a turn finds nothing more."""
    before, own = _cpu_of(postgres_pid), time.process_time()
    done = 0
    while found := await turn():
        done += found
    return done / (_cpu_of(postgres_pid) - before + time.process_time() - own)


def _cpu_of(root_pid: int) -> float:
    return sum(processes.cpu_by_process(root_pid).values())
