"""Whether the process lives, whether it can serve, and its metrics."""

import asyncio
from typing import Literal

from litestar import get

from app.core.answers import Answer, answer
from app.core.errors import Unavailable
from app.core.limits.prices import costs
from app.core.metrics import CONTENT_TYPE, exposition
from app.core.migrations import schema_problem
from app.core.outcomes import outcomes
from app.core.schema_state import AWAY
from app.core.schemas import Output
from app.core.security import open_to_all, requires
from app.domain.events.destinations import names_of_destinations
from app.domain.events.figures import destinations_away
from app.domain.health.gauges import KIND, measure_database, measure_process
from app.domain.requests import HubRequest

LOOK_S = 0.5
"""For what a hub that is ready says beside that."""


class Health(Output):
    status: Literal["ok", "degraded", "unavailable"]
    detail: str
    degraded: list[str] = []
    """What is set and away, and can be done without: `broker`, `stream` (of events, in Redis), `redis` (for limits)."""


@get(
    "/health/live",
    opt=open_to_all(needs_database=False) | costs("nothing"),
    tags=["health"],
    summary="Is the process alive",
)
async def get_live(request: HubRequest) -> Answer[Health]:
    """Checks nothing outside of the process."""
    return answer(request.exchange, Health("ok", "The process answers."))


@get(
    "/health/ready",
    opt=open_to_all(needs_database=False) | outcomes(by_status={503: Health}) | costs("nothing"),
    tags=["health"],
    summary="Can the hub serve",
)
async def get_ready(request: HubRequest) -> Answer[Health]:
    """200 when the database answers and its tables are this version's, or newer ones without a declared break; 503
    otherwise. What is away and can be done without makes it `degraded`, and is named."""
    problem = await _problem(request)
    if problem is None:
        return answer(request.exchange, _ready(await _away(request)))
    unavailable = answer(request.exchange, Health("unavailable", problem), status=503)
    unavailable.wire_headers.append((b"retry-after", b"1"))
    return unavailable


async def _problem(request: HubRequest) -> str | None:
    try:
        found = await request.parts.probe.ask(schema_problem)
    except AWAY:
        return "The database is away."
    return found.sentence if found else None


async def _away(request: HubRequest) -> list[str]:
    """Anybody may ask: the reasons, which name machines, are for the log and `hub check`."""
    redis = request.parts.redis
    away = ["redis"] if redis is not None and not await redis.answers() else []
    if not names_of_destinations(request.parts.settings):
        return away
    try:
        async with asyncio.timeout(LOOK_S), request.parts.reads.connection(KIND, None) as connection:
            return [name for name, _ in await destinations_away(connection, request.parts.settings)] + away
    except (*AWAY, Unavailable):  # a crowd in front of the pool is no reason to wait, nor to say more than is known
        return away


def _ready(away: list[str]) -> Health:
    if not away:
        return Health("ok", "Ready to serve.")
    return Health("degraded", f"Ready to serve. {' '.join(_DONE_WITHOUT[name] for name in away)}", away)


_DONE_WITHOUT = {
    "broker": "The broker is away: events wait in the outbox.",
    "stream": "The Redis stream is away: events wait in the outbox.",
    "redis": "Redis is away: each process counts limits for itself.",
}


@get("/metrics", media_type="text/plain", opt=requires("metrics:read"), tags=["health"], summary="Metrics")
async def get_metrics(request: HubRequest) -> Answer[str]:
    """Prometheus text format. Needs the permission `metrics:read`: scrape with the API key of a service account."""
    of_database = await measure_database(request.parts)
    measure_process(request.parts, "server")  # after that, which takes a place in a pool itself
    return Answer(200, [(b"content-type", CONTENT_TYPE)], exposition(of_database))
