"""Figures that are looked up when they are asked for: of this process' pools, and of what waits in the database."""

from collections.abc import Iterator
from typing import Any, Final

import asyncpg
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.core.database import DATABASE_ERRORS
from app.core.errors import Unavailable
from app.core.metrics import ProcessGauge
from app.domain.parts import Parts
from app.domain.source_work.metrics import SOURCES, of_sources

KIND: Final = "metrics"
"""Of work, where database connections are shared out."""
MOST_JOBS = 10_000
"""That are counted: a scrape costs the same however many wait."""

_places = ProcessGauge("hub_database_places", "Places of a pool of database connections.", ("pool", "state"))
_passwords = ProcessGauge("hub_password_checks_waiting", "Calls that wait for a thread of the password pool.")
_principals = ProcessGauge("hub_principals_cached", "Sessions and API keys whose principals are in memory.")
_streams = ProcessGauge("hub_streams_open", "Streams of events, and exports.")

_JOBS = f"SELECT * FROM public.unfinished_jobs({MOST_JOBS})"  # noqa: S608 - a number of ours
_UPKEEP = "SELECT kind, rows_done, failures, extract(epoch FROM last_success_at)::float8 FROM upkeep"


def measure_process(parts: Parts) -> None:
    for name, places in (("reads", parts.reads.places), ("changes", parts.change_places)):
        _places.set(places.size - places.free, name, "taken")
        _places.set(places.size, name, "all")
        _places.set(places.waiting, name, "waiting")
    _passwords.set(parts.passwords.waiting)
    _principals.set(parts.principals.count)
    _streams.set(parts.streams.count)


async def measure_database(parts: Parts) -> list[Metric]:
    """Nothing where the database is away, or too busy."""
    try:
        async with parts.reads.connection(KIND, None) as connection:
            return [
                *_of_jobs(await connection.fetch(_JOBS)),
                *_of_upkeep(await connection.fetch(_UPKEEP)),
                *of_sources(await connection.fetchrow(SOURCES)),
            ]
    except (*DATABASE_ERRORS, asyncpg.InternalClientError, Unavailable):
        return []


def _of_jobs(rows: list[Any]) -> Iterator[Metric]:
    counts = GaugeMetricFamily("hub_jobs", f"Unfinished jobs, of the oldest {MOST_JOBS:,}.", labels=("kind", "status"))
    ages = GaugeMetricFamily("hub_oldest_job_age_seconds", "Of the oldest unfinished job.", labels=("kind", "status"))
    for kind, status, count, age_s in rows:
        counts.add_metric((kind, status), count)
        ages.add_metric((kind, status), age_s)
    return iter((counts, ages))


def _of_upkeep(rows: list[Any]) -> Iterator[Metric]:
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
    return iter((done, failures, success))
