"""Prometheus metrics: requests by route template and status, and how long they took; and the exposition of all.

Metrics of other things stand beside those things. Values of labels come from lists of the hub's own (routes, kinds,
codes, types), never from a caller: a series is kept for good.

With several worker processes prometheus_client's multiprocess mode shares them through files in
PROMETHEUS_MULTIPROC_DIR, which `hub serve` sets before anything is imported.
"""

import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.registry import Collector

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


class _Counted:
    """Requests of one series that are not yet in the metrics.

    `Histogram.observe` writes into a shared file twice, under a lock, with a system call each time: a tenth of what the
    hub itself does for a plain request. The same sums and counts, written for some requests at a time, cost nothing.
    """

    __slots__ = ("_counts", "_histogram", "_seconds")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._seconds = 0.0
        self._counts = [0] * (len(BUCKETS) + 1)

    def add(self, seconds: float) -> None:
        self._seconds += seconds
        self._counts[bisect_left(BUCKETS, seconds)] += 1

    def write(self) -> None:
        if not any(self._counts):
            return
        for bucket, count in zip(self._histogram._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._histogram._sum.inc(self._seconds)
        self._seconds, self._counts = 0.0, [0] * len(self._counts)


_series: dict[tuple[str, str, int], _Counted] = {}


def count_request(exchange: Exchange) -> float:
    """Count the exchange under its route template (never its path: that would be a series for each id), until
    `write_counts`.

    Returns seconds.
    """
    scope = exchange.scope
    seconds = perf_counter() - exchange.started
    method = exchange.method if exchange.method in KNOWN_METHODS else "other"
    key = (method, scope.get("path_template", "unmatched"), exchange.status)
    series = _series.get(key)
    if series is None:
        series = _series[key] = _Counted(_requests.labels(method, key[1], str(key[2])))
    series.add(seconds)
    return seconds


def write_counts() -> None:
    """What was counted until now is in the metrics, and a scrape of another process sees it."""
    for series in _series.values():
        series.write()


KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class ProcessGauge:
    """A figure of this process; several processes' are added up."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> None:
        self._gauge = Gauge(name, help_text, labels, multiprocess_mode="livesum")

    def set(self, value: float, *labels: str) -> None:
        (self._gauge.labels(*labels) if labels else self._gauge).set(value)


class ProcessCounter:
    """A count that something else keeps for this process; what processes counted that are gone stays in the sum."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...]) -> None:
        self._counter = Counter(name, help_text, labels)
        self._seen: dict[tuple[str, ...], float] = {}

    def bring_to(self, value: float, *labels: str) -> None:
        """The count as it stands now."""
        self._counter.labels(*labels).inc(max(value - self._seen.get(labels, 0.0), 0.0))
        self._seen[labels] = value


embedded_restarts = Counter(
    "hub_embedded_database_restarts_total", "Times that the embedded PostgreSQL ended by itself and was started again."
)


class _Gathered(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def forget_dead_processes() -> None:
    """Gauges of a process that was killed, or has ended, are not added up any more."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for path in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = int(path.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
        except PermissionError:
            pass  # somebody else's, and so alive


def exposition(gathered: Sequence[Metric] = ()) -> bytes:
    """All metrics in the Prometheus text format, with those that were gathered for this scrape."""
    write_counts()
    found = CollectorRegistry()
    found.register(_Gathered(gathered))
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest() + generate_latest(found)
    forget_dead_processes()
    multiprocess.MultiProcessCollector(found)  # type: ignore[no-untyped-call]
    return generate_latest(found)
