"""What a SAML provider says of itself: its metadata, from its file, its URL or its row.

From a URL it is had through the egress policy, anew every day, and when a signature does not fit: it may have a new
key. However many such responses come, it is asked for once a minute. The last copy that could be used is kept, in the
database as well, so that a provider that is away, or publishes nonsense, keeps nobody from signing in. What is at a URL
never becomes another provider: who somebody is hangs on the provider's id, and whoever publishes there could else say
the id of the tenant's other provider, and sign in as its people.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from app.core.database import Sessions
from app.core.egress import EgressPolicy, Lookup
from app.core.errors import BadRequest, Unavailable
from app.core.fetching import FetchFailed, fetch
from app.core.look_ups import LookUps
from app.core.provider_settings import ConfiguredProvider
from app.core.saml.memory import Known
from app.domain.identity_providers.registry import Provider
from app.domain.parts import Parts
from app.domain.saml.models import SamlMetadata
from app.domain.work import unit_of_work_of

if TYPE_CHECKING:
    from app.core.saml.metadata import IdentityProvider

log = logging.getLogger("hub.saml")

FRESH_S: Final = 86_400.0
ASKED_EVERY_S: Final = 60.0


async def their_side(parts: Parts, provider: Provider) -> IdentityProvider:
    """Raises Unavailable where there is no metadata that can be used, and BadRequest where it cannot be read."""
    if provider.metadata_url is not None:
        read = await _from_url(parts, provider, older_than_s=FRESH_S)
    elif provider.metadata_file is not None:
        read = await _from_file(parts, provider)
    else:
        read = await _from_text(parts, provider)
    if read.valid_until is not None and read.valid_until <= datetime.now(UTC):
        raise Unavailable("The identity provider's metadata has run out.", code="saml_metadata_unavailable")
    return read


async def their_new_side(parts: Parts, provider: Provider, known: IdentityProvider) -> IdentityProvider | None:
    """The metadata as it is now, where it is another one than that."""
    if provider.metadata_url is None:
        return None
    read = await _from_url(parts, provider, older_than_s=ASKED_EVERY_S)
    return None if read == known else read


async def metadata_now(egress: EgressPolicy, look_ups: LookUps, provider: ConfiguredProvider) -> IdentityProvider:
    """As it is there at this moment; nothing of it is kept. Raises FetchFailed, OSError, and BadRequest or ValueError
    where it cannot be read."""
    if provider.metadata_url is not None:
        document = await _fetched(egress, look_ups.of(provider.look_ups_of), provider.metadata_url)
        return await _read(document.encode())
    if provider.metadata_file is not None:
        return await _read(await asyncio.to_thread(provider.metadata_file.read_bytes))
    assert isinstance(provider, Provider)
    assert provider.metadata_xml is not None
    return await _read(provider.metadata_xml.encode())


async def _from_text(parts: Parts, provider: Provider) -> IdentityProvider:
    assert provider.metadata_xml is not None
    place = (provider.tenant_id, provider.id)
    known = parts.saml.metadata.get(place)
    if known is None or known.mark != provider.metadata_xml or known.read is None:
        read = await _read(provider.metadata_xml.encode())
        known = parts.saml.metadata[place] = Known(provider.metadata_xml, read)
    assert known.read is not None
    return known.read


async def _from_file(parts: Parts, provider: Provider) -> IdentityProvider:
    """Read again when it was changed. A file that is gone or broken leaves what it held before."""
    assert provider.metadata_file is not None
    place = (provider.tenant_id, provider.id)
    known = parts.saml.metadata.get(place)
    try:
        mark = (await asyncio.to_thread(provider.metadata_file.stat)).st_mtime_ns
        if known is None or known.mark != mark:
            document = await asyncio.to_thread(provider.metadata_file.read_bytes)
            known = parts.saml.metadata[place] = Known(mark, await _read(document))
    except (OSError, BadRequest) as error:
        log.warning("SAML metadata of %s of tenant %s: %s", provider.name, provider.tenant, type(error).__name__)
        if known is None or known.read is None:
            raise Unavailable(code="saml_metadata_unavailable") from None
    assert known.read is not None
    return known.read


async def _from_url(parts: Parts, provider: Provider, *, older_than_s: float) -> IdentityProvider:
    place = (provider.tenant_id, provider.id)
    async with parts.saml.locks[place]:
        known = parts.saml.metadata.get(place)
        if known is None or known.mark != provider.metadata_url:
            known = parts.saml.metadata[place] = await last_copy(parts.sessions, provider)
        now = time.time()
        if known.fetched_at + older_than_s <= now and known.asked_at + ASKED_EVERY_S <= now:
            known.asked_at = now
            await _ask(parts, provider, known)
    if known.read is None:
        raise Unavailable(code="saml_metadata_unavailable")
    return known.read


async def _ask(parts: Parts, provider: Provider, known: Known) -> None:
    """Whatever comes of it, what is known stays known."""
    try:
        assert provider.metadata_url is not None
        document = await _fetched(parts.egress, parts.look_ups.of(provider.look_ups_of), provider.metadata_url)
        read = await _read(document.encode())
        if known.read is not None and read.entity_id != known.read.entity_id:
            raise BadRequest("It is of another provider than before.", code="saml_bad_metadata")
    except (BadRequest, FetchFailed, UnicodeDecodeError) as error:
        reason = error.detail if isinstance(error, BadRequest) else str(error)
        log.warning("SAML metadata of %s of tenant %s: %s", provider.name, provider.tenant, reason)
        return
    if document != known.document:
        await _keep(parts, provider, document)
    known.read, known.document, known.fetched_at = read, document, time.time()


async def _fetched(egress: EgressPolicy, lookup: Lookup, url: str) -> str:
    headers = {"accept": "application/samlmetadata+xml, application/xml"}
    fetched = await fetch(url, egress, lookup, headers=headers)
    if fetched.status != 200:
        raise FetchFailed("http_error")
    return fetched.body.decode("utf-8")


async def last_copy(sessions: Sessions, provider: Provider) -> Known:
    """From the database, where there is one of this URL."""
    is_it = (SamlMetadata.tenant_id == provider.tenant_id, SamlMetadata.provider_id == provider.id)
    statement = select(SamlMetadata.document, SamlMetadata.fetched_at)
    async with sessions(provider.tenant_id) as session:
        found = (
            await session.execute(statement.where(*is_it, SamlMetadata.url == provider.metadata_url))
        ).one_or_none()
    if found is None:
        return Known(provider.metadata_url, None)
    read = await _read(found.document.encode())
    return Known(provider.metadata_url, read, found.document, found.fetched_at.timestamp())


async def _keep(parts: Parts, provider: Provider, document: str) -> None:
    async with unit_of_work_of(parts, tenant_id=provider.tenant_id) as work:
        said = {"url": provider.metadata_url, "document": document, "fetched_at": work.now}
        added = insert(SamlMetadata).values(id=uuid7(), tenant_id=provider.tenant_id, provider_id=provider.id, **said)
        await work.session.execute(added.on_conflict_do_update(constraint="saml_metadata_provider_key", set_=said))
        work.audit("saml_metadata.refresh", "identity_provider", provider.id)


async def _read(document: bytes) -> IdentityProvider:
    from app.core.saml.metadata import read_metadata

    return await asyncio.to_thread(read_metadata, document)
