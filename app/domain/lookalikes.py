"""Names among those that are there: one that looks like another's is as good as taken."""

from typing import Any

from sqlalchemy import ColumnElement

from app.core.database import Repository
from app.core.errors import Conflict, Fault
from app.core.lookalikes import latin_reading
from app.core.schemas import canonical_name


async def refuse_lookalike(rows: Repository[Any], name: str, noun: str, *among: ColumnElement[bool]) -> None:
    """Raises Conflict for a name that is read as the one of another row of those. The noun is for the sentences."""
    reading = latin_reading(name)
    if reading != canonical_name(name) and await rows.exists(*among, name_key=reading):
        fault = Fault("name", "name_taken", f"looks like the name of another {noun}")
        raise Conflict(f"Another {noun} has a name that looks the same.", code="name_taken", errors=[fault])
