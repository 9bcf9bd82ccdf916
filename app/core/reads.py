"""The fast read path: a repository's own select and a Struct in, Structs out, run by asyncpg without a transaction around it.

An ORM read costs BEGIN, SELECT and ROLLBACK and most of the time is spent around them; the same select, compiled once and run on
a pool of its own, is as fast as one written by hand (`bench/RESULTS.md`). Both paths read the same bytes: a test runs every
resource through both.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from app.core.database import CONNECT_TIMEOUT_S, POOL_TIMEOUT_S, server_settings
from app.core.errors import NotFound, Unavailable
from app.core.listing import Listing, ListQuery, Page

S = TypeVar("S", bound=msgspec.Struct)
_DIALECT = PGDialect_asyncpg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


@lru_cache(4096)
def compiled(statement: Select[Any]) -> tuple[str, tuple[str, ...], Mapping[str, Any]]:
    """SQL with `$1` parameters, their names in order, and the values that the statement itself carries."""
    sql = statement.compile(dialect=_DIALECT)
    return str(sql), tuple(sql.positiontup or ()), sql.params


class Reads:
    """asyncpg's pool and the one function that reads through it, as one row, as rows, or as a page."""

    def __init__(self, url: str, *, pool_size: int, timeout_s: float) -> None:
        self._connect: Callable[[], Any] = lambda: asyncpg.create_pool(
            url.replace("postgresql+asyncpg://", "postgresql://"),
            min_size=1,
            max_size=pool_size,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=timeout_s,
            server_settings=server_settings("hub reads", timeout_s),
            init=_decode_json_columns,
            reset=_nothing_to_reset,
        )
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        self._pool = await self._connect()

    async def close(self) -> None:
        if self._pool is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._pool.close(), 5)
            self._pool.terminate()

    async def rows(self, statement: Select[Any], values: Mapping[str, Any]) -> list[asyncpg.Record]:
        """All rows of the compiled statement. Raises Unavailable where no connection is free within five seconds."""
        sql, names, own = compiled(statement)
        arguments = [values[name] if name in values else own[name] for name in names]
        pool = self._pool
        if pool is None:
            raise Unavailable("The database is away. Try again in a moment.", code="database_unavailable")
        try:
            async with asyncio.timeout(POOL_TIMEOUT_S):
                connection = await pool.acquire()
        except TimeoutError:
            raise Unavailable(
                "All database connections are busy. Try again in a moment.", code="database_busy"
            ) from None
        try:
            try:
                return await connection.fetch(sql, *arguments)
            except asyncpg.InvalidCachedStatementError:
                return await connection.fetch(
                    sql, *arguments
                )  # a migration changed the table under a prepared statement
        finally:
            await pool.release(connection)

    async def one(self, statement: Select[Any], struct: type[S], **values: Any) -> S:
        """The one row as a Struct. Raises NotFound."""
        found = await self.rows(statement, values)
        if not found:
            raise NotFound
        return struct(*found[0])

    async def all(self, statement: Select[Any], struct: type[S], **values: Any) -> list[S]:
        return [struct(*row) for row in await self.rows(statement, values)]

    async def page(self, listing: Listing, query: ListQuery, struct: type[S], **values: Any) -> Page[S]:
        """One page of a list, with the exact count where the query asks for it."""
        found = await self.rows(listing.statement(query), values | listing.parameters(query))
        width = len(struct.__struct_fields__)
        shown = found[: query.limit]
        items = [struct(*row[:width]) for row in shown]
        cursor = None
        if len(found) > query.limit:
            cursor = listing.cursor_after(query, shown[-1]["sort_value"], UUID(bytes=shown[-1][0].bytes))
        return Page(items=items, next_cursor=cursor, total=await self._total(listing, query, values))

    async def _total(self, listing: Listing, query: ListQuery, values: Mapping[str, Any]) -> int | None:
        if not query.count:
            return None
        (row,) = await self.rows(listing.count_statement(query), values | listing.parameters(query))
        total: int = row[0]
        return total

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A bare connection, for what is not a select of one repository."""
        assert self._pool is not None
        async with self._pool.acquire(timeout=POOL_TIMEOUT_S) as connection:
            yield connection


async def _nothing_to_reset(connection: Any) -> None:
    """Reads leave nothing behind in a session, so the round trip of a reset is saved."""


async def _decode_json_columns(connection: Any) -> None:
    encode: Callable[[Any], str] = lambda value: msgspec.json.encode(value).decode()  # noqa: E731
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=encode, decoder=msgspec.json.decode)
