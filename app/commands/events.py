"""`hub events redeliver`."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.commands.admin import act_in
from app.commands.database import CommandFailed, database
from app.settings import Settings

if TYPE_CHECKING:
    from app.domain.parts import Parts
    from app.domain.redelivery.schemas import Redelivery

AT_ONCE = 5000


def redeliver(
    settings: Settings, tenant: str | None, begins_at: datetime, ends_at: datetime, event_type: str | None
) -> int:
    from app.core.errors import HubError
    from app.domain.redelivery.schemas import Redelivery

    wish = Redelivery(begins_at=begins_at, ends_at=ends_at, type=event_type)
    try:
        with database(settings) as target:
            count = asyncio.run(act_in(settings, target.app_url, lambda parts: _redeliver(parts, tenant, wish)))
    except (CommandFailed, HubError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{count} events are published again, as soon as a worker runs whose destinations are set.")
    return 0


async def _redeliver(parts: "Parts", slug: str | None, wish: "Redelivery") -> int:
    """In each tenant some at a time, with a row in its audit log."""
    from app.core.across_tenants import tenant_ids
    from app.core.tenancy import DEFAULT_TENANT_ID
    from app.domain.redelivery.services import publish_again, record
    from app.domain.tenants.repositories import id_of_slug
    from app.domain.work import unit_of_work_of

    async with parts.sessions(DEFAULT_TENANT_ID) as session:
        wanted = await tenant_ids(session) if slug is None else [await id_of_slug(session, slug)]
    asked_at, total = datetime.now(UTC), 0
    for tenant_id in wanted:
        found = AT_ONCE
        while found == AT_ONCE:
            async with unit_of_work_of(parts, tenant_id=tenant_id) as work:
                found = await publish_again(work, wish, asked_at, AT_ONCE)
                if found:
                    record(work, wish, found)
            total += found
    return total
