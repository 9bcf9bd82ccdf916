"""On whose behalf a line is logged: bound once for a request or a job, carried by every line that comes of it.

What is bound is a way to ask, not a fixed answer: a request learns who asks after its first lines may be written.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from uuid import UUID

from msgspec import Struct


class LogContext(Struct, frozen=True, omit_defaults=True):
    """The one list of such fields. A field that is added here, and filled where a context is made, is in every line."""

    request_id: str | None = None
    tenant_id: UUID | None = None
    principal_id: UUID | None = None
    api_key_id: UUID | None = None
    """The key with which the principal came."""
    job_id: UUID | None = None
    activity: str | None = None
    """What goes on by itself, without a request or a job: a scheduled test, a kind of upkeep."""
    trace_id: str | None = None
    """Where traces are sent (`tracing.py`)."""


Ask = Callable[[], LogContext]
_bound: ContextVar[Ask] = ContextVar("log_context", default=LogContext)


def bind(ask: Ask) -> "Token[Ask]":
    """For this task and those that it starts, until `unbind`."""
    return _bound.set(ask)


def unbind(token: "Token[Ask]") -> None:
    _bound.reset(token)


@contextmanager
def bound_to(context: LogContext) -> Iterator[None]:
    token = bind(lambda: context)
    try:
        yield
    finally:
        unbind(token)


def current() -> LogContext:
    """Of the running task; empty where nothing is done on anybody's behalf."""
    return _bound.get()()
