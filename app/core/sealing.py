"""Envelope encryption of secrets: AES-256-GCM, bound to tenant, row and field, under a ring of named keys.

A sealed value is `version (1) | key id length (1) | key id | nonce (12) | ciphertext and tag`. The place it belongs to
is the additional data, so that a value copied into another row, field or tenant does not open. Source: NIST SP 800-38D;
random 96-bit nonces stay safe for 2^32 values under one key.
"""

import base64
import binascii
import os
from collections.abc import Iterable
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FORMAT = 1
NONCE_BYTES = 12
KEY_BYTES = 32


class SealingError(Exception):
    """A sealed value does not open: wrong place, unknown key, or altered bytes. Never says which value."""


class KeyRing:
    """The keys for stored secrets by id; the first one seals, all of them open."""

    def __init__(self, keys: Iterable[tuple[str, bytes]]) -> None:
        given = list(keys)
        self._keys = dict(given)
        if not given:
            raise ValueError("at least one key is needed")
        if len(self._keys) != len(given):
            raise ValueError("two keys have the same id")  # one would be lost in silence, and what it sealed with it
        for key_id, key in self._keys.items():
            if not 1 <= len(key_id.encode()) <= 64 or len(key) != KEY_BYTES:
                raise ValueError("a key is an id of 1 to 64 characters and 32 bytes")
        self.current_id = next(iter(self._keys))

    @classmethod
    def parse(cls, text: str) -> "KeyRing":
        """Read `id:base64,id:base64`. Raises ValueError with a sentence that shows no key."""
        try:
            pairs = [entry.strip().split(":", 1) for entry in text.split(",") if entry.strip()]
            return cls((key_id, base64.b64decode(key, validate=True)) for key_id, key in pairs)
        except (ValueError, binascii.Error):
            raise ValueError("give keys as `id:base64` of 32 bytes each, separated by commas, each id once") from None

    @staticmethod
    def generate(key_id: str = "k1") -> str:
        """A new ring of one key, in the form that `parse` reads."""
        return f"{key_id}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}"

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def derive(self, purpose: str, key_id: str | None = None) -> bytes:
        """A 32-byte key for one purpose (HKDF-SHA256, RFC 5869) from one key of the ring.

        Raises SealingError if it is gone.
        """
        key = self._key(key_id or self.current_id)
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=purpose.encode()).derive(key)

    def seal(self, plaintext: bytes, *, tenant_id: UUID, row_id: UUID, field: str) -> bytes:
        key_id = self.current_id.encode()
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(self._keys[self.current_id]).encrypt(nonce, plaintext, _place(tenant_id, row_id, field))
        return bytes((FORMAT, len(key_id))) + key_id + nonce + sealed

    def open(self, sealed: bytes, *, tenant_id: UUID, row_id: UUID, field: str) -> bytes:
        """The plaintext.

        Raises SealingError where the value was sealed for another place or under a key that is gone.
        """
        if len(sealed) < 2 or sealed[0] != FORMAT:
            raise SealingError("not a sealed value")
        end = 2 + sealed[1]
        key = self._key(sealed[2:end].decode(errors="replace"))
        nonce, body = sealed[end : end + NONCE_BYTES], sealed[end + NONCE_BYTES :]
        try:
            return AESGCM(key).decrypt(nonce, body, _place(tenant_id, row_id, field))
        except (InvalidTag, ValueError):
            raise SealingError("the sealed value belongs elsewhere or was altered") from None

    def _key(self, key_id: str) -> bytes:
        try:
            return self._keys[key_id]
        except KeyError:
            raise SealingError(f"no key `{key_id}` in the ring") from None


def _place(tenant_id: UUID, row_id: UUID, field: str) -> bytes:
    return tenant_id.bytes + row_id.bytes + field.encode()
