"""Whether what somebody shows is one of their factors. Each shows once: of parallel uses of one, one wins."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy import delete, exists, update

from app.core.sealing import SealingError
from app.domain.auth.sessions import Method
from app.domain.factors import one_time, passkeys, recovery
from app.domain.factors.challenges import Challenge, spend
from app.domain.factors.models import Factor, RecoveryCode
from app.domain.factors.repositories import NO_SYNC, confirmed
from app.domain.factors.schemas import Credential, FactorMethod
from app.domain.factors.sealed import FIELD
from app.domain.work import UnitOfWork


class Given(Struct, frozen=True):
    method: FactorMethod
    code: str | None = None
    credential: Credential | None = None


async def shown_factor(
    work: UnitOfWork, user_id: UUID, given: Given, challenge: Challenge | None
) -> Sequence[Method] | None:
    """What it adds to what was shown before; None where it is not right. The user's row is locked."""
    if given.method == "webauthn":
        return await _shown_passkey(work, user_id, given.credential, challenge)
    if given.code is None:
        return None
    if given.method == "totp":
        return ("otp", "mfa") if await _takes_code(work, user_id, given.code) else None
    return ("kba", "mfa") if await _takes_recovery_code(work, user_id, given.code) else None


async def _takes_code(work: UnitOfWork, user_id: UUID, code: str) -> bool:
    for factor in await confirmed(work.session, user_id, "totp"):
        step = step_of(work, factor, code)
        if step is not None and await take_step(work, factor.id, step):
            return True
    return False


def step_of(work: UnitOfWork, factor: Factor, code: str) -> int | None:
    """None as well where no key of the ring opens the secret any more."""
    try:
        secret = work.parts.key_ring.open(
            factor.sealed or b"", tenant_id=factor.tenant_id, row_id=factor.id, field=FIELD
        )
    except SealingError:
        return None
    return one_time.step_of(secret.decode(), code.replace(" ", ""), work.now.timestamp())


async def take_step(work: UnitOfWork, factor_id: UUID, step: int) -> bool:
    """False for a step of which, or of a later one, a code was taken (RFC 6238 section 5.2)."""
    return await _note(work, (Factor.id == factor_id, Factor.last_step < step), last_step=step)


async def _takes_recovery_code(work: UnitOfWork, user_id: UUID, code: str) -> bool:
    """In place of a factor that cannot be shown: who has none has nothing for it to stand in for."""
    is_it = (RecoveryCode.user_id == user_id, RecoveryCode.digest == recovery.digest_of(user_id, code))
    has_factor = exists().where(Factor.user_id == user_id, Factor.confirmed_at.is_not(None))
    used = delete(RecoveryCode).where(*is_it, has_factor).returning(RecoveryCode.id)
    return await work.session.scalar(used, execution_options=NO_SYNC) is not None


async def _shown_passkey(
    work: UnitOfWork, user_id: UUID, credential: Credential | None, challenge: Challenge | None
) -> Sequence[Method] | None:
    if credential is None or challenge is None:
        return None
    known = [
        passkeys.KnownPasskey(each.id, each.credential_id or b"", each.credential or b"", each.sign_count)
        for each in await confirmed(work.session, user_id, "passkey")
    ]
    handle = passkeys.user_handle(work.tenant_id, user_id)
    shown = passkeys.answered(work.parts.settings, challenge.challenge, credential, known, handle)
    if shown is None or not await spend(work, challenge):
        return None
    await _note(work, (Factor.id == shown.factor_id,), sign_count=shown.sign_count)
    return ("hwk", "mfa")


async def _note(work: UnitOfWork, where: tuple[Any, ...], **values: object) -> bool:
    used = update(Factor).where(*where).values(last_used_at=work.now, **values).returning(Factor.id)
    return await work.session.scalar(used, execution_options=NO_SYNC) is not None
