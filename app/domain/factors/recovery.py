"""Recovery codes: for who has lost their phone and their keys. Each has 80 random bits, and works once."""

import secrets
from hashlib import sha256
from typing import Final
from uuid import UUID

ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz023456789"
"""Without letters and digits that look alike: no i, l, o and 1; 0 is a digit always."""
NUMBER: Final = 10
GROUPS, OF_GROUP = 4, 4


def new_code() -> str:
    """As `k7xm-2vqa-9hde-w3nb`."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(OF_GROUP)) for _ in range(GROUPS))


def plain(code: str) -> str:
    """As somebody typed it, without what means nothing."""
    return code.replace("-", "").replace(" ", "").lower()


def digest_of(user_id: UUID, code: str) -> bytes:
    """Of so many random bits no slow hash is needed: nobody can try them all."""
    return sha256(user_id.bytes + plain(code).encode()).digest()
