"""Which approvals fill which slots, held against trying everything."""

from itertools import permutations
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.domain.role_requests.matching import awaited, filled

SLOTS = [UUID(int=number) for number in range(4)]
PEOPLE = st.lists(st.frozensets(st.sampled_from(SLOTS)), max_size=5)


def most_filled(people: list[frozenset[UUID]]) -> int:
    """By trying every order in which people could take the slots."""
    seats = [*people, *[frozenset[UUID]()] * len(SLOTS)]
    return max(sum(slot in seat for slot, seat in zip(SLOTS, order, strict=False)) for order in permutations(seats, 4))


@given(PEOPLE)
def test_as_many_slots_are_filled_as_can_be(people: list[frozenset[UUID]]) -> None:
    taken = filled(SLOTS, people)
    assert len(taken) == most_filled(people)
    assert all(slot in people[person] for slot, person in taken.items())
    assert len(set(taken.values())) == len(taken)


@given(PEOPLE)
def test_what_is_awaited_would_fill_one_more(people: list[frozenset[UUID]]) -> None:
    now = most_filled(people)
    waiting = [slot for slot in SLOTS if most_filled([*people, frozenset({slot})]) > now]
    assert awaited(SLOTS, people) == waiting
    assert (waiting == []) == (now == len(SLOTS))


def test_who_can_fill_both_makes_way() -> None:
    one, other, *_ = SLOTS
    both, plain = frozenset({one, other}), frozenset({one})
    assert awaited([one, other], [both]) == [one, other]
    assert awaited([one, other], [both, plain]) == []
    assert awaited([one, other], [plain, plain]) == [other]
