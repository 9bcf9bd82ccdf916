"""Prometheus metrics: requests by route template and status, and how long they took.

With several worker processes prometheus_client's multiprocess mode shares them through files in
PROMETHEUS_MULTIPROC_DIR, which `hub serve` sets before anything is imported.
"""

import os
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest, multiprocess

from app.core.exchange import Exchange

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# A second series beside each one, of when it began: nobody asks for it, and it is most of what a scrape would grow by.
disable_created_metrics()  # type: ignore[no-untyped-call]

_requests = Histogram(
    "hub_http_request_duration_seconds",
    "Time from the request's head to the end of its answer.",
    ("method", "route", "status"),
    buckets=BUCKETS,
)
_children: dict[tuple[str, str, int], Any] = {}


def count_request(exchange: Exchange) -> float:
    """Count the exchange under its route template (never its path: that would be a series for each id).

    Returns seconds.
    """
    scope = exchange.scope
    seconds = perf_counter() - exchange.started
    method = exchange.method if exchange.method in KNOWN_METHODS else "other"
    key = (method, scope.get("path_template", "unmatched"), exchange.status)
    child = _children.get(key)
    if child is None:
        child = _children[key] = _requests.labels(method, key[1], str(key[2]))
    child.observe(seconds)
    return seconds


KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


def exposition() -> bytes:
    """All metrics in the Prometheus text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
