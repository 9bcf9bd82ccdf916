"""The rules about identity providers: what each kind needs, whose secret goes where, and what stays the operator's."""

from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.core.errors import BadRequest, Conflict, Fault
from app.core.event_names import EventName
from app.core.provider_settings import web_address_fault
from app.core.rows import Normaliser
from app.core.schemas import changes_of, single_spaced, to_struct
from app.domain.identity_providers.models import IdentityProvider
from app.domain.identity_providers.registry import shown_of_settings
from app.domain.identity_providers.repositories import IdentityProviderRepository
from app.domain.identity_providers.schemas import (
    IdentityProviderCreate,
    IdentityProviderEvent,
    IdentityProviderOut,
    IdentityProviderPatch,
    ProviderFields,
)
from app.domain.identity_providers.sealed import FIELD
from app.domain.work import UnitOfWork

READ: Final = "identity-providers:read"
WRITE: Final = "identity-providers:write"
MOST: Final = 20
"""Of one tenant: each is a button on its sign-in page."""
COLUMNS = Normaliser(
    ProviderFields,
    IdentityProviderPatch,
    IdentityProvider,
    IdentityProviderOut,
    rules={"label": lambda label: {"label": single_spaced(label)}},
    apart={"client_secret": "sealed, and shown as `has_client_secret`"},
)
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {"oidc": ("issuer", "client_id"), "saml": ()}
OF_OTHER_KIND: Final[Mapping[str, tuple[str, ...]]] = {
    "oidc": (
        "metadata_xml", "metadata_url", "attribute_email", "attribute_first_name", "attribute_last_name",
        "attribute_groups",
    ),
    "saml": ("issuer", "client_id", "groups_claim"),
}  # fmt: skip
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('identity providers of ' || CAST(:tenant AS text), 0))")


class IdentityProviderService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._providers = IdentityProviderRepository(work.session, tenant_id=work.tenant_id)

    async def create(self, new: IdentityProviderCreate) -> IdentityProviderOut:
        """Raises BadRequest for what its kind lacks or does not know, Conflict for a taken name, or one too many."""
        provider = IdentityProvider(
            id=uuid7(), **self._work.stamp(), kind=new.kind, name=new.name, **COLUMNS.columns_of_new(new)
        )
        self._seal(provider, new.client_secret)
        self._refuse_unfit(provider)
        await self._refuse_name_of_settings(new.name)
        await self._refuse_too_many()
        await self._providers.add(provider)
        self._record("create", "identity_provider.created", provider, after=event_of(provider))
        return shown_provider(provider)

    async def update(self, provider_id: UUID, patch: Any) -> IdentityProviderOut:
        """Raises BadRequest as `create` does, Conflict for one of the settings and for another issuer without the
        secret."""
        provider = await self._changeable(provider_id)
        self._work.require_match(provider.version)
        before, shown, issuer = event_of(provider), shown_provider(provider), provider.issuer
        changes, secret = COLUMNS.columns_of_changes(patch), changes_of(patch).get("client_secret", ...)
        is_changed = self._work.apply(provider, changes)
        if secret is not ...:
            self._seal(provider, secret)
            self._work.touch(provider)
        elif provider.issuer != issuer and provider.sealed is not None:
            fault = Fault("client_secret", "secret_reentry_required", "is needed again: the issuer is another one")
            raise Conflict(code="secret_reentry_required", errors=[fault])
        elif not is_changed:
            return shown
        self._refuse_unfit(provider)
        await self._providers.update(provider)
        self._record("update", "identity_provider.updated", provider, before=before, after=event_of(provider))
        return shown_provider(provider)

    async def delete(self, provider_id: UUID) -> None:
        """Nobody signs in by it any more; who is signed in stays so, and whom it vouched for stays known."""
        provider = await self._changeable(provider_id)
        self._work.require_match(provider.version)
        before = event_of(provider)
        await self._providers.delete(provider_id)
        self._work.audit("identity_provider.delete", "identity_provider", provider_id, before=before)
        self._work.announce("identity_provider.deleted", f"identity-providers/{provider_id}", {"id": str(provider_id)})

    def _seal(self, provider: IdentityProvider, secret: str | None) -> None:
        ring = self._work.parts.key_ring
        provider.sealed = provider.key_id = None
        if secret is not None:
            sealed = ring.seal(secret.encode(), tenant_id=self._work.tenant_id, row_id=provider.id, field=FIELD)
            provider.sealed, provider.key_id = sealed, ring.current_id

    def _refuse_unfit(self, provider: IdentityProvider) -> None:
        if faults := list(_faults(provider, is_development=self._work.parts.settings.is_development)):
            raise BadRequest(errors=faults)

    async def _changeable(self, provider_id: UUID) -> IdentityProvider:
        """Raises Conflict for one of the settings."""
        if any(each.id == provider_id for each in await shown_of_settings(self._work.parts, self._work.tenant_id)):
            raise Conflict(code="managed_by_settings")
        return await self._providers.get_one(id=provider_id, with_for_update=True)

    async def _refuse_name_of_settings(self, name: str) -> None:
        if any(each.name == name for each in await shown_of_settings(self._work.parts, self._work.tenant_id)):
            fault = Fault("name", "name_taken", "is the name of a provider of the hub's settings")
            raise Conflict("The hub's operator has a provider of this name.", code="name_taken", errors=[fault])

    async def _refuse_too_many(self) -> None:
        """One after the other: two at once would not see each other."""
        await self._work.session.execute(_LOCK, {"tenant": str(self._work.tenant_id)})
        if await self._providers.count() >= MOST:
            raise Conflict(code="too_many_providers")

    def _record(self, verb: str, event: EventName, provider: IdentityProvider, **shown: Any) -> None:
        self._work.audit(f"identity_provider.{verb}", "identity_provider", provider.id, **shown)
        self._work.announce(event, f"identity-providers/{provider.id}", event_of(provider))


def _faults(provider: IdentityProvider, *, is_development: bool) -> Iterator[Fault]:
    for name in NEEDED[provider.kind]:
        if getattr(provider, name) is None:
            yield Fault(name, "required", f"is needed for a provider of kind {provider.kind}")
    for name in OF_OTHER_KIND[provider.kind]:
        if getattr(provider, name) is not None:
            yield Fault(name, "not_allowed", f"means nothing for a provider of kind {provider.kind}")
    if provider.kind == "oidc" and provider.sealed is None:
        yield Fault("client_secret", "required", "is needed for a provider of kind oidc")
    if provider.kind == "saml" and provider.sealed is not None:
        yield Fault("client_secret", "not_allowed", "means nothing for a provider of kind saml")
    if provider.kind == "saml" and (provider.metadata_xml is None) == (provider.metadata_url is None):
        yield Fault("metadata_xml", "required", "or metadata_url is needed, and one of them only")
    for name in ("issuer", "metadata_url"):
        if (url := getattr(provider, name)) is not None:
            fault = web_address_fault(url, is_development=is_development)
            if fault is not None:
                yield Fault(name, "invalid", fault)


def shown_provider(provider: IdentityProvider) -> IdentityProviderOut:
    own: dict[str, Any] = {"managed_by": None, "has_client_secret": provider.sealed is not None}
    named = {name: getattr(provider, name) for name in IdentityProviderOut.__struct_fields__ if name not in own}
    return IdentityProviderOut(**named, **own)


def event_of(provider: IdentityProvider) -> IdentityProviderEvent:
    return to_struct(shown_provider(provider), IdentityProviderEvent)
