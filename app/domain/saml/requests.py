"""A sign-in that begins: the browser goes to the provider with a request, and keeps what is needed to carry it on."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from app.core.answers import Answer
from app.core.errors import BadRequest
from app.domain.identity_providers.registry import DEFAULT_SLUG, Provider
from app.domain.oidc.schemas import LinkFor, LinkWanted
from app.domain.oidc.services import LINK, client_of
from app.domain.requests import HubRequest
from app.domain.saml.cookies import keep_in_browser
from app.domain.saml.own_side import own_side
from app.domain.saml.request_ids import new_request_id
from app.domain.saml.schemas import SamlRequest
from app.domain.saml.their_side import their_side
from app.domain.sign_in.forms import form, paragraph
from app.domain.sign_in.pending import (
    LIVES_S,
    PendingSignIn,
    browser_of,
    cookie_header,
    digest_of,
    new_browser,
    seal,
    unseal,
)
from app.domain.sign_in.rendering import together
from app.domain.sign_in.services import CannotGoOn, pending_of
from app.domain.sign_in.views import page_answer
from app.domain.sign_in.ways import Page
from app.settings import Settings

REQUEST: Final = "saml request"
MAX_COOKIE: Final = 3800
"""Browsers take 4,096 bytes, with the name and what else is said."""
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class Begun(NamedTuple):
    pending: PendingSignIn
    link: LinkFor | None = None
    """Who wants the provider's identity to be theirs as well."""


async def send_to_provider(request: HubRequest, provider: Provider, given: Mapping[str, str]) -> Answer[Any]:
    """Raises BadRequest and CannotGoOn for a sign-in that may not begin so."""
    parts, settings = request.parts, request.parts.settings
    browser = browser_of(request.exchange, settings) or new_browser()
    begun = _begun(request, browser, provider, given)
    request_id = new_request_id(parts.key_ring, provider)
    sealed = seal(parts.key_ring, REQUEST, SamlRequest(provider.id, request_id, begun.pending, begun.link))
    if len(sealed) > MAX_COOKIE:
        raise BadRequest("`redirect_uri` and `state` are too long together.", code="sign_in_invalid")
    answer = await _answer(request, provider, request_id)
    answer.wire_headers += [
        cookie_header(settings, browser),
        keep_in_browser(settings, provider, request_id, sealed),
        (b"cache-control", b"no-store"),
    ]
    return answer


async def _answer(request: HubRequest, provider: Provider, request_id: str) -> Answer[Any]:
    from app.core.saml.requests import posted_message, redirect_address

    own, theirs = await own_side(request.parts, provider), await their_side(request.parts, provider)
    now = datetime.now(UTC)
    if theirs.redirect_url is not None:
        address = redirect_address(own, theirs, request_id=request_id, relay_state=request_id, now=now)
        return Answer(302, [(b"location", address.encode())], b"")
    assert theirs.post_url is not None
    message = posted_message(own, theirs, request_id=request_id, now=now)
    kept = {"SAMLRequest": message, "RelayState": request_id}
    body = together([paragraph(f"You go on to {provider.label}."), form(theirs.post_url, [], "Continue", kept)])
    page = Page(heading="Sign in", body=body, script="send-form.js")
    return page_answer(request.exchange, page, goes_to=theirs.post_url)


def _begun(request: HubRequest, browser: str, provider: Provider, given: Mapping[str, str]) -> Begun:
    """By the hub's own page, for a link, or by a client. Raises CannotGoOn, and BadRequest for a sign-in that could end
    nowhere."""
    if "link" in given:
        wanted = unseal(request.parts.key_ring, LINK, given["link"], LinkWanted)
        if wanted is None or (wanted.provider, wanted.tenant) != (provider.name, provider.tenant):
            raise CannotGoOn("altered")
        require_browser(request, wanted.pending)
        return Begun(wanted.pending, wanted.link)
    if "request" in given:
        pending = pending_of(request, given["request"])
        if pending.tenant not in (None, provider.tenant):
            raise CannotGoOn("altered")
        return Begun(pending)
    return Begun(_new(request.parts.settings, browser, provider, given))


def require_browser(request: HubRequest, pending: PendingSignIn) -> None:
    """Raises CannotGoOn."""
    browser = browser_of(request.exchange, request.parts.settings)
    if browser is None:
        raise CannotGoOn("no_cookie")
    if not pending.is_of(browser):
        raise CannotGoOn("other_browser")
    if pending.is_over:
        raise CannotGoOn("over", pending)


def _new(settings: Settings, browser: str, provider: Provider, given: Mapping[str, str]) -> PendingSignIn:
    redirect_uri, challenge = given.get("redirect_uri", ""), given.get("code_challenge", "")
    client_id = client_of(settings, redirect_uri)
    if not _CHALLENGE.fullmatch(challenge) or given.get("code_challenge_method") != "S256":
        raise BadRequest("`code_challenge` with `code_challenge_method=S256` is needed.", code="sign_in_invalid")
    return PendingSignIn(
        client_id=client_id,
        redirect_uri=redirect_uri,
        state=given.get("state"),
        code_challenge=challenge,
        tenant=None if provider.tenant == DEFAULT_SLUG else provider.tenant,
        browser=digest_of(browser),
        expires_at=int(time.time()) + LIVES_S,
    )
