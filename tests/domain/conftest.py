"""What tests of the domain read behind the API's back, and a second worker on the same database."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from app.asgi import create_app, framed
from app.runtime import prepare_parts
from tests.conftest import Hub


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


@pytest.fixture(scope="module")
async def records(hub: Hub) -> AsyncIterator[Records]:
    connection = await asyncpg.connect(hub.url)
    yield Records(connection)
    await connection.close()


@pytest.fixture(scope="module")
async def other_worker(hub: Hub) -> AsyncIterator[Hub]:
    """Another process of the same hub would share only the database and the keys; this one shares no more."""
    parts = prepare_parts(hub.settings, hub.url)
    litestar = create_app(parts)
    async with litestar.lifespan():
        yield replace(hub, parts=parts, app=framed(litestar, hub.settings))
