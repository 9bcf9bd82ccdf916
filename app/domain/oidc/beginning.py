"""The beginning of a link: whoever is signed in is given an address that works in their browser, and for them."""

import time
from typing import Final

from app.core.errors import NotFound
from app.core.sealed_values import seal
from app.domain.auth.principals import Signed
from app.domain.identity_providers.linking import LinkFor
from app.domain.identity_providers.registry import login_url, provider_named
from app.domain.identity_providers.sign_ins import LINK, LinkWanted, client_of
from app.domain.oidc.schemas import LinkBegin, LinkBegun
from app.domain.requests import HubRequest
from app.domain.sign_in.pending import PendingSignIn, browser_of, digest_of, new_browser

LINK_LIVES_S: Final = 600


async def begin_link(request: HubRequest, wanted: LinkBegin) -> tuple[LinkBegun, str | None]:
    """And the value of the cookie, for a browser that has none yet. Raises NotFound for a provider that one's tenant
    has not, and BadRequest for a page at which nothing may end."""
    principal, settings = request.principal, request.parts.settings
    client_id = client_of(settings, wanted.redirect_uri)
    signed: Signed = request.exchange.signed
    slug = signed.me.tenant.slug
    provider = await provider_named(request.parts, "oidc", wanted.provider, slug)
    provider = provider or await provider_named(request.parts, "saml", wanted.provider, slug)
    if provider is None:
        raise NotFound
    browser, made = browser_of(request.exchange, settings), None
    if browser is None:
        browser = made = new_browser()
    pending = PendingSignIn(
        client_id=client_id,
        redirect_uri=wanted.redirect_uri,
        state=wanted.state,
        code_challenge="",
        tenant=slug,
        browser=digest_of(browser),
        expires_at=int(time.time()) + LINK_LIVES_S,
    )
    wish = LinkFor(principal.id, principal.own_session_id)
    link = LinkWanted(pending=pending, provider=provider.name, tenant=slug, link=wish)
    sealed = seal(request.parts.key_ring, LINK, link)
    return LinkBegun(login_url(settings, provider.kind, provider.name, slug, link=sealed)), made
