"""The rules of the sign-in page: which sign-ins may go on in this browser, and what comes after each proof."""

import time
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from msgspec import Struct, structs
from sqlalchemy import select

from app.core.across_tenants import are_there_several_tenants
from app.core.errors import BadRequest, NotFound, Unauthenticated
from app.core.exchange import Exchange
from app.core.faults import FORBIDDEN
from app.core.sealed_values import seal, unseal
from app.domain.auth.schemas import Login
from app.domain.auth.services import FactorNeeded, with_password
from app.domain.auth.sessions import Authenticated
from app.domain.requests import HubRequest
from app.domain.sign_in.finishing import finish
from app.domain.sign_in.pending import PENDING, PendingSignIn, browser_of
from app.domain.sign_in.texts import TEXTS
from app.domain.sign_in.ways import WAYS, HalfSignedIn, SignInStep
from app.domain.users.models import User
from app.domain.work import UnitOfWork, work_of_its_own
from app.settings import Settings

HALF = "half signed in"
STEP_LIVES_S = 600
"""Between two proofs."""
MOST_OF_ADDRESS, MOST_OF_PASSWORD, MOST_OF_SLUG = 320, 1024, 100
"""Characters: nothing longer can be anybody's."""

Reason = Literal["altered", "over", "no_cookie", "other_browser", "cross_site"]


class CannotGoOn(Exception):
    """A sign-in that is not to go on in this browser. `pending` is what it was, where the hub has sealed it."""

    def __init__(self, reason: Reason, pending: PendingSignIn | None = None) -> None:
        self.reason, self.pending = reason, pending
        super().__init__(reason)


class Given(Struct, frozen=True):
    """The form, as it was sent."""

    email: str = ""
    password: str = ""
    tenant: str = ""

    @property
    def can_be_right(self) -> bool:
        texts = (self.email, MOST_OF_ADDRESS), (self.password, MOST_OF_PASSWORD), (self.tenant, MOST_OF_SLUG)
        return all(len(text) <= most and FORBIDDEN.search(text) is None for text, most in texts)


def pending_of(request: HubRequest, sealed: str) -> PendingSignIn:
    """Raises CannotGoOn."""
    pending = unseal(request.parts.key_ring, PENDING, sealed, PendingSignIn)
    if pending is None:
        raise CannotGoOn("altered")
    _require_this_browser(request, pending)
    if pending.is_over:
        raise CannotGoOn("over", pending)
    return pending


def half_of(request: HubRequest, sealed: str, step: str) -> HalfSignedIn:
    """Raises CannotGoOn."""
    half = unseal(request.parts.key_ring, HALF, sealed, HalfSignedIn)
    if half is None or half.step != step:
        raise CannotGoOn("altered")
    _require_this_browser(request, half.pending)
    if half.expires_at <= time.time():
        raise CannotGoOn("over", half.pending)
    return half


def _require_this_browser(request: HubRequest, pending: PendingSignIn) -> None:
    """Or else somebody could be signed in, at the client, as whoever has sent them a link."""
    browser = browser_of(request.exchange, request.parts.settings)
    if browser is None:
        raise CannotGoOn("no_cookie", pending)
    if not pending.is_of(browser):
        raise CannotGoOn("other_browser", pending)


def require_same_site(exchange: Exchange, settings: Settings) -> None:
    """Of a form: that a page of the hub's has sent it. Raises CannotGoOn.

    Browsers of today say so in `Sec-Fetch-Site`. From older ones comes an `Origin` at best, which is `null` where the
    page sends no referrer; for those the browser's cookie speaks, which no other site's form brings along.
    """
    site = exchange.header(b"sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise CannotGoOn("cross_site")
        return
    origin = exchange.header(b"origin")
    ours = {urlsplit(settings.url).netloc, exchange.header(b"host")}
    if origin not in (None, "null") and (origin or "").partition("://")[2] not in ours:  # it need not be a URL
        raise CannotGoOn("cross_site")


def tenant_named(request: HubRequest, pending: PendingSignIn) -> str | None:
    """By the sign-in itself, or else by the host."""
    return pending.tenant or request.parts.settings.slug_by_host.get(request.exchange.host_name)


async def asks_for_tenant(request: HubRequest, pending: PendingSignIn) -> bool:
    """The same for every address: whether one is known in several tenants is nobody's business."""
    return tenant_named(request, pending) is None and await are_there_several_tenants(request.parts.reads)


async def choose_tenant(request: HubRequest, pending: PendingSignIn, typed: str) -> PendingSignIn:
    """The sign-in as it goes on after that. Whether there is such a tenant is told to nobody; what the client or the
    host names stays. Raises BadRequest for what can be no name."""
    slug = typed.strip().lower()
    if not Given(tenant=slug).can_be_right:
        raise BadRequest(TEXTS["no_such_text"])
    if tenant_named(request, pending) is not None:
        return pending
    return structs.replace(pending, tenant=slug or None, is_tenant_chosen=True)


def with_tenant_open(request: HubRequest, pending: PendingSignIn) -> str:
    """The same sign-in before somebody has chosen one, sealed."""
    return seal(request.parts.key_ring, PENDING, structs.replace(pending, tenant=None, is_tenant_chosen=False))


async def sign_in(request: HubRequest, pending: PendingSignIn, given: Given) -> str:
    """Where the browser goes now. Raises as `with_password`, which is asked of nobody for what can be nobody's."""
    known = given if given.can_be_right else Given()
    login = Login(email=known.email, password=known.password, tenant=pending.tenant or known.tenant.strip() or None)
    try:
        return await with_password(request, login, lambda work, who: go_on(work, pending, who))
    except FactorNeeded as needed:
        async with work_of_its_own(request) as work:
            work.move_to(needed.tenant_id)
            who = Authenticated(user_id=needed.user_id, email=needed.email)
            return await go_on(work, pending, who, version=needed.version)


async def go_on(work: UnitOfWork, pending: PendingSignIn, who: Authenticated, *, version: int | None = None) -> str:
    """Where the browser goes of whom this much is known: to the next step, or with a code to the client.

    Every way of signing in ends here. `work` is in the user's tenant; one audit row says what was proven. `version` is
    the user's, when they had proven what is not enough: then there has to be a step. Raises Unauthenticated where no
    other slice brings one.
    """
    step = await next_step(work, pending, who)
    if step is None and version is not None:
        raise Unauthenticated(code="invalid_credentials")
    if step is None:
        _record(work, "auth.sign_in", who)
        return finish(work, pending, who)
    _record(work, "auth.sign_in_step", who)
    if version is None:
        version = await work.session.scalar(select(User.version).where(User.id == who.user_id)) or 0
    return _address_of_step(work, step, pending, who, version)


def _record(work: UnitOfWork, action: str, who: Authenticated) -> None:
    proven = " ".join(who.amr)
    work.audit(action, "user", who.user_id, actor_id=who.user_id, actor_name=who.email, detail=proven)


async def next_step(work: UnitOfWork, pending: PendingSignIn, who: Authenticated) -> SignInStep | None:
    """The first one that is needed; None: it is enough."""
    for step in WAYS.steps.values():
        if await step.is_needed(work, pending, who):
            return step
    return None


def _address_of_step(
    work: UnitOfWork, step: SignInStep, pending: PendingSignIn, who: Authenticated, version: int
) -> str:
    expires_at = min(int(time.time()) + STEP_LIVES_S, pending.expires_at)
    known: dict[str, Any] = {"pending": pending, "tenant_id": work.tenant_id, "who": who, "version": version}
    half = HalfSignedIn(**known, step=step.name, expires_at=expires_at)
    sealed = seal(work.parts.key_ring, HALF, half)
    return f"{work.parts.settings.base_path}/sign-in/{step.name}?request={sealed}"


def step_named(name: str) -> SignInStep:
    """Raises NotFound."""
    step = WAYS.steps.get(name)
    if step is None:
        raise NotFound
    return step


async def take_step(request: HubRequest, half: HalfSignedIn, step: SignInStep, form: Mapping[str, Any]) -> str:
    """Where the browser goes now. Raises what the step raises."""

    async def then(work: UnitOfWork, who: Authenticated) -> str:
        return await go_on(work, half.pending, who)

    return await step.take(request, half, form, then)


def ended_at(settings: Settings, pending: PendingSignIn) -> str | None:
    """The client's page, with the news that nobody has signed in; None where that is no page of the web."""
    if urlsplit(pending.redirect_uri).scheme not in ("https", "http"):
        return None
    return pending.ends_at(error="access_denied", iss=settings.url)
