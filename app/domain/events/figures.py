"""How publishing goes, as the database knows it: for the metrics, and for whoever asks whether the hub is ready."""

from typing import Any

import asyncpg
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.domain.events.destinations import DestinationName, names_of_destinations
from app.settings import Settings

MOST_WAITING = 10_000
"""That are counted: a scrape costs the same however many wait."""
AWAY_FOR_LONG_S = 10
"""What is back within these is not told of."""

_RELAYS = "SELECT destination, sent, failed, set_aside, away_since IS NOT NULL AS is_away FROM relays"
_AWAY = """SELECT destination, reason FROM relays
           WHERE destination = ANY ($1::text[]) AND away_since < now() - make_interval(secs => $2)
           ORDER BY destination"""


async def of_destinations(connection: asyncpg.Connection, settings: Settings) -> list[Metric]:
    """Of those that are set."""
    names = names_of_destinations(settings)
    if not names:
        return []
    rows = [row for row in await connection.fetch(_RELAYS) if row["destination"] in names]
    return [*_of_relays(rows), *await _of_waiting(connection, names)]


def _of_relays(rows: list[Any]) -> list[Metric]:
    label = ("destination",)
    sent = CounterMetricFamily("hub_events_sent", "Events that the destination has confirmed.", labels=label)
    failed = CounterMetricFamily("hub_events_failed", "Attempts that failed by the event itself.", labels=label)
    aside = CounterMetricFamily("hub_events_set_aside", "Events that the destination did not take.", labels=label)
    away = GaugeMetricFamily("hub_events_destination_away", "1 while the destination takes no events.", labels=label)
    for row in rows:
        name = (row["destination"],)
        sent.add_metric(name, row["sent"])
        failed.add_metric(name, row["failed"])
        aside.add_metric(name, row["set_aside"])
        away.add_metric(name, float(row["is_away"]))
    return [sent, failed, aside, away]


async def _of_waiting(connection: asyncpg.Connection, names: list[DestinationName]) -> list[Metric]:
    waiting = GaugeMetricFamily(
        "hub_events_unpublished",
        f"Events that wait to be published, at most {MOST_WAITING:,}.",
        labels=("destination",),
    )
    oldest = GaugeMetricFamily(
        "hub_events_oldest_unpublished_age_seconds", "Of the oldest of them.", labels=("destination",)
    )
    for name in names:
        row = await connection.fetchrow(f"SELECT * FROM public.figures_of_{name}({MOST_WAITING})")  # noqa: S608 - ours
        waiting.add_metric((name,), row["waiting"])
        oldest.add_metric((name,), row["oldest_s"])
    return [waiting, oldest]


async def destinations_away(connection: asyncpg.Connection, settings: Settings) -> list[tuple[str, str]]:
    """With the reasons. Nothing is asked where no destination is set."""
    names = names_of_destinations(settings)
    if not names:
        return []
    rows = await connection.fetch(_AWAY, names, AWAY_FOR_LONG_S)
    return [(row["destination"], row["reason"]) for row in rows]
