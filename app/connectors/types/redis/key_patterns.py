"""Keys of a key-value store grouped into patterns: `user:1` and its million siblings are the one pattern `user:*`.

A pattern is written as Redis writes glob-style patterns: `*` stands for any characters, and what would be special in a
name (`*`, `?`, `[`, `]`, `^`, `\\`) stands behind a backslash. A byte that is not UTF-8 is written as `?`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

MAX_PATTERNS: Final = 5_000
MAX_NAMES: Final = 20
"""More names of one type in the last place of a key, under the same beginning, are taken for one pattern."""
MAX_SINGLE_NAMES: Final = 100
"""The same of keys that have one place only."""
SAMPLES: Final = 5
_MAX_DEPTH: Final = 8
MAX_SAMPLE_BYTES: Final = 1_024
"""Longer keys are counted, and nothing more."""
_SPECIAL: Final = re.compile(r"([*?\[\]^\\])")
# UUIDs and hashes, numbers of two digits or more, and whatever is nothing but digits.
_VARYING: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|[0-9]{2,}(?:[-_.T][0-9]+)*|^[0-9]$", re.IGNORECASE
)


class Pattern:
    """Keys of one type and one form."""

    def __init__(self, parts: tuple[str, ...], kind: str, separator: str) -> None:
        self.glob = separator.join(parts)
        self.kind = kind
        self.keys = 0
        self.samples: list[tuple[int, bytes]] = []
        """The first few, each with the number of the server that has it."""

    def take(self, keys: int, samples: Sequence[tuple[int, bytes]]) -> None:
        self.keys += keys
        self.samples = [*self.samples, *samples][:SAMPLES]


class KeyPatterns:
    """Takes keys one by one, and stays small however many there are."""

    def __init__(self, separator: str) -> None:
        self._separator = separator
        self._groups: dict[tuple[tuple[str, ...], str], dict[str, Pattern]] = {}
        self._count = 0
        self.is_full = False
        """Whether a pattern was left out."""

    def add(self, key: bytes, kind: str, server: int = 0) -> None:
        *above, name = masked(key, self._separator)
        place = (tuple(above), kind)
        group = self._groups.get(place, {})
        name = "*" if "*" in group else name
        if name not in group:
            if self._count >= MAX_PATTERNS:
                self.is_full = True
                return
            self._count += 1
            group[name] = Pattern((*above, name), kind, self._separator)
            self._groups[place] = group
        group[name].take(1, [(server, key)] if len(key) <= MAX_SAMPLE_BYTES else [])
        if len(group) > (MAX_NAMES if above else MAX_SINGLE_NAMES):
            self._merge(place)

    def _merge(self, place: tuple[tuple[str, ...], str]) -> None:
        above, kind = place
        group = self._groups[place]
        merged = Pattern((*above, "*"), kind, self._separator)
        for pattern in group.values():
            merged.take(pattern.keys, pattern.samples)
        self._count -= len(group) - 1
        self._groups[place] = {"*": merged}

    def __iter__(self) -> Iterator[Pattern]:
        """Sorted by pattern and type."""
        found = [pattern for group in self._groups.values() for pattern in group.values()]
        return iter(sorted(found, key=lambda pattern: (pattern.glob, pattern.kind)))


def masked(key: bytes, separator: str) -> list[str]:
    """The parts of a key, with `*` for what tells it from its siblings."""
    return [_masked(part) for part in _parts(key, separator)]


def _parts(key: bytes, separator: str) -> list[str]:
    return key.decode("utf-8", "surrogateescape").split(separator, _MAX_DEPTH - 1)


def _masked(part: str) -> str:
    pieces: list[str] = []
    end = 0
    for varying in _VARYING.finditer(part):
        pieces += [_escaped(part[end : varying.start()]), "*"]
        end = varying.end()
    return "".join([*pieces, _escaped(part[end:])])


def _escaped(text: str) -> str:
    return "".join("?" if "\udc80" <= it <= "\udcff" else it for it in _SPECIAL.sub(r"\\\1", text))


def beginning(glob: str) -> str:
    """A pattern with one star at its end, of which all of its keys are: a server is asked for these, since patterns of
    many stars cost it more than they save."""
    start = re.match(r"(?:\\.|[^\\*])*", glob, re.DOTALL)
    found = start[0] if start else ""
    return found if found == glob else found + "*"


def fits(key: bytes, glob: str, separator: str) -> bool:
    """Part by part: a star does not reach over separators."""
    parts, globs = _parts(key, separator), glob.split(separator, _MAX_DEPTH - 1)
    return len(parts) == len(globs) and all(map(_matches, parts, globs))


def _matches(text: str, glob: str) -> bool:
    """The usual walk with one way back, to the last star: at worst the product of both lengths."""
    pieces = re.findall(r"\\.|.", glob, re.DOTALL)
    place = at = after_star = 0
    star = None
    while place < len(text):
        piece = pieces[at] if at < len(pieces) else ""
        if piece == "*":
            star, after_star, at = at, place, at + 1
        elif piece == "?" or piece[-1:] == text[place]:
            place, at = place + 1, at + 1
        elif star is not None:
            after_star += 1
            place, at = after_star, star + 1
        else:
            return False
    return all(piece == "*" for piece in pieces[at:])
