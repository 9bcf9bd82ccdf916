"""The hub's own database is no source: whoever may preview sources would read hashes and sealed secrets there.

It is told by what PostgreSQL says of itself, since one database has many names and addresses, and replicas.
"""

from contextlib import suppress
from uuid import UUID

import asyncpg
import msgspec

from app.core.egress import EgressPolicy
from app.domain.parts import Parts
from app.domain.tenants.repositories import folders_for

KIND = "data_sources"
"""Of work, where database connections are shared out."""
_BY_START = """
SELECT (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint::text, oid::bigint
FROM pg_database WHERE datname = current_database()"""
_BY_IDENTIFIER = """
SELECT system_identifier::text, (SELECT oid::bigint FROM pg_database WHERE datname = current_database())
FROM pg_control_system()"""


async def policy_of(parts: Parts, tenant_id: UUID) -> EgressPolicy:
    """For connector work of a tenant. Asked each time, since the server may have been started anew, and tenants come
    and go."""
    async with parts.reads.connection(KIND, tenant_id) as connection:
        names = [tuple(await connection.fetchrow(_BY_START))]
        with suppress(asyncpg.InsufficientPrivilegeError):  # a provider's choice; its replicas are not known then
            names.append(tuple(await connection.fetchrow(_BY_IDENTIFIER)))
        own, others = await folders_for(connection, tenant_id)
    return msgspec.structs.replace(
        parts.egress, own_database=tuple(names), files_folder=own, hidden_folders=frozenset(others)
    )
