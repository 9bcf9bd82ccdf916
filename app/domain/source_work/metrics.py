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
SOURCES = f"""
    SELECT (SELECT coalesce(extract(epoch FROM now() - min(next_test_at)), 0)::float8 FROM data_sources
            WHERE next_test_at <= now() AND NOT is_paused
              AND tenant_id <> ALL (ARRAY(SELECT tenants.id FROM tenants WHERE NOT tenants.is_active))) AS oldest_due_s,
           (SELECT count(*) FROM (SELECT FROM tenants CROSS JOIN LATERAL (
                SELECT FROM data_sources WHERE tenant_id = tenants.id AND status = 'failed') AS theirs
              WHERE tenants.is_active LIMIT {MOST_FAILING}) AS failing) AS failing"""  # noqa: S608 - a number of ours
"""The first by an index of its own, the second by the one of the list: an index on failed sources alone would be taken
for pages of the list, too, and walked through for each."""


def of_sources(row: Any) -> list[Metric]:
    """The row that SOURCES finds. It tells of a worker that is gone, too."""
    due = "How long the scheduled test has been due that has been for longest; 0 where none is."
    failing = f"Data sources whose last saved test failed, at most {MOST_FAILING:,}."
    return [
        GaugeMetricFamily("hub_scheduled_tests_oldest_due_seconds", due, row["oldest_due_s"]),
        GaugeMetricFamily("hub_data_sources_failing", failing, row["failing"]),
    ]
