"""Which approvals fill which slots: one person fills one slot, and who could fill several fills the one with which most
are filled (a maximum matching of a bipartite graph, by augmenting paths: H. W. Kuhn, 1955)."""

from collections.abc import Sequence, Set
from uuid import UUID

Slots = Sequence[UUID]
Abilities = Sequence[Set[UUID]]
"""By person the slots that they can fill."""


def filled(slots: Slots, people: Abilities) -> dict[UUID, int]:
    """By slot the place of the person who fills it, for as many slots as can be filled together."""
    taken: dict[UUID, int] = {}
    for person in range(len(people)):
        _find_room(person, people, slots, taken, set())
    return taken


def awaited(slots: Slots, people: Abilities) -> list[UUID]:
    """The slots of which one more person would fill one more slot; none where all are filled."""
    taken = filled(slots, people)
    return [slot for slot in slots if _find_room(len(people), [*people, {slot}], slots, dict(taken), set())]


def _find_room(person: int, people: Abilities, slots: Slots, taken: dict[UUID, int], tried: set[UUID]) -> bool:
    """Whoever holds a slot already makes way, where there is another one for them."""
    for slot in slots:
        if slot in people[person] and slot not in tried:
            tried.add(slot)
            if slot not in taken or _find_room(taken[slot], people, slots, taken, tried):
                taken[slot] = person
                return True
    return False
