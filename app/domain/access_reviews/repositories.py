"""Which rows make a review and its lines on the wire, and which lists of them there are."""

from typing import Any

from sqlalchemy import bindparam, case, func, literal_column, select

from app.core.database import Repository, json_object
from app.core.lists.filters import choice_filter
from app.core.lists.listing import Listing, Sort
from app.domain.access_reviews.models import AccessReview, AccessReviewItem
from app.domain.access_reviews.schemas import STATES, AccessReviewOut, ReviewItemOut

IS_OVER = AccessReview.due_at <= func.statement_timestamp()


def _either(given: Any, shown: dict[str, Any]) -> Any:
    return case((given.is_not(None), json_object(shown)))


class AccessReviewRepository(Repository[AccessReview]):
    model_type = AccessReview
    computed = {
        "scope": _either(AccessReview.scope_type, {"type": AccessReview.scope_type, "id": AccessReview.scope_id}),
        "status": case(
            (AccessReview.closed_at.is_not(None), literal_column("'closed'")),
            (IS_OVER, literal_column("'closing'")),
            else_=literal_column("'open'"),
        ),
    }


class ReviewItemRepository(Repository[AccessReviewItem]):
    model_type = AccessReviewItem
    computed = {
        "subject": json_object(
            {
                "type": AccessReviewItem.subject_type,
                "id": AccessReviewItem.subject_id,
                "name": AccessReviewItem.subject_name,
            }
        ),
        "role": json_object({"id": AccessReviewItem.role_id, "name": AccessReviewItem.role_name}),
        "scope": json_object({"type": AccessReviewItem.scope_type, "id": AccessReviewItem.scope_id}),
        "via": _either(AccessReviewItem.via_type, {"type": AccessReviewItem.via_type, "id": AccessReviewItem.via_id}),
    }


ACCESS_REVIEW = AccessReviewRepository.selection_by_id(AccessReviewOut)
ACCESS_REVIEWS = Listing(
    AccessReviewRepository.selection(AccessReviewOut),
    name="access reviews",
    id_column=AccessReview.id,
    sorts={"created_at": Sort(AccessReview.created_at, "access_reviews_created_at_idx")},
    default_sort="-created_at",
)
_REVIEW_ID = bindparam("review_id", type_=AccessReviewItem.review_id.type)
REVIEW_ITEMS = Listing(
    ReviewItemRepository.selection(ReviewItemOut).where(AccessReviewItem.review_id == _REVIEW_ID),
    name="lines of a review",
    id_column=AccessReviewItem.id,
    sorts={"since": Sort(AccessReviewItem.since, "access_review_items_since_idx")},
    default_sort="since",
    filters={"state": choice_filter(AccessReviewItem.state, STATES, index="access_review_items_state_{sort}_idx")},
)
TOTALS: Any = (
    select(AccessReviewItem.state, func.count().label("lines"))
    .where(
        AccessReviewItem.tenant_id == bindparam("tenant_id", type_=AccessReviewItem.tenant_id.type),
        AccessReviewItem.review_id == _REVIEW_ID,
    )
    .group_by(AccessReviewItem.state)
)
