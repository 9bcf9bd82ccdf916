"""What is under way between two requests of a sign-in or a step-up: kept by the client, sealed, and worth something
once."""

import secrets
import time
from typing import Literal
from uuid import UUID

from msgspec import Struct, field

from app.core.sealed_values import seal, unseal
from app.core.sealing import KeyRing
from app.domain.spent.services import moment_of
from app.domain.spent.services import spend as spend_once
from app.domain.work import UnitOfWork

LIVES_S = 300
Purpose = Literal["mfa", "passkey", "step-up"]


class Challenge(Struct, frozen=True, kw_only=True, omit_defaults=True):
    user_id: UUID | None = None
    """None where it is not known yet who signs in."""
    tenant_id: UUID | None = None
    version: int = 0
    """Of the user, when their password was checked."""
    amr: tuple[str, ...] = ()
    """What they have shown already."""
    session_id: UUID | None = None
    """Of a step-up."""
    challenge: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    """For a passkey to sign."""
    expires_at: int = field(default_factory=lambda: int(time.time()) + LIVES_S)
    """In seconds since 1970."""

    def sealed(self, ring: KeyRing, purpose: Purpose) -> str:
        return seal(ring, f"factors.{purpose}", self)


def opened(ring: KeyRing, purpose: Purpose, token: str | None) -> Challenge | None:
    """None for what was not sealed for this purpose, and for what is over."""
    found = unseal(ring, f"factors.{purpose}", token, Challenge) if token else None
    return found if found is not None and found.expires_at > time.time() else None


async def spend(work: UnitOfWork, challenge: Challenge) -> bool:
    """False where it was spent before, by another worker at this moment, too."""
    return await spend_once(work, "factor", challenge.challenge, moment_of(challenge.expires_at))
