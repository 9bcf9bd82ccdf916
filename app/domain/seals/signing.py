"""Seals: what is signed of a range of a chain, by which key, and whether that is so."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from msgspec import Struct, structs

from app.core.signing_keys import SigningKey, kid_of, pem_blocks
from app.domain.seals.canonical import encoded, written_time

SEAL: Final = "data-fusion-hub/audit-seal/1"
DROP: Final = "data-fusion-hub/audit-drop/1"
"""What a signature is for, as the first of what is signed: one is never taken for the other."""
NO_SEAL: Final = "0" * 64
"""What stands for the hash of the seal before the first one."""


class Seal(Struct, kw_only=True, tag="seal", tag_field="kind"):
    tenant_id: UUID
    number: int
    first_position: int
    last_position: int
    first_id: UUID
    last_id: UUID
    count: int
    root: str
    previous_hash: str
    sealed_at: datetime
    kid: str
    signature: str = ""
    hash: str = ""

    def signed(self) -> bytes:
        return encoded(self._signed())

    def _signed(self) -> list[str]:
        numbers = [str(number) for number in (self.number, self.first_position, self.last_position)]
        ids, sealed_at = [str(self.first_id), str(self.last_id)], written_time(self.sealed_at)
        hashes = [self.root, self.previous_hash]
        return [SEAL, str(self.tenant_id), *numbers, *ids, str(self.count), *hashes, sealed_at, self.kid]

    def own_hash(self) -> str:
        """Over what is signed and the signature: the next seal holds it, and so on to the last one."""
        return sha256(encoded([*self._signed(), self.signature])).hexdigest()


def sign(seal: Seal, key: SigningKey) -> Seal:
    signed = structs.replace(seal, signature=signature_of(seal.signed(), key))
    return structs.replace(signed, hash=signed.own_hash())


def signature_of(content: bytes, key: SigningKey) -> str:
    """In hex. Raises TypeError for a key of another kind (`load_sealing_keys` reads none)."""
    if not isinstance(key.private, Ed25519PrivateKey):
        raise TypeError("the audit log is sealed with Ed25519")
    return key.private.sign(content).hex()


class Drop(Struct):
    """That rows were removed because of their age: their seals stay, and this says that it was the hub."""

    tenant_id: UUID
    last_seal: int
    last_position: int
    hash: str
    """Of that seal."""

    def signed(self) -> bytes:
        return encoded([DROP, str(self.tenant_id), str(self.last_seal), str(self.last_position), self.hash])


class PublicKeys:
    """Of which a signature may be."""

    def __init__(self) -> None:
        self._keys: dict[str, Ed25519PublicKey] = {}

    def __contains__(self, kid: str) -> bool:
        return kid in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, kid: str, pem: str) -> None:
        """A key goes by the name that is made of it: another one under that name is none. Raises ValueError."""
        key = _public_key(pem.encode())
        if kid_of(key) != kid:
            raise ValueError(f"the public key {kid} is another one than its name says")
        self._keys[kid] = key

    def is_signed(self, kid: str, content: bytes, signature: str) -> bool:
        try:
            self._keys[kid].verify(bytes.fromhex(signature), content)
        except (InvalidSignature, ValueError, KeyError):
            return False
        return True


def read_public_keys(path: Path) -> PublicKeys:
    """PEM, one or more. Raises ValueError and OSError."""
    keys = PublicKeys()
    for block in pem_blocks(path.read_bytes(), "PUBLIC KEY"):
        key = _public_key(block)
        keys.add(kid_of(key), pem_of(key))
    if not len(keys):
        raise ValueError(f"{path} holds no PEM public key: `openssl pkey -pubout` makes one of a private key")
    return keys


def _public_key(pem: bytes) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("a public key is damaged") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("a public key is not of Ed25519")
    return key


def public_pems(keys: Iterable[SigningKey]) -> Mapping[str, str]:
    """By the names of the keys."""
    return {key.kid: pem_of(key.public) for key in keys if isinstance(key.public, Ed25519PublicKey)}


def pem_of(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
