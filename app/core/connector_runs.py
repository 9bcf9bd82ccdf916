"""Connector runs, as metrics and traces see them: by the type of the source, what was done, and how it ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, Protocol

from prometheus_client import Counter, Histogram

from app.core import tracing

DURATIONS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)
BY_CODE: Final = {"ok": "success", "cancelled": "cancelled", "busy": "refused", "closed": "refused"}
"""What is told of a code; every other one is a failure."""

_runs = Counter(
    "hub_connector_runs_total",
    "Pieces of connector work that ended, or were refused because too many were under way.",
    ("action", "type", "outcome", "code"),
)
_durations = Histogram(
    "hub_connector_run_duration_seconds",
    "How long pieces of connector work took that succeeded or failed.",
    ("action", "type"),
    buckets=DURATIONS,
)


class ConnectorRun(Protocol):
    """As the sandbox tells of one (`app.connectors.processes.sandbox.Run`)."""

    action: str
    type: str
    """One of the registry's."""
    code: str
    """Known at its end: of the first failure, or one of `BY_CODE`."""


@contextmanager
def watched_run(run: ConnectorRun) -> Iterator[None]:
    """Counted, timed, and a span of the request, job or scheduled test that asked for it."""
    started = perf_counter()
    attributes = {"hub.connector.type": run.type, "hub.connector.action": run.action}
    with tracing.tracer().leaf_span(f"connector {run.action} {run.type}", attributes) as span:
        try:
            yield
        finally:
            outcome = BY_CODE.get(run.code, "failure")
            _runs.labels(run.action, run.type, outcome, run.code).inc()
            if outcome in ("success", "failure"):
                _durations.labels(run.action, run.type).observe(perf_counter() - started)
            span.note({"hub.connector.code": run.code})
            if outcome == "failure":
                span.fail(run.code)
