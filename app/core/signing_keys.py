"""The private keys that sign access tokens, as they lie in a PEM file."""

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from app.core import base64url

log = logging.getLogger("hub.keys")

LOOK_EVERY_S = 1.0
PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey


class SigningKey:
    """One private key with the algorithm that it is pinned to and its RFC 7638 thumbprint as `kid`."""

    def __init__(self, key: PrivateKey) -> None:
        self.private = key
        self.public = key.public_key()
        self.algorithm: Literal["EdDSA", "ES256"] = "EdDSA" if isinstance(key, Ed25519PrivateKey) else "ES256"
        self.jwk = _jwk_of(self.public)
        self.kid = kid_of(self.public)


def _jwk_of(key: PublicKey) -> dict[str, str]:
    algorithm = jwt.get_algorithm_by_name("EdDSA" if isinstance(key, Ed25519PublicKey) else "ES256")
    document: dict[str, str] = algorithm.to_jwk(key, as_dict=True)
    return {name: document[name] for name in ("crv", "kty", "x", "y") if name in document}


def kid_of(key: PublicKey) -> str:
    """Its RFC 7638 thumbprint."""
    digest = hashlib.sha256(msgspec.json.encode(dict(sorted(_jwk_of(key).items())))).digest()
    return base64url.encode(digest)


def pem_blocks(content: bytes, label: str) -> list[bytes]:
    """Those of a file whose label ends so (RFC 7468)."""
    marked = label.encode()
    return re.findall(rb"-----BEGIN [A-Z ]*%s-----.*?-----END [A-Z ]*%s-----" % (marked, marked), content, re.DOTALL)


def read_signing_keys(path: Path) -> list[SigningKey]:
    """The PEM private keys of a file, in order; the first signs, all verify.

    Raises ValueError for a file without keys, or with keys that are neither Ed25519 nor P-256.
    """
    return _keys_in(path.read_bytes(), path)


def _keys_in(content: bytes, path: Path) -> list[SigningKey]:
    try:
        keys = [load_pem_private_key(block, password=None) for block in pem_blocks(content, "PRIVATE KEY")]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{path} holds a private key that is damaged, or needs a password") from None
    if not keys:
        raise ValueError(f"{path} holds no PEM private key")
    for key in keys:
        if not isinstance(key, Ed25519PrivateKey) and not (
            isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
        ):
            raise ValueError(f"{path} holds a key that is neither Ed25519 nor P-256 (ES256)")
    return [SigningKey(key) for key in keys]  # type: ignore[arg-type]


class SigningKeyFile:
    """The file, looked at once a second: `when_changed` gets the keys that are in it now.

    A file is taken only when two looks in a row have found the same in it: of one that somebody is writing, the keys at
    the end are missing. One that cannot be read, or has a key that cannot, changes nothing.
    """

    def __init__(self, path: Path, when_changed: Callable[[list[SigningKey]], None]) -> None:
        self._path = path
        self._when_changed = when_changed
        self._known: bytes | None = None
        """What was taken, or refused."""
        self._seen: bytes | None = None
        """At the last look."""
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watching = asyncio.create_task(self._watch(), name="signing keys")

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            with contextlib.suppress(OSError):  # gone for a moment, or for good: the keys at hand stay
                self.take(await asyncio.to_thread(self._path.read_bytes))

    def take(self, content: bytes) -> None:
        """What one look has found."""
        is_settled, self._seen = content == self._seen, content
        if content == self._known or not is_settled:
            return
        self._known = content
        try:
            self._when_changed(_keys_in(content, self._path))
        except ValueError as error:
            log.warning("the signing keys stay as they are: %s", error)


def generate_signing_key() -> bytes:
    """A new Ed25519 private key as PEM."""
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
