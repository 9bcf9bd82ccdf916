"""The hub's own database is no source: whoever may preview sources would read hashes and sealed secrets there.

It is told by what PostgreSQL says of itself, since one database has many names and addresses, and replicas.
"""

import msgspec

from app.core.egress import EgressPolicy
from app.domain.parts import Parts

KIND = "data_sources"
"""Of work, where database connections are shared out."""
_IDENTITY = """
SELECT system_identifier::text, (SELECT oid::bigint FROM pg_database WHERE datname = current_database())
FROM pg_control_system()"""


async def policy_of(parts: Parts) -> EgressPolicy:
    """For connector work. The question is asked once: what it finds stays as long as the process."""
    if parts.own_database is None:
        async with parts.reads.connection(KIND) as connection:
            identifier, oid = await connection.fetchrow(_IDENTITY)
        parts.own_database = (identifier, oid)
    return msgspec.structs.replace(parts.egress, own_database=parts.own_database)
