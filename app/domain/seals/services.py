"""Proofs of what is sealed."""

from uuid import UUID

from app.core.errors import Conflict, NotFound
from app.core.reads import Reads
from app.domain.seals.merkle import inclusion_path, split
from app.domain.seals.repositories import AUDIT_SEAL, hashes_between, is_on_record, leaf_of
from app.domain.seals.schemas import AuditSealOut, InclusionProof

LARGEST_NUMBER = 2**63 - 1


async def seal_of(reads: Reads, tenant_id: UUID, number: int) -> AuditSealOut:
    """Raises NotFound."""
    if not 0 < number <= LARGEST_NUMBER:
        raise NotFound
    return await reads.one(AUDIT_SEAL, AuditSealOut, tenant_id=tenant_id, number=number)


async def prove(reads: Reads, tenant_id: UUID, event_id: UUID) -> InclusionProof:
    """Raises NotFound for a row that is not there, or not any more, and Conflict for one that has no seal yet."""
    leaf = await leaf_of(reads, tenant_id, event_id)
    if leaf is None:
        if await is_on_record(reads, tenant_id, event_id):
            raise Conflict(code="not_sealed_yet")
        raise NotFound
    position, leaf_hash, seal_number, first, last, root = leaf
    leaves = split(await hashes_between(reads, tenant_id, first, last))
    path = inclusion_path(leaves, position - first)
    return InclusionProof(
        seal_number, leaf_hash.hex(), position - first, last - first + 1, [each.hex() for each in path], root
    )
