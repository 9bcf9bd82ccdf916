"""The worker's side of letters: due ones are claimed, handed to the mail server, and noted.

At least once: a worker that is killed in between leaves a lease that runs out, and a connection that breaks before the
server's last word leaves open whether it has the letter. Then it is sent again, with the same link and `Message-ID`.
"""

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.across_tenants import by_tenant, locked_rows
from app.core.database import DATABASE_ERRORS, enter_tenant
from app.core.log_context import LogContext
from app.core.mail import MailNotTaken, SmtpServer, send_mail
from app.core.schemas import to_struct
from app.core.sealing import SealingError
from app.core.tracing import background_work
from app.core.turns import keep_doing
from app.domain.letters import metrics
from app.domain.letters.links import link_to, token_of
from app.domain.letters.messages import envelope_address, envelope_sender, host_of, known_as, message_of
from app.domain.letters.models import Letter
from app.domain.letters.schemas import LetterFailure, LetterOut
from app.domain.letters.services import LetterRepository
from app.domain.parts import Parts
from app.domain.users.identity import email_key
from app.domain.users.repositories import UserRepository
from app.domain.work import unit_of_work_of

log = logging.getLogger("hub.letters")

EVERY_S: Final = 1.0
AT_ONCE: Final = 8
"""Letters that a worker sends at the same time."""
LEASE: Final = timedelta(minutes=2)
"""Four times what a letter may take."""
LADDER_S: Final = (5.0, 20.0, 60.0, 180.0, 300.0, 900.0, 3600.0)
"""Between two attempts; the last step again and again, until the letter's time is over. One that is greylisted, mostly
for five minutes, has its next chances within its half hour."""
JITTER: Final = 0.2
_NO_SYNC: Final = {"synchronize_session": False}
_ORGANISATION = text("SELECT name FROM tenants WHERE id = :tenant_id")


async def send_letters(parts: Parts) -> None:
    """Until cancelled."""
    sender = LetterSender(parts)
    await keep_doing(sender.send_due, full=AT_ONCE, every_s=EVERY_S, log=log, put_off="letters are put off")


class LetterSender:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        settings = parts.settings
        ca_file = str(settings.smtp_ca_file) if settings.smtp_ca_file else None
        self._server = SmtpServer.parse(settings.smtp_url, ca_file) if settings.smtp_url else None

    async def send_due(self) -> int:
        """Some that are due now; how many those were."""
        claimed = await self._claim()
        for ended in await asyncio.gather(*map(self._serve, claimed), return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
        return len(claimed)

    async def _claim(self) -> list[Letter]:
        claimed: list[Letter] = []
        async with self._parts.sessions.begin(None) as session:
            due = await locked_rows(session, "due_letters(:most)", most=AT_ONCE)
            for tenant_id, ids in by_tenant(due).items():
                await enter_tenant(session, tenant_id)
                lease = {"lease_id": uuid7(), "lease_until": func.now() + LEASE}
                leasing = update(Letter).where(Letter.id.in_(ids)).values(lease).returning(Letter)
                claimed += await session.scalars(leasing, execution_options=_NO_SYNC)
        return claimed

    async def _serve(self, letter: Letter) -> None:
        context = LogContext(tenant_id=letter.tenant_id, activity="letter")
        with background_work("letter", context) as span:
            try:
                await self._attempt(letter)
            except DATABASE_ERRORS as error:
                span.fail("put_off")
                log.warning("letter %s waits until its lease runs out: %s", letter.id, type(error).__name__)
            except Exception:  # one that cannot be written holds no other up
                span.fail("internal_error")
                log.exception("letter %s could not be sent", letter.id)

    async def _attempt(self, letter: Letter) -> None:
        if letter.ended_at is not None:
            await self._note(letter, "ended", is_over=True)
        elif letter.expires_at <= datetime.now(UTC):
            await self._note(letter, "expired", is_over=True)
        elif letter.kind == "confirm_email" and await self._is_taken(letter):
            await self._note(letter, "taken", is_over=True)
        elif self._server is None:
            await self._note(letter, "not_configured", is_over=True)
        else:
            await self._send(letter, self._server)

    async def _send(self, letter: Letter, server: SmtpServer) -> None:
        settings = self._parts.settings
        async with self._parts.sessions.begin(letter.tenant_id) as session:
            organisation = await session.scalar(_ORGANISATION, {"tenant_id": letter.tenant_id})
            link = await self._link(session, letter)
        message = message_of(letter, settings, organisation=known_as(organisation), link=link)
        to_whom = {"sender": envelope_sender(settings), "recipient": envelope_address(letter.email)}
        try:
            await send_mail(server, message, **to_whom, name=host_of(settings))
        except MailNotTaken as reason:
            log.warning("letter %s (%s): %s", letter.id, letter.kind, reason)
            await self._note(letter, reason.failure, is_over=reason.is_for_good)
        else:
            await self._note(letter, None, is_over=True)

    async def _is_taken(self, letter: Letter) -> bool:
        """Found out here, and not while somebody waits for an answer."""
        async with self._parts.sessions.begin(letter.tenant_id) as session:
            return await UserRepository(session, tenant_id=letter.tenant_id).exists(email_key=email_key(letter.email))

    async def _link(self, session: AsyncSession, letter: Letter) -> str | None:
        """Where the key is gone with which its token was derived, nobody has seen that token: it gets another one."""
        if letter.key_id is None:
            return None
        kind: Any = letter.kind
        ring, place = self._parts.key_ring, (letter.tenant_id, letter.id)
        try:
            token = token_of(ring, letter.key_id, kind, *place)
        except SealingError:
            token = token_of(ring, ring.current_id, kind, *place)
            anew = update(Letter).where(Letter.id == letter.id, Letter.lease_id == letter.lease_id)
            values = {"digest": token.digest, "key_id": ring.current_id}
            await session.execute(anew.values(values), execution_options=_NO_SYNC)
        return link_to(self._parts.settings, kind, token.text)

    async def _note(self, letter: Letter, failure: LetterFailure | None, *, is_over: bool) -> None:
        """What came of it. Nothing is written by a worker that has lost its lease."""
        now = datetime.now(UTC)
        next_at = now + timedelta(seconds=_pause(letter.attempts))
        is_over = is_over or next_at >= letter.expires_at
        status = "sent" if failure is None else "failed" if is_over else "waiting"
        async with unit_of_work_of(self._parts, tenant_id=letter.tenant_id) as work:
            letters = LetterRepository(work.session, tenant_id=letter.tenant_id)
            held = await letters.get_one_or_none(id=letter.id, lease_id=letter.lease_id, with_for_update=True)
            if held is None:
                return
            held.status, held.failure, held.attempts = status, failure, letter.attempts + 1
            held.next_attempt_at, held.lease_id, held.lease_until = next_at, None, None
            held.sent_at = now if failure is None else None
            await letters.update(held)
            if is_over:
                shown = to_struct(held, LetterOut)
                outcome: Any = "success" if failure is None else "failure"
                work.audit("letter.send", "letter", letter.id, outcome=outcome, after=shown)
                work.announce("letter.sent" if failure is None else "letter.failed", f"letters/{letter.id}", shown)
        outcome = "sent" if failure is None else "given_up" if is_over else "retry"
        metrics.attempts.labels(letter.kind, outcome, failure or "none").inc()


def _pause(attempts: int) -> float:
    """After so many attempts before the one just made; varied, so that those that failed together come back apart."""
    return LADDER_S[min(attempts, len(LADDER_S) - 1)] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
