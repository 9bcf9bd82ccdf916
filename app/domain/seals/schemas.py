"""Seals and proofs on the wire."""

from datetime import datetime
from uuid import UUID

from app.core.schemas import Output


class AuditSealOut(Output):
    id: UUID
    """The same as `last_id`, which no other seal has."""
    number: int
    first_position: int
    last_position: int
    first_id: UUID
    last_id: UUID
    count: int
    root: str
    """Of the Merkle tree over the rows from first to last, in hex (RFC 9162)."""
    previous_hash: str
    """The hash of the seal before; 64 zeros in the first one."""
    sealed_at: datetime
    kid: str
    signature: str
    """Ed25519, in hex."""
    hash: str
    """SHA-256 over all that is signed and the signature."""


class InclusionProof(Output):
    """That a row is under a seal: hashed along the path its leaf gives the root."""

    seal_number: int
    leaf_hash: str
    leaf_index: int
    tree_size: int
    path: list[str]
    root: str
