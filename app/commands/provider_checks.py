"""What `hub check` says of identity providers: whether somebody could be sent to each of them now. It goes there as a
sign-in does, by the egress policy, and keeps nothing of what it is told."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from app.commands.findings import Finding, Verdict
from app.core import saml
from app.core.database import Sessions, enter_tenant
from app.core.egress import EgressPolicy
from app.core.errors import BadRequest, Conflict
from app.core.fetching import FetchFailed
from app.core.look_ups import LookUps
from app.core.provider_settings import ConfiguredProvider
from app.core.saml.memory import Known
from app.core.sealing import KeyRing
from app.domain.identity_providers.registry import DEFAULT_SLUG, Provider, active_providers
from app.domain.oidc.discovery import Discovery, ProviderAway
from app.domain.oidc.tokens import of_use
from app.domain.parts import egress_policy
from app.domain.saml.own_side import open_key, stored_key
from app.domain.saml.their_side import last_copy, metadata_now
from app.domain.tenants.repositories import known_tenants
from app.settings import Settings

if TYPE_CHECKING:
    from app.core.saml.metadata import IdentityProvider

PATIENCE_S: Final = 10.0
"""For each provider, whatever is fetched from there."""
AT_ONCE: Final = 8
LOST: Final = "opens with no key of the ring: bring the key back"
_DOCUMENTS: Final = {"discovery": "its discovery document", "keys": "its keys"}
_REASONS: Final = {
    "issuer_differs": "it names another issuer",
    "egress_refused": "the egress policy lets the hub not go there: HUB_EGRESS_ALLOW",
}
"""Of those that their names do not explain."""

Said = list[tuple[Verdict, str]]


class Case(Struct, kw_only=True):
    """A provider, and what the database says of it."""

    provider: ConfiguredProvider
    problems: list[str] = []
    copy: Known | None = None
    """Of SAML metadata at a URL."""


def of_settings(settings: Settings) -> list[Case]:
    """Where the database cannot be asked."""
    return [Case(provider=provider) for provider in settings.providers]


async def of_database(settings: Settings, sessions: Sessions, ring: KeyRing) -> list[Case]:
    """All that are active, of the settings and of every tenant that is not suspended."""
    async with sessions(None) as session:
        tenants = await known_tenants(session)
        found: list[Provider] = []
        for tenant in tenants:
            if tenant.is_active:
                await enter_tenant(session, tenant.id)
                found += await active_providers(session, ring, settings, tenant.id, tenant.slug)
    lost = _of_no_tenant(settings, {tenant.slug for tenant in tenants})
    return [*lost, *[await _case_of(provider, sessions, ring) for provider in found]]


def _of_no_tenant(settings: Settings, slugs: set[str]) -> Iterator[Case]:
    for provider in settings.providers:
        if provider.tenant not in slugs:
            yield Case(provider=provider, problems=[f"there is no tenant {provider.tenant}"])


async def _case_of(provider: Provider, sessions: Sessions, ring: KeyRing) -> Case:
    case = Case(provider=provider)
    if provider.kind == "oidc":
        if provider.client_secret is None:
            case.problems.append(f"its client secret {LOST}, or have the tenant's admins enter it again")
        return case
    row = await stored_key(sessions, provider)
    try:
        if row is not None:
            open_key(ring, provider, row)
    except Conflict:
        case.problems.append(f"the hub's own key to it {LOST}")
    if saml.is_installed() and provider.metadata_url is not None:
        with suppress(BadRequest):  # a release before may have read what this one does not
            case.copy = await last_copy(sessions, provider)
    return case


async def examine(settings: Settings, cases: list[Case]) -> list[Finding]:
    """Side by side: those that keep silent cost no more time than one, up to so many."""
    policy, look_ups, places = egress_policy(settings), LookUps(AT_ONCE, share=AT_ONCE), asyncio.Semaphore(AT_ONCE)
    discovery = Discovery(policy, look_ups, is_development=settings.is_development)

    async def one(case: Case) -> list[Finding]:
        async with places:
            said = await _asked(case, policy, look_ups, discovery)
        told: Said = [*(("wrong", problem) for problem in case.problems), *said]
        return [Finding(verdict, _subject(case.provider), _plain(sentence)) for verdict, sentence in told]

    return [finding for found in await asyncio.gather(*map(one, cases)) for finding in found]


def _subject(provider: ConfiguredProvider) -> str:
    whose = "" if provider.tenant == DEFAULT_SLUG else f" of {provider.tenant}"
    return f"identity provider {provider.name}{whose}"


def _plain(sentence: str) -> str:
    """An address may hold signs that a terminal obeys: tenants' admins write them."""
    return "".join(sign if sign.isprintable() else "?" for sign in sentence)


async def _asked(case: Case, policy: EgressPolicy, look_ups: LookUps, discovery: Discovery) -> Said:
    try:
        async with asyncio.timeout(PATIENCE_S):
            if case.provider.kind == "oidc":
                return await _asked_openid(case.provider, discovery)
            return await _asked_saml(case, policy, look_ups)
    except TimeoutError:
        return [("wrong", f"{_place_of(case.provider)} did not answer within {PATIENCE_S:g} s{_meanwhile(case)}")]


def _place_of(provider: ConfiguredProvider) -> str:
    """Without the query of an address, which may hold a key."""
    url = provider.issuer or (provider.metadata_url or "").partition("?")[0]
    return str(url or provider.metadata_file or "its metadata")


# OpenID Connect -------------------------------------------------------------------------------------------------------


async def _asked_openid(provider: ConfiguredProvider, discovery: Discovery) -> Said:
    try:
        keys = of_use(await discovery.keys_of(provider))
    except ProviderAway as away:
        what, _, reason = away.reason.partition(": ")
        return [("wrong", f"{provider.issuer}: {_DOCUMENTS[what]} cannot be used ({_in_words(reason)})")]
    if not keys:
        return [("wrong", f"{provider.issuer} publishes no key that the hub can check with: nobody signs in by it")]
    return [("right", f"{provider.issuer} answers, and its keys can be fetched: {len(keys)}")]


def _in_words(reason: str) -> str:
    return _REASONS.get(reason, reason.replace("_", " "))


# SAML -----------------------------------------------------------------------------------------------------------------


async def _asked_saml(case: Case, policy: EgressPolicy, look_ups: LookUps) -> Said:
    if not saml.is_installed():
        return [("wrong", "sign-in by SAML needs the extra `saml`: install data-fusion-hub[saml]")]
    place = _place_of(case.provider)
    try:
        read = await metadata_now(policy, look_ups, case.provider)
    except FetchFailed as failed:
        return [("wrong", f"{place} cannot be fetched ({_in_words(failed.reason)}){_meanwhile(case)}")]
    except BadRequest as error:
        return [("wrong", f"{place}: {error.detail}{_meanwhile(case)}")]
    except (OSError, ValueError) as error:
        return [("wrong", f"{place} cannot be read ({type(error).__name__}){_meanwhile(case)}")]
    if case.copy is not None and case.copy.read is not None and case.copy.read.entity_id != read.entity_id:
        return [("wrong", f"{place} is of another provider than before{_meanwhile(case)}")]
    if read.valid_until is not None and read.valid_until <= datetime.now(UTC):
        return [("wrong", f"{place} ran out on {read.valid_until:%Y-%m-%d}: nobody signs in by it")]
    return [("right", f"{place} can be read; certificates to sign with: {len(read.certificates)}"), *_run_out(read)]


def _meanwhile(case: Case) -> str:
    if case.copy is None or case.copy.read is None:
        return ""
    fetched_at = datetime.fromtimestamp(case.copy.fetched_at, UTC)
    return f"; the copy of {fetched_at:%Y-%m-%d %H:%M} UTC is used meanwhile"


def _run_out(read: "IdentityProvider") -> Said:
    """It keeps nobody from signing in: whether a key is trusted is for the metadata to say."""
    now = datetime.now(UTC)
    ends = [each.not_valid_after_utc for each in read.certificates if each.not_valid_after_utc <= now]
    return [
        ("note", f"a certificate that it signs with expired on {end:%Y-%m-%d}: ask whether the key is still its own")
        for end in ends
    ]
