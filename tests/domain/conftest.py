"""What tests of the domain read behind the API's back, and a second worker on the same database."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec
import pytest
from argon2 import PasswordHasher as Argon2

from app.asgi import create_app, framed
from app.core.embedded import EmbeddedPostgres
from app.domain.auth.sessions import refresh_token_of
from app.domain.jobs import runner
from tests.conftest import PASSWORD, Hub, parts_of_hub

WEAK = Argon2(time_cost=1, memory_cost=1024)


class Records:
    """The rows of a hub's database, as the application role sees and may change them."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self._connection = connection

    async def run(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        return list(await self._connection.fetch(sql, *arguments))

    async def one(self, sql: str, *arguments: Any) -> Any:
        return await self._connection.fetchval(sql, *arguments)

    async def audit(self, answer: httpx.Response) -> list[dict[str, Any]]:
        """The audit rows that a request left, found by its request id."""
        rows = await self.run(
            "SELECT * FROM audit_events WHERE request_id = $1 ORDER BY sequence", answer.headers["x-request-id"]
        )
        return [dict(row) | {name: _decoded(row[name]) for name in ("before", "after")} for row in rows]

    async def mark(self) -> tuple[int, int]:
        """How many audit rows and events there are."""
        return await self.one("SELECT count(*) FROM audit_events"), await self.one("SELECT count(*) FROM outbox_events")

    async def events(self, since: int) -> list[dict[str, Any]]:
        """The outbox's rows but for the first so many."""
        rows = await self.run("SELECT * FROM outbox_events ORDER BY sequence OFFSET $1", since)
        return [dict(row) | {"data": _decoded(row["data"])} for row in rows]


def _decoded(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


@pytest.fixture(autouse=True)
def failed_jobs_are_tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A discovery that fails for something that may pass would take a quarter of a minute."""
    monkeypatch.setattr(runner, "RETRY_AFTER_S", (0.05, 0.05))


async def new_user(hub: Hub, records: Records, **columns: Any) -> str:
    """A user's email. The hash is a weak one, so that logging in costs little."""
    made = await hub.new_user()
    values = {"password_hash": WEAK.hash(PASSWORD), **columns}
    for name, value in values.items():
        await records.run(f'UPDATE users SET "{name}" = $1 WHERE id = $2::uuid', value, made["id"])
    return str(made["email"])


async def open_session(hub: Hub, records: Records, email: str) -> httpx.AsyncClient:
    """A client of the user as after a login, without the 0.2 seconds that a password takes."""
    return hub.client((await open_pair(hub, records, email))["access_token"])


async def open_pair(hub: Hub, records: Records, email: str) -> dict[str, Any]:
    """The tokens that a login would give."""
    session_id, key_id = uuid4(), hub.parts.key_ring.current_id
    (row,) = await records.run(
        """INSERT INTO sessions (id, tenant_id, user_id, key_id, generation, rotated_at, idle_expires_at, expires_at,
                                 last_seen_at, device, created_at, updated_at)
           SELECT $1, tenant_id, id, $2, 1, now(), now() + interval '1 day', now() + interval '2 days', now(),
                  'python-httpx', now(), now()
           FROM users WHERE email = $3 RETURNING user_id, tenant_id""",
        session_id,
        key_id,
        email,
    )
    token = hub.parts.tokens.issue(subject=row["user_id"], session=session_id, tenant=row["tenant_id"])
    refresh = refresh_token_of(hub.parts.key_ring, key_id, session_id, 1)
    return {
        "access_token": token,
        "token_type": "bearer",
        "expires_in": 900,
        "refresh_token": refresh,
        "refresh_expires_in": 86400,
    }


@pytest.fixture(scope="module")
async def records(hub: Hub) -> AsyncIterator[Records]:
    connection = await asyncpg.connect(hub.owner_url)
    yield Records(connection)
    await connection.close()


@pytest.fixture(scope="module")
async def other_worker(hub: Hub) -> AsyncIterator[Hub]:
    """Another process of the same hub would share only the database and the keys; this one shares no more."""
    parts = parts_of_hub(hub.settings, hub.url)
    litestar = create_app(parts)
    async with litestar.lifespan():
        yield replace(hub, parts=parts, app=framed(litestar, hub.settings))


@asynccontextmanager
async def unwritable(hub: Hub, cluster: EmbeddedPostgres) -> AsyncIterator[None]:
    """The log of this database takes no row while the block runs."""
    owner = await asyncpg.connect(cluster.url("hub_owner", hub.url.rpartition("/")[2].partition("?")[0]))
    await owner.execute("REVOKE INSERT ON audit_events FROM hub_app")
    try:
        yield
    finally:
        await owner.execute("GRANT INSERT ON audit_events TO hub_app")
        await owner.close()


async def write_and_undo(
    owner_url: str, write: Callable[..., Awaitable[object]], number: int, *, turns: int, tenant_ids: Sequence[UUID]
) -> None:
    """`write` rows in one transaction after the other, of the tenants in turn, with one that is rolled back between."""
    connection = await asyncpg.connect(owner_url)
    for turn in range(turns):
        async with connection.transaction():
            await write(connection, f"{number} {turn}", tenant_ids[turn % len(tenant_ids)])
        undone = connection.transaction()
        await undone.start()
        await write(connection, "undone")
        await undone.rollback()
    await connection.close()
