"""Metrics of letters: what this worker sent, and what the database says when somebody scrapes."""

from typing import Any

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric

attempts = Counter(
    "hub_letter_attempts_total",
    "Attempts at sending letters: sent, to be retried, or given up.",
    ("kind", "outcome", "failure"),
)

MOST_WAITING = 10_000
"""That are counted: a scrape costs the same however many wait."""
LETTERS = f"SELECT * FROM public.figures_of_letters({MOST_WAITING})"  # noqa: S608 - a number of ours


def of_letters(rows: list[Any]) -> list[Metric]:
    ((waiting, oldest_s),) = rows
    return [
        GaugeMetricFamily("hub_letters_waiting", f"Letters that wait to be sent, at most {MOST_WAITING:,}.", waiting),
        GaugeMetricFamily("hub_letters_oldest_waiting_seconds", "Age of the oldest letter that waits.", oldest_s),
    ]
