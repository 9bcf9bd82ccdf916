"""Metrics of the work at sources: what this process saw, and what the database says when somebody scrapes."""

from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

LAG_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)

transitions = Counter(
    "hub_data_source_transitions_total",
    "Data sources that went down or came back, as saved tests saw it.",
    ("to", "type", "code"),
)
test_lag = Histogram(
    "hub_scheduled_test_lag_seconds",
    "Time from the moment at which a test was due to its start.",
    buckets=LAG_BUCKETS,
)

MOST_FAILING = 10_000
"""That are counted: a scrape costs the same however many fail."""
SOURCES = f"SELECT * FROM public.figures_of_sources({MOST_FAILING})"  # noqa: S608 - a number of ours


def of_sources(rows: list[Any]) -> list[Metric]:
    """The one row that SOURCES finds. It tells of a worker that is gone, too."""
    (row,) = rows
    due = "How long the scheduled test has been due that has been for longest; 0 where none is."
    failing = f"Data sources whose last saved test failed, at most {MOST_FAILING:,}."
    return [
        GaugeMetricFamily("hub_scheduled_tests_oldest_due_seconds", due, row["oldest_due_s"]),
        GaugeMetricFamily("hub_data_sources_failing", failing, row["failing"]),
    ]
