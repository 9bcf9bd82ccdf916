"""The pages on which people sign in. They are no part of the API, and stand in no document."""

from collections.abc import Mapping
from typing import Any

from litestar import Controller, Request, get, post
from litestar.params import FromPath
from litestar.types import ExceptionHandlersMap

from app.core.answers import Answer, tells_errors_by
from app.core.bodies import form_fields
from app.core.errors import BadRequest, HubError, NotFound, TooManyRequests, Unauthenticated
from app.core.exchange import Exchange
from app.core.limits.prices import costs
from app.core.security import open_to_all
from app.domain.requests import HubRequest
from app.domain.sign_in import services, views
from app.domain.sign_in.rendering import assets
from app.domain.sign_in.services import CannotGoOn, Given
from app.domain.sign_in.ways import WAYS, HalfSignedIn, Page, SignInStep

PAGES = tells_errors_by(views.error_page)
SHOWN = open_to_all(parameters={"request": {"type": "string"}}) | PAGES
"""Other parameters are not looked at: mail programs and proxies add their own to the addresses of pages."""
SENT = open_to_all(takes_form=True) | PAGES | costs("login")
FOREVER = b"public, max-age=31536000, immutable"
SHOWN_AGAIN = (BadRequest, Unauthenticated, TooManyRequests)
"""What leaves somebody on the page that they have sent, to try again."""


def _cannot_go_on(request: Request[Any, Any, Any], error: CannotGoOn) -> Answer[bytes]:
    return views.cannot_go_on(Exchange.of(request.scope), request.app.state.parts.settings, error)


HANDLERS: ExceptionHandlersMap = {CannotGoOn: _cannot_go_on}


async def read_form(request: HubRequest) -> dict[str, Any]:
    """What a page of ours has sent. Raises CannotGoOn."""
    services.require_same_site(request.exchange, request.parts.settings)
    return form_fields(await request.body())


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Empty where it was not sent. Raises BadRequest where it was sent twice."""
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise BadRequest(f"`{name}` was sent twice.", code="repeated_parameter")
    return value


def _sealed(fields: Mapping[str, Any]) -> str:
    return text_of(fields, "request")


def see_other(address: str) -> Answer[bytes]:
    """A GET, whatever came (RFC 9110 section 15.4.4): no browser sends the password on."""
    return Answer(303, [(b"location", address.encode())], b"")


class SignInController(Controller):
    path = "/sign-in"
    include_in_schema = False
    exception_handlers = HANDLERS

    @get(opt=SHOWN)
    async def show(self, request: HubRequest) -> Answer[bytes]:
        """The form, for whom a client has sent here."""
        sealed = _sealed(form_fields(request.query_string))
        if not sealed:
            return views.page_answer(request.exchange, views.start_page(request.exchange))
        return await _show_form(request, sealed)

    @post(opt=SENT, status_code=303)
    async def sign_in(self, request: HubRequest) -> Answer[bytes]:
        """On to the client with a code, or to the next step."""
        form = await read_form(request)
        sealed = _sealed(form)
        pending = services.pending_of(request, sealed)
        given = Given(*(text_of(form, name) for name in ("email", "password", "tenant")))
        try:
            return see_other(await services.sign_in(request, pending, given))
        except SHOWN_AGAIN as error:
            return await _show_form(request, sealed, given, error)

    @get("/{step:str}", opt=SHOWN)
    async def show_step(self, request: HubRequest, step: FromPath[str]) -> Answer[bytes]:
        found, sealed = services.step_named(step), _sealed(form_fields(request.query_string))
        return await _show_step(request, found, services.half_of(request, sealed, step), sealed)

    @post("/{step:str}", opt=SENT, status_code=303)
    async def take_step(self, request: HubRequest, step: FromPath[str]) -> Answer[bytes]:
        found = services.step_named(step)
        form = await read_form(request)
        sealed = _sealed(form)
        half = services.half_of(request, sealed, step)
        try:
            return see_other(await services.take_step(request, half, found, form))
        except SHOWN_AGAIN as error:
            return await _show_step(request, found, half, sealed, error)

    @get(
        "/assets/{name:str}",
        opt=open_to_all(parameters={"v": {"type": "string"}}, needs_database=False) | PAGES | costs("nothing"),
    )
    async def asset(self, request: HubRequest, name: FromPath[str]) -> Answer[bytes]:
        found = assets().get(name)
        if found is None:
            raise NotFound
        headers = [(b"etag", found.tag), (b"content-type", found.media_type), (b"cache-control", FOREVER)]
        if request.exchange.headers.get(b"if-none-match") == found.tag:
            return Answer(304, headers, b"")
        return Answer(200, headers, found.body)


async def _show_form(
    request: HubRequest, sealed: str, given: Given | None = None, wrong: HubError | None = None
) -> Answer[bytes]:
    pending = services.pending_of(request, sealed)
    page = views.form_page(
        request.exchange,
        request.parts.settings,
        pending,
        sealed,
        asks_for_tenant=await services.asks_for_tenant(request, pending),
        providers=await WAYS.providers_of(request, pending, sealed),
        given=given,
        wrong=wrong,
    )
    return _answered(request.exchange, page, pending.redirect_uri, wrong)


async def _show_step(
    request: HubRequest, step: SignInStep, half: HalfSignedIn, sealed: str, wrong: HubError | None = None
) -> Answer[bytes]:
    action = f"{request.exchange.base_path}/sign-in/{step.name}"
    said = None if wrong is None else views.told(wrong)
    page = await step.page(request, half, action, {"request": sealed}, said)
    return _answered(request.exchange, page, half.pending.redirect_uri, wrong)


def _answered(exchange: Exchange, page: Page, goes_to: str, wrong: HubError | None) -> Answer[bytes]:
    """With the status of what went wrong: by it password managers know not to keep a password."""
    answer = views.page_answer(exchange, page, status=200 if wrong is None else wrong.status, goes_to=goes_to)
    if wrong is not None:
        answer.wire_headers += [
            (name.lower().encode(), value.encode("latin-1")) for name, value in wrong.headers.items()
        ]
    return answer
