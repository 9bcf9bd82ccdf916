"""The rules about access reviews: each line is kept or ended by somebody who could give it, and none stays open."""

from typing import Any, Literal
from uuid import UUID

from sqlalchemy import func, select, text, update
from uuid_utils.compat import uuid7

from app.core.errors import BadRequest, Conflict, Fault, Forbidden
from app.core.event_names import EventName
from app.core.extent import Place
from app.core.schemas import single_spaced
from app.domain.access_reviews.lines import permissions_of_lines, write_lines
from app.domain.access_reviews.models import AccessReview, AccessReviewItem
from app.domain.access_reviews.repositories import TOTALS, AccessReviewRepository, ReviewItemRepository
from app.domain.access_reviews.schemas import AccessReviewCreate, AccessReviewOut, ReviewItemOut
from app.domain.assignments.kinds import SCOPES
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import IN_FORCE
from app.domain.assignments.services import AssignmentService
from app.domain.roles.built_in import public_role_id
from app.domain.roles.models import Role
from app.domain.work import UnitOfWork

AT_ONCE = 500
"""Lines without an answer that are carried out in one transaction."""
_IS_MEMBER = text(
    """SELECT EXISTS (SELECT FROM members_at(CAST(:tenant_id AS uuid), statement_timestamp())
         WHERE group_id = CAST(:group_id AS uuid) AND user_id = CAST(:user_id AS uuid))"""
)


class AccessReviewService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._reviews = AccessReviewRepository(work.session, tenant_id=work.tenant_id)
        self._items = ReviewItemRepository(work.session, tenant_id=work.tenant_id)

    async def create(self, new: AccessReviewCreate) -> AccessReviewOut:
        """Raises BadRequest for a role or a place that is not there, and a day that is past; Conflict for `public`;
        Forbidden where something is looked at that brings more than the actor holds there."""
        if new.role_id is None and new.scope is None:
            raise BadRequest(errors=[Fault("scope", "required", "is needed without a role_id")])
        if new.role_id is not None and new.scope is not None:
            raise BadRequest(errors=[Fault("scope", "not_allowed", "is not given with a role_id")])
        if new.due_at <= (await self._work.session.execute(select(func.statement_timestamp()))).scalar_one():
            raise BadRequest(errors=[Fault("due_at", "too_small", "must lie in the future")])
        await self._check_role(new.role_id)
        place = await self._place(new.scope.type, new.scope.id) if new.scope else None
        review = AccessReview(
            id=uuid7(),
            **self._work.stamp(),
            name=single_spaced(new.name),
            role_id=new.role_id,
            scope_type=new.scope and new.scope.type,
            scope_id=new.scope and new.scope.id,
            due_at=new.due_at,
            on_no_answer=new.on_no_answer,
        )
        await self._reviews.add(review)
        await write_lines(self._work, review)
        await self._require_all(review, place)
        shown = await self._shown(review.id)
        self._record("access_review.create", "access_review.created", shown)
        return shown

    async def answer(
        self, review_id: UUID, item_id: UUID, answer: Literal["keep", "end"], reason: str | None
    ) -> ReviewItemOut:
        """Raises NotFound, Forbidden for one's own right and for what brings more than the actor holds, Conflict where
        the review is over, or the assignment has ended."""
        review = await self._open(review_id, for_answers=True)
        item = await self._items.get_one(id=item_id, review_id=review.id, with_for_update=True)
        before = await self._shown_item(item_id)
        await self._require_right(item, answer)
        if item.state in ("ended", "gone") or not await self._is_in_force(item):
            raise Conflict(code="assignment_ended")
        if answer == "end":
            await AssignmentService(self._work).take_back(item.assignment_id)
        answered = {"answered_at": self._work.now, "answered_by": self._work.actor_id, "reason": reason}
        await self._set([item_id], state="kept" if answer == "keep" else "ended", **answered)
        after = await self._shown_item(item_id)
        self._work.audit(f"access_review.{answer}", "access_review", review_id, before=before, after=after)
        self._work.announce("access_review.answered", f"access-reviews/{review_id}/items/{item_id}", after)
        return after

    async def close(self, review_id: UUID) -> AccessReviewOut:
        """No more answers are taken; lines without one are carried out, the first ones at once and many by upkeep.
        Raises Conflict where it is over, Forbidden where something is looked at that brings more than the actor
        holds there."""
        review = await self._open(review_id)
        place = await self._place_of(review.scope_type, review.scope_id) if review.scope_type else None
        await self._require_all(review, place)
        before = await self._shown(review_id)
        due_at = (await self._work.session.execute(select(func.statement_timestamp()))).scalar_one()
        self._work.apply(review, {"due_at": due_at})
        await self._reviews.update(review)
        after = await self._shown(review_id)
        self._work.audit("access_review.close", "access_review", review_id, before=before, after=after)
        await self.carry_out(review, AT_ONCE)
        return await self._shown(review_id)

    async def carry_out(self, review: AccessReview, most: int) -> int:
        """Of a review that is over: at most so many lines that nobody has answered. With the last one it is closed.
        Returns how many."""
        lines = await self._unanswered(review.id, most)
        by_state: dict[str, list[UUID]] = {"kept": [], "ended": [], "gone": []}
        for item in lines:
            by_state[await self._carried_out(review, item)].append(item.id)
        for state, ids in by_state.items():
            if ids:
                await self._set(ids, state=state)
        if len(lines) < most:
            self._work.apply(review, {"closed_at": self._work.now})
            await self._reviews.update(review)
            shown = await self._shown(review.id)
            totals = await self._totals(review.id)
            self._work.audit(
                "access_review.finish", "access_review", review.id, after={"review": shown, "lines": totals}
            )
            self._work.announce("access_review.closed", f"access-reviews/{review.id}", shown)
        return len(lines)

    async def _carried_out(self, review: AccessReview, item: AccessReviewItem) -> str:
        """The state of a line for which the review answers itself. The last admin is kept, whatever it says."""
        if not await self._is_in_force(item):
            return "gone"
        if review.on_no_answer == "keep":
            return "kept"
        try:
            await AssignmentService(self._work).take_back(item.assignment_id)
        except Conflict as refusal:
            return "gone" if refusal.code == "assignment_ended" else "kept"
        return "ended"

    async def _unanswered(self, review_id: UUID, most: int) -> list[AccessReviewItem]:
        is_open = (AccessReviewItem.review_id == review_id, AccessReviewItem.state == "open")
        chosen = select(AccessReviewItem).where(*is_open).order_by(AccessReviewItem.since, AccessReviewItem.id)
        return list(await self._work.session.scalars(chosen.limit(most).with_for_update()))

    async def _set(self, item_ids: list[UUID], **columns: Any) -> None:
        await self._work.session.execute(
            update(AccessReviewItem).where(AccessReviewItem.id.in_(item_ids)).values(**columns),
            execution_options={"synchronize_session": False},
        )

    async def _open(self, review_id: UUID, *, for_answers: bool = False) -> AccessReview:
        """Locked: for answers against its end, and against other ends. Raises Conflict for one that is over."""
        held = select(AccessReview.id).where(
            AccessReview.id == review_id, AccessReview.tenant_id == self._work.tenant_id
        )
        await self._work.session.execute(held.with_for_update(read=for_answers))
        review = await self._reviews.get_one(id=review_id)
        if (await self._shown(review_id)).status != "open":
            raise Conflict(code="review_closed")
        return review

    async def _require_right(self, item: AccessReviewItem, answer: str) -> None:
        if answer == "keep" and await self._is_own(item):
            raise Forbidden(code="own_assignment")
        place = None if item.scope_type == "tenant" else await self._place_of(item.scope_type, item.scope_id)
        await AssignmentService(self._work).require_could_give(item.role_id, place)

    async def _require_all(self, review: AccessReview, place: Place | None) -> None:
        """Of those whose answer goes for all lines: the review's own may be to end them."""
        if review.role_id is not None:
            await AssignmentService(self._work).require_could_give(review.role_id, None)
        elif not self._work.actor.holds_all(await permissions_of_lines(self._work, review.id), place):
            raise Forbidden(code="exceeds_own_permissions")

    async def _is_own(self, item: AccessReviewItem) -> bool:
        """Themselves, or by a group."""
        if item.subject_type != "group":
            return item.subject_id == self._work.actor_id
        values = {"tenant_id": self._work.tenant_id, "group_id": item.subject_id, "user_id": self._work.actor_id}
        return bool(await self._work.session.scalar(_IS_MEMBER, values))

    async def _is_in_force(self, item: AccessReviewItem) -> bool:
        found = select(RoleAssignment.id).where(RoleAssignment.id == item.assignment_id, IN_FORCE)
        return await self._work.session.scalar(found) is not None

    async def _check_role(self, role_id: UUID | None) -> None:
        if role_id is None:
            return
        if role_id == public_role_id(self._work.tenant_id):
            raise Conflict(code="role_is_public")
        found = select(Role.id).where(Role.id == role_id, Role.tenant_id == self._work.tenant_id)
        if await self._work.session.scalar(found) is None:
            raise BadRequest(errors=[Fault("role_id", "unknown_role", "is not a role")])

    async def _place(self, scope_type: str, scope_id: UUID | None) -> Place:
        """Raises BadRequest where it is not there."""
        place = await self._place_of(scope_type, scope_id)
        if place == Place():
            kind = scope_type.replace("_", " ")
            raise BadRequest(errors=[Fault("scope.id", SCOPES[scope_type].unknown, f"is not a {kind}")])
        return place

    async def _place_of(self, scope_type: str, scope_id: UUID | None) -> Place:
        """Of what is gone, a place at which nobody has a right."""
        kind = SCOPES[scope_type]
        columns = (column.label(name) for name, column in kind.place.items())
        found = select(*columns).where(kind.model.id == scope_id, kind.model.tenant_id == self._work.tenant_id)
        row = (await self._work.session.execute(found)).one_or_none()
        return Place() if row is None else Place(**row._mapping)

    async def _totals(self, review_id: UUID) -> dict[str, int]:
        rows = await self._work.session.execute(TOTALS, {"review_id": review_id, "tenant_id": self._work.tenant_id})
        return {row.state: row.lines for row in rows}

    async def _shown(self, review_id: UUID) -> AccessReviewOut:
        return await self._reviews.read(AccessReviewOut, id=review_id, tenant_id=self._work.tenant_id)

    async def _shown_item(self, item_id: UUID) -> ReviewItemOut:
        return await self._items.read(ReviewItemOut, id=item_id, tenant_id=self._work.tenant_id)

    def _record(self, action: str, event: EventName, shown: AccessReviewOut) -> None:
        self._work.audit(action, "access_review", shown.id, after=shown)
        self._work.announce(event, f"access-reviews/{shown.id}", shown)
