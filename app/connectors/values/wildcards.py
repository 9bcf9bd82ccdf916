"""The one wildcard of all sources' settings: `*` stands for any characters, none included, and nothing else is special.

Which names are shown is told by two lists of such patterns: those to show, none at all standing for every name, and
those to leave out, which win.
"""

from __future__ import annotations

from collections.abc import Sequence


def matches(text: str, pattern: str) -> bool:
    """Linear in the text, however many stars there are."""
    head, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middles, tail = rest
    if not text.startswith(head) or not text.endswith(tail) or len(text) < len(head) + len(tail):
        return False
    place, end = len(head), len(text) - len(tail)
    for middle in middles:
        place = text.find(middle, place, end)
        if place < 0:
            return False
        place += len(middle)
    return True


def is_shown(name: str, included: Sequence[str], excluded: Sequence[str]) -> bool:
    if included and not any(matches(name, pattern) for pattern in included):
        return False
    return not any(matches(name, pattern) for pattern in excluded)


def like_pattern(pattern: str, escape: str = "\\") -> str:
    """The same as SQL's LIKE has it, with this character before what stands for itself."""
    for special in (escape, "%", "_"):
        pattern = pattern.replace(special, escape + special)
    return pattern.replace("*", "%")
