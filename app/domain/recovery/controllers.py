"""Forgotten passwords and new email addresses."""

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.params import RequestBody

from app.core.answers import Answer, answer, no_content
from app.core.limits.prices import costs
from app.core.outcomes import outcomes
from app.core.security import open_to_all, signed_in
from app.domain.idempotency.services import idempotent
from app.domain.letters.schemas import Accepted
from app.domain.recovery import services
from app.domain.recovery.schemas import ChangeEmail, ConfirmEmail, ForgotPassword, ResetPassword
from app.domain.requests import HubRequest
from app.domain.work import UnitOfWork

RESETTING = outcomes("link_not_valid", "login_busy", "weak_password")
CONFIRMING = outcomes("email_taken", "link_not_valid", "managed_externally")
CHANGING = outcomes("login_busy", "managed_externally", "wrong_password")


class RecoveryController(Controller):
    path = "/auth"
    tags = ["auth"]

    @post("/forgot-password", opt=open_to_all() | costs("login"), status_code=202, summary="Ask for a new password")
    async def forgot_password(self, request: HubRequest, data: RequestBody[ForgotPassword]) -> Answer[Accepted]:
        """Where somebody has that address, and signs in with a password, a letter with a link goes there. The answer
        is the same for everybody."""
        return answer(request.exchange, await services.forget_password(request, data), status=202)

    @post(
        "/reset-password",
        opt=open_to_all() | RESETTING | costs("login"),
        status_code=204,
        summary="Reset one's password",
    )
    async def reset_password(self, request: HubRequest, data: RequestBody[ResetPassword]) -> Answer[None]:
        """By the token in the link of a letter, which works once, for 30 minutes, and no longer than the password stays
        what it was. All sessions end."""
        await services.reset_password(request, data)
        return no_content()

    @post(
        "/change-email",
        opt=signed_in(needs_session=True) | CHANGING | costs("login"),
        status_code=202,
        summary="Change one's email address",
    )
    @idempotent
    async def change_email(
        self, request: HubRequest, work: NamedDependency[UnitOfWork], data: RequestBody[ChangeEmail]
    ) -> Answer[Accepted]:
        """A letter with a link goes to the new address; the old one stays until it is confirmed, and is told. The
        answer is the same whether somebody has the new address or not."""
        return answer(request.exchange, await services.change_email(request, data), status=202)

    @post(
        "/confirm-email",
        opt=open_to_all() | CONFIRMING | costs("login"),
        status_code=204,
        summary="Confirm one's new email address",
    )
    async def confirm_email(self, request: HubRequest, data: RequestBody[ConfirmEmail]) -> Answer[None]:
        """By the token in the link of a letter, which works once, for 30 minutes."""
        await services.confirm_email(request, data.token)
        return no_content()
