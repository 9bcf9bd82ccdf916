"""Tests on a schedule, by the worker that `hub serve` starts: how many a second, and how late those that are well begin
beside others that are dead or silent."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg

from app.core import embedded
from bench import contestants
from bench.contestants import Server
from bench.footprint import data_folder
from bench.page import Findings
from bench.report import Bound, percentile
from bench.rounds import Bench
from bench.seeding import HubClient, sign_in

TESTS = 1500
GOOD, DEAD, SILENT = 200, 100, 60
GOAL_PER_S = 50.0
GOAL_LAG_S = 10.0
"""A silent source holds its place for so long; nobody who is well is to wait for one."""
_AT_ONCE = 500
_GIVES_UP_S = 300.0
_LEAD_S = 1.0
_INTERVAL_S = 3600
_DEAD = {"fail_at": "connect", "fail_code": "connection_refused"}
_SILENT = {"misbehaviour": "hang"}

_DUE = (
    "UPDATE data_sources SET next_test_at = now() + make_interval(secs => $2), last_tested_at = NULL WHERE id = ANY($1)"
)
_LEFT = "SELECT count(*) FROM data_sources WHERE id = ANY($1) AND last_tested_at IS NULL"
_LATE = "SELECT extract(epoch FROM last_tested_at - $2::timestamptz)::float8 FROM data_sources WHERE id = ANY($1)"


@dataclass(frozen=True)
class Measured:
    per_second: float
    tests: int
    late_s: Sequence[float]
    """From the moment at which a good source was due to that at which its result was there."""
    late_alone_s: Sequence[float]


def measure(bench: Bench, tests: int) -> Findings:
    with (
        data_folder() as data_dir,
        Server(contestants.hub(data_dir, {}), data_dir.parent / "hub.log") as hub,
        embedded.running(data_dir) as database,
    ):
        measured = asyncio.run(_measure(database.superuser_url, sign_in(hub.url), tests))
    if measured is None:
        bench.problem(f"scheduler: tests were left over after {_GIVES_UP_S:g} s")
        return Findings()
    return Findings(
        bounds=list(_bounds(measured)),
        text=f"{measured.tests:,} sources were due in one moment. A silent source holds its place for ten seconds.",
    )


async def _measure(url: str, client: HubClient, tests: int) -> Measured | None:
    connection = await asyncpg.connect(url)
    try:
        many = _register(client, tests, {})
        await _all_tested(connection, many[: tests // 10])  # the template stands, and statements are prepared
        if (seconds := await _all_tested(connection, many)) is None:
            return None
        await connection.execute("UPDATE data_sources SET next_test_at = NULL")
        good = _register(client, GOOD, {})
        await _all_tested(connection, good)
        alone = await _lateness(connection, good)
        dead, silent = _register(client, DEAD, _DEAD), _register(client, SILENT, _SILENT)
        await connection.execute(_DUE, [*dead, *silent], 0.0)
        beside = await _lateness(connection, good)
    finally:
        await connection.close()
    if alone is None or beside is None:
        return None
    return Measured(len(many) / seconds, len(many), beside, alone)


def _register(client: HubClient, number: int, config: dict[str, Any]) -> list[str]:
    """Sources of hosts of their own, not due for an hour."""
    made: list[str] = []
    for start in range(0, number, _AT_ONCE):
        items = [_source(config) for _ in range(start, min(start + _AT_ONCE, number))]
        answer = client.create("/data-sources/bulk", {"data_sources": items})
        made += [item["data_source"]["id"] for item in answer["items"]]
    return made


def _source(config: dict[str, Any]) -> dict[str, Any]:
    name = uuid4().hex
    config = {"host": f"{name}.invalid"} | config
    return {"name": name, "type": "simulated", "config": config, "test_interval_s": _INTERVAL_S}


async def _all_tested(connection: Any, ids: list[str]) -> float | None:
    """Seconds from the moment at which all of them are due until all have a result."""
    await connection.execute(_DUE, ids, 0.0)
    began = time.perf_counter()
    while await connection.fetchval(_LEFT, ids):
        if time.perf_counter() - began > _GIVES_UP_S:
            return None
        await asyncio.sleep(0.05)
    return time.perf_counter() - began


async def _lateness(connection: Any, ids: list[str]) -> list[float] | None:
    """All due in one moment, which is the worst that a schedule can ask."""
    due = await connection.fetchval("SELECT now() + make_interval(secs => $1)", _LEAD_S)
    await connection.execute(_DUE, ids, _LEAD_S)
    gives_up = time.perf_counter() + _GIVES_UP_S
    while await connection.fetchval(_LEFT, ids):
        if time.perf_counter() > gives_up:
            return None
        await asyncio.sleep(0.05)
    return [row[0] for row in await connection.fetch(_LATE, ids, due)]


def _bounds(measured: Measured) -> Iterator[Bound]:
    late, alone = measured.late_s, percentile(measured.late_alone_s, 99)
    yield Bound("tests of `simulated`", measured.per_second, GOAL_PER_S, "/s", is_least=True)
    yield Bound(
        f"{GOOD} good sources, all due at once, beside {DEAD} dead and {SILENT} silent ones: the last has its result",
        max(late),
        GOAL_LAG_S,
        "s",
        f"p50 {percentile(late, 50):.3g} s; alone p99 {alone:.3g} s",
    )
