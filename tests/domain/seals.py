"""Sealing in tests, where no worker does it."""

import asyncio

import asyncpg

from app.domain.seals.sealing import seal_rows
from app.runtime import load_sealing_keys
from tests.conftest import Hub

UNSEALED = """
    SELECT EXISTS (SELECT FROM audit_events AS event WHERE NOT EXISTS (
      SELECT FROM audit_leaves AS leaf WHERE leaf.tenant_id = event.tenant_id AND leaf.event_id = event.id))"""


async def seal_all(hub: Hub) -> int:
    """Whatever is committed, also where somebody else in the cluster has a transaction open for a moment. How many."""
    hub.parts.sealing_keys = hub.parts.sealing_keys or load_sealing_keys(hub.settings)
    owner, done = await asyncpg.connect(hub.owner_url), 0
    async with asyncio.timeout(30):
        while await owner.fetchval(UNSEALED):
            sealed = await seal_rows(hub.parts)
            done += sealed
            if not sealed:
                await asyncio.sleep(0.02)
    await owner.close()
    return done
