"""Figures that are looked up when they are asked for: of this process, and of what waits in the database."""

import asyncio
import os
import resource
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from socket import socket
from time import monotonic, process_time
from typing import Any, Final, Literal

import asyncpg
from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.core.database import DATABASE_ERRORS
from app.core.errors import Unavailable
from app.core.metrics import CONTENT_TYPE, ProcessCounter, ProcessGauge, exposition, write_counts
from app.core.metrics_port import MetricsPort
from app.core.probe import DatabaseProbe
from app.core.schema_state import AWAY
from app.domain.events.figures import of_destinations
from app.domain.letters.metrics import LETTERS, of_letters
from app.domain.parts import Parts
from app.domain.source_work.metrics import SOURCES, of_sources
from app.domain.webhooks.metrics import WEBHOOKS, of_webhooks
from app.settings import Settings

KIND: Final = "metrics"
"""Of work, where database connections are shared out."""
MOST_COUNTED = 10_000
"""Rows: a scrape costs the same however many wait."""
MEASURE_EVERY_S = 2.0

Role = Literal["server", "worker"]
Figures = tuple[str, Callable[[list[Any]], Iterable[Metric]]]
"""A statement that any connection may run, and what its rows say."""


# What a process knows of itself ---------------------------------------------------------------------------------------

_places = ProcessGauge("hub_database_places", "Places of a pool of database connections.", ("role", "pool", "state"))
_waits = ProcessCounter(
    "hub_database_waits_total", "Times that somebody found no free place in a pool.", ("role", "pool")
)
_passwords = ProcessGauge("hub_password_checks_waiting", "Calls that wait for a thread of the password pool.")
_principals = ProcessGauge("hub_principals_cached", "Sessions and API keys whose principals are in memory.")
_streams = ProcessGauge("hub_streams_open", "Streams of events, and exports.")
_runs = ProcessGauge("hub_connector_runs_under_way", "Pieces of connector work that go on.", ("role",))
_processes = ProcessGauge("hub_processes", "Processes of the hub that are alive.", ("role",))
_memory = ProcessGauge("hub_resident_memory_bytes", "Memory of the hub's processes.", ("role",))
_cpu = ProcessCounter("hub_cpu_seconds_total", "Processor time of the hub's processes.", ("role",))
_loop_lag = Histogram(
    "hub_event_loop_lag_seconds",
    "By how much later than planned an event loop gets to what is due.",
    ("role",),
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)


def measure_process(parts: Parts, role: Role) -> None:
    for name, places in (("reads", parts.reads.places), ("changes", parts.change_places)):
        _places.set(places.size - places.free, role, name, "taken")
        _places.set(places.size, role, name, "all")
        _places.set(places.waiting, role, name, "waiting")
        _waits.bring_to(places.waits, role, name)
    _passwords.set(parts.passwords.waiting)
    _principals.set(parts.principals.count)
    _streams.set(parts.streams.count)
    _runs.set(parts.sandbox.running, role)
    _processes.set(1, role)
    _memory.set(_resident_bytes(), role)
    _cpu.bring_to(process_time(), role)


async def keep_measuring(parts: Parts, role: Role) -> None:
    """Until cancelled. A scrape asks one process, which knows of the others only what they have set."""
    lag = _loop_lag.labels(role)  # there from the first scrape on, with nothing in it
    while True:
        measure_process(parts, role)
        write_counts()
        due = monotonic() + MEASURE_EVERY_S
        await asyncio.sleep(MEASURE_EVERY_S)
        lag.observe(max(monotonic() - due, 0.0))


def _resident_bytes() -> int:
    """Now, where the kernel tells; elsewhere the most that it ever was."""
    try:
        with open("/proc/self/statm") as sizes:
            return int(sizes.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# What the database knows ----------------------------------------------------------------------------------------------


def _of_jobs(rows: list[Any]) -> Iterable[Metric]:
    counts = GaugeMetricFamily(
        "hub_jobs", f"Unfinished jobs, of the oldest {MOST_COUNTED:,}.", labels=("kind", "status")
    )
    ages = GaugeMetricFamily("hub_oldest_job_age_seconds", "Of the oldest unfinished job.", labels=("kind", "status"))
    for kind, status, count, age_s in rows:
        counts.add_metric((kind, status), count)
        ages.add_metric((kind, status), age_s)
    return counts, ages


def _of_upkeep(rows: list[Any]) -> Iterable[Metric]:
    done = CounterMetricFamily("hub_upkeep_rows", "Rows removed or filled in by upkeep.", labels=("kind",))
    failures = CounterMetricFamily("hub_upkeep_failures", "Attempts of upkeep that failed.", labels=("kind",))
    success = GaugeMetricFamily(
        "hub_upkeep_last_success_timestamp_seconds", "When upkeep last found nothing left to do.", labels=("kind",)
    )
    for kind, rows_done, failed, last_success in rows:
        done.add_metric((kind,), rows_done)
        failures.add_metric((kind,), failed)
        if last_success is not None:
            success.add_metric((kind,), last_success)
    return done, failures, success


def _of_events(rows: list[Any]) -> Iterable[Metric]:
    ((waiting, oldest_s),) = rows
    oldest = (
        "Age of the oldest event that has no position yet: for so long a transaction that is open holds back all that "
        "follow the order of events, or no worker gives positions; 0 where none waits."
    )
    return (
        GaugeMetricFamily(
            "hub_events_without_position", f"Events that have no position yet, at most {MOST_COUNTED:,}.", waiting
        ),
        GaugeMetricFamily("hub_events_oldest_without_position_seconds", oldest, oldest_s),
    )


FIGURES: tuple[Figures, ...] = (
    (f"SELECT * FROM public.unfinished_jobs({MOST_COUNTED})", _of_jobs),  # noqa: S608 - a number of ours
    ("SELECT kind, rows_done, failures, extract(epoch FROM last_success_at)::float8 FROM upkeep", _of_upkeep),
    (SOURCES, of_sources),
    (f"SELECT * FROM public.figures_of_events({MOST_COUNTED})", _of_events),  # noqa: S608
    (WEBHOOKS, of_webhooks),
    (LETTERS, of_letters),
)
"""What other slices have to tell of the database is one more line here."""


async def figures(connection: asyncpg.Connection, settings: Settings) -> list[Metric]:
    """What the database says. A statement that fails leaves its figures out, and takes no others along."""
    found: list[Metric] = []
    for statement, metrics_of in FIGURES:
        try:
            found += metrics_of(await connection.fetch(statement))
        except asyncpg.PostgresError:
            continue
    with suppress(asyncpg.PostgresError):
        found += await of_destinations(connection, settings)
    return found


async def measure_database(parts: Parts) -> list[Metric]:
    """On a connection of the pool for reads."""
    try:
        async with parts.reads.connection(KIND, None) as connection:
            return [*about_this_hub(is_up=True), *await figures(connection, parts.settings)]
    except (*DATABASE_ERRORS, asyncpg.InternalClientError, Unavailable):
        return about_this_hub(is_up=False)


async def answer_scrapes(listening: socket, database_url: str, settings: Settings) -> None:
    """On the port for metrics, until cancelled. The database is asked on a connection of its own."""
    probe = DatabaseProbe(database_url)

    async def scrape() -> bytes:
        try:
            found = [*about_this_hub(is_up=True), *await probe.ask(lambda connection: figures(connection, settings))]
        except AWAY:
            found = about_this_hub(is_up=False)
        return exposition(found)

    try:
        await MetricsPort(scrape, CONTENT_TYPE).serve(listening)
    finally:
        await probe.close()


@cache
def _version() -> str:
    """Read from the disk once, and not at each scrape."""
    return version("data-fusion-hub")


def about_this_hub(*, is_up: bool) -> list[Metric]:
    build = GaugeMetricFamily("hub_build_info", "Which version this is.", labels=("version",))
    build.add_metric((_version(),), 1)
    return [build, GaugeMetricFamily("hub_database_up", "Whether the database answered this scrape.", int(is_up))]
