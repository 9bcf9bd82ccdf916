"""The fast read path: a repository's own select and a Struct in, Structs out, run by asyncpg without a transaction
around it.

An ORM read costs BEGIN, SELECT and ROLLBACK and most of the time is spent around them; the same select, compiled once
and run on a pool of its own, is as fast as one written by hand (`bench/RESULTS.md`). Both paths read the same bytes: a
test runs every resource through both.
"""

import contextlib
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID
from weakref import WeakKeyDictionary

import asyncpg
import msgspec
from msgspec.structs import replace
from sqlalchemy import CompoundSelect, Join, Select, Table
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from app.core.database import (
    CONNECT_TIMEOUT_S,
    POOL_TIMEOUT_S,
    READ_LOCK_TIMEOUT_S,
    CompoundSelection,
    Connection,
    Selection,
    driver_url,
    server_settings,
)
from app.core.deadlines import Deadlines
from app.core.errors import NotFound, Unavailable
from app.core.extent import Extent
from app.core.lists.listing import Listing, ListQuery, Page
from app.core.lists.parameters import MAX_LIMIT
from app.core.places import Places
from app.core.read_pool import ReadPool

Row = tuple[Any, ...]
"""Of a select: the values of its columns, of the types that they have in Python."""
S = TypeVar("S", bound=msgspec.Struct)
Placed = tuple[Any, UUID]
"""What a row is sorted by, and its id."""
Fetch = Callable[[asyncpg.Connection, str, list[object]], Awaitable[list[Row]]]
SEARCH_WAIT_S = 2.0
LONGEST_QUEUE = 16
"""Searches and counts of one list that wait for a place."""
LONGEST_REMEMBERED = 1000
"""Characters of a stored document. What is on a list is read again and again, and to write it costs twenty times as
much as to remember how it was written."""
GATHERED_IN_ITS_PLACE = 3
"""Rows that are gathered in the time in which one is looked at in the order of the list (1.5 and 5 us, measured)."""
LOOKED_AT = 200
"""Rows of which each is looked at, whatever is searched for."""
FOUND_IN_PLACE_OF_A_LOOK = 1.5
"""To find a row by the index of a search, and to read it then, costs as much as to look at so many."""
UNEVENLY = 4
"""So much further a walk goes than it would have to if all that match were scattered evenly."""
_DIALECT = PGDialect_asyncpg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


class Compiled(NamedTuple):
    sql: str
    names: tuple[str, ...]
    """Of the parameters, in the order of `$1`, `$2` ..."""
    own: Mapping[str, object]
    """The values that the statement itself carries."""
    table: str
    """The one that it is about: whoever waits for the same one shares places with it."""


def written(sql: str, *names: str, table: str) -> Compiled:
    """A statement by hand, for what is not of one table: `names` are those of `$1`, `$2` ..."""
    return Compiled(sql, names, {}, table)


@lru_cache(4096)
def compiled(statement: Selection | CompoundSelection) -> Compiled:
    sql = statement.compile(dialect=_DIALECT)
    return Compiled(str(sql), tuple(sql.positiontup or ()), sql.params, _table_of(statement))


def _table_of(source: Any) -> str:
    """The first one that it reads from, if any."""
    while not isinstance(source, Table):
        if isinstance(source, CompoundSelect):
            source = source.selects[0]
        elif isinstance(source, Select):
            froms = source.get_final_froms()
            if not froms:
                return ""
            source = froms[0]
        else:
            source = source.left if isinstance(source, Join) else source.element
    return source.name


PLANNING = {
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "random_page_cost": "1.1",
}
"""A statement is planned once on each connection, for whatever values come: planning is half of what a plain read would
cost otherwise, and no statistics of the values can lead it astray. Where one plan cannot do for all values, see
`is_planned_by_value`. A page that is wanted is in memory more often than not, and one read takes one processor."""


class Reads:
    """The one function that reads on connections of its own: as one row, as rows, or as a page.

    What is stored as `jsonb` comes as `msgspec.Raw`: its Structs are there to be written, not to be looked into.
    """

    def __init__(self, url: str, *, pool_size: int, timeout_s: float) -> None:
        async def connect() -> asyncpg.Connection:
            connection = await asyncpg.connect(
                driver_url(url),
                timeout=CONNECT_TIMEOUT_S,
                connection_class=Connection,
                server_settings=server_settings("hub reads", timeout_s, lock_timeout_s=READ_LOCK_TIMEOUT_S) | PLANNING,
            )
            try:
                await _choose_codecs(connection)
            except BaseException:
                connection.terminate()
                raise
            return connection

        self._deadlines = Deadlines(timeout_s)  # asyncpg's own `command_timeout` is a timer for each query
        self._orders: WeakKeyDictionary[Extent, dict[tuple[str, str], list[Placed]]] = WeakKeyDictionary()
        """As long as the principal is held whose extent it is."""
        self._pool = ReadPool(connect, size=pool_size, wait_s=POOL_TIMEOUT_S)
        self._searches = Places(
            max(1, pool_size // 3), wait_s=SEARCH_WAIT_S, longest_queue=LONGEST_QUEUE, refusal="search_busy"
        )

    @property
    def places(self) -> Places:
        return self._pool.places

    def close(self) -> None:
        self._pool.close()

    def connection(
        self, kind: str | None, tenant_id: UUID | None
    ) -> contextlib.AbstractAsyncContextManager[asyncpg.Connection]:
        """A bare connection in the tenant, or in none, for what is not a select of one repository. `kind` shares places
        as a table does."""
        return self._pool.connection(kind, tenant_id)

    async def rows(
        self, statement: Selection | Compiled, values: Mapping[str, object], *, is_planned_by_value: bool = False
    ) -> list[Row]:
        """All rows of the statement, which is compiled where it is not written by hand. They are read in the tenant
        that `values` names as `tenant_id`, in none where they name none. Raises Unavailable where no connection is free
        within five seconds, or somebody else has locked the table.

        `is_planned_by_value` is for a statement of which one plan cannot do for rare and common values alike.
        """
        ready = statement if isinstance(statement, Compiled) else compiled(statement)
        return await self._run(ready, values, _fetch_planned if is_planned_by_value else _fetch)

    async def _run(self, statement: Compiled, values: Mapping[str, object], fetch: Fetch) -> list[Row]:
        sql, names, own, table = statement
        arguments = [values[name] if name in values else own[name] for name in names]
        tenant_id: Any = values.get("tenant_id")
        connection = await self._pool.acquire(table, tenant_id)
        try:
            with self._deadlines.start():
                if connection.tenant_id != tenant_id:
                    await connection.enter(tenant_id)
                found: list[Row] = await fetch(connection, sql, arguments)
        except asyncpg.LockNotAvailableError:
            self._pool.release(connection, table)
            raise Unavailable(code="database_timeout") from None
        except asyncpg.PostgresError:
            self._pool.release(connection, table)
            raise
        except BaseException:
            self._pool.discard(connection, table)
            raise
        self._pool.release(connection, table)
        return found

    async def one(self, statement: Selection, struct: type[S], **values: object) -> S:
        """The one row as a Struct. Raises NotFound."""
        found = await self.rows(statement, values)
        if not found:
            raise NotFound
        return struct(*found[0])

    async def page(self, listing: Listing, query: ListQuery, struct: type[S], **values: object) -> Page[S]:
        """One page of a list, with the exact count where the query asks for it.

        Raises Unavailable where too many search and count at this moment.
        """
        if query.is_costly:
            async with self._searches.place(listing.name):
                return await self._page(listing, query, struct, values)
        return await self._page(listing, query, struct, values)

    async def pages(
        self, listing: Listing, query: ListQuery, struct: type[S], **values: object
    ) -> AsyncGenerator[Page[S], None]:
        """The whole list from where the query begins, or as many rows of it as the query's `limit` (`parse_whole`), in
        pages. Each is read by a statement of its own when it is asked for: nothing is held between two of them."""
        left = query.limit
        while True:
            page = await self.page(listing, replace(query, limit=min(left, MAX_LIMIT)), struct, **values)
            yield page
            left -= len(page.items)
            if page.next_cursor is None or left == 0:
                return
            query = listing.query_behind(query, page.next_cursor)

    async def _page(self, listing: Listing, query: ListQuery, struct: type[S], values: Mapping[str, object]) -> Page[S]:
        bound = {**values, **listing.parameters(query)}
        way = await self.way(listing, query, bound)
        found = await self.rows_of_page(listing, query, bound, way)
        width = len(struct.__struct_fields__)
        shown = found[: query.limit]
        if shown and len(shown[0]) > width:
            items = [struct(*row[:width]) for row in shown]
        else:
            items = [struct(*row) for row in shown]
        cursor = listing.cursor_after(query, shown[-1]) if len(found) > query.limit else None
        total = await self._total(listing, query, bound, way) if query.count else None
        return Page(items=items, next_cursor=cursor, total=total)

    async def rows_of_page(
        self, listing: Listing, query: ListQuery, values: Mapping[str, object], way: "Way"
    ) -> list[Row]:
        """Along the list, where what is searched for is said to be so frequent that the page is soon full; gathered and
        sorted, where it is rare, or stands together further on."""
        if listing.has_order_to_remember(query):
            return await self._rows_in_known_order(listing, query, values)
        if way.walk_rows:
            walked = {**values, "walk_rows": way.walk_rows}
            near = await self.rows(listing.walk_statement(query), walked, is_planned_by_value=True)
            if len(near) > query.limit:
                return near
        statement = listing.look_statement(query) if way.looks else listing.statement(query)
        return await self.rows(statement, values, is_planned_by_value=listing.is_planned_by_value(query))

    async def _rows_in_known_order(self, listing: Listing, query: ListQuery, values: Mapping[str, object]) -> list[Row]:
        """Of few rows among many, scattered over the whole list: which of them come next is known, so that neither the
        rows in between are walked over nor all of them sorted."""
        order = await self._order_of(listing, query, values)
        found: list[Row] = []
        wanted = query.limit + 1
        for next_ids in in_pieces(behind(order, query), wanted):
            narrowed = query.within(Extent(frozenset(next_ids)))
            found += await self.rows(listing.statement(narrowed), {**values, **listing.parameters(narrowed)})
            if len(found) >= wanted:
                break
        return found[:wanted]

    async def _order_of(self, listing: Listing, query: ListQuery, values: Mapping[str, object]) -> list[Placed]:
        assert isinstance(query.extent, Extent)
        known = self._orders.setdefault(query.extent, {})
        key = (listing.name, query.sort.removeprefix("-"))
        if key not in known:
            rows = await self.rows(listing.order_statement(query), values, is_planned_by_value=True)
            known[key] = [(row[0], row[1]) for row in rows]
        return known[key]

    async def way(self, listing: Listing, query: ListQuery, values: Mapping[str, object]) -> "Way":
        """To the page, and to the count."""
        if not listing.may_be_walked(query):
            return BY_INDEX
        statement = compiled(listing.estimate_statement(query))
        explaining = statement._replace(sql=f"EXPLAIN (FORMAT JSON) {statement.sql}")
        ((explained,),) = await self._run(explaining, values, _fetch)
        every, rows = (part["Plan Rows"] for part in explained[0]["Plan"]["Plans"])
        if rows <= LOOKED_AT:
            return Way(0, looks=True)
        asking = compiled(listing.share_statement(query))._replace(table=statement.table)
        ((share,),) = await self._run(asking, values, _fetch)
        return way_of(query.limit + 1, share, rows, every)

    async def _total(self, listing: Listing, query: ListQuery, values: Mapping[str, object], way: "Way") -> int:
        by_value = listing.is_planned_by_value(query)
        statement = listing.count_statement(query, looks=way.looks)
        (row,) = await self.rows(statement, values, is_planned_by_value=by_value)
        total: int = row[0]
        return total


class Way(NamedTuple):
    """How a page is found."""

    walk_rows: int
    """So many rows of the list are looked at first, in its order."""
    looks: bool
    """What is gathered then is found by a look at each row that other filters leave, not by the index of the search."""


BY_INDEX = Way(0, looks=False)


def way_of(wanted: int, share: float, rows: int, every: int) -> Way:
    """`share` of all rows are said to match; there are `every` of them, of which other filters leave `rows`."""
    walked = walk_rows(wanted, round(share * rows), rows)
    return Way(walked, looks=share * every * FOUND_IN_PLACE_OF_A_LOOK > rows)


def behind(order: list[Placed], query: ListQuery) -> list[UUID]:
    """The ids that come after the last row of the page before, in the query's direction."""
    if query.sort.startswith("-"):
        end = len(order) if query.after is None else bisect_left(order, cast(Placed, query.after))
        return [row_id for _, row_id in reversed(order[:end])]
    start = 0 if query.after is None else bisect_right(order, cast(Placed, query.after))
    return [row_id for _, row_id in order[start:]]


def in_pieces(ids: list[UUID], size: int) -> Iterator[list[UUID]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def walk_rows(wanted: int, matching: int, rows: int) -> int:
    """How many rows of the list are looked at before all that match are gathered instead; 0 where those are so few that
    they are gathered at once.

    Scattered evenly, the wanted ones are among the first `wanted * rows / matching`. To look at a row in the order of
    the list costs as much as to gather some three that match. So a walk in vain costs no more than what comes after it.
    """
    evenly = wanted * rows / max(matching, 1)
    if evenly * GATHERED_IN_ITS_PLACE >= matching:
        return 0
    return int(min(evenly * UNEVENLY, matching / GATHERED_IN_ITS_PLACE))


async def _fetch(connection: asyncpg.Connection, sql: str, arguments: list[object]) -> Any:
    try:
        return await connection.fetch(sql, *arguments)
    except asyncpg.InvalidCachedStatementError:  # a migration changed the table under a prepared statement
        return await connection.fetch(sql, *arguments)


async def _fetch_planned(connection: asyncpg.Connection, sql: str, arguments: list[object]) -> list[Row]:
    await connection.execute("SET plan_cache_mode = force_custom_plan")
    try:
        found: list[Row] = await _fetch(connection, sql, arguments)
    except asyncpg.PostgresError:
        await connection.execute("RESET plan_cache_mode")
        raise
    await connection.execute("RESET plan_cache_mode")
    return found  # what ends otherwise ends the connection


async def _choose_codecs(connection: asyncpg.Connection) -> None:
    """A moment comes as text, which Python reads in a quarter of the time that asyncpg takes to add up its own form:
    that was a third of what it costs to receive a page.
    """
    encode: Callable[[object], str] = lambda value: msgspec.json.encode(value).decode()  # noqa: E731
    for name, encoder, decoder in (
        ("json", encode, msgspec.json.decode),
        ("jsonb", encode, _as_written),
        ("timestamptz", str, datetime.fromisoformat),
    ):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=encoder, decoder=decoder)


def _as_written(document: str) -> msgspec.Raw:
    """A stored document as the hub writes it, which is without PostgreSQL's spaces."""
    return _remembered(document) if len(document) <= LONGEST_REMEMBERED else _rewritten(document)


def _rewritten(document: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(msgspec.json.decode(document)))


_remembered = lru_cache(2048)(_rewritten)
