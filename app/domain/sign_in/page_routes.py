"""What every route has in common that answers with a page: what it declares, and how it reads what a form has sent.

A slice that adds a page of its own below `/sign-in/`, such as one for a forgotten password, declares `SHOWN` and `SENT`
on its handlers and `HANDLERS` on its controller, and puts the page together of `forms`.
"""

from collections.abc import Mapping
from typing import Any

from litestar import Request
from litestar.types import ExceptionHandlersMap

from app.core.answers import Answer, headers_of, tells_errors_by
from app.core.bodies import form_fields
from app.core.errors import BadRequest, HubError, TooManyRequests, Unauthenticated
from app.core.exchange import Exchange
from app.core.limits.prices import costs
from app.core.security import open_to_all
from app.domain.requests import HubRequest
from app.domain.sign_in import services, views
from app.domain.sign_in.services import CannotGoOn
from app.domain.sign_in.ways import Page

PAGES = tells_errors_by(views.error_page)
SHOWN = open_to_all(parameters={"request": {"type": "string"}, "token": {"type": "string"}}) | PAGES
"""Other parameters are not looked at: mail programs and proxies add their own to the addresses of pages."""
SENT = open_to_all(takes_form=True) | PAGES | costs("login")
SHOWN_AGAIN = (BadRequest, Unauthenticated, TooManyRequests)
"""What leaves somebody on the page that they have sent, to try again."""


def _cannot_go_on(request: Request[Any, Any, Any], error: CannotGoOn) -> Answer[bytes]:
    return views.cannot_go_on(Exchange.of(request.scope), request.app.state.parts.settings, error)


HANDLERS: ExceptionHandlersMap = {CannotGoOn: _cannot_go_on}


async def read_form(request: HubRequest) -> dict[str, Any]:
    """What a page of ours has sent; a field that was sent twice is a list. Raises CannotGoOn."""
    services.require_same_site(request.exchange, request.parts.settings)
    return form_fields(await request.body())


def read_query(request: HubRequest) -> dict[str, Any]:
    return form_fields(request.query_string)


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Empty where it was not sent. Raises BadRequest where it was sent twice."""
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise BadRequest(f"`{name}` was sent twice.", code="repeated_parameter")
    return value


def see_other(address: str) -> Answer[bytes]:
    """A GET, whatever came (RFC 9110 section 15.4.4): no browser sends the password on."""
    return Answer(303, [(b"location", address.encode())], b"")


def page_again(exchange: Exchange, page: Page, goes_to: str | None, wrong: HubError | None = None) -> Answer[bytes]:
    """With the status of what went wrong, if anything: by it password managers know not to keep a password."""
    answer = views.page_answer(exchange, page, status=200 if wrong is None else wrong.status, goes_to=goes_to)
    if wrong is not None:
        answer.wire_headers += headers_of(wrong)
    return answer
