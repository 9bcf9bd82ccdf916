"""The pages that links of letters lead to, and the one that asks for a letter.

Only a form that is sent uses a link up: mail programs and scanners open whatever is in a letter.
"""

from typing import Any

from litestar import Controller, get, post

from app.core.answers import Answer
from app.core.errors import HubError
from app.domain.invitations.schemas import AcceptInvitation
from app.domain.invitations.services import accept_invitation
from app.domain.letter_pages import views
from app.domain.letter_pages.services import asks_for_tenant, checked, forget
from app.domain.recovery.schemas import ResetPassword
from app.domain.recovery.services import confirm_email, reset_password
from app.domain.requests import HubRequest
from app.domain.sign_in.page_routes import (
    HANDLERS,
    SENT,
    SHOWN,
    SHOWN_AGAIN,
    page_again,
    read_form,
    read_query,
    text_of,
)
from app.domain.sign_in.ways import Page


class LetterPageController(Controller):
    path = "/sign-in"
    include_in_schema = False
    exception_handlers = HANDLERS

    @get("/forgotten", opt=SHOWN)
    async def show_forgotten(self, request: HubRequest) -> Answer[bytes]:
        return await _forgotten(request, text_of(read_query(request), "request"))

    @post("/forgotten", opt=SENT, status_code=200)
    async def send_forgotten(self, request: HubRequest) -> Answer[bytes]:
        form = await read_form(request)
        sealed, email, tenant = (text_of(form, name) for name in ("request", "email", "tenant"))
        try:
            await forget(request, sealed, email, tenant)
        except SHOWN_AGAIN as error:
            return await _forgotten(request, sealed, email, error)
        return _shown(request, views.letter_on_its_way(request, sealed))

    @get("/reset", opt=SHOWN)
    async def show_reset(self, request: HubRequest) -> Answer[bytes]:
        return _shown(request, views.reset_page(request, text_of(read_query(request), "token")))

    @post("/reset", opt=SENT, status_code=200)
    async def send_reset(self, request: HubRequest) -> Answer[bytes]:
        form = await read_form(request)
        token = text_of(form, "token")
        try:
            given = checked({"token": token, "new_password": text_of(form, "password")}, ResetPassword)
            await reset_password(request, given)
        except SHOWN_AGAIN as error:
            return _shown(request, views.reset_page(request, token, error), error)
        return _shown(request, views.done_page(request, "reset_done"))

    @get("/invitation", opt=SHOWN)
    async def show_invitation(self, request: HubRequest) -> Answer[bytes]:
        return _shown(request, views.invitation_page(request, {"token": text_of(read_query(request), "token")}))

    @post("/invitation", opt=SENT, status_code=200)
    async def send_invitation(self, request: HubRequest) -> Answer[bytes]:
        form = await read_form(request)
        given: dict[str, Any] = {name: text_of(form, name) for name in ("token", "first_name", "last_name", "password")}
        said = {name: value or None if name.endswith("_name") else value for name, value in given.items()}
        try:
            await accept_invitation(request, checked(said, AcceptInvitation))
        except HubError as error:
            if error.status >= 500:
                raise
            return _shown(request, views.invitation_page(request, given, error), error)
        return _shown(request, views.done_page(request, "invitation_done"))

    @get("/email", opt=SHOWN)
    async def show_email(self, request: HubRequest) -> Answer[bytes]:
        return _shown(request, views.email_page(request, text_of(read_query(request), "token")))

    @post("/email", opt=SENT, status_code=200)
    async def send_email(self, request: HubRequest) -> Answer[bytes]:
        form = await read_form(request)
        token = text_of(form, "token")
        try:
            await confirm_email(request, token)
        except HubError as error:
            if error.status >= 500:
                raise
            return _shown(request, views.email_page(request, token, error), error)
        return _shown(request, views.done_page(request, "email_done"))


def _shown(request: HubRequest, page: Page, wrong: HubError | None = None) -> Answer[bytes]:
    return page_again(request.exchange, page, None, wrong)


async def _forgotten(request: HubRequest, sealed: str, email: str = "", wrong: HubError | None = None) -> Answer[bytes]:
    is_asked = await asks_for_tenant(request, sealed)
    page = views.forgotten_page(request, sealed, email, asks_for_tenant=is_asked, wrong=wrong)
    return _shown(request, page, wrong)
