"""A sign-in that begins: the browser goes to the provider with a request, and keeps what is needed to carry it on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from app.core.answers import Answer
from app.core.errors import BadRequest, Fault
from app.domain.identity_providers.registry import Provider
from app.domain.requests import HubRequest
from app.domain.saml.cookies import keep_in_browser
from app.domain.saml.own_side import own_side
from app.domain.saml.request_ids import new_request_id
from app.domain.saml.schemas import SamlRequest
from app.domain.saml.their_side import their_side
from app.domain.sign_in.forms import form, paragraph
from app.domain.sign_in.pending import (
    LIVES_S,
    PENDING,
    PendingSignIn,
    browser_of,
    cookie_header,
    digest_of,
    new_browser,
    seal,
    unseal,
)
from app.domain.sign_in.rendering import together
from app.domain.sign_in.views import page_answer
from app.domain.sign_in.ways import Page
from app.settings import Settings

REQUEST: Final = "saml request"
MAX_COOKIE: Final = 3800
"""Browsers take 4,096 bytes, with the name and what else is said."""
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_LOOPBACK: Final = frozenset(("127.0.0.1", "::1"))


async def send_to_provider(request: HubRequest, provider: Provider, given: Mapping[str, str]) -> Answer[bytes]:
    """Raises BadRequest for a sign-in that may not begin so."""
    parts, settings = request.parts, request.parts.settings
    browser = browser_of(request.exchange, settings) or new_browser()
    pending = _pending_of(request, browser, provider, given)
    request_id = new_request_id(parts.key_ring, provider)
    sealed = seal(parts.key_ring, REQUEST, SamlRequest(provider.id, request_id, pending))
    if len(sealed) > MAX_COOKIE:
        raise BadRequest("`redirect_uri` and `state` are too long together.", code="invalid_parameter")
    answer = await _answer(request, provider, request_id)
    answer.wire_headers += [
        cookie_header(settings, browser),
        keep_in_browser(settings, provider, request_id, sealed),
        (b"cache-control", b"no-store"),
    ]
    return answer


async def _answer(request: HubRequest, provider: Provider, request_id: str) -> Answer[bytes]:
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


def _pending_of(request: HubRequest, browser: str, provider: Provider, given: Mapping[str, str]) -> PendingSignIn:
    """The sign-in that the hub's own page has begun, or a new one. Raises BadRequest."""
    if "request" in given:
        pending = unseal(request.parts.key_ring, PENDING, given["request"], PendingSignIn)
        if pending is None:
            raise BadRequest("The sign-in was altered on its way.", code="invalid_parameter")
        if pending.is_over or not pending.is_of(browser):
            raise BadRequest(code="saml_other_browser")
        return pending
    faults = list(_faults(request.parts.settings, given))
    if faults:
        raise BadRequest(code="invalid_parameter", errors=faults)
    return PendingSignIn(
        client_id=None,
        redirect_uri=given["redirect_uri"],
        state=given.get("state"),
        code_challenge=given["code_challenge"],
        tenant=provider.tenant,
        browser=digest_of(browser),
        expires_at=int(time.time()) + LIVES_S,
    )


def _faults(settings: Settings, given: Mapping[str, str]) -> Iterator[Fault]:
    if not _is_allowed(settings, given.get("redirect_uri", "")):
        yield Fault("redirect_uri", "not_allowed", "is none of HUB_SIGN_IN_REDIRECTS")
    if not _CHALLENGE.fullmatch(given.get("code_challenge", "")):
        yield Fault("code_challenge", "wrong_form", "must be the S256 of a verifier (RFC 7636)")
    if given.get("code_challenge_method") != "S256":
        yield Fault("code_challenge_method", "not_allowed", "must be S256")


def _is_allowed(settings: Settings, redirect_uri: str) -> bool:
    """To the letter; on this machine at any port (RFC 8252 section 7.3)."""
    if redirect_uri in settings.sign_in_redirects:
        return True
    given = _without_port(redirect_uri)
    return given is not None and given in map(_without_port, settings.sign_in_redirects)


def _without_port(uri: str) -> tuple[str, str, str] | None:
    """None for what is not on this machine."""
    try:
        parts = urlsplit(uri)
        is_plain = parts.scheme == "http" and parts.hostname in _LOOPBACK and parts.username is None
        is_plain = is_plain and not parts.fragment and parts.port != 0
    except ValueError:
        return None
    return (parts.hostname or "", parts.path, parts.query) if is_plain else None
