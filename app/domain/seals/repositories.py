"""Which rows make seals and proofs on the wire, and the list of seals."""

from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, bindparam

from app.core.database import Repository
from app.core.lists.listing import Listing, Sort
from app.core.reads import Reads, written
from app.domain.seals.models import AuditSeal
from app.domain.seals.schemas import AuditSealOut


class AuditSealRepository(Repository[AuditSeal]):
    model_type = AuditSeal


AUDIT_SEALS = Listing(
    AuditSealRepository.selection(AuditSealOut),
    name="audit seals",
    id_column=AuditSeal.id,
    sorts={"number": Sort(AuditSeal.number, "audit_seals_tenant_id_number_id_idx", never_changes=True)},
    default_sort="-number",
)
AUDIT_SEAL: Final = AuditSealRepository.selection(AuditSealOut).where(
    AuditSeal.number == bindparam("number", type_=BigInteger())
)

_LEAF = written(
    """SELECT leaf.position, leaf.leaf_hash, leaf.seal_number, seal.first_position, seal.last_position, seal.root
       FROM audit_leaves AS leaf
       JOIN audit_seals AS seal ON seal.tenant_id = leaf.tenant_id AND seal.number = leaf.seal_number
       WHERE leaf.tenant_id = $1 AND leaf.event_id = $2""",
    "tenant_id",
    "event_id",
    table="audit_leaves",
)
_LEAVES = written(
    """SELECT string_agg(leaf_hash, ''::bytea ORDER BY position) FROM audit_leaves
       WHERE tenant_id = $1 AND position BETWEEN $2 AND $3""",
    "tenant_id",
    "first_position",
    "last_position",
    table="audit_leaves",
)
_IS_THERE = written(
    "SELECT EXISTS (SELECT FROM audit_events WHERE tenant_id = $1 AND id = $2)",
    "tenant_id",
    "event_id",
    table="audit_events",
)


async def leaf_of(reads: Reads, tenant_id: UUID, event_id: UUID) -> tuple[int, bytes, int, int, int, str] | None:
    """Position, hash and seal of a row, the seal's positions and its root; None for what is not sealed."""
    found = await reads.rows(_LEAF, {"tenant_id": tenant_id, "event_id": event_id})
    return tuple(found[0]) if found else None


async def hashes_between(reads: Reads, tenant_id: UUID, first_position: int, last_position: int) -> bytes:
    """Of the rows at these positions, one behind the other."""
    values = {"tenant_id": tenant_id, "first_position": first_position, "last_position": last_position}
    ((hashes,),) = await reads.rows(_LEAVES, values)
    return bytes(hashes or b"")


async def is_on_record(reads: Reads, tenant_id: UUID, event_id: UUID) -> bool:
    ((is_there,),) = await reads.rows(_IS_THERE, {"tenant_id": tenant_id, "event_id": event_id})
    return bool(is_there)
