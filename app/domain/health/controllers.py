"""Whether the process lives, whether it can serve, and its metrics."""

from typing import Literal

from litestar import get

from app.core.answers import Answer, answer
from app.core.metrics import CONTENT_TYPE, exposition
from app.core.migrations import schema_problem
from app.core.outcomes import outcomes
from app.core.schema_state import AWAY
from app.core.schemas import Output
from app.core.security import open_to_all, requires
from app.domain.health.gauges import measure_database, measure_process
from app.domain.requests import HubRequest


class Health(Output):
    status: Literal["ok", "unavailable"]
    detail: str


@get("/health/live", opt=open_to_all(needs_database=False), tags=["health"], summary="Is the process alive")
async def get_live(request: HubRequest) -> Answer[Health]:
    """Checks nothing outside of the process."""
    return answer(request.exchange, Health("ok", "The process answers."))


@get(
    "/health/ready",
    opt=open_to_all(needs_database=False) | outcomes(by_status={503: Health}),
    tags=["health"],
    summary="Can the hub serve",
)
async def get_ready(request: HubRequest) -> Answer[Health]:
    """200 when the database answers and its tables are this version's, or newer ones without a declared break; 503
    otherwise."""
    problem = await _problem(request)
    if problem is None:
        return answer(request.exchange, Health("ok", "Ready to serve."))
    unavailable = answer(request.exchange, Health("unavailable", problem), status=503)
    unavailable.wire_headers.append((b"retry-after", b"1"))
    return unavailable


async def _problem(request: HubRequest) -> str | None:
    try:
        found = await request.parts.probe.ask(schema_problem)
    except AWAY:
        return "The database is away."
    return found.sentence if found else None


@get("/metrics", media_type="text/plain", opt=requires("metrics:read"), tags=["health"], summary="Metrics")
async def get_metrics(request: HubRequest) -> Answer[str]:
    """Prometheus text format. Needs the permission `metrics:read`: scrape with the API key of a service account."""
    of_database = await measure_database(request.parts)
    measure_process(request.parts, "server")  # after that, which takes a place in a pool itself
    return Answer(200, [(b"content-type", CONTENT_TYPE)], exposition(of_database))
