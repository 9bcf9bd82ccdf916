"""Signing in by an OpenID provider: the browser is sent there, and what it brings back is believed bit by bit."""

import hmac
import logging
import secrets
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote_plus, urlencode, urlsplit

from app.core import base64url
from app.core.errors import BadRequest, NotFound, Unavailable
from app.core.sealed_values import seal, unseal
from app.domain.identity_providers.people import SignInRefused, Vouched
from app.domain.identity_providers.registry import DEFAULT_SLUG, Provider, provider_named, tenant_meant
from app.domain.identity_providers.sign_ins import (
    LINK,
    LinkWanted,
    end_sign_in,
    new_pending,
    refuse_sign_in,
    require_this_browser,
)
from app.domain.oidc.claims import vouched_of
from app.domain.oidc.discovery import ProviderAway, ProviderMetadata, asked, discovery_of, fetched
from app.domain.oidc.schemas import OidcSignIn
from app.domain.oidc.tokens import (
    Claims,
    KeyUnknown,
    TokenRefused,
    algorithm_of,
    require_id_token,
    verified_claims,
)
from app.domain.requests import HubRequest
from app.domain.sign_in.pending import PendingSignIn, browser_of, new_browser
from app.domain.sign_in.services import CannotGoOn, pending_of
from app.domain.spent.services import moment_of, spend
from app.domain.work import work_of_its_own
from app.settings import Settings

log = logging.getLogger("hub.oidc")

STATE: Final = "oidc state"
AT_PROVIDER_S: Final = 900
"""For what somebody does there."""
MOST_OF_STATE: Final = 500


class Going(NamedTuple):
    """Where the browser goes."""

    location: str
    new_browser: str | None = None
    """The value of the cookie that it is given."""


# There ----------------------------------------------------------------------------------------------------------------


async def begin(request: HubRequest, name: str, given: Mapping[str, str]) -> Going:
    """Raises BadRequest for a sign-in that could end nowhere, CannotGoOn for one of another browser, NotFound for a
    provider that is not there, and Unavailable for one that does not answer."""
    settings, browser, made = request.parts.settings, browser_of(request.exchange, request.parts.settings), None
    if browser is None and "request" not in given and "link" not in given:
        browser = made = new_browser()
    if "link" in given:
        wanted = _link_of(request, given["link"])
        pending, tenant, link = wanted.pending, wanted.tenant, wanted.link
        if wanted.provider != name:
            raise CannotGoOn("altered")
    else:
        link = None
        pending = pending_of(request, given["request"]) if "request" in given else _new(request, given, browser or "")
        tenant = pending.tenant or tenant_meant(request, given.get("tenant"))
    provider = await provider_named(request.parts, "oidc", name, tenant)
    if provider is None:
        raise NotFound
    try:
        metadata = await discovery_of(request.parts).metadata_of(provider)
    except ProviderAway as away:
        log.warning("identity provider %s of %s is away: %s", provider.name, provider.tenant, away.reason)
        raise Unavailable(code="provider_unavailable", retry_after_s=5) from None
    sign_in = OidcSignIn(
        pending=pending,
        provider=name,
        tenant=tenant,
        nonce=secrets.token_urlsafe(24),
        verifier=secrets.token_urlsafe(48),
        link=link,
    )
    state = seal(request.parts.key_ring, STATE, sign_in)
    return Going(_address_there(settings, provider, metadata, sign_in, state), made)


def _new(request: HubRequest, given: Mapping[str, str], browser: str) -> PendingSignIn:
    """Of a page that has sent the browser here by itself. Raises BadRequest; a wrong redirect URI is never gone to."""
    tenant = tenant_meant(request, given.get("tenant"))
    pending = new_pending(request.parts.settings, given, browser=browser, tenant=tenant, lives_s=AT_PROVIDER_S)
    if pending.state is not None and len(pending.state) > MOST_OF_STATE:
        raise BadRequest(f"`state` has more than {MOST_OF_STATE} characters.", code="sign_in_invalid")
    return pending


def _link_of(request: HubRequest, sealed: str) -> LinkWanted:
    """Raises CannotGoOn."""
    wanted = unseal(request.parts.key_ring, LINK, sealed, LinkWanted)
    if wanted is None:
        raise CannotGoOn("altered")
    require_this_browser(request, wanted.pending)
    return wanted


def _address_there(
    settings: Settings, provider: Provider, metadata: ProviderMetadata, sign_in: OidcSignIn, state: str
) -> str:
    """Core section 3.1.2.1, RFC 7636 section 4.3."""
    asked = {
        "response_type": "code",
        "client_id": provider.client_id or "",
        "redirect_uri": provider.own_address(settings, "callback"),
        "scope": " ".join(provider.scopes),
        "state": state,
        "nonce": sign_in.nonce,
        "code_challenge": base64url.encoded_sha256(sign_in.verifier),
        "code_challenge_method": "S256",
    }
    separator = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
    return f"{metadata.authorization_endpoint}{separator}{urlencode(asked)}"


# And back -------------------------------------------------------------------------------------------------------------


async def come_back(request: HubRequest, name: str, given: Mapping[str, str]) -> str:
    """Where the browser goes, with a code or with an error. Raises CannotGoOn where nobody knows whether the hub has
    sent it to the provider: then it goes nowhere.

    Each provider has a redirect URI of its own, down to the tenant (RFC 9700 section 4.4.2.2): a code that came to
    another one's is never sent to this one, which may be in the hands of whoever has led the browser there.
    """
    sign_in = unseal(request.parts.key_ring, STATE, given.get("state", ""), OidcSignIn)
    came_to = (name, given.get("tenant", DEFAULT_SLUG))
    if sign_in is None or came_to != (sign_in.provider, sign_in.tenant):
        raise CannotGoOn("altered")
    require_this_browser(request, sign_in.pending)
    provider = await provider_named(request.parts, "oidc", name, sign_in.tenant)
    if provider is None:
        raise NotFound
    try:
        vouched = await _vouched(request, provider, sign_in, given)
        return await _signed_in(request, provider, sign_in, vouched, given["state"])
    except SignInRefused as refused:
        return await refuse_sign_in(request, provider, sign_in.pending, refused)


async def _vouched(request: HubRequest, provider: Provider, sign_in: OidcSignIn, given: Mapping[str, str]) -> Vouched:
    try:
        metadata = await discovery_of(request.parts).metadata_of(provider)
        _require_from(metadata, given)
        if "error" in given:
            raise SignInRefused("access_denied", f"error of the provider: {given['error'][:100]}")
        answer = await _exchange(request, provider, metadata, sign_in, given.get("code", ""))
        claims = await _id_token_claims(request, provider, sign_in, answer)
        more = await _more_claims(request, provider, metadata, claims, str(answer["access_token"]))
    except ProviderAway as away:
        log.warning("identity provider %s of %s is away: %s", provider.name, provider.tenant, away.reason)
        raise SignInRefused("provider_unavailable", away.reason) from None
    except TokenRefused as refused:
        log.warning("identity provider %s of %s: ID token refused: %s", provider.name, provider.tenant, refused.reason)
        raise SignInRefused("answer_invalid", f"id_token: {refused.reason}") from None
    return vouched_of(provider, _together(claims, more))


def _together(claims: Claims, more: Claims) -> Claims:
    """The ID token first; but whether an address is verified is believed of whoever says the address."""
    of_email = ("email", "email_verified")
    source = claims if "email" in claims and ("email_verified" in claims or "email" not in more) else more
    others = {name: value for name, value in {**more, **claims}.items() if name not in of_email}
    return others | {name: source[name] for name in of_email if name in source}


def _require_from(metadata: ProviderMetadata, given: Mapping[str, str]) -> None:
    """RFC 9207 section 2.4: an answer of another provider is not taken to this one."""
    said = given.get("iss")
    if said is None and not metadata.authorization_response_iss_parameter_supported:
        return
    if said is None or not hmac.compare_digest(said.encode(), metadata.issuer.encode()):
        raise SignInRefused("answer_invalid", "iss: of another provider")


async def _exchange(
    request: HubRequest, provider: Provider, metadata: ProviderMetadata, sign_in: OidcSignIn, code: str
) -> dict[str, Any]:
    """The provider's answer to the code. Raises SignInRefused, ProviderAway."""
    if not code:
        raise SignInRefused("answer_invalid", "code: missing")
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": provider.own_address(request.parts.settings, "callback"),
        "code_verifier": sign_in.verifier,
    }
    own_form, headers = _client_authentication(provider, metadata)
    lookup = request.parts.look_ups.of(provider.look_ups_of)
    status, answer = await asked(
        request.parts.egress, lookup, metadata.token_endpoint, "token", form=form | own_form, headers=headers
    )
    if status >= 500 or status == 429:
        raise ProviderAway(f"token: http_error {status}")
    if status != 200:
        raise SignInRefused("answer_invalid", f"token: {str(answer.get('error'))[:100]}")
    texts = (answer.get("id_token"), answer.get("access_token"))
    if not all(isinstance(text, str) and text for text in texts) or str(answer.get("token_type")).lower() != "bearer":
        raise SignInRefused("answer_invalid", "token: malformed")
    return answer


def _client_authentication(provider: Provider, metadata: ProviderMetadata) -> tuple[dict[str, str], dict[str, str]]:
    """Fields of the form and headers (RFC 6749 section 2.3.1), as the provider wants them. Raises ProviderAway."""
    methods = metadata.token_endpoint_auth_methods_supported
    client_id, secret = provider.client_id or "", provider.client_secret
    if secret is None:
        raise ProviderAway("client_secret: unreadable")
    if "client_secret_basic" in methods:
        pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
        return {}, {"authorization": f"Basic {b64encode(pair.encode()).decode()}"}
    if "client_secret_post" in methods:
        return {"client_id": client_id, "client_secret": secret}, {}
    raise ProviderAway("discovery: no way of client authentication in common")


async def _id_token_claims(
    request: HubRequest, provider: Provider, sign_in: OidcSignIn, answer: Mapping[str, Any]
) -> Claims:
    """Raises TokenRefused, ProviderAway."""
    token = answer["id_token"]
    claims = await verified_by(request, provider, token, types=(None, "jwt"))
    require_id_token(
        claims,
        issuer=provider.issuer or "",
        client_id=provider.client_id or "",
        nonce=sign_in.nonce,
        access_token=answer["access_token"],
        algorithm=algorithm_of(token),
    )
    return claims


async def verified_by(request: HubRequest, provider: Provider, token: str, *, types: tuple[str | None, ...]) -> Claims:
    """By the keys of the provider, which may have new ones. Raises TokenRefused, ProviderAway."""
    discovery = discovery_of(request.parts)
    try:
        return verified_claims(token, await discovery.keys_of(provider), types=types)
    except KeyUnknown:
        newer = await discovery.newer_keys_of(provider)
        if newer is None:
            raise
        return verified_claims(token, newer, types=types)


async def _more_claims(
    request: HubRequest, provider: Provider, metadata: ProviderMetadata, claims: Claims, access_token: str
) -> Mapping[str, Any]:
    """What is not in the ID token, asked of the provider (Core section 5.3). Raises TokenRefused, ProviderAway."""
    wanted = {"email", "email_verified", "given_name"} | ({provider.groups_claim} - {None})
    if metadata.userinfo_endpoint is None or wanted <= claims.keys():
        return {}
    headers = {"authorization": f"Bearer {access_token}"}
    lookup = request.parts.look_ups.of(provider.look_ups_of)
    said = await fetched(request.parts.egress, lookup, metadata.userinfo_endpoint, "userinfo", headers=headers)
    if said.get("sub") != claims["sub"]:
        raise TokenRefused("userinfo is of another subject")
    return said


async def _signed_in(request: HubRequest, provider: Provider, sign_in: OidcSignIn, vouched: Vouched, state: str) -> str:
    """In one transaction: who it is, their groups, and the code. Each `state` brings one, whatever the provider says
    to a code that comes twice."""
    async with work_of_its_own(request) as work:
        work.move_to(provider.tenant_id)
        if not await spend(work, "oidc state", state.encode(), moment_of(sign_in.pending.expires_at)):
            raise SignInRefused("answer_invalid", "state: used already")
        return await end_sign_in(work, provider, sign_in.pending, sign_in.link, vouched)
