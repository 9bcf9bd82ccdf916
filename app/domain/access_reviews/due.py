"""Reviews whose day has come: lines without an answer are kept or ended, some at a time (`upkeep`)."""

from datetime import datetime

from sqlalchemy import select, text

from app.domain.access_reviews.models import AccessReview
from app.domain.access_reviews.repositories import IS_OVER
from app.domain.access_reviews.services import AT_ONCE, AccessReviewService
from app.domain.parts import Parts
from app.domain.work import UnitOfWork, unit_of_work_of

_FIRST_DUE = text("SELECT id, tenant_id FROM public.due_access_review()")
_IS_DUE = (AccessReview.closed_at.is_(None), IS_OVER)


async def carry_out_due(parts: Parts, _: datetime, most: int) -> int:
    """By the database's clock. At most so many lines; fewer, and none is left."""
    done = 0
    while done < most:
        async with parts.sessions(None) as session:
            found = (await session.execute(_FIRST_DUE)).one_or_none()
        if found is None:
            break
        async with unit_of_work_of(parts, tenant_id=found.tenant_id) as work:
            done += await _carry_out_some(work, found.id, min(AT_ONCE, most - done))
    return done


async def _carry_out_some(work: UnitOfWork, review_id: object, most: int) -> int:
    locked = select(AccessReview).where(AccessReview.id == review_id, *_IS_DUE).with_for_update()
    review = await work.session.scalar(locked)
    return 0 if review is None else await AccessReviewService(work).carry_out(review, most)
