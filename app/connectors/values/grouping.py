"""Names grouped by what they have in common, in memory that their number does not move.

Each name comes as the place that it is in and a pattern, `*` standing for what tells it from its siblings. More than a
few patterns in one place are one group, which takes them all. What comes out depends on what was added and never on its
order: servers list in orders of their own, and a name that was known yesterday is not to be gone today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

Place = tuple[Any, ...]
"""Comparable with others of its kind."""


class Member(Protocol):
    def absorb(self, other: Any) -> None:
        """Takes another member of the same kind in, so that the order of such does not matter."""


MemberT = TypeVar("MemberT", bound=Member)


class Groups(Generic[MemberT]):
    """At most `most` members come out, those of the first places; `most_in` says of how many patterns in a place there
    may be one each."""

    def __init__(self, most: int, most_in: Callable[[Place], int]) -> None:
        self._most = most
        self._most_in = most_in
        self._places: dict[Place, dict[str | None, MemberT]] = {}
        """Members by their patterns; under None the one that took all others."""
        self._end: Place | None = None
        """From this place on, nothing comes out."""

    def add(self, place: Place, pattern: str, member: MemberT) -> None:
        if self._end is not None and place >= self._end:
            return
        group = self._places.setdefault(place, {})
        found = group.get(None) or group.get(pattern)
        if found is not None:
            found.absorb(member)
            return
        group[pattern] = member
        if len(group) > self._most_in(place):
            self._merge(group)
        if len(self._places) > 2 * self._most:
            self._forget_the_last_places()

    def _merge(self, group: dict[str | None, MemberT]) -> None:
        whole, *others = group.values()
        for other in others:
            whole.absorb(other)
        group.clear()
        group[None] = whole

    def _forget_the_last_places(self) -> None:
        """Each place has one member at least, so that none behind the first `most` comes out."""
        self._end = sorted(self._places)[self._most]
        self._places = {place: group for place, group in self._places.items() if place < self._end}

    @property
    def is_full(self) -> bool:
        """Whether a member is left out."""
        return self._end is not None or sum(map(len, self._places.values())) > self._most

    def __iter__(self) -> Iterator[tuple[Place, str | None, MemberT]]:
        """With the place and the pattern, which is None where it took all others."""
        left = self._most
        for place in sorted(self._places):
            group = self._places[place]
            for pattern in sorted(group, key=str):
                if left == 0:
                    return
                left -= 1
                yield place, pattern, group[pattern]
