"""The sign-in pages as answers: what each shows, and what a browser may do with it."""

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from litestar import Request
from litestar.types import ExceptionHandlersMap

from app.core.answers import Answer, error_answer, headers_of
from app.core.bodies import form_fields
from app.core.errors import BadRequest, HubError
from app.core.exchange import Exchange
from app.domain.sign_in.forms import button_link, field, form, link, paragraph, problem, title_of
from app.domain.sign_in.pending import PendingSignIn
from app.domain.sign_in.rendering import NOTHING, Markup, address_of_asset, fill, together
from app.domain.sign_in.services import MOST_OF_ADDRESS, MOST_OF_PASSWORD, MOST_OF_SLUG, CannotGoOn, Given, ended_at
from app.domain.sign_in.texts import PROBLEMS, TEXTS, waiting_time
from app.domain.sign_in.ways import WAYS, Page, ProviderLink
from app.settings import Settings

STYLE = "sign-in.css"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
STATUS = {"altered": 400, "over": 410, "no_cookie": 403, "other_browser": 403, "cross_site": 403}


def page_answer(exchange: Exchange, page: Page, *, status: int = 200, goes_to: str | None = None) -> Answer[bytes]:
    """`goes_to` is where the form's answer may send the browser on to."""
    base = exchange.base_path
    script = NOTHING if page.script is None else fill("script", address=address_of_asset(base, page.script))
    shown = fill(
        "page",
        title=title_of(page.heading, is_wrong=page.is_wrong),
        heading=page.heading,
        style=address_of_asset(base, STYLE),
        scripts=script,
        body=page.body,
        documentation=f"{base}/docs",
    )
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy(goes_to, has_script=page.script is not None).encode()),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]
    return Answer(status, headers, shown.html.encode())


def policy(goes_to: str | None, *, has_script: bool) -> str:
    """Chromium holds `form-action` against every redirect that follows a form, those of the client's own page
    included, so that it cannot name one origin: it names the scheme, and https for what comes behind it."""
    scheme = urlsplit(goes_to or "").scheme
    targets = ["'self'"]
    if _SCHEME.fullmatch(scheme):
        targets += [f"{each}:" for each in dict.fromkeys((scheme, "https"))]
    scripts = "script-src 'self'; connect-src 'self'; " if has_script else ""
    return (
        f"default-src 'none'; style-src 'self'; img-src 'self' data:; {scripts}form-action {' '.join(targets)}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )


def form_page(
    exchange: Exchange,
    settings: Settings,
    pending: PendingSignIn,
    sealed: str,
    *,
    asks_for_tenant: bool,
    providers: Sequence[ProviderLink],
    before: str | None = None,
    given: Given | None = None,
    wrong: HubError | None = None,
) -> Page:
    """`before` is the sign-in as it was before somebody chose an organisation, sealed."""
    base = exchange.base_path
    is_wrong = wrong is not None
    known = given or Given()
    fields = [
        field(
            "email",
            TEXTS["email"],
            kind="email",
            value=known.email if known.can_be_right else "",
            autocomplete="username",
            most=MOST_OF_ADDRESS,
            has_focus=not is_wrong,
            is_wrong=is_wrong,
        ),
        field(
            "password",
            TEXTS["password"],
            kind="password",
            autocomplete="current-password",
            most=MOST_OF_PASSWORD,
            is_wrong=is_wrong,
        ),
    ]
    if asks_for_tenant:
        hint = TEXTS["organisation_hint"]
        value = known.tenant if known.can_be_right else ""
        fields.append(
            field(
                "tenant",
                TEXTS["organisation"],
                value=value,
                autocomplete="organization",
                hint=hint,
                most=MOST_OF_SLUG,
                is_needed=False,
            )
        )
    parts = [
        NOTHING if wrong is None else problem(told(wrong)),
        going_on(settings, pending),
        NOTHING if before is None else _chosen(base, pending.tenant, before),
        form(f"{base}/sign-in", fields, TEXTS["sign_in"], {"request": sealed}),
        *_further(base, sealed),
        other_ways(providers),
    ]
    return Page(heading=TEXTS["sign_in"], body=together(parts), is_wrong=is_wrong)


def organisation_page(
    exchange: Exchange, settings: Settings, pending: PendingSignIn, sealed: str, *, wrong: HubError | None = None
) -> Page:
    """Before the form, where several share the hub and nobody has said which is meant: whose providers are to be shown
    is not known yet."""
    base, is_wrong = exchange.base_path, wrong is not None
    asked = field(
        "tenant",
        TEXTS["organisation"],
        autocomplete="organization",
        hint=TEXTS["organisation_first_hint"],
        most=MOST_OF_SLUG,
        is_needed=False,
        is_wrong=is_wrong,
        has_focus=not is_wrong,
    )
    parts = [
        NOTHING if wrong is None else problem(told(wrong)),
        going_on(settings, pending),
        form(f"{base}/sign-in/organisation", [asked], TEXTS["go_on"], {"request": sealed}),
        *_further(base, sealed),
    ]
    return Page(heading=TEXTS["sign_in"], body=together(parts), is_wrong=is_wrong)


def _further(base: str, sealed: str) -> Iterator[Markup]:
    for each in WAYS.links:
        yield link(each.text, f"{base}{each.path}?request={sealed}")


def _chosen(base: str, tenant: str | None, before: str) -> Markup:
    """Which organisation it is, for who has mistyped it, and the way back."""
    address = f"{base}/sign-in?request={before}"
    if tenant is None:
        return link(TEXTS["organisation_name"], address)
    return together([paragraph(f"{TEXTS['organisation']}: {tenant}"), link(TEXTS["organisation_other"], address)])


def other_ways(providers: Sequence[ProviderLink]) -> Markup:
    if not providers:
        return NOTHING
    return fill("other_ways", ways=together(button_link(each.label, each.login_url) for each in providers))


def going_on(settings: Settings, pending: PendingSignIn) -> Markup:
    """Where one ends, for who wonders; not for the hub's own pages."""
    return NOTHING if _is_ours(settings, pending) else fill("going_on", place=place_of(pending))


def _is_ours(settings: Settings, pending: PendingSignIn) -> bool:
    ours, theirs = urlsplit(settings.url), urlsplit(pending.redirect_uri)
    return (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc)


def place_of(pending: PendingSignIn) -> str:
    parts = urlsplit(pending.redirect_uri)
    if parts.scheme not in ("https", "http"):
        return TEXTS["app_here"]
    return TEXTS["program_here"] if parts.hostname in ("127.0.0.1", "::1", "localhost") else parts.netloc


def start_page(exchange: Exchange) -> Page:
    """For who comes by themselves."""
    way = link(TEXTS["start_link"], f"{exchange.base_path}/docs")
    return Page(heading=TEXTS["start_title"], body=together([paragraph(TEXTS["start"]), way]))


def cannot_go_on(exchange: Exchange, settings: Settings, error: CannotGoOn) -> Answer[bytes]:
    reason = error.reason
    parts = [paragraph(TEXTS[reason]), paragraph(TEXTS["begin_anew"])]
    address = ended_at(settings, error.pending) if error.reason == "over" and error.pending is not None else None
    if address is not None and error.pending is not None:
        parts.append(link(f"{TEXTS['back_to']} {place_of(error.pending)}", address))
    page = Page(heading=TEXTS[f"{reason}_title"], body=together(parts), is_wrong=True)
    return page_answer(exchange, page, status=STATUS[reason])


def error_page(exchange: Exchange, error: HubError, *, leads_back: bool = False) -> Answer[bytes]:
    """Of whatever else goes wrong: for `tells_errors_by`."""
    is_limit = "Retry-After" in error.headers and error.status == 429
    heading = TEXTS["limited_title" if is_limit else "failed_title"]
    code = fill("request_id", id=exchange.request_id)
    back = _way_back(exchange) if leads_back else NOTHING
    page = Page(heading=heading, body=together([paragraph(told(error)), back, code]), is_wrong=True)
    answer = page_answer(exchange, page, status=error.status)
    answer.wire_headers += headers_of(error)
    return answer


def error_told(exchange: Exchange, error: HubError) -> Answer[Any]:
    """As a page to who comes with a browser; as the API tells it to all others."""
    return error_page(exchange, error) if exchange.accepts("text/html") else error_answer(exchange, error)


def error_told_on_the_way(exchange: Exchange, error: HubError) -> Answer[Any]:
    """As `error_told`, to who comes from the sign-in page, and may go back to it."""
    if exchange.accepts("text/html"):
        return error_page(exchange, error, leads_back=True)
    return error_answer(exchange, error)


def cannot_go_on_told(request: Request[Any, Any, Any], error: CannotGoOn) -> Answer[Any]:
    """As `error_told`, of a sign-in that is not to go on in this browser: a handler of Litestar's."""
    exchange = Exchange.of(request.scope)
    if exchange.accepts("text/html"):
        return cannot_go_on(exchange, request.app.state.parts.settings, error)
    return error_answer(exchange, BadRequest(code="sign_in_invalid"))


ON_THE_WAY: ExceptionHandlersMap = {CannotGoOn: cannot_go_on_told}
"""Of controllers to which browsers come from the sign-in page, beside `error_told_on_the_way` of their routes."""


def _way_back(exchange: Exchange) -> Markup:
    """To the sign-in that the address carries along, if it does; what it is worth is looked at there."""
    sealed = form_fields(exchange.scope["query_string"]).get("request")
    if not isinstance(sealed, str):
        return NOTHING
    return link(TEXTS["back_to_sign_in"], f"{exchange.base_path}/sign-in?{urlencode({'request': sealed})}")


def told(error: HubError) -> str:
    """In the words of the pages, or else in those of the API."""
    if error.code == "rate_limited":
        return f"{TEXTS['limited']} {waiting_time(int(error.headers['Retry-After']))}."
    return PROBLEMS.get(error.code, error.detail)
