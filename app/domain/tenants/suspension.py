"""Suspended tenants: what goes on for them ends within a second, and is not begun again before they are resumed."""

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Final, TypeVar
from uuid import UUID

from app.core.database import DATABASE_ERRORS
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.parts import Parts
from app.domain.tenants.repositories import suspended_among

log = logging.getLogger("hub.tenants")

LOOK_EVERY_S: Final = 0.5


Work = TypeVar("Work", bound=Hashable)


async def stop_suspended(
    parts: Parts, running: Callable[[], Mapping[Work, UUID]], stop: Callable[[Work], object]
) -> None:
    """Until cancelled: stop each piece of work whose tenant is suspended, once, so that it can tidy up undisturbed."""
    told: set[Work] = set()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        going_on = running()
        told &= going_on.keys()
        untold = {work: tenant_id for work, tenant_id in going_on.items() if work not in told}
        for work in await _suspended(parts, untold):
            told.add(work)
            stop(work)


async def _suspended(parts: Parts, going_on: Mapping[Work, UUID]) -> list[Work]:
    """The default tenant is never suspended."""
    tenant_ids = set(going_on.values()) - {DEFAULT_TENANT_ID}
    if not tenant_ids:
        return []
    try:
        async with parts.sessions(DEFAULT_TENANT_ID) as session:
            suspended = await suspended_among(session, tenant_ids)
    except DATABASE_ERRORS as error:
        log.warning("which tenants are suspended is not known: %s", type(error).__name__)
        return []
    return [work for work, tenant_id in going_on.items() if tenant_id in suspended]
