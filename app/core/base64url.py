"""Base64 for addresses, tokens and file names, without padding (RFC 4648 section 5, RFC 7515 appendix C)."""

from base64 import b64decode, urlsafe_b64encode
from hashlib import sha256


def encode(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def decode(text: str, *, strictly: bool = False) -> bytes:
    """Characters outside of the alphabet are passed over, or refused `strictly`; either way a value has several
    spellings. Raises ValueError."""
    return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=strictly)


def encoded_sha256(text: str) -> str:
    """As the challenge S256 of RFC 7636 section 4.2 is made of its verifier."""
    return encode(sha256(text.encode()).digest())
