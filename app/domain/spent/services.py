"""What is good once, whichever worker it comes to: challenges, assertions and tokens that others have signed."""

from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert

from app.domain.spent.models import SpentToken
from app.domain.work import UnitOfWork


def moment_of(seconds: float) -> datetime:
    """Of seconds since 1970, as tokens say them."""
    return datetime.fromtimestamp(seconds, UTC)


async def spend(work: UnitOfWork, kind: str, said: bytes, expires_at: datetime) -> bool:
    """Whether this is the first time that it is said in this tenant, of two at the same moment too. `kind` keeps what
    one protocol says from being taken for what another says; from `expires_at` on it is worth nothing anyhow."""
    place = sha256(b"%b %b %b" % (kind.encode(), work.tenant_id.bytes, said)).digest()[:16]
    row = {"id": UUID(bytes=place), "tenant_id": work.tenant_id, "expires_at": expires_at}
    spent = insert(SpentToken).values(row).on_conflict_do_nothing().returning(SpentToken.id)
    return await work.session.scalar(spent) is not None
