"""Rows of the audit log that are older than HUB_AUDIT_DAYS, removed from the beginning of each chain, seal by seal.

The seals stay, and so does the proof that it was the hub: a signed row of the log tells which seals have no rows any
more (`openspec/specs/audit-log`).
"""

from datetime import datetime, timedelta

from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.domain.parts import Parts
from app.domain.seals.signing import Drop, signature_of

_DUE = text("SELECT * FROM public.audit_rows_to_drop(:before, :most)")
_DROP = text("SELECT public.drop_audit_rows(:tenant, :last_seal, :record, :kid, :signature)")


async def drop_old_rows(parts: Parts, now: datetime, most: int) -> int:
    """About so many rows; fewer, and no old ones are left."""
    done = 0
    while done < most and parts.settings.audit_days and parts.sealing_keys:
        dropped = await _drop_some(parts, now - timedelta(days=parts.settings.audit_days), most - done)
        if not dropped:
            break
        done += dropped
    return done


async def _drop_some(parts: Parts, before: datetime, most: int) -> int:
    """Of one tenant."""
    key = parts.sealing_keys[0]
    async with parts.sessions.begin(None) as session:
        due = (await session.execute(_DUE, {"before": before, "most": most})).one_or_none()
        if due is None:
            return 0
        drop = Drop(due.tenant, due.last_seal, due.last_position, due.hash)
        told = {"record": uuid7(), "kid": key.kid, "signature": signature_of(drop.signed(), key)}
        dropped: int = await session.scalar(_DROP, {"tenant": due.tenant, "last_seal": due.last_seal, **told})
    return dropped
