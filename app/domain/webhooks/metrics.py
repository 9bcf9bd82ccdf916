"""Metrics of webhooks: what this process sent, and what the database says when somebody scrapes."""

from typing import Any

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric

deliveries = Counter(
    "hub_webhook_deliveries_total",
    "Attempts at deliveries: delivered, to be retried, or given up.",
    ("outcome", "failure"),
)
disabled = Counter("hub_webhooks_disabled_total", "Webhooks that the hub has switched off.", ("because",))

MOST_PENDING = 10_000
"""That are counted: a scrape costs the same however many wait."""
WEBHOOKS = f"SELECT * FROM public.figures_of_webhooks({MOST_PENDING})"  # noqa: S608 - a number of ours


def of_webhooks(rows: list[Any]) -> list[Metric]:
    """The one row that WEBHOOKS finds. It tells of a worker that is gone, too."""
    (row,) = rows
    states = GaugeMetricFamily("hub_webhooks", "Webhooks by how they get on.", labels=("state",))
    for state in ("active", "failing", "disabled"):
        states.add_metric((state,), row[state])
    due = "How long the endpoint has been due that nobody has taken for longest; 0 where none is."
    pending = f"Deliveries that wait, at most {MOST_PENDING:,}."
    return [
        states,
        GaugeMetricFamily("hub_webhooks_oldest_due_seconds", due, row["oldest_due_s"]),
        GaugeMetricFamily("hub_webhook_deliveries_pending", pending, row["pending"]),
        GaugeMetricFamily(
            "hub_webhook_oldest_delivery_age_seconds", "Of the oldest delivery that waits.", row["oldest_pending_s"]
        ),
    ]
