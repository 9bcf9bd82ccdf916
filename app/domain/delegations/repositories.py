"""Which rows make a delegation on the wire, and the list of one's own."""

from typing import Any

from sqlalchemy import bindparam, or_

from app.core.database import Repository
from app.core.lists.filters import Filter, boolean_filter
from app.core.lists.listing import Listing, Sort
from app.domain.delegations.models import Delegation
from app.domain.delegations.schemas import DelegationOut


class DelegationRepository(Repository[Delegation]):
    model_type = Delegation


_ACTOR_ID = bindparam("actor_id", type_=Delegation.user_id.type)
_GIVEN, _RECEIVED = Delegation.user_id == _ACTOR_ID, Delegation.to_user_id == _ACTOR_ID
DELEGATION = DelegationRepository.selection_by_id(DelegationOut).where(or_(_GIVEN, _RECEIVED))
"""One that the actor gave or was given."""


def _received() -> Filter:
    plain = boolean_filter(Delegation.user_id, index="delegations_user_id_{sort}_idx")
    by_value: dict[bool, Any] = {True: lambda _: _RECEIVED, False: lambda _: _GIVEN}
    return Filter(
        where=by_value[True],
        choose=by_value.__getitem__,
        parse=plain.parse,
        schema=plain.schema,
        index=plain.index,
        index_of=lambda received: f"delegations_{'to_user_id' if received else 'user_id'}_{{sort}}_idx",
        description="True: those that one was given. Else those that one gave.",
    )


DELEGATIONS = Listing(
    DelegationRepository.selection(DelegationOut),
    name="delegations",
    id_column=Delegation.id,
    sorts={"created_at": Sort(Delegation.created_at, "delegations_created_at_idx")},
    default_sort="-created_at",
    filters={"received": _received()},
)
"""Narrowed by its one filter in any case."""
