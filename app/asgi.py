"""The one place that wires everything: the parts, the application, the frame around it."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

from litestar import Litestar
from litestar.di import Provide
from sqlalchemy.orm import configure_mappers

from app.api.errors import EXCEPTION_HANDLERS
from app.api.openapi import openapi_config
from app.api.v1 import routes
from app.core import collector, tracing
from app.core.connections import Connections
from app.core.errors import Unauthenticated
from app.core.exchange import Exchange
from app.core.frame import Frame, FrameConfig
from app.core.logging import RequestLog, configure
from app.core.metrics import count_request, forget_dead_processes, write_counts
from app.core.migrations import permissions
from app.core.processes import HANDED_OVER, STARTED_BY, end_with_parent
from app.core.stopping import STOPPING, hear_signals
from app.domain.auth.gate import Gate, check_routes
from app.domain.health.gauges import keep_measuring
from app.domain.models import TABLES
from app.domain.parts import Parts
from app.domain.requests import HubRequest
from app.domain.tenants.suspension import stop_suspended
from app.domain.work import unit_of_work
from app.runtime import prepare_parts, start_tracing
from app.settings import Settings, load

GC_THRESHOLDS = (10_000, 20, 50)
"""Allocations before a collection, and how many of a generation make one of the next (Python's own: 700, 10, 10).
Requests leave no cycles, so that less eager is as good, and cheaper."""

WRITE_USES_EVERY_S = 2.0
PREPARED_AFTER_S = 0.2
"""Until then the hub says that it is ready."""


def create_app(parts: Parts) -> Litestar:
    """The application around its parts; `lifespan` opens and closes them."""
    assert TABLES  # what roles are given to, and where, is known by the models of those things

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        await parts.open()
        work = [
            keep_measuring(parts, "server"),
            _write_uses_again_and_again(parts),
            _end_what_is_suspended(app, parts),
            _prepare_the_rest(),
        ]
        going_on = [asyncio.create_task(each) for each in work]
        try:
            yield
        finally:
            for task in going_on:
                task.cancel()
            await parts.close()
            write_counts()
            await tracing.tracer().close()

    app = Litestar(
        route_handlers=routes(),
        request_class=HubRequest,
        middleware=[Gate],
        dependencies={"work": Provide(unit_of_work)},
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[lifespan],
        openapi_config=openapi_config(),
        request_max_body_size=parts.settings.max_body_bytes,
        logging_config=None,
    )
    app.state.parts = parts
    check_routes(app, permissions())
    return app


async def _write_uses_again_and_again(parts: Parts) -> None:
    while True:
        await asyncio.sleep(WRITE_USES_EVERY_S)
        await parts.key_uses.write()
        await parts.scim_key_uses.write()


async def _prepare_the_rest() -> None:
    """What the first request that needs it would wait for, and the start, were it done before: 70 ms."""
    await asyncio.sleep(PREPARED_AFTER_S)
    await asyncio.to_thread(_configure_models_and_import)


def _configure_models_and_import() -> None:
    configure_mappers()
    import email_validator  # noqa: F401


async def _end_what_is_suspended(app: Litestar, parts: Parts) -> None:
    """Requests that are under way; streams see to it themselves."""

    def under_way() -> Mapping[Exchange, UUID]:
        frame: Frame | None = app.state.get("frame")
        return {} if frame is None else frame.under_way_by_tenant()

    await stop_suspended(parts, under_way, lambda each: each.end(Unauthenticated(code="session_ended")))


def framed(app: Litestar, settings: Settings) -> Frame:
    """What the server serves: the application inside of what holds for every request."""
    log_request = RequestLog(settings.log_format, settings.log_level)
    tracer = tracing.tracer()

    def observe(exchange: Exchange) -> None:
        log_request(exchange, count_request(exchange))

    def observe_traced(exchange: Exchange) -> None:
        observe(exchange)
        tracer.end_exchange(exchange)

    config = FrameConfig(
        timeout_s=settings.request_timeout_s,
        allowed_hosts=settings.allowed_hosts,
        cors_origins=settings.cors_origins,
        base_path=settings.base_path,
    )
    watched, begin = (observe_traced, tracer.begin_exchange) if tracer.is_on else (observe, Exchange)
    app.state.frame = frame = Frame(app, config, observe=watched, close=log_request.flush, begin=begin)
    return frame


def serve() -> Frame:
    """What granian's workers call. `hub serve` hands them the address of the database that it prepared."""
    end_with_parent()
    with collector.at_rest():
        app = _assembled()
    gc.set_threshold(*GC_THRESHOLDS)
    return app


def _assembled() -> Frame:
    forget_dead_processes()
    settings = load(tty=sys.stderr.isatty())
    configure(settings.log_format, settings.log_level)
    start_tracing(settings, role="server")
    parts = prepare_parts(settings, os.environ[HANDED_OVER])
    litestar = create_app(parts)
    app = framed(litestar, settings)
    STOPPING.react(app.hurry)
    parts.schema.when_broken = stop_the_hub
    litestar.on_startup += [hear_signals, Connections(app.peers_asking).watch]
    return app


def stop_the_hub() -> None:
    """All of it: a server's process that ends by itself is replaced by its parent."""
    os.kill(int(os.environ[STARTED_BY]), signal.SIGTERM)
