"""What a stored secret is sealed to, and whether the keys are still the ones that sealed. It imports little, for the
hub asks at its start."""

from typing import TYPE_CHECKING

from app.core.sealing import KeyRing, SealingError

if TYPE_CHECKING:
    import asyncpg

OLDEST_OF_EACH_KEY = "SELECT * FROM public.oldest_secret_of_each_key()"


def sealed_field(name: str) -> str:
    """The field in which the secret of that name is sealed."""
    return f"data_sources.secrets.{name}"


async def replaced_keys(connection: "asyncpg.Connection", ring: KeyRing | None) -> list[str]:
    """Ids under which secrets were sealed with another key than the ring has by that id; without a ring, all of them.

    The oldest secret of each stands for the others. An id that the ring has not got at all is no mistake: keys may be
    lost for good, and then only the work that needs their secrets fails.
    """
    rows = await connection.fetch(OLDEST_OF_EACH_KEY)
    return [row["key_id"] for row in rows if ring is None or (row["key_id"] in ring.ids and not _opens(ring, row))]


def _opens(ring: KeyRing, row: "asyncpg.Record") -> bool:
    place = {"tenant_id": row["tenant_id"], "row_id": row["data_source_id"], "field": sealed_field(row["name"])}
    try:
        ring.open(row["sealed"], **place)
    except SealingError:
        return False
    return True
