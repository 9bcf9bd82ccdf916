"""What providers say of themselves, and their keys (OpenID Connect Discovery): fetched when somebody signs in, and kept
for a while by each process.

    ProviderAway     the provider cannot be asked now, or answers what nobody can use
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from time import monotonic
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec
from msgspec import Struct

from app.core.egress import EgressPolicy, Lookup
from app.core.fetching import FetchFailed, fetch_object
from app.core.look_ups import LookUps
from app.core.provider_settings import ConfiguredProvider, web_address_fault
from app.domain.parts import Parts

log = logging.getLogger("hub.oidc")

KEPT_S: Final = 600.0
ASKED_AGAIN_S: Final = 60.0
"""For keys, where one is named that is not known: that often at most, and the first time at once."""
MOST_KEPT: Final = 256
MOST_KEYS: Final = 100
ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint")


class ProviderAway(Exception):
    """`reason` is for the log and the audit log."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


async def fetched(
    policy: EgressPolicy, lookup: Lookup, url: str, what: str, *, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The document there; `what` it is stands in the reason. Raises ProviderAway for anything else."""
    status, document = await asked(policy, lookup, url, what, headers=headers)
    if status != 200:
        raise ProviderAway(f"{what}: http_error {status}")
    return document


async def asked(
    policy: EgressPolicy,
    lookup: Lookup,
    url: str,
    what: str,
    *,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """As `fetch_object`. Raises ProviderAway."""
    try:
        return await fetch_object(url, policy, lookup, form=form, headers=headers)
    except FetchFailed as error:
        raise ProviderAway(f"{what}: {error.reason}") from None


class ProviderMetadata(Struct, frozen=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class _Known(Struct):
    metadata: ProviderMetadata
    until: float
    keys: list[dict[str, Any]] | None = None
    keys_until: float = 0.0
    asked_again_at: float | None = None
    """When the keys were last fetched because one was not among them."""


class Discovery:
    """By issuer. What is not there is asked for once in a tenant, however many wait for it: another tenant's look-ups
    may stand in line, and who has the same provider does not wait for those."""

    def __init__(self, egress: EgressPolicy, look_ups: LookUps, *, is_development: bool) -> None:
        self._egress, self._look_ups = egress, look_ups
        self._is_development = is_development
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: WeakValueDictionary[tuple[Hashable, str], asyncio.Lock] = WeakValueDictionary()

    async def metadata_of(self, provider: ConfiguredProvider) -> ProviderMetadata:
        """Raises ProviderAway."""
        return (await self._of(provider)).metadata

    async def keys_of(self, provider: ConfiguredProvider) -> list[dict[str, Any]]:
        """Raises ProviderAway."""
        known = await self._of(provider)
        async with self._lock(provider):
            if known.keys is None or known.keys_until <= monotonic():
                await self._fetch_keys(known, self._lookup_of(provider))
            assert known.keys is not None
            return known.keys

    async def newer_keys_of(self, provider: ConfiguredProvider) -> list[dict[str, Any]] | None:
        """Where one is not among them, or does not fit any more; None where they were asked for a moment ago."""
        known = await self._of(provider)
        async with self._lock(provider):
            now = monotonic()
            if known.asked_again_at is not None and now - known.asked_again_at < ASKED_AGAIN_S:
                return None
            known.asked_again_at = now
            await self._fetch_keys(known, self._lookup_of(provider))
            return known.keys

    def _lock(self, provider: ConfiguredProvider) -> asyncio.Lock:
        return self._asking.setdefault((provider.look_ups_of, provider.issuer or ""), asyncio.Lock())

    def _lookup_of(self, provider: ConfiguredProvider) -> Lookup:
        return self._look_ups.of(provider.look_ups_of)

    async def _of(self, provider: ConfiguredProvider) -> _Known:
        issuer = provider.issuer or ""
        async with self._lock(provider):
            known = self._known.get(issuer)
            if known is None or known.until <= monotonic():
                metadata = await self._fetch_metadata(issuer, self._lookup_of(provider))
                if known is None or known.metadata != metadata:
                    known = _Known(metadata, 0.0)
                known.until = monotonic() + KEPT_S
                self._keep(issuer, known)
            return known

    def _keep(self, issuer: str, known: _Known) -> None:
        self._known[issuer] = known
        self._known.move_to_end(issuer)
        while len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)

    async def _fetch_metadata(self, issuer: str, lookup: Lookup) -> ProviderMetadata:
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        document = await fetched(self._egress, lookup, url, "discovery")
        try:
            metadata = msgspec.convert(document, ProviderMetadata)
        except msgspec.ValidationError:
            raise ProviderAway("discovery: malformed") from None
        if metadata.issuer != issuer:  # section 4.3: exactly
            raise ProviderAway("discovery: issuer_differs")
        for name in ENDPOINTS:
            url = getattr(metadata, name)
            if url is not None and web_address_fault(url, is_development=self._is_development) is not None:
                raise ProviderAway(f"discovery: {name} is not https")
        return metadata

    async def _fetch_keys(self, known: _Known, lookup: Lookup) -> None:
        document = await fetched(self._egress, lookup, known.metadata.jwks_uri, "keys")
        found = document.get("keys")
        if not isinstance(found, list) or len(found) > MOST_KEYS:
            raise ProviderAway("keys: malformed")
        known.keys = [key for key in found if isinstance(key, dict)]
        known.keys_until = monotonic() + KEPT_S


KNOWN_BY_HUB: "WeakKeyDictionary[Parts, Discovery]" = WeakKeyDictionary()


def discovery_of(parts: Parts) -> Discovery:
    """The one of this hub."""
    found = KNOWN_BY_HUB.get(parts)
    if found is None:
        found = KNOWN_BY_HUB[parts] = Discovery(
            parts.egress, parts.look_ups, is_development=parts.settings.is_development
        )
    return found
