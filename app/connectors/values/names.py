"""Names of columns that their source does not tell apart."""

from __future__ import annotations

from collections.abc import Sequence


def told_apart(names: Sequence[str]) -> list[str]:
    """An empty name, or one that was there before, gets its position behind it: `a, a` is `a, a_2`."""
    seen: set[str] = set()
    unique = []
    for position, name in enumerate(names, 1):
        fresh = name if name and name not in seen else f"{name or 'column'}_{position}"
        while fresh in seen:
            fresh += "_"
        seen.add(fresh)
        unique.append(fresh)
    return unique
