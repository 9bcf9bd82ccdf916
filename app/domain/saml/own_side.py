"""What the hub is to a SAML provider: its id there, where it takes responses, and its key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from app.core.database import Sessions
from app.core.errors import Conflict, Unavailable
from app.core.saml import is_installed
from app.core.sealing import KeyRing, SealingError
from app.domain.identity_providers.registry import Provider
from app.domain.parts import Parts
from app.domain.saml.models import SamlKey
from app.domain.saml.sealed import FIELD
from app.domain.work import unit_of_work_of

if TYPE_CHECKING:
    from app.core.saml.keys import ProviderKey
    from app.core.saml.metadata import ServiceProvider

StoredKey = Row[tuple[UUID, bytes, bytes]]
"""Id, sealed key and certificate."""


def require_packages() -> None:
    """Raises Unavailable where the extra `saml` is not installed."""
    if not is_installed():
        raise Unavailable(code="saml_not_installed")


async def own_side(parts: Parts, provider: Provider) -> ServiceProvider:
    """Raises Conflict where no key of the ring opens our key any more."""
    from app.core.saml.metadata import ServiceProvider

    settings = parts.settings
    key = await _own_key(parts, provider)
    return ServiceProvider(provider.own_address(settings, "metadata"), provider.own_address(settings, "acs"), key)


async def _own_key(parts: Parts, provider: Provider) -> ProviderKey:
    place = (provider.tenant_id, provider.id)
    if (known := parts.saml.keys.get(place)) is not None:
        return known
    async with parts.saml.locks[place]:
        row = await stored_key(parts.sessions, provider) or await _made(parts, provider)
        return parts.saml.keys.setdefault(place, open_key(parts.key_ring, provider, row))


def open_key(ring: KeyRing, provider: Provider, row: StoredKey) -> ProviderKey:
    """Raises Conflict where no key of the ring opens it."""
    from app.core.saml.keys import read_key

    try:
        private = ring.open(row.sealed, tenant_id=provider.tenant_id, row_id=row.id, field=FIELD)
    except SealingError:
        raise Conflict(code="secret_unreadable") from None
    return read_key(private, row.certificate)


async def stored_key(sessions: Sessions, provider: Provider) -> StoredKey | None:
    """None for a provider by which nobody has signed in yet."""
    statement = select(SamlKey.id, SamlKey.sealed, SamlKey.certificate)
    async with sessions(provider.tenant_id) as session:
        found = await session.execute(
            statement.where(SamlKey.tenant_id == provider.tenant_id, SamlKey.provider_id == provider.id)
        )
        return found.one_or_none()


async def _made(parts: Parts, provider: Provider) -> Row[tuple[UUID, bytes, bytes]]:
    """Whoever comes first makes the key for all processes."""
    from app.core.saml.keys import new_key

    made = await asyncio.to_thread(new_key, provider.name[:64])
    row_id, ring = uuid7(), parts.key_ring
    async with unit_of_work_of(parts, tenant_id=provider.tenant_id) as work:
        row = {
            "id": row_id,
            "tenant_id": provider.tenant_id,
            "provider_id": provider.id,
            "certificate": made.certificate,
            "sealed": ring.seal(made.private, tenant_id=provider.tenant_id, row_id=row_id, field=FIELD),
            "key_id": ring.current_id,
            "created_at": work.now,
        }
        added = insert(SamlKey).values(row).on_conflict_do_nothing().returning(SamlKey.id)
        if await work.session.scalar(added) is not None:
            work.audit("saml_key.create", "identity_provider", provider.id)
    stored = await stored_key(parts.sessions, provider)
    assert stored is not None
    return stored
