"""Masks: what is shown in place of a secret, and must not be taken for one when it comes back."""

import re
import unicodedata
from collections.abc import Iterator, Mapping

from app.core.errors import Fault
from app.core.faults import shown_name

_SIGN = r"[*\u00b7\u2022\u2219\u25cf\u25e6\u25cb\u25a0\u25aa\u2588\u26ab\u2026\u2010-\u2015#._\- ]"
SIGNS = re.compile(rf"{_SIGN}+|x+", re.IGNORECASE)
PIECE = 256
"""Characters. A longer mask is one of signs, or of `x`, only."""
MASKS = re.compile(
    rf"{_SIGN}{{3,}}"
    r"|x{3,}"
    r"|redacted|masked|obfuscated|hidden"
    r"|[*_]*[<\[({]+(hidden|redacted|masked|obfuscated|secret|encrypted|unchanged)[>\])}]+[*_]*"
    r"|[*_]{2,}(hidden|redacted|masked|obfuscated|secret|encrypted|unchanged)[*_]{2,}",
    re.IGNORECASE,
)
"""What forms and other services show in place of a secret: sent back, it would replace the real one. The rule: three
or more signs and nothing else (stars, dots, bullets, dashes ...), three or more `x`, a word such as `REDACTED`, or one
such as `<hidden>` in brackets, stars or underscores. A secret that only holds some of these is a secret."""


def no_masks(secrets: Mapping[str, object], path: str) -> Iterator[Fault]:
    """Rule: none of the secrets is a mask."""
    for place, (name, value) in enumerate(secrets.items(), 1):
        if isinstance(value, str) and _is_mask(value):
            below = f"{path}.{shown_name(name, place)}"
            yield Fault(below, "masked_secret", "is a mask, not a secret; leave it out to keep the stored one")


def _is_mask(text: str) -> bool:
    """In any width, and with the white space that comes along when it is copied.

    By pieces, the first of which tells of nearly every secret that it is none: to normalise a long text of combining
    marks takes a time that grows with the square of its length.
    """
    if len(text) <= PIECE:
        plain = unicodedata.normalize("NFKC", text)
        return any(MASKS.fullmatch(each) for each in (plain, plain.strip()))
    text = text.strip()
    pieces = (unicodedata.normalize("NFKC", text[at : at + PIECE]) for at in range(0, len(text), PIECE))
    return all(SIGNS.fullmatch(each) for each in pieces)
