"""The pages on which people sign in. They are no part of the API, and stand in no document."""

from litestar import Controller, get, post
from litestar.params import FromPath

from app.core.answers import Answer, Tagged
from app.core.errors import HubError, NotFound
from app.core.limits.prices import costs
from app.core.sealed_values import seal
from app.core.security import open_to_all
from app.core.served import asset_served
from app.domain.requests import HubRequest
from app.domain.sign_in import services, views
from app.domain.sign_in.page_routes import (
    HANDLERS,
    PAGES,
    SENT,
    SHOWN,
    SHOWN_AGAIN,
    page_again,
    read_form,
    read_query,
    see_other,
    text_of,
)
from app.domain.sign_in.pending import PENDING
from app.domain.sign_in.rendering import assets
from app.domain.sign_in.services import Given
from app.domain.sign_in.ways import WAYS, HalfSignedIn, SignInStep

CHOSEN = open_to_all(takes_form=True) | PAGES


class SignInController(Controller):
    path = "/sign-in"
    include_in_schema = False
    exception_handlers = HANDLERS

    @get(opt=SHOWN)
    async def show(self, request: HubRequest) -> Answer[bytes]:
        """The form, for whom a client has sent here."""
        sealed = text_of(read_query(request), "request")
        if not sealed:
            return views.page_answer(request.exchange, views.start_page(request.exchange))
        return await _show_form(request, sealed)

    @post(opt=SENT, status_code=303)
    async def sign_in(self, request: HubRequest) -> Answer[bytes]:
        """On to the client with a code, or to the next step."""
        form = await read_form(request)
        sealed = text_of(form, "request")
        pending = services.pending_of(request, sealed)
        given = Given(*(text_of(form, name) for name in ("email", "password", "tenant")))
        try:
            return see_other(await services.sign_in(request, pending, given))
        except SHOWN_AGAIN as error:
            return await _show_form(request, sealed, given, error)

    @get("/organisation", opt=SHOWN)
    async def show_organisation(self, request: HubRequest) -> Answer[bytes]:
        """For who opens the address of the form once more: a sign-in begins where one is sent from."""
        return see_other(f"{request.exchange.base_path}/sign-in")

    @post("/organisation", opt=CHOSEN, status_code=303)
    async def choose_tenant(self, request: HubRequest) -> Answer[bytes]:
        """To the form, as it is for the members of that organisation."""
        form = await read_form(request)
        sealed = text_of(form, "request")
        pending = services.pending_of(request, sealed)
        try:
            chosen = await services.choose_tenant(request, pending, text_of(form, "tenant"))
        except SHOWN_AGAIN as error:
            page = views.organisation_page(request.exchange, request.parts.settings, pending, sealed, wrong=error)
            return page_again(request.exchange, page, pending.redirect_uri, error)
        sealed = seal(request.parts.key_ring, PENDING, chosen)
        return see_other(f"{request.exchange.base_path}/sign-in?request={sealed}")

    @get("/{step:str}", opt=SHOWN)
    async def show_step(self, request: HubRequest, step: FromPath[str]) -> Answer[bytes]:
        found, sealed = services.step_named(step), text_of(read_query(request), "request")
        return await _show_step(request, found, services.half_of(request, sealed, step), sealed)

    @post("/{step:str}", opt=SENT, status_code=303)
    async def take_step(self, request: HubRequest, step: FromPath[str]) -> Answer[bytes]:
        found = services.step_named(step)
        form = await read_form(request)
        sealed = text_of(form, "request")
        half = services.half_of(request, sealed, step)
        try:
            return see_other(await services.take_step(request, half, found, form))
        except SHOWN_AGAIN as error:
            return await _show_step(request, found, half, sealed, error)

    @get(
        "/assets/{name:str}",
        opt=open_to_all(parameters={"v": {"type": "string"}}, needs_database=False) | PAGES | costs("nothing"),
    )
    async def asset(self, request: HubRequest, name: FromPath[str]) -> Tagged[bytes]:
        found = assets().get(name)
        if found is None:
            raise NotFound
        return asset_served(request.exchange, found)


async def _show_form(
    request: HubRequest, sealed: str, given: Given | None = None, wrong: HubError | None = None
) -> Answer[bytes]:
    pending, settings = services.pending_of(request, sealed), request.parts.settings
    is_open = await services.asks_for_tenant(request, pending)
    if is_open and given is None and not pending.is_tenant_chosen:
        page = views.organisation_page(request.exchange, settings, pending, sealed)
        return page_again(request.exchange, page, pending.redirect_uri)
    page = views.form_page(
        request.exchange,
        settings,
        pending,
        sealed,
        asks_for_tenant=is_open,
        providers=() if is_open else await WAYS.providers_of(request, pending, sealed),
        before=services.with_tenant_open(request, pending) if pending.is_tenant_chosen else None,
        given=given,
        wrong=wrong,
    )
    return page_again(request.exchange, page, pending.redirect_uri, wrong)


async def _show_step(
    request: HubRequest, step: SignInStep, half: HalfSignedIn, sealed: str, wrong: HubError | None = None
) -> Answer[bytes]:
    action = f"{request.exchange.base_path}/sign-in/{step.name}"
    said = None if wrong is None else views.told(wrong)
    page = await step.page(request, half, action, {"request": sealed}, said)
    return page_again(request.exchange, page, half.pending.redirect_uri, wrong)
