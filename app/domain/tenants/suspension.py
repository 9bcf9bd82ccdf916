"""Suspended tenants: what workers do for them ends within a second, and is not begun again before they are resumed."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID
from weakref import WeakSet

from app.core.database import DATABASE_ERRORS
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.parts import Parts
from app.domain.tenants.repositories import suspended_among

log = logging.getLogger("hub.tenants")

LOOK_EVERY_S: Final = 0.5


async def stop_suspended(parts: Parts, running: "Callable[[], Mapping[asyncio.Task[None], UUID]]") -> None:
    """Until cancelled: cancel each task whose tenant is suspended, once, so that it can tidy up undisturbed."""
    told: WeakSet[asyncio.Task[None]] = WeakSet()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        going_on = {task: tenant_id for task, tenant_id in running().items() if task not in told}
        if not going_on:
            continue
        try:
            async with parts.sessions(DEFAULT_TENANT_ID) as session:
                suspended = await suspended_among(session, set(going_on.values()))
        except DATABASE_ERRORS as error:
            log.warning("which tenants are suspended is not known: %s", type(error).__name__)
            continue
        for task, tenant_id in going_on.items():
            if tenant_id in suspended:
                told.add(task)
                task.cancel()
