"""The sealer: takes what no earlier row can come in front of any more, and signs it, one chain for each tenant.

Rows, watermark, leaves, seals and their events are one transaction: a sealer that is killed leaves all of it or
nothing. One worker seals at a time (decision 0047).
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import to_builtins
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.core.signing_keys import SigningKey
from app.core.turns import keep_doing
from app.domain.parts import Parts
from app.domain.seals.merkle import root_of, split
from app.domain.seals.signing import NO_SEAL, Seal, public_pems, sign

log = logging.getLogger("hub.seals")

AT_ONCE: Final = 1024
"""Rows. A proof reads the hashes of all rows of its seal, and hashes them: a millisecond's work."""
EVERY_S: Final = 0.5
_TAKE = text("SELECT * FROM public.take_audit_rows(:most)")
_WRITE = text("SELECT public.write_audit_seals(:seals)")
_NOTE_KEY = text(
    """INSERT INTO sealing_keys (kid, public_key, first_used_at) VALUES (:kid, :public_key, now())
       ON CONFLICT (kid) DO NOTHING"""
)


async def keep_sealed(parts: Parts) -> None:
    """Until cancelled."""
    await keep_doing(
        lambda: seal_rows(parts),
        full=AT_ONCE,
        every_s=EVERY_S,
        log=log,
        put_off="the audit log is not sealed for now",
    )


async def seal_rows(parts: Parts, most: int = AT_ONCE, *, now: datetime | None = None) -> int:
    """The oldest rows that are not sealed; how many. None where another worker is at it."""
    current, *_ = parts.sealing_keys
    sealed_at = now or datetime.now(UTC)
    async with parts.sessions.begin(None) as session:
        ranges = (await session.execute(_TAKE, {"most": most})).all()
        if not ranges:
            return 0
        seals = [_seal_of(found, current, sealed_at) for found in ranges]
        for kid, pem in public_pems(parts.sealing_keys).items():
            await session.execute(_NOTE_KEY, {"kid": kid, "public_key": pem})
        await session.execute(_WRITE, {"seals": _json([_with_event(seal) for seal in seals])})
    return sum(seal.count for seal in seals)


def _seal_of(found: Any, key: SigningKey, sealed_at: datetime) -> Seal:
    unsigned = Seal(
        tenant_id=found.tenant,
        number=found.seal_number,
        first_position=found.first_at,
        last_position=found.last_at,
        first_id=found.first_event,
        last_id=found.last_event,
        count=found.last_at - found.first_at + 1,
        root=root_of(split(found.hashes)).hex(),
        previous_hash=found.previous or NO_SEAL,
        sealed_at=sealed_at,
        kid=key.kid,
    )
    return sign(unsigned, key)


def _with_event(seal: Seal) -> dict[str, object]:
    """The event `audit.sealed` is made of the seal where that is written, but for its id."""
    return {**to_builtins(seal), "event_id": uuid7()}


def _json(items: Sequence[object]) -> str:
    return msgspec.json.encode(items).decode()
