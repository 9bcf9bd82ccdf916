"""Requests whose time is over are written down as expired, some at a time (`upkeep`). They are shown so before."""

from datetime import datetime

from sqlalchemy import text

from app.domain.parts import Parts
from app.domain.role_requests.endings import write_expired
from app.domain.work import unit_of_work_of

AT_ONCE = 100
"""In one transaction, of one tenant."""


async def expire_due(parts: Parts, _: datetime, most: int) -> int:
    """By the database's clock. At most so many; fewer, and none is left."""
    done = 0
    while done < most:
        async with parts.sessions(None) as session:
            tenant_id = await session.scalar(text("SELECT public.tenant_of_expired_role_request()"))
        if tenant_id is None:
            break
        async with unit_of_work_of(parts, tenant_id=tenant_id) as work:
            written = await write_expired(work, most=min(AT_ONCE, most - done))
        if written == 0:  # somebody else holds them
            break
        done += written
    return done
