"""Names that their source does not tell apart: of columns, and of the members of documents."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def told_apart(names: Sequence[str], *, without_a_name: str = "column") -> list[str]:
    """A name that was there before gets its position behind it: `a, a` is `a, a_2`. An empty one is none, and gets the
    position behind `without_a_name`, unless that is empty as well."""
    seen: set[str] = set()
    unique = []
    for position, name in enumerate(names, 1):
        is_fresh = name not in seen and (name or not without_a_name)
        fresh = name if is_fresh else with_position(name or without_a_name, position, seen)
        seen.add(fresh)
        unique.append(fresh)
    return unique


def with_position(name: str, position: int, taken: Container[str]) -> str:
    """In place of a name that was there before."""
    fresh = f"{name}_{position}"
    while fresh in taken:
        fresh += "_"
    return fresh


def members_of(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """The members of a document that may say a name twice, none of them lost. Empty names are names there."""
    pairs = list(pairs)
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    names = told_apart([name for name, _ in pairs], without_a_name="")
    return dict(zip(names, (value for _, value in pairs), strict=True))
