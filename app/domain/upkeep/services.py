"""What is removed once it is of no more use, what has expired, and what rows of an earlier release lack, filled in.

Each kind goes by itself and some rows at a time: one that fails keeps no other from going on, is tried again soon, and
then with fewer rows, so that what once took too long is done in the end.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic

from msgspec import Struct
from sqlalchemy import text

from app.core.database import DATABASE_ERRORS
from app.core.log_context import LogContext
from app.core.tracing import background_work
from app.domain.access_reviews.due import carry_out_due
from app.domain.events.destinations import names_of_destinations
from app.domain.parts import Parts
from app.domain.role_requests.expiry import expire_due
from app.domain.seals.retention import drop_old_rows
from app.domain.sources.duplicates import fill_in
from app.domain.tenants.removal import remove_deleted

log = logging.getLogger("hub.upkeep")

EVERY_S = 600.0
DUE_EVERY_S = 15.0
"""For what people have set a moment for."""
RETRY_S = 60.0
"""After a failure."""
IDEMPOTENCY_KEPT = timedelta(hours=24)
ENDED_SESSIONS_KEPT = timedelta(days=30)
SIGN_IN_CODES_KEPT = timedelta(days=1)
"""So that one that comes a second time is known."""
LETTERS_KEPT = timedelta(days=30)
EXPIRED_INVITATIONS_KEPT = timedelta(days=30)
"""So that whoever wonders finds that one was never accepted, and can send it again."""
ENDED_TOKENS_KEPT = timedelta(hours=1)
"""More than the clocks of hubs are apart."""
EXPIRED_KEYS_KEPT = timedelta(days=30)
"""So that whoever wonders why a program is not let in any more finds its key."""
ROWS_AT_ONCE = 5000
FEWEST_AT_ONCE = 50

Step = Callable[[Parts, datetime, int], Awaitable[int]]
"""From the present and how many rows at most to how many rows were done: fewer than that, and nothing is left."""


class Kind(Struct, frozen=True):
    name: str
    step: Step
    every_s: float | None = None
    """`EVERY_S` where nothing is said."""


def _removal(table: str, kept: Callable[[Parts], timedelta]) -> Step:
    """By a function of the owner: what is over is over in every tenant."""
    statement = text(f"SELECT public.remove_outdated_{table}(:before, :most)")

    async def remove(parts: Parts, now: datetime, most: int) -> int:
        async with parts.sessions.begin(None) as session:
            removed: int = await session.scalar(statement, {"before": now - kept(parts), "most": most})
        return removed

    return remove


async def _remove_events(parts: Parts, now: datetime, most: int) -> int:
    """But for those that wait to be published: a broker that is away for long loses none of them."""
    values = {
        "before": now - _history(parts),
        "most": most,
        "unpublished_to": list(names_of_destinations(parts.settings)),
    }
    async with parts.sessions.begin(None) as session:
        removed: int = await session.scalar(_REMOVE_EVENTS, values)
    return removed


_REMOVE_EVENTS = text("SELECT public.remove_outdated_outbox_events(:before, :most, CAST(:unpublished_to AS text[]))")


async def _fill_in_fingerprints(parts: Parts, now: datetime, most: int) -> int:
    done = 0
    while done < most and (filled := await fill_in(parts)):
        done += filled
    return done


async def _end_expired(parts: Parts, now: datetime, most: int) -> int:
    """Assignments that have expired, by the database's clock: they bring nothing any more, and would be looked at as
    long as they are open."""
    async with parts.sessions.begin(None) as session:
        ended: int = await session.scalar(text("SELECT public.end_expired_assignments(:most)"), {"most": most})
    return ended


def _history(parts: Parts) -> timedelta:
    return timedelta(days=parts.settings.history_days)


KINDS = (
    Kind("idempotency_keys", _removal("idempotency_keys", lambda _: IDEMPOTENCY_KEPT)),
    Kind("sessions", _removal("sessions", lambda _: ENDED_SESSIONS_KEPT)),
    Kind("sign_in_codes", _removal("sign_in_codes", lambda _: SIGN_IN_CODES_KEPT)),
    Kind("service_tokens", _removal("service_tokens", lambda _: ENDED_TOKENS_KEPT)),
    Kind("factors", _removal("factors", lambda _: timedelta(0))),
    Kind("spent_tokens", _removal("spent_tokens", lambda _: timedelta(0))),
    Kind("saml_arrivals", _removal("saml_arrivals", lambda _: timedelta(0))),
    Kind("api_keys", _removal("api_keys", lambda _: EXPIRED_KEYS_KEPT)),
    Kind("letters", _removal("letters", lambda _: LETTERS_KEPT)),
    Kind("invitations", _removal("invitations", lambda _: EXPIRED_INVITATIONS_KEPT)),
    Kind("data_source_tests", _removal("data_source_tests", _history)),
    Kind("jobs", _removal("jobs", _history)),
    Kind("outbox_events", _remove_events),
    Kind("webhook_deliveries", _removal("webhook_deliveries", _history)),
    Kind("webhook_secrets", _removal("webhook_secrets", lambda _: timedelta(0))),
    Kind("fingerprints", _fill_in_fingerprints),
    Kind("expired_role_requests", expire_due, DUE_EVERY_S),
    Kind("role_assignments", _end_expired),
    Kind("due_access_reviews", carry_out_due, DUE_EVERY_S),
    Kind("deleted_tenants", remove_deleted),
    Kind("audit_events", drop_old_rows),
)


async def keep_up(parts: Parts) -> None:
    """Until cancelled."""
    rows_at_once = {kind.name: ROWS_AT_ONCE for kind in KINDS}
    due_at = {kind.name: 0.0 for kind in KINDS}
    while True:
        for kind in KINDS:
            if due_at[kind.name] <= monotonic():
                is_done = await _do(parts, kind, rows_at_once[kind.name])
                fewer = max(rows_at_once[kind.name] // 4, FEWEST_AT_ONCE)
                rows_at_once[kind.name] = ROWS_AT_ONCE if is_done else fewer
                due_at[kind.name] = monotonic() + ((kind.every_s or EVERY_S) if is_done else RETRY_S)
        await asyncio.sleep(max(min(due_at.values()) - monotonic(), 0.0))


async def remove_due(parts: Parts, now: datetime) -> None:
    """Everything of every kind, once. Raises what fails."""
    for kind in KINDS:
        await _finish(parts, kind, now, ROWS_AT_ONCE)


async def _do(parts: Parts, kind: Kind, most: int) -> bool:
    """Whether the kind is done, for the time being."""
    activity = f"upkeep of {kind.name}"
    with background_work(activity, LogContext(activity=activity)) as span:
        is_done = await _try(parts, kind, most)
        if not is_done:
            span.fail("put_off")
    return is_done


async def _try(parts: Parts, kind: Kind, most: int) -> bool:
    try:
        await _finish(parts, kind, datetime.now(UTC), most)
    except DATABASE_ERRORS as error:
        log.warning("upkeep of %s is put off: %s", kind.name, type(error).__name__)
        with suppress(*DATABASE_ERRORS):
            await _note(parts, kind, failures=1)
        return False
    return True


async def _finish(parts: Parts, kind: Kind, now: datetime, most: int) -> None:
    """Noted after each step: what was done before a failure counts too."""
    done = most
    while done >= most:
        done = await kind.step(parts, now, most)
        await _note(parts, kind, rows=done, has_succeeded=done < most)


_NOTE = text(
    """INSERT INTO upkeep (kind, rows_done, failures, last_success_at)
       VALUES (:kind, :rows, :failures, CASE WHEN :has_succeeded THEN now() END)
       ON CONFLICT (kind) DO UPDATE SET
         rows_done = upkeep.rows_done + excluded.rows_done, failures = upkeep.failures + excluded.failures,
         last_success_at = coalesce(excluded.last_success_at, upkeep.last_success_at)"""
)


async def _note(parts: Parts, kind: Kind, *, rows: int = 0, failures: int = 0, has_succeeded: bool = False) -> None:
    values = {"kind": kind.name, "rows": rows, "failures": failures, "has_succeeded": has_succeeded}
    async with parts.sessions.begin(None) as session:
        await session.execute(_NOTE, values)
