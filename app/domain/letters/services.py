"""Writing letters, in the transaction of what they are about; they are sent by a worker (`sending`)."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, text, update
from uuid_utils.compat import uuid7

from app.core.database import Repository
from app.core.errors import BadRequest, TooManyRequests
from app.core.opaque_tokens import GivenToken
from app.core.schemas import to_struct
from app.domain.letters.links import TOKENS, link_to, read_token_of, token_of
from app.domain.letters.models import Letter
from app.domain.letters.schemas import LetterKind, LetterOut
from app.domain.users.identity import email_key
from app.domain.work import UnitOfWork

LIVES: Final[Mapping[LetterKind, timedelta]] = {
    "reset_password": timedelta(minutes=30),
    "confirm_email": timedelta(minutes=30),
    "invitation": timedelta(days=7),
}
NOTICES_LIVE: Final = timedelta(days=1)
MOST_AN_HOUR: Final = 5
"""Letters of one kind about one account or invitation. To one address go `LETTERS_TO_ONE`, however many accounts and
invitations name it: nobody's mailbox is filled by asking again and again."""
_NO_SYNC: Final = {"synchronize_session": False}


class LetterRepository(Repository[Letter]):
    model_type = Letter


async def write_letter(
    work: UnitOfWork,
    kind: LetterKind,
    email: str,
    *,
    user_id: UUID | None = None,
    invitation_id: UUID | None = None,
    words: Mapping[str, str] | None = None,
    is_shown: bool = False,
    is_told: bool = True,
) -> Letter:
    """Put it into the queue; the links of older ones of its kind are worth nothing any more. `is_shown`: its link goes
    to whoever asks for it, and nothing is sent. `is_told`: the answer says when an address that has got enough may get
    more.

    The row of the user, or of the invitation, is to be held by the caller. Raises TooManyRequests for an address that
    has got enough of its kind.
    """
    if not is_shown:
        exchange = work.exchange if is_told else None
        await work.parts.limits.charge_recipient(exchange, str(work.tenant_id), kind, email_key(email))
    letter_id, key_id, digest = uuid7(), None, None
    if kind in TOKENS:
        key_id = work.parts.key_ring.current_id
        digest = token_of(work.parts.key_ring, key_id, kind, work.tenant_id, letter_id).digest
        await _end_letters(work, *_alike(work, kind, user_id, invitation_id))
    letter = Letter(
        id=letter_id,
        tenant_id=work.tenant_id,
        kind=kind,
        email=email,
        user_id=user_id,
        invitation_id=invitation_id,
        words=dict(words or {}),
        digest=digest,
        key_id=key_id,
        status="shown" if is_shown else "waiting",
        next_attempt_at=work.now,
        created_at=work.now,
        expires_at=work.now + LIVES.get(kind, NOTICES_LIVE),
    )
    await LetterRepository(work.session, tenant_id=work.tenant_id).add(letter)
    work.announce("letter.written", f"letters/{letter_id}", to_struct(letter, LetterOut))
    return letter


async def write_quietly(
    work: UnitOfWork, kind: LetterKind, email: str, user_id: UUID, words: Mapping[str, str] | None = None
) -> Letter | None:
    """As `write_letter`, where nobody is to know how much an address has got: None if that was enough."""
    try:
        return await write_letter(work, kind, email, user_id=user_id, words=words, is_told=False)
    except TooManyRequests:
        return None


async def notify(work: UnitOfWork, kind: LetterKind, email: str, user_id: UUID, **words: str) -> None:
    """Tell somebody what was done with their account, where the hub sends mail."""
    if work.parts.settings.smtp_url is not None:
        await write_quietly(work, kind, email, user_id, {"at": f"{work.now:%Y-%m-%d %H:%M} UTC", **words})


def link_of(work: UnitOfWork, letter: Letter) -> str:
    assert letter.key_id is not None
    kind: Any = letter.kind
    token = token_of(work.parts.key_ring, letter.key_id, kind, letter.tenant_id, letter.id)
    return link_to(work.parts.settings, kind, token.text)


async def _end_letters(work: UnitOfWork, *these: ColumnElement[bool]) -> None:
    """Their links are worth nothing any more, and those that wait are not sent."""
    ending = update(Letter).where(*these, Letter.ended_at.is_(None)).values(ended_at=work.now)
    await work.session.execute(ending, execution_options=_NO_SYNC)


async def are_enough(
    work: UnitOfWork, kind: LetterKind, *, user_id: UUID | None = None, invitation_id: UUID | None = None
) -> bool:
    """Whether as many were written within the last hour as one may get."""
    recent = Letter.created_at > work.now - timedelta(hours=1)
    alike = _alike(work, kind, user_id, invitation_id)
    return await LetterRepository(work.session).count(*alike, recent) >= MOST_AN_HOUR


def _alike(
    work: UnitOfWork, kind: LetterKind, user_id: UUID | None, invitation_id: UUID | None
) -> tuple[ColumnElement[bool], ...]:
    """Letters of one kind about one account or invitation."""
    whose = Letter.user_id == user_id if user_id is not None else Letter.invitation_id == invitation_id
    return Letter.tenant_id == work.tenant_id, Letter.kind == kind, whose


# What comes back by a link --------------------------------------------------------------------------------------------


def require_token(kind: LetterKind, given: str) -> GivenToken:
    """Raises BadRequest for what cannot be one; no database is asked."""
    token = read_token_of(kind, given)
    if token is None:
        raise BadRequest(code="link_not_valid")
    return token


async def letter_of(work: UnitOfWork, kind: LetterKind, given: GivenToken, *, is_held: bool = False) -> Letter:
    """The letter with that link. Raises BadRequest for one that is altered, used, expired or ended, all alike.

    `is_held`: nobody else uses it before this transaction has ended. The user, or the invitation, is held before it is.
    """
    letters = LetterRepository(work.session, tenant_id=work.tenant_id)
    letter = await letters.get_one_or_none(id=given.row_id, kind=kind, with_for_update=is_held or None)
    if letter is None or letter.digest is None or not given.fits(letter.digest) or not _is_live(work, letter):
        raise BadRequest(code="link_not_valid")
    return letter


def _is_live(work: UnitOfWork, letter: Letter) -> bool:
    return letter.ended_at is None and letter.expires_at > work.now


async def is_tenant_active(work: UnitOfWork) -> bool:
    """Of a tenant that is suspended, or was deleted, no link is worth anything."""
    return bool(await work.session.scalar(_IS_ACTIVE, {"tenant_id": work.tenant_id}))


_IS_ACTIVE = text("SELECT is_active FROM tenants WHERE id = :tenant_id")
