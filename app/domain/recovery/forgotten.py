"""The worker's side of forgotten passwords: who was meant, and whether they get a letter.

Nobody gets one who is not there, is not active, has no password to forget, or is meant in several tenants; nor who got
some within the hour.
"""

import logging
from typing import Final
from uuid import UUID

from sqlalchemy import select

from app.core.across_tenants import tenant_of_slug, tenants_of_address
from app.core.turns import keep_doing
from app.domain.letters.services import are_enough, write_quietly
from app.domain.parts import Parts
from app.domain.recovery.models import ForgottenPassword
from app.domain.users.identity import email_key
from app.domain.users.models import User
from app.domain.users.repositories import UserRepository
from app.domain.work import UnitOfWork, unit_of_work_of

log = logging.getLogger("hub.letters")

EVERY_S: Final = 1.0
AT_ONCE: Final = 50


async def answer_forgotten(parts: Parts) -> None:
    """Until cancelled."""
    await keep_doing(
        lambda: write_letters(parts), full=AT_ONCE, every_s=EVERY_S, log=log, put_off="forgotten passwords wait"
    )


async def write_letters(parts: Parts, most: int = AT_ONCE) -> int:
    """For those that wait, the oldest first; how many that were."""
    done = 0
    while done < most and await _write_next(parts):
        done += 1
    return done


async def _write_next(parts: Parts) -> bool:
    """The note goes with the transaction that writes the letter, or finds that there is none to write."""
    async with unit_of_work_of(parts) as work:
        oldest = select(ForgottenPassword).order_by(ForgottenPassword.created_at).limit(1)
        note = await work.session.scalar(oldest.with_for_update(skip_locked=True))
        if note is None:
            return False
        email, slug = note.email, note.slug
        await work.session.delete(note)
        tenant_id = await _tenant_meant(parts, email, slug)
        if tenant_id is not None:
            async with work.as_system_of(tenant_id) as theirs:
                await _write_to(theirs, email)
    return True


async def _tenant_meant(parts: Parts, email: str, slug: str | None) -> UUID | None:
    """As at a login."""
    if slug is not None:
        return await tenant_of_slug(parts.reads, slug)
    found = await tenants_of_address(parts.reads, email_key(email))
    return found[0] if len(found) == 1 else None


async def _write_to(work: UnitOfWork, email: str) -> None:
    users = UserRepository(work.session, tenant_id=work.tenant_id)
    user = await users.get_one_or_none(email_key=email_key(email), with_for_update=True)
    if user is None or not may_reset(user) or await are_enough(work, "reset_password", user_id=user.id):
        return
    letter = await write_quietly(work, "reset_password", user.email, user.id)
    if letter is not None:
        work.audit("auth.write_reset_letter", "user", user.id, after={"letter_id": letter.id})


def may_reset(user: User) -> bool:
    """Whoever signs in without a password does so because somebody decided it. A directory may have given somebody a
    name in place of an address."""
    return user.is_active and user.password_hash is not None and "@" in user.email
