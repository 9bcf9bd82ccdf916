"""`POST /data-sources/bulk` of 500: against a COPY of the same rows, and what others feel of it."""

import asyncio
import io
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg

from app.core import embedded
from app.domain.sources.schemas import MAX_BULK
from bench import contestants, processes
from bench.contestants import Server
from bench.footprint import data_folder
from bench.load import Request
from bench.probe import expect
from bench.report import Goal, Sample, Work
from bench.rounds import Bench, Entry
from bench.seeding import HubClient, new_source, sign_in

READERS = 8
_AT_LEAST = 0.3
_AT_MOST = 1.5
_TIMEOUT_S = 60
_MADE = {
    "data_sources": "id = ANY($1)",
    "data_source_secrets": "data_source_id = ANY($1)",
    "audit_events": "resource_id = ANY($1)",
    "outbox_events": "subject = ANY(SELECT 'data-sources/' || unnest($1::uuid[]))",
}
"""What one request leaves behind, but for what triggers write: that is written for COPY as well."""


def measure(bench: Bench) -> list[Work]:
    with data_folder() as data_dir, Server(contestants.hub(data_dir, {}), data_dir.parent / "hub.log") as hub:
        client = sign_in(hub.url)
        with embedded.running(data_dir) as database:
            measured = Bench(bench.pace, database.pid, bench.tell)
            cpu = _Cpu(hub.pid, database.pid)
            works = [_against_copy(measured, cpu, client, database.superuser_url)]
            works.append(_reads_beside(measured, hub, cpu, client, database.superuser_url))
            bench.problems += measured.problems
    return works


class _Cpu:
    """Of the hub and of PostgreSQL together: a bulk is the work of both, a COPY that of one."""

    def __init__(self, hub_pid: int, postgres_pid: int) -> None:
        self._pids = (hub_pid, postgres_pid)

    def seconds(self) -> float:
        hub, postgres = (processes.cpu_seconds(pid) for pid in self._pids)
        return hub[0] + postgres[1]


def _against_copy(bench: Bench, cpu: _Cpu, client: HubClient, superuser_url: str) -> Work:
    """In turn; each COPY writes the rows that the hub has just written, after they were deleted."""
    work = Work(f"POST /data-sources/bulk of {MAX_BULK}", [Goal("hub", "COPY", _AT_LEAST)])
    _register(client)
    ends_at = time.monotonic() + bench.pace.rounds * bench.pace.seconds
    while time.monotonic() < ends_at or len(work.samples.get("hub", ())) < bench.pace.rounds:
        request = _bulk(client)
        began, cpu_before = time.perf_counter(), cpu.seconds()
        made = expect(request, 201, timeout_s=_TIMEOUT_S).json
        work.add("hub", _sample(time.perf_counter() - began, cpu.seconds() - cpu_before))
        ids = [UUID(item["data_source"]["id"]) for item in made["items"]]
        work.add("COPY", asyncio.run(_copied_again(superuser_url, ids, cpu)))
    bench.tell(f"{work.name}: {len(work.samples['hub'])} of each")
    return work


def _reads_beside(bench: Bench, hub: Server, cpu: _Cpu, client: HubClient, superuser_url: str) -> Work:
    """Beside COPY, too: PostgreSQL's share of the processors is the work's own, and not to be had back."""
    goals = [Goal("beside bulks", name, _AT_MOST, "p99") for name in ("alone", "beside COPY")]
    work = Work(f"GET /auth/me, {READERS} clients, beside bulks of {MAX_BULK}", goals)
    reader = Entry(hub, client.request("GET", "/auth/me"))
    made = expect(_bulk(client), 201, timeout_s=_TIMEOUT_S).json
    ids = [UUID(item["data_source"]["id"]) for item in made["items"]]
    others: dict[str, Callable[[], Any]] = {
        "alone": lambda: time.sleep(0.1),
        "beside COPY": lambda: asyncio.run(_copied_again(superuser_url, ids, cpu)),
        "beside bulks": lambda: _register(client),
    }
    for number in range(1, bench.pace.rounds + 1):
        for name, other in others.items():
            with _again_and_again(other) as times:
                work.add(name, bench.measure(reader, READERS)[1])
            bench.tell(f"{work.name}, round {number}: {name}, {len(times)} times meanwhile")
    return work


@contextmanager
def _again_and_again(other: Callable[[], Any]) -> Iterator[list[float]]:
    """One after the other, in a thread. Raises what one of them raised."""
    done, times, failed = threading.Event(), [], []

    def go_on() -> None:
        try:
            while not done.is_set():
                other()
                times.append(time.monotonic())
        except Exception as error:  # raised in the thread of the bench instead
            failed.append(error)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield times
    finally:
        done.set()
        thread.join()
    if failed:
        raise failed[0]


def _register(client: HubClient) -> None:
    expect(_bulk(client), 201, timeout_s=_TIMEOUT_S)


def _bulk(client: HubClient) -> Request:
    """Names and places of its own, so that there is nothing to warn of."""
    mark = uuid.uuid4().hex[:12]
    sources = [new_source(f"bulk {mark} {number}") for number in range(MAX_BULK)]
    for number, source in enumerate(sources):
        source["config"] |= {"database": f"shop_{mark}_{number}"}
    request = client.request("POST", "/data-sources/bulk")
    headers = request.headers | {"Content-Type": "application/json"}
    return replace(request, headers=headers, body=json.dumps({"data_sources": sources}))


async def _copied_again(superuser_url: str, ids: list[UUID], cpu: _Cpu) -> Sample:
    """A COPY of these sources and of all that hangs on them, in one transaction."""
    connection = await asyncpg.connect(superuser_url)
    try:
        rows = {table: await _copy_of(connection, table, ids) for table in _MADE}
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")  # nobody deletes audit rows
            for table, where in {**_MADE, "data_source_tags": "data_source_id = ANY($1)"}.items():
                await connection.execute(f"DELETE FROM {table} WHERE {where}", ids)
        began, cpu_before = time.perf_counter(), cpu.seconds()
        async with connection.transaction():
            for table, (columns, copy) in rows.items():
                await connection.copy_to_table(table, source=copy, columns=columns)
        return _sample(time.perf_counter() - began, cpu.seconds() - cpu_before)
    finally:
        await connection.close()


async def _copy_of(connection: Any, table: str, ids: list[UUID]) -> tuple[list[str], io.BytesIO]:
    columns = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attidentity = ''",
        table,
    )
    names, copy = [row[0] for row in columns], io.BytesIO()
    quoted = ", ".join(f'"{name}"' for name in names)
    literal = "'{" + ",".join(map(str, ids)) + "}'::uuid[]"
    where = _MADE[table].replace("$1::uuid[]", literal).replace("$1", literal)
    await connection.copy_from_query(f"SELECT {quoted} FROM {table} WHERE {where}", output=copy)
    copy.seek(0)
    return names, copy


def _sample(seconds: float, cpu_s: float) -> Sample:
    return Sample(requests=MAX_BULK, seconds=seconds, p50_ms=1000 * seconds, p99_ms=1000 * seconds, cpu_s=cpu_s)
