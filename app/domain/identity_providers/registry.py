"""All identity providers of a tenant, wherever they are kept: as they are looked up, and as they are shown.

Those of the operator's variables and those of the tenant's admins have one form here (`Provider`), which knows its
secret; no name is given twice within a tenant.
"""

from collections.abc import Hashable, Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID, uuid5

from msgspec.structs import asdict
from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.across_tenants import tenant_of_slug
from app.core.provider_settings import ConfiguredProvider, ProviderKind
from app.core.sealing import KeyRing, SealingError
from app.domain.identity_providers.models import IdentityProvider
from app.domain.identity_providers.repositories import PROVIDER, PROVIDERS
from app.domain.identity_providers.schemas import IdentityProviderOut, ProviderOut
from app.domain.identity_providers.sealed import FIELD
from app.domain.parts import Parts
from app.domain.requests import HubRequest
from app.settings import Settings

DEFAULT_SLUG: Final = "default"
SHOWN_SINCE: Final = datetime.now(UTC)
"""Providers of the settings are as old as this process."""


class Provider(ConfiguredProvider, frozen=True, kw_only=True):
    """One identity provider of one tenant, of the settings or of its admins. Its `client_secret` is None, too, where no
    key opens it any more."""

    id: UUID
    tenant_id: UUID
    tenant: str
    """Its slug."""
    metadata_xml: str | None = None
    is_of_settings: bool = False

    @property
    def look_ups_of(self) -> Hashable:
        """The tenant's, whose admins may name what they like."""
        return super().look_ups_of if self.is_of_settings else self.tenant_id

    @property
    def manager(self) -> str:
        """What the groups that it keeps say of who manages them."""
        return f"{self.kind}:{self.name}"

    def address(self, settings: Settings, step: str) -> str:
        """Where the hub itself takes a step of a sign-in by it, as browsers and the provider know it."""
        return _address(settings, self.kind, self.name, step)

    def own_address(self, settings: Settings, step: str) -> str:
        """The same as no other provider has it, for providers of several tenants may have one name: of another tenant
        than the default one it says which."""
        address = self.address(settings, step)
        return address if self.tenant == DEFAULT_SLUG else f"{address}?{urlencode({'tenant': self.tenant})}"


def _address(settings: Settings, kind: ProviderKind, name: str, step: str) -> str:
    return f"{settings.url.rstrip('/')}/api/v1/auth/{kind}/{name}/{step}"


def tenant_meant(request: HubRequest, given: str | None) -> str:
    """The slug that the request names, or its host; or else the default tenant's."""
    if given is not None:
        return given
    return request.parts.settings.slug_by_host.get(request.exchange.host_name, DEFAULT_SLUG)


async def provider_named(
    parts: Parts, kind: ProviderKind, name: str, slug: str, *, also_inactive: bool = False
) -> Provider | None:
    """None for one that is not there or not active, of a tenant that is not there or suspended. `also_inactive` is for
    what a provider says of sessions that it has opened before."""
    tenant_id = await tenant_of_slug(parts.reads, slug)
    if tenant_id is None:
        return None
    for configured in _configured_for(parts.settings, slug):
        if (configured.kind, configured.name) == (kind, name):
            return _of_settings(configured, tenant_id)
    statement = _NAMED if also_inactive else _NAMED_ACTIVE
    rows = await parts.reads.rows(statement, {"tenant_id": tenant_id, "kind": kind, "name": name})
    return _kept(parts.key_ring, rows[0], slug) if rows else None


def _configured_for(settings: Settings, slug: str) -> Iterator[ConfiguredProvider]:
    return (provider for provider in settings.providers if provider.tenant == slug)


def _of_settings(configured: ConfiguredProvider, tenant_id: UUID) -> Provider:
    return Provider(**asdict(configured), id=_id_of(configured), tenant_id=tenant_id, is_of_settings=True)


def _id_of(configured: ConfiguredProvider) -> UUID:
    """The same in every process and after every start."""
    return uuid5(UUID(int=0), f"{configured.kind}/{configured.tenant}/{configured.name}")


_KEPT = (*(name for name in Provider.__struct_fields__ if name in IdentityProvider.__table__.columns), "sealed")
_OF_TENANT = IdentityProvider.tenant_id == bindparam("tenant_id", type_=IdentityProvider.tenant_id.type)
_ALL: Any = select(*(getattr(IdentityProvider, name) for name in _KEPT)).where(_OF_TENANT)
_NAMED = _ALL.where(
    IdentityProvider.kind == bindparam("kind", type_=IdentityProvider.kind.type),
    IdentityProvider.name == bindparam("name", type_=IdentityProvider.name.type),
)
_NAMED_ACTIVE = _NAMED.where(IdentityProvider.is_active)
_ACTIVE = _ALL.where(IdentityProvider.is_active).order_by(IdentityProvider.name)


async def active_providers(
    session: AsyncSession, ring: KeyRing, settings: Settings, tenant_id: UUID, slug: str
) -> list[Provider]:
    """All by which the members of a tenant can sign in. `session` is in the tenant."""
    rows = await session.execute(_ACTIVE, {"tenant_id": tenant_id})
    kept = [_kept(ring, tuple(row), slug) for row in rows]
    return [*(_of_settings(each, tenant_id) for each in _configured_for(settings, slug)), *kept]


def _kept(ring: KeyRing, row: tuple[Any, ...], slug: str) -> Provider:
    said = dict(zip(_KEPT, row, strict=True))
    sealed = said.pop("sealed")
    said |= {name: tuple(said[name]) for name in ("scopes", "allowed_domains")}
    secret = _opened(ring, sealed, said["tenant_id"], said["id"]) if sealed is not None else None
    return Provider(**said, tenant=slug, client_secret=secret)


def _opened(ring: KeyRing, sealed: bytes, tenant_id: UUID, row_id: UUID) -> str | None:
    try:
        return ring.open(sealed, tenant_id=tenant_id, row_id=row_id, field=FIELD).decode()
    except SealingError:
        return None


# As they are shown ----------------------------------------------------------------------------------------------------


_BUTTONS = select(IdentityProvider.name, IdentityProvider.kind, IdentityProvider.label).where(
    _OF_TENANT, IdentityProvider.is_active
)


_NO_TENANT: Final = UUID(int=0)


async def ways_to_sign_in(parts: Parts, slug: str, **parameters: str) -> list[ProviderOut]:
    """Those of a tenant that are active, by their labels; `parameters` go along. None of a tenant that is not there or
    suspended, which is told after the same time: only by its buttons shows that a tenant is there."""
    tenant_id = await tenant_of_slug(parts.reads, slug)
    found = await parts.reads.rows(_BUTTONS, {"tenant_id": tenant_id or _NO_TENANT})
    if tenant_id is None:
        return []
    found += [(each.name, each.kind, each.label) for each in _configured_for(parts.settings, slug)]
    found.sort(key=lambda button: (button[2].casefold(), button[0]))
    return [
        ProviderOut(name, kind, label, login_url(parts.settings, kind, name, slug, **parameters))
        for name, kind, label in found
    ]


def login_url(settings: Settings, kind: ProviderKind, name: str, slug: str, **parameters: str) -> str:
    """Where a sign-in by it begins; the caller adds where it is to end."""
    given = parameters | ({} if slug == DEFAULT_SLUG else {"tenant": slug})
    address = _address(settings, kind, name, "login")
    return f"{address}?{urlencode(given)}" if given else address


async def shown_providers(parts: Parts, tenant_id: UUID) -> dict[str, IdentityProviderOut]:
    """Every one of the tenant by its name, active or not."""
    rows = await parts.reads.rows(PROVIDERS, {"tenant_id": tenant_id})
    shown = [IdentityProviderOut(*row) for row in rows]
    return {each.name: each for each in (*await shown_of_settings(parts, tenant_id), *shown)}


async def shown_by_id(parts: Parts, tenant_id: UUID, provider_id: UUID) -> IdentityProviderOut:
    """Raises NotFound."""
    for each in await shown_of_settings(parts, tenant_id):
        if each.id == provider_id:
            return each
    return await parts.reads.one(PROVIDER, IdentityProviderOut, id=provider_id, tenant_id=tenant_id)


async def shown_of_settings(parts: Parts, tenant_id: UUID) -> list[IdentityProviderOut]:
    slugs = {provider.tenant for provider in parts.settings.providers}
    own = {slug for slug in slugs if await tenant_of_slug(parts.reads, slug) == tenant_id}
    return [_shown(provider) for provider in parts.settings.providers if provider.tenant in own]


def _shown(configured: ConfiguredProvider) -> IdentityProviderOut:
    entity = {
        "id": _id_of(configured),
        "created_at": SHOWN_SINCE,
        "updated_at": SHOWN_SINCE,
        "created_by": None,
        "updated_by": None,
        "version": 1,
    }
    own = {
        "is_active": True,
        "managed_by": "settings",
        "has_client_secret": configured.client_secret is not None,
        "scopes": list(configured.scopes),
        "allowed_domains": list(configured.allowed_domains),
        "metadata_xml": None,
    }
    named = {name: value for name, value in asdict(configured).items() if name in IdentityProviderOut.__struct_fields__}
    return IdentityProviderOut(**(named | entity | own))
