"""Keys of a key-value store grouped into patterns: `user:1` and its million siblings are the one pattern `user:*`.

A pattern is written as Redis writes glob-style patterns: `*` stands for any characters, and what would be special in a
name (`*`, `?`, `[`, `]`, `^`, `\\`) stands behind a backslash. A byte that is not UTF-8 is written as `?`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from app.connectors.values.grouping import Groups

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

    def __init__(self, kind: str, samples: Sequence[tuple[int, bytes]]) -> None:
        self.glob = ""
        self.kind = kind
        self.keys = 1
        self.samples = list(samples)
        """The first few by server and name, each with the number of the server that has it."""

    def absorb(self, other: Pattern) -> None:
        self.keys += other.keys
        if len(self.samples) < SAMPLES or (other.samples and other.samples[0] < self.samples[-1]):
            self.samples = sorted({*self.samples, *other.samples})[:SAMPLES]


class KeyPatterns:
    """Takes keys one by one, in any order."""

    def __init__(self, separator: str) -> None:
        self._separator = separator
        self._groups: Groups[Pattern] = Groups(MAX_PATTERNS, lambda place: MAX_NAMES if place[0] else MAX_SINGLE_NAMES)

    def add(self, key: bytes, kind: str, server: int = 0) -> None:
        *above, name = masked(key, self._separator)
        samples = [(server, key)] if len(key) <= MAX_SAMPLE_BYTES else []
        self._groups.add((tuple(above), kind), name, Pattern(kind, samples))

    @property
    def is_full(self) -> bool:
        """Whether a pattern is left out."""
        return self._groups.is_full

    def __iter__(self) -> Iterator[Pattern]:
        """Sorted by pattern and type."""
        found = []
        for (above, _), name, pattern in self._groups:
            pattern.glob = self._separator.join((*above, "*" if name is None else name))
            found.append(pattern)
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
