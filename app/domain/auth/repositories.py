"""Which rows make a session on the wire: the caller's own live ones."""

from sqlalchemy import bindparam, func

from app.core.database import Repository
from app.core.listing import Listing
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
        func.least(Session.expires_at, Session.idle_expires_at) > func.now(),
    ),
    name="sessions",
    id_column=Session.id,
    sorts={"created_at": Session.created_at, "last_seen_at": Session.last_seen_at},
    default_sort="-created_at",
)
