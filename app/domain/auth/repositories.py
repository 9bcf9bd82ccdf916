"""Which rows make a session on the wire (the caller's own live ones), and which keys live sessions rest on."""

from datetime import datetime

from msgspec import Struct
from sqlalchemy import bindparam, func, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Repository
from app.core.lists.listing import Listing, Sort
from app.domain.auth.models import Session
from app.domain.auth.schemas import SessionOut


class SessionRepository(Repository[Session]):
    model_type = Session
    computed = {
        "is_current": Session.id == bindparam("current_session_id", type_=Session.id.type),
        "expires_at": func.least(Session.expires_at, Session.idle_expires_at),
    }


SESSIONS = Listing(
    SessionRepository.selection(SessionOut).where(
        Session.user_id == bindparam("user_id", type_=Session.user_id.type),
        Session.revoked_at.is_(None),
        Session.expires_at > func.now(),
        Session.idle_expires_at > func.now(),
    ),
    name="sessions",
    id_column=Session.id,
    sorts={
        "created_at": Sort(Session.created_at, "sessions_live_created_at_idx"),
        "last_seen_at": Sort(Session.last_seen_at, "sessions_live_last_seen_at_idx"),
    },
    default_sort="-created_at",
    few_by=("sessions_live_idx",),
)


class SessionsOfKey(Struct, frozen=True):
    count: int
    last_ends_at: datetime


async def sessions_by_key(session: AsyncSession) -> dict[str, SessionsOfKey]:
    """How many live sessions have refresh tokens derived with a key, of all tenants, and when the last of them ends by
    itself. A session takes the current key when it is refreshed next, so that none keeps an older one for long."""
    rows = await session.execute(text("SELECT key_id, live, last_ends_at FROM public.sessions_of_each_key()"))
    return {key_id: SessionsOfKey(live, last_ends_at) for key_id, live, last_ends_at in rows}
