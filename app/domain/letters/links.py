"""The links of letters: which page of the hub's they lead to, and the token in them.

A token is derived from its letter and a key of the ring, and stored as a digest only: the same letter, sent again after
a failure, has the same link. Where that key is gone before the letter was sent, the letter gets another one.
"""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Final
from uuid import UUID

from app.core.opaque_tokens import GivenToken, NewToken, new_token, read_token
from app.core.sealing import KeyRing
from app.domain.letters.schemas import LetterKind
from app.settings import Settings

PURPOSE: Final = "tokens of letters"
TOKENS: Final[Mapping[LetterKind, str]] = {"reset_password": "dfp", "invitation": "dfi", "confirm_email": "dfm"}
"""Which kind of token each has; the others have none."""
PAGES: Final[Mapping[LetterKind, str]] = {
    "reset_password": "reset",
    "invitation": "invitation",
    "confirm_email": "email",
}


def token_of(ring: KeyRing, key_id: str, kind: LetterKind, tenant_id: UUID, letter_id: UUID) -> NewToken:
    """Raises SealingError for a key that is gone."""
    message = f"{kind}\0".encode() + tenant_id.bytes + letter_id.bytes
    secret = hmac.new(ring.derive(PURPOSE, key_id), message, sha256).digest()
    return new_token(TOKENS[kind], tenant_id, letter_id, secret=secret)


def read_token_of(kind: LetterKind, text: str) -> GivenToken | None:
    return read_token(TOKENS[kind], text)


def link_to(settings: Settings, kind: LetterKind, token: str) -> str:
    """By HUB_PUBLIC_URL alone: what a request says of the host it went to leads nobody anywhere."""
    return f"{page_at(settings, PAGES[kind])}?token={token}"


def page_at(settings: Settings, page: str) -> str:
    return f"{settings.url.rstrip('/')}/sign-in/{page}"
