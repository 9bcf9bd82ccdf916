"""Step-up: saying again that it is oneself, in a session that is open. It is good for five minutes of that session."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import any_, func, literal, or_, select, update

from app.core.errors import Forbidden
from app.domain.auth.models import Session
from app.domain.auth.sessions import Method
from app.domain.factors.repositories import NO_SYNC
from app.domain.users.models import User
from app.domain.work import UnitOfWork

GOOD_FOR = timedelta(minutes=5)


async def require_step_up(work: UnitOfWork) -> None:
    """Raises Forbidden where neither the sign-in nor a step-up of this session is younger than five minutes, and of
    whoever has a second factor where the session has not shown one: or else a password alone would undo what was set
    up against passwords that others know."""
    proven_at = func.greatest(Session.authenticated_at, Session.stepped_up_at)
    is_enough = or_(func.cardinality(User.factors) == 0, literal("mfa") == any_(Session.amr))
    of_session = select(Session.id).join(User, User.id == Session.user_id)
    is_fresh = (Session.id == work.actor.own_session_id, proven_at > func.now() - GOOD_FOR, is_enough)
    if await work.session.scalar(of_session.where(*is_fresh)) is None:
        raise Forbidden(code="step_up_required")


async def note_step_up(work: UnitOfWork, shown: Sequence[Method] = ()) -> None:
    """With what was shown; a second factor makes the session one of two factors, and what asks for that is there within
    a second."""
    session_id = work.actor.own_session_id
    amr: list[str] = await work.session.scalar(select(Session.amr).where(Session.id == session_id)) or []
    both = list(dict.fromkeys([*amr, *shown]))
    values = {"stepped_up_at": func.now(), "amr": both}
    stepped = update(Session).where(Session.id == session_id, Session.revoked_at.is_(None)).values(values)
    await work.session.execute(stepped, execution_options=NO_SYNC)
    if both != amr:
        work.forget("session", session_id)
