"""Traces: the seams at which the hub tells of a request, a statement, a connector run, an event or a job.

Nothing of OpenTelemetry is imported here. Until `use` was given a tracer that sends (`telemetry.py`, for
HUB_OTLP_ENDPOINT), nothing stands in the way of requests and reads, and the other seams cost a call that does nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from msgspec.structs import replace

from app.core.exchange import Exchange
from app.core.log_context import LogContext, bound_to

if TYPE_CHECKING:
    from litestar.types import Scope
    from sqlalchemy.ext.asyncio import AsyncEngine

Attributes = Mapping[str, str | int | float | bool]


class Span:
    """A piece of work in a trace, as those see it who do the work. This one goes nowhere."""

    trace_id: str | None = None

    def note(self, attributes: Attributes) -> None:
        """What is known only later."""

    def fail(self, code: str) -> None:
        """The work failed. `code` is one of ours: no text of others, which may repeat a secret."""


NO_SPAN = Span()


class Tracer:
    """Of a hub that sends no traces."""

    is_on = False

    def begin_exchange(self, scope: "Scope") -> Exchange:
        return Exchange(scope)

    def end_exchange(self, exchange: Exchange) -> None: ...

    def watch_engine(self, engine: "AsyncEngine") -> None: ...

    def root_span(self, name: str, attributes: Attributes, made_by: str | None) -> AbstractContextManager[Span]:
        """A trace of its own, linked to `made_by`; what is done within the block is part of it."""
        return nullcontext(NO_SPAN)

    def leaf_span(self, name: str, attributes: Attributes) -> AbstractContextManager[Span]:
        """Part of what the task is in, with nothing below it: nothing of it stays in the task's context."""
        return nullcontext(NO_SPAN)

    def current(self) -> Span:
        return NO_SPAN

    def traceparent(self) -> str | None:
        return None

    async def close(self) -> None:
        """Sends what is left, if that is quickly done."""


OFF = Tracer()
_tracer = OFF


def use(tracer: Tracer) -> None:
    """From now on, and for connections that are opened from now on."""
    global _tracer
    _tracer = tracer


def tracer() -> Tracer:
    return _tracer


def traceparent() -> str | None:
    """Of what the task is in, in the form of W3C Trace Context (section 3.2): for whoever goes on with it elsewhere,
    such as the consumer of an event. None where no traces are sent."""
    return _tracer.traceparent()


@contextmanager
def background_work(
    name: str, context: LogContext, attributes: Attributes | None = None, *, made_by: str | None = None
) -> Iterator[Span]:
    """What is done outside of requests: a trace of its own, and every line that comes of it says on whose behalf.

    `made_by` is the `traceparent` of the request that asked for it.
    """
    with _tracer.root_span(name, attributes or {}, made_by) as span, bound_to(replace(context, trace_id=span.trace_id)):
        yield span
