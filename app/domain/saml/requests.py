"""A sign-in that begins: the browser goes to the provider with a request, and keeps what is needed to carry it on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from app.core.answers import Answer, found_there
from app.core.errors import BadRequest
from app.core.sealed_values import seal, unseal
from app.domain.identity_providers.linking import LinkFor
from app.domain.identity_providers.registry import Provider
from app.domain.identity_providers.sign_ins import LINK, LinkWanted, new_pending, require_this_browser
from app.domain.requests import HubRequest
from app.domain.saml.cookies import keep_in_browser
from app.domain.saml.own_side import own_side
from app.domain.saml.request_ids import new_request_id
from app.domain.saml.schemas import SamlRequest
from app.domain.saml.their_side import their_side
from app.domain.sign_in.forms import form, paragraph
from app.domain.sign_in.pending import LIVES_S, PendingSignIn, browser_of, cookie_header, new_browser
from app.domain.sign_in.rendering import together
from app.domain.sign_in.services import CannotGoOn, pending_of
from app.domain.sign_in.views import page_answer
from app.domain.sign_in.ways import Page

REQUEST: Final = "saml request"
MAX_COOKIE: Final = 3800
"""Browsers take 4,096 bytes, with the name and what else is said."""


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
        return found_there(address)
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
        require_this_browser(request, wanted.pending)
        return Begun(wanted.pending, wanted.link)
    if "request" in given:
        pending = pending_of(request, given["request"])
        if pending.tenant not in (None, provider.tenant):
            raise CannotGoOn("altered")
        return Begun(pending)
    settings, tenant = request.parts.settings, provider.tenant
    return Begun(new_pending(settings, given, browser=browser, tenant=tenant, lives_s=LIVES_S))
