"""F1: the floor of the work: bare Litestar handlers over an asyncpg pool, msgspec Structs out.

No authentication, no audit trail, no request log, and no tenant but where a list needs it to walk the hub's index. Its
pool is set up as the hub's is: the same size, and no reset query when a connection comes back. `POST /roles` does the
hub's three INSERTs by hand in one transaction.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import msgspec
import uuid_utils.compat
from litestar import Litestar, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery, RequestBody

_POOL_SIZE = int(os.environ["BENCH_POOL_SIZE"])
_TENANT = UUID(os.environ["BENCH_TENANT_ID"])
_ACTOR = UUID(os.environ["BENCH_ACTOR_ID"])

_ROLE = """
    SELECT id, name, description, permissions, owner_role_id, is_system, is_requestable, requires_mfa,
           created_at, updated_at, created_by, updated_by, version
    FROM roles
"""
_SOURCE = """
    SELECT id, name, description, type, category, config, tags, owner_role_id, data_domain_id, is_paused,
           test_interval_s, discover_schedule, discover_time_zone, next_discovery_at, status, status_since,
           last_tested_at, created_at, updated_at, created_by, updated_by, version, secret_states
    FROM data_sources
"""
_ROLE_BY_ID = f"{_ROLE} WHERE id = $1"
_ROLE_LIST = f"{_ROLE} WHERE tenant_id = $2 ORDER BY created_at, id LIMIT $1"
_SOURCE_BY_ID = f"{_SOURCE} WHERE id = $1"
_SOURCE_LIST = f"{_SOURCE} WHERE tenant_id = $2 ORDER BY created_at, id LIMIT $1"
_INSERT_ROLE = """
    INSERT INTO roles (id, tenant_id, name, name_key, description, permissions, is_system,
                       is_requestable, created_at, updated_at, created_by, updated_by, version)
    VALUES ($1, $2, $3, $4, $5, $6, false, false, $7, $7, $8, $8, 1)
"""
_INSERT_AUDIT = """
    INSERT INTO audit_events (id, tenant_id, occurred_at, actor_id, actor_name, action, resource_type, resource_id,
                              outcome, address, request_id, after)
    VALUES ($1, $2, $3, $4, 'bench@example.com', 'role.create', 'role', $5, 'success', '127.0.0.1', $6, $7)
"""
_INSERT_EVENT = """
    INSERT INTO outbox_events (id, tenant_id, type, source, subject, time, data)
    VALUES ($1, $2, 'org.datafusionhub.role.created', '/api/v1', $3, $4, $5)
"""


class Role(msgspec.Struct, gc=False):
    id: UUID
    name: str
    description: str | None
    permissions: list[str]
    owner_role_id: UUID | None
    is_system: bool
    is_requestable: bool
    requires_mfa: bool
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    updated_by: UUID | None
    version: int


class DataSource(msgspec.Struct, gc=False):
    id: UUID
    name: str
    description: str | None
    type: str
    category: str
    config: msgspec.Raw
    tags: list[str]
    owner_role_id: UUID | None
    data_domain_id: UUID | None
    is_paused: bool
    test_interval_s: int | None
    discover_schedule: str | None
    discover_time_zone: str
    next_discovery_at: datetime | None
    status: str
    status_since: datetime | None
    last_tested_at: datetime | None
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    updated_by: UUID | None
    version: int
    secrets: msgspec.Raw


class Roles(msgspec.Struct):
    items: list[Role]
    next_cursor: str | None = None
    total: int | None = None


class DataSources(msgspec.Struct):
    items: list[DataSource]
    next_cursor: str | None = None
    total: int | None = None


class NewRole(msgspec.Struct):
    name: str
    description: str | None = None
    permissions: list[str] = []


_pool: asyncpg.Pool


@get("/roles/{role_id:uuid}")
async def get_role(role_id: FromPath[UUID]) -> Role:
    row = await _pool.fetchrow(_ROLE_BY_ID, role_id)
    if row is None:
        raise NotFoundException
    return Role(*row)


@get("/roles")
async def list_roles(limit: FromQuery[int]) -> Roles:
    return Roles([Role(*row) for row in await _pool.fetch(_ROLE_LIST, limit, _TENANT)])


@get("/data-sources/{source_id:uuid}")
async def get_source(source_id: FromPath[UUID]) -> DataSource:
    row = await _pool.fetchrow(_SOURCE_BY_ID, source_id)
    if row is None:
        raise NotFoundException
    return DataSource(*row)


@get("/data-sources")
async def list_sources(limit: FromQuery[int]) -> DataSources:
    return DataSources([DataSource(*row) for row in await _pool.fetch(_SOURCE_LIST, limit, _TENANT)])


@post("/roles")
async def create_role(data: RequestBody[NewRole]) -> Role:
    now = datetime.now(UTC)
    role = Role(
        uuid_utils.compat.uuid7(),
        data.name,
        data.description,
        data.permissions,
        None,
        False,
        False,
        False,
        now,
        now,
        _ACTOR,
        _ACTOR,
        1,
    )
    body = msgspec.json.encode(role)
    async with _pool.acquire() as connection, connection.transaction():
        await connection.execute(
            _INSERT_ROLE,
            role.id,
            _TENANT,
            role.name,
            role.name.casefold(),
            role.description,
            role.permissions,
            now,
            _ACTOR,
        )
        await connection.execute(
            _INSERT_AUDIT,
            uuid_utils.compat.uuid7(),
            _TENANT,
            now,
            _ACTOR,
            role.id,
            str(uuid_utils.compat.uuid7()),
            body,
        )
        await connection.execute(_INSERT_EVENT, uuid_utils.compat.uuid7(), _TENANT, f"roles/{role.id}", now, body)
    return role


async def _pass_json_through(connection: asyncpg.Connection) -> None:
    """JSON columns are neither parsed nor rendered again on their way out."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=bytes.decode, decoder=lambda text: msgspec.Raw(text.encode())
        )


async def _nothing_to_reset(connection: asyncpg.Connection) -> None:
    """As in the hub's pool for reads."""


@asynccontextmanager
async def _database(_: Litestar) -> AsyncIterator[None]:
    global _pool
    async with asyncpg.create_pool(
        os.environ["BENCH_DATABASE_URL"],
        min_size=_POOL_SIZE,
        max_size=_POOL_SIZE,
        init=_pass_json_through,
        reset=_nothing_to_reset,
    ) as _pool:
        yield


app = Litestar([get_role, list_roles, get_source, list_sources, create_role], lifespan=[_database], openapi_config=None)
