"""Who may do what: checks for other services, and the grounds of every right."""

from litestar import Controller, post
from litestar.params import RequestBody

from app.core.answers import Answer, answer
from app.core.outcomes import outcomes
from app.core.security import signed_in
from app.domain.authz import services
from app.domain.authz.schemas import CheckResults, Checks
from app.domain.requests import HubRequest


class AuthzController(Controller):
    path = "/authz"
    tags = ["authorization"]

    @post("/check", opt=signed_in() | outcomes("permission_missing"), status_code=200, summary="Check rights")
    async def check_rights(self, request: HubRequest, data: RequestBody[Checks]) -> Answer[CheckResults]:
        """Whether somebody may do something: up to a hundred questions at once, answered in their order with what each
        right comes from. About oneself anybody may ask; about others who has `authz:check`."""
        return answer(request.exchange, await services.check(request, data.checks))
