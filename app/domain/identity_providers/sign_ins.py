"""Sign-ins by an identity provider, whichever protocol it speaks: how a browser begins one, and how one ends."""

import re
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl
from uuid import UUID

from msgspec import Struct

from app.core.errors import BadRequest
from app.domain.identity_providers.linking import LinkFor, link_identity
from app.domain.identity_providers.people import SignInRefused, Vouched, let_in
from app.domain.identity_providers.registry import DEFAULT_SLUG, Provider
from app.domain.requests import HubRequest
from app.domain.sign_in.pending import PendingSignIn, browser_of, digest_of
from app.domain.sign_in.services import CannotGoOn, go_on
from app.domain.work import UnitOfWork, work_of_its_own
from app.settings import Settings

LINK: Final = "oidc link"
"""The purpose that a `LinkWanted` is sealed for."""
HUB_CLI: Final = "hub-cli"
MOST_OF_QUERY: Final = 16_384
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_LOOPBACK: Final = re.compile(r"http://(127\.0\.0\.1|\[::1\])(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._~%/-]*)?")
"""RFC 8252 section 7.3: a command-line tool listens on any port of its own machine."""
_ERRORS: Final = {"provider_unavailable": "temporarily_unavailable", "answer_invalid": "server_error"}
"""In the words of RFC 6749 section 4.1.2.1; all else is `access_denied`."""


class LinkWanted(Struct, frozen=True, kw_only=True):
    """What the `login_url` of a link holds, sealed."""

    pending: PendingSignIn
    provider: str
    tenant: str
    link: LinkFor


def parameters_of(query_string: bytes) -> dict[str, str]:
    """Unknown ones are passed over (RFC 6749 section 3.1). Raises BadRequest for one that comes twice."""
    if len(query_string) > MOST_OF_QUERY:
        raise BadRequest("The query string is too long.", code="sign_in_invalid")
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise BadRequest("The query string is not valid.", code="sign_in_invalid") from None
    given = dict(pairs)
    if len(given) != len(pairs) or any("\x00" in text for text in given.values()):
        raise BadRequest("A parameter comes twice, or holds what none may hold.", code="sign_in_invalid")
    return given


# The beginning --------------------------------------------------------------------------------------------------------


def new_pending(
    settings: Settings, given: Mapping[str, str], *, browser: str, tenant: str, lives_s: int
) -> PendingSignIn:
    """Of a page that has sent the browser here by itself. Raises BadRequest; a wrong redirect URI is never gone to."""
    redirect_uri, challenge = given.get("redirect_uri", ""), given.get("code_challenge", "")
    client_id = client_of(settings, redirect_uri)
    if given.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise BadRequest("`code_challenge` with `code_challenge_method=S256` is needed.", code="sign_in_invalid")
    return PendingSignIn(
        client_id=client_id,
        redirect_uri=redirect_uri,
        state=given.get("state"),
        code_challenge=challenge,
        tenant=None if tenant == DEFAULT_SLUG else tenant,
        browser=digest_of(browser),
        expires_at=int(time.time()) + lives_s,
    )


def client_of(settings: Settings, redirect_uri: str) -> str | None:
    """Whom a code that ends there is for: None for a page of HUB_SIGN_IN_REDIRECTS, `hub-cli` on somebody's own
    machine. Raises BadRequest for anywhere else."""
    if redirect_uri in settings.sign_in_redirects:
        return None
    if _LOOPBACK.fullmatch(redirect_uri):
        return HUB_CLI
    raise BadRequest("`redirect_uri` is no page at which a sign-in may end here.", code="sign_in_invalid")


def require_this_browser(request: HubRequest, pending: PendingSignIn) -> None:
    """Raises CannotGoOn."""
    browser = browser_of(request.exchange, request.parts.settings)
    if browser is None:
        raise CannotGoOn("no_cookie")
    if not pending.is_of(browser):
        raise CannotGoOn("other_browser")
    if pending.is_over:
        raise CannotGoOn("over", pending)


# The end --------------------------------------------------------------------------------------------------------------


async def end_sign_in(
    work: UnitOfWork, provider: Provider, pending: PendingSignIn, link: LinkFor | None, vouched: Vouched
) -> str:
    """Where the browser goes: signed in, or with the identity linked where `link` wants that. Raises SignInRefused."""
    if link is not None:
        await link_identity(work, provider, vouched, link)
        return pending.ends_at(linked=provider.name, iss=work.parts.settings.url)
    return await go_on(work, pending, await let_in(work, provider, vouched))


async def refuse_sign_in(
    request: HubRequest, provider: Provider, pending: PendingSignIn, refused: SignInRefused
) -> str:
    """On record, and told to whoever has begun the sign-in: where the browser goes."""
    detail = f"{refused.code} ({refused.detail})" if refused.detail else refused.code
    await record_refusal(request, provider, detail, user_id=refused.user_id)
    return error_address(request, pending, refused.code, refused.sentence)


async def record_refusal(request: HubRequest, provider: Provider, detail: str, *, user_id: UUID | None = None) -> None:
    """In the provider's tenant."""
    async with work_of_its_own(request) as work:
        work.move_to(provider.tenant_id)
        said = {"actor_id": user_id, "detail": f"{provider.manager}: {detail}"}
        work.audit("auth.login", "session", None, outcome="failure", **said)


def error_address(request: HubRequest, pending: PendingSignIn, code: str, sentence: str) -> str:
    return pending.ends_at(
        error=_ERRORS.get(code, "access_denied"),
        error_description=sentence,
        error_code=code,
        iss=request.parts.settings.url,
    )
