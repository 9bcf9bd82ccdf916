"""Publishing events again."""

from litestar import post
from litestar.di import NamedDependency
from litestar.params import RequestBody

from app.core.answers import Answer, answer
from app.core.security import requires
from app.domain.idempotency.services import idempotent
from app.domain.redelivery.schemas import Redelivery, RedeliveryOut
from app.domain.redelivery.services import redeliver
from app.domain.requests import HubRequest
from app.domain.work import UnitOfWork


@post(
    "/events/redeliver",
    opt=requires("events:write"),
    status_code=202,
    tags=["events"],
    summary="Publish events again",
)
@idempotent
async def redeliver_events(
    request: HubRequest, work: NamedDependency[UnitOfWork], data: RequestBody[Redelivery]
) -> Answer[RedeliveryOut]:
    """Those that were published already, or set aside: to the broker and the Redis stream, with the same ids.

    At most 50,000 at a time. `hub events redeliver` knows no limit.
    """
    return answer(request.exchange, await redeliver(work, data), status=202)
