"""What a source says back, without the secrets that it was told: it knows them, who reads its answers need not."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

HIDDEN = "<hidden>"
MIN_LENGTH = 6
"""A shorter secret is part of too many words: hiding it would spoil the data, and betray it by what is missing."""


def without_secrets(said: S, secrets: Mapping[str, str | None]) -> S:
    """The same, each whole secret in any of its texts replaced. What is encoded (base64, a hash) is not recognised."""
    raw = msgspec.json.encode(said)
    found = [needle for value in secrets.values() if value and (needle := _as_text(value)) in raw]
    for needle in sorted(found, key=len, reverse=True):
        raw = raw.replace(needle, HIDDEN.encode())
    return msgspec.json.decode(raw, type=type(said)) if found else said


def _as_text(secret: str) -> bytes:
    """As it stands inside of a JSON text; what cannot be found where it is too short."""
    return msgspec.json.encode(secret)[1:-1] if len(secret) >= MIN_LENGTH else b"\xff"
