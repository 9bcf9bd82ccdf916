"""Traces by OpenTelemetry, sent by OTLP over HTTP. Imported only where HUB_OTLP_ENDPOINT is set: it comes with the
extra `otel`, and its import takes a fifth of a second.

By hand at the hub's own seams rather than by instrumentation of every library: a span for a request says its route and
never its query, one for a statement its kind and table and never its text or values (decision 0053).
OpenTelemetry's own variables hold for what is not said here: OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_RESOURCE_ATTRIBUTES,
OTEL_EXPORTER_OTLP_HEADERS.
"""

import asyncio
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlsplit

from litestar.types import Scope
from msgspec.structs import replace
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import Counter
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.database import METADATA, Connection
from app.core.exchange import Exchange
from app.core.log_context import LogContext
from app.core.metrics import KNOWN_METHODS
from app.core.tracing import NO_SPAN, Attributes, Span, Tracer, use

log = logging.getLogger("hub.tracing")

SERVICE: Final = "data-fusion-hub"
UNTRACED: Final = frozenset(("/health/live", "/health/ready", "/metrics"))
"""Asked every few seconds by machines, for nobody."""
EXPORT_TIMEOUT_S: Final = 5.0
LAST_EXPORT_S: Final = 1.0
"""For what is left when the process ends."""
_W3C: Final = TraceContextTextMapPropagator()

_spans = Counter("hub_trace_spans_total", "Spans of traces, by whether the collector took them.", ("outcome",))


def start_sending(endpoint: str, *, role: str) -> "SendingTracer":
    """From now on the process sends traces. Called once, after it was forked and before its parts are made."""
    for noisy in ("opentelemetry.exporter", "opentelemetry.sdk"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # a collector that is away is told of once, below
    tracer = SendingTracer(f"{endpoint.rstrip('/')}/v1/traces", role)
    Connection.query_logger = tracer.note_query
    use(tracer)
    return tracer


class SendingTracer(Tracer):
    is_on = True

    def __init__(self, url: str, role: str) -> None:
        release = version(SERVICE)
        resource = Resource.create(
            {
                "service.name": os.environ.get("OTEL_SERVICE_NAME", SERVICE),
                "service.version": release,
                "service.instance.id": f"{role}-{os.getpid()}",
                "hub.role": role,
            }
        )
        # No provider for all: libraries that ask for that one would begin to send traces of their own.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = _ToldOnce(OTLPSpanExporter(url, timeout=EXPORT_TIMEOUT_S), urlsplit(url).netloc)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(SERVICE, release)

    # Requests ---------------------------------------------------------------------------------------------------------

    def begin_exchange(self, scope: Scope) -> Exchange:
        return Exchange(scope) if scope["path"] in UNTRACED else _TracedExchange(scope, self._tracer)

    def end_exchange(self, exchange: Exchange) -> None:
        if isinstance(exchange, _TracedExchange):
            exchange.end_span()

    # Statements -------------------------------------------------------------------------------------------------------

    def note_query(self, record: Any) -> None:
        """What asyncpg itself was asked (`asyncpg.connection.LoggedQuery`), right after its end."""
        ended = time.time_ns()
        self._note(record.query, ended - int(record.elapsed * 1e9), ended, record.exception)

    def watch_engine(self, engine: AsyncEngine) -> None:
        """SQLAlchemy's statements, of which asyncpg tells nothing: they are prepared ones. Of those that run once for
        each of many rows it does."""
        event.listen(engine.sync_engine, "before_cursor_execute", _note_start)
        event.listen(engine.sync_engine, "after_cursor_execute", self._note_end)
        event.listen(engine.sync_engine, "handle_error", self._note_failure)

    def _note_end(
        self, _connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool
    ) -> None:
        if context.execute_style is not ExecuteStyle.EXECUTEMANY:
            self._note(statement, context.hub_started, time.time_ns(), None)

    def _note_failure(self, context: ExceptionContext) -> None:
        started = getattr(context.execution_context, "hub_started", None)
        if started is not None and context.statement is not None:
            self._note(context.statement, started, time.time_ns(), context.original_exception)

    def _note(self, statement: str, started: int, ended: int, error: BaseException | None) -> None:
        """Of what is done on nobody's behalf, such as the looks of the workers into their queues, there is no trace."""
        above = trace.get_current_span().get_span_context()
        if not above.trace_flags.sampled:
            return
        operation, place = described(statement)
        span = self._tracer.start_span(
            f"{operation} {place}" if place else operation,
            kind=SpanKind.CLIENT,
            start_time=started,
            attributes={"db.system.name": "postgresql", "db.operation.name": operation}
            | ({"db.collection.name": place} if place else {}),
        )
        if error is not None:
            state = getattr(error, "sqlstate", None) or type(error).__name__
            span.set_attribute("error.type", state)
            span.set_status(StatusCode.ERROR, state)
        span.end(ended)

    # Other work -------------------------------------------------------------------------------------------------------

    @contextmanager
    def root_span(self, name: str, attributes: Attributes, made_by: str | None) -> Iterator[Span]:
        maker = trace.get_current_span(_W3C.extract({"traceparent": made_by})).get_span_context() if made_by else None
        links = [Link(maker)] if maker is not None and maker.is_valid else []
        span = self._tracer.start_span(name, Context(), SpanKind.CONSUMER, attributes, links)
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield _SentSpan(span)

    @contextmanager
    def leaf_span(self, name: str, attributes: Attributes) -> Iterator[Span]:
        if not trace.get_current_span().get_span_context().is_valid:
            yield NO_SPAN
            return
        span = self._tracer.start_span(name, attributes=attributes)
        try:
            yield _SentSpan(span)
        finally:
            span.end()

    def current(self) -> Span:
        return _SentSpan(trace.get_current_span())

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return carrier.get("traceparent")

    async def close(self) -> None:
        """Whoever waits for a collector that is away would hold up the end: the thread is left to end with the
        process."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="last traces", daemon=True).start()
        try:
            async with asyncio.timeout(LAST_EXPORT_S):
                await done.wait()
        except TimeoutError:
            log.info("the last traces were not sent in time")


class _SentSpan(Span):
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        found = span.get_span_context()
        self.trace_id = trace.format_trace_id(found.trace_id) if found.is_valid else None

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def fail(self, code: str) -> None:
        self._span.set_attribute("error.type", code)
        self._span.set_status(StatusCode.ERROR, code)


class _TracedExchange(Exchange):
    """The trace goes on that a `traceparent` names, or begins here."""

    __slots__ = ("_attached", "_span", "_trace_id")

    def __init__(self, scope: Scope, tracer: trace.Tracer) -> None:
        super().__init__(scope)
        above = self._given_context()
        self._span = tracer.start_span(_known(self.method), above, SpanKind.SERVER)
        self._trace_id = trace.format_trace_id(self._span.get_span_context().trace_id)
        self._attached = otel_context.attach(trace.set_span_in_context(self._span, above))

    def _given_context(self) -> Context:
        headers = {name: self.header(name.encode()) for name in ("traceparent", "tracestate")}
        given = {name: value for name, value in headers.items() if value is not None}
        return _W3C.extract(given, Context())

    def log_context(self) -> LogContext:
        return replace(super().log_context(), trace_id=self._trace_id)

    def end_span(self) -> None:
        """Where the exchange began: in the same task."""
        span = self._span
        if span.is_recording():
            self._describe(span)
        span.end()
        otel_context.detach(self._attached)

    def _describe(self, span: trace.Span) -> None:
        method, route = _known(self.method), self.scope.get("path_template")
        span.set_attributes({"http.request.method": method, "hub.request_id": self.request_id})
        if route:
            span.update_name(f"{method} {route}")
            span.set_attribute("http.route", route)
        if self.status:
            span.set_attribute("http.response.status_code", self.status)
        if self.principal is not None:
            who = {"hub.tenant_id": str(self.principal.tenant_id), "hub.principal_id": str(self.principal.id)}
            span.set_attributes(who)
        if self.status >= 500:
            span.set_attribute("error.type", str(self.status))
            span.set_status(StatusCode.ERROR)


def _known(method: str) -> str:
    """As the semantic conventions for HTTP have it."""
    return method if method in KNOWN_METHODS else "_OTHER"


def _note_start(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
    context.hub_started = time.time_ns()


_PLACES: Final = re.compile(r"\b(?:INTO|UPDATE|FROM|JOIN)\s+(?:public\.)?\"?([a-z_]+)", re.IGNORECASE)
_FIRST_WORD: Final = re.compile(r"\W*([a-z]+)", re.IGNORECASE)
_FUNCTION: Final = re.compile(r"\bpublic\.([a-z_]+)\(")
_CHANGE: Final = re.compile(r"\b(INSERT|UPDATE|DELETE)\b", re.IGNORECASE)


@lru_cache(4096)
def described(statement: str) -> tuple[str, str]:
    """The kind of the statement, and the table of ours that it is about, or the function; empty where it is about
    none. A common table expression is of the kind of what it changes."""
    first = _FIRST_WORD.match(statement)
    operation = first[1].upper() if first else ""
    if operation == "WITH":
        change = _CHANGE.search(statement)
        operation = change[1].upper() if change else "SELECT"
    for found in _PLACES.finditer(statement):
        if found[1] in METADATA.tables:
            return operation, found[1]
    function = _FUNCTION.search(statement)
    return operation, function[1] if function else ""


class _ToldOnce(SpanExporter):
    """Tells the log once that the collector takes nothing, and once that it does again; nobody waits for it."""

    def __init__(self, exporter: SpanExporter, where: str) -> None:
        self._exporter = exporter
        self._where = where
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            log.warning("%s takes no traces; they are lost until it does", self._where)
        if self._is_away and not is_away:
            log.info("%s takes traces again", self._where)
        self._is_away = is_away
        _spans.labels("lost" if is_away else "sent").inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
