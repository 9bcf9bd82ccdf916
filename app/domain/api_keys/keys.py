"""The text of an API key: `dfh_<id>_<secret><checksum>`, all in base 62.

The id (22 digits) is that of the key's row, the secret is 30 random digits (178 bits), and the checksum (6) is the
CRC-32 of all that stands before it: whoever scans texts for lost keys tells one from what only looks like it without
asking anybody. A secret like that needs no slow hash: nobody can try them all.
"""

import re
import secrets
import string
from hashlib import sha256
from uuid import UUID
from zlib import crc32

from msgspec import Struct

from app.core.errors import Unauthenticated

BEGINNING = b"dfh_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_DIGITS, SECRET_DIGITS, CHECKSUM_DIGITS = 22, 30, 6
PATTERN = rf"dfh_[0-9A-Za-z]{{{ID_DIGITS}}}_[0-9A-Za-z]{{{SECRET_DIGITS + CHECKSUM_DIGITS}}}"
"""What a scanner looks for, before it checks the checksum."""

_FORM = re.compile(PATTERN.encode())
_PREFIX_LENGTH = len(BEGINNING) + ID_DIGITS
KEY_LENGTH = _PREFIX_LENGTH + 1 + SECRET_DIGITS + CHECKSUM_DIGITS
_VALUES = {ord(digit): value for value, digit in enumerate(ALPHABET)}


class NewKey(Struct, frozen=True):
    text: str
    """Shown once, stored nowhere."""
    prefix: str
    """What the key may be called by: its beginning, without the secret."""
    digest: bytes


class PresentedKey(Struct, frozen=True):
    """What somebody came with that begins like a key. Among those in memory it is looked for by its digest at once;
    before the database is asked its form and its checksum have to be right (`checked_id`)."""

    text: bytes
    digest: bytes

    @classmethod
    def read(cls, token: bytes) -> "PresentedKey":
        """Raises Unauthenticated for what is not as long as every key is."""
        if len(token) != KEY_LENGTH:
            raise Unauthenticated(code="invalid_token")
        return cls(token, sha256(token).digest())

    def __repr__(self) -> str:
        return "PresentedKey(...)"  # the text is a secret

    @property
    def checked_id(self) -> UUID:
        """Of the row that says whether it is one of ours. Raises Unauthenticated for what no hub has made."""
        text, body = self.text, self.text[:-CHECKSUM_DIGITS]
        if not _FORM.fullmatch(text) or _number(text[-CHECKSUM_DIGITS:]) != crc32(body):
            raise Unauthenticated(code="invalid_token")
        number = _number(text[len(BEGINNING) : _PREFIX_LENGTH])
        if number >> 128:
            raise Unauthenticated(code="invalid_token")
        return UUID(int=number)


def new_key(key_id: UUID) -> NewKey:
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_DIGITS))
    prefix = prefix_of(key_id)
    body = f"{prefix}_{secret}"
    text = body + _checksum(body.encode())
    return NewKey(text, prefix, sha256(text.encode()).digest())


def prefix_of(key_id: UUID) -> str:
    return BEGINNING.decode() + _digits(key_id.int, ID_DIGITS)


def _checksum(body: bytes) -> str:
    return _digits(crc32(body), CHECKSUM_DIGITS)


def _digits(number: int, length: int) -> str:
    found = ""
    for _ in range(length):
        number, value = divmod(number, len(ALPHABET))
        found = ALPHABET[value] + found
    return found


def _number(digits: bytes) -> int:
    found = 0
    for digit in digits:
        found = found * len(ALPHABET) + _VALUES[digit]
    return found
