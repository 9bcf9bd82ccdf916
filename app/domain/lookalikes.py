"""Names among those that are there: one that looks like another's is as good as taken."""

from typing import Any

from sqlalchemy import ColumnElement

from app.core.database import Repository
from app.core.errors import Conflict, Fault
from app.core.lookalikes import latin_reading
from app.core.schemas import canonical_name
from app.domain.work import UnitOfWork


async def refuse_lookalike(
    work: UnitOfWork, repository: type[Repository[Any]], name: str, noun: str, *among: ColumnElement[bool]
) -> None:
    """Raises Conflict for a name that is read as the one of another row of those. The noun is for the sentences. Of a
    name that can only be read as itself nothing is asked: a change that is one new row needs no session."""
    reading = latin_reading(name)
    if reading == canonical_name(name):
        return
    if await repository(work.session, tenant_id=work.tenant_id).exists(*among, name_key=reading):
        fault = Fault("name", "name_taken", f"looks like the name of another {noun}")
        raise Conflict(f"Another {noun} has a name that looks the same.", code="name_taken", errors=[fault])
