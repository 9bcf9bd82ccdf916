"""Listings: allow-listed filters and sorts, keyset cursors, and the selects that a query string becomes.

A page costs the same at any depth and among any number of rows. The cursor carries the last row's sort value and id;
the next page starts behind it (`WHERE (sort, id) > (value, id)`), never at an OFFSET. Every sort and every filter names
the index in which its rows stand side by side in the list's order; `tests/core/test_list_plans.py` looks for it in the
plans.
"""

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial, reduce
from types import GenericAlias
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs
from sqlalchemy import (
    ColumnElement,
    bindparam,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.types import TypeEngine

from app.core import base64url
from app.core.database import Attribute, CompoundSelection, Selection
from app.core.errors import BadRequest, Fault
from app.core.extent import Extent, Scoped
from app.core.lists.filters import Column, Condition, Filter, may_be_null
from app.core.lists.parameters import (
    DEFAULT_LIMIT,
    EVERYTHING,
    MAX_LIMIT,
    PLAIN,
    PLAIN_OF_ALL,
    Parsed,
    parse_parameters,
    parsed_as,
    refuse_faulty_parameters,
)

T = TypeVar("T")
S = TypeVar("S", bound="Selection | CompoundSelection")


class Page(Struct, Generic[T], kw_only=True):
    items: list[T]
    next_cursor: str | None
    """Give it back as `?cursor=` for the next page; null on the last one."""
    total: int | None
    """All rows that match, where `?count=exact` asked for it."""


class Sort(Struct, frozen=True):
    """One order of a list. Rows without a value come before all others, and last where it is descending."""

    column: Attribute
    index: str
    """The index that has the list's rows in this order: what narrows every page of the list, then the column, then the
    id. For a column that may be null it has `coalesce(column, LEAST_VALUES[type])` in the column's place."""
    never_changes: bool = False
    """Of a row, as long as it is there: the order of some rows can be remembered."""
    is_filled: bool = False
    """The list leaves out the rows that have no value."""

    @property
    def may_be_null(self) -> bool:
        return not self.is_filled and may_be_null(self.column)


class ListQuery(Struct, frozen=True, kw_only=True):
    limit: int = DEFAULT_LIMIT
    sort: str
    """A name from the allow-list, behind `-` for descending."""
    after: tuple[object, UUID] | None = None
    """Sort value and id of the last row of the page before."""
    filters: Mapping[str, object] = {}
    count: bool = False
    extent: Extent | None | UnsetType = UNSET
    """Where the caller may see rows, in a list of what lives in a scope; None: everywhere."""

    def within(self, extent: Extent | None) -> "ListQuery":
        """Of what the caller may see; None: everything."""
        return structs.replace(self, extent=extent)

    @property
    def is_costly(self) -> bool:
        """Whether it may have to look at every row."""
        return self.count or "q" in self.filters


class Listing:
    """What one list takes, and the selects that it becomes.

    `selection` is the repository's own select; its first column is the row's id. `name` tells the list's cursors from
    those of others. Statements are built once per shape
    (which filters, which sort, first or later page) and reused, so that they are compiled and prepared once.
    `few_by` is for a list that is short for nearly everybody: the indexes that find all of it, to be sorted then. Where
    it is long, the sort's index has the order. `scoped` is for rows that live in a scope: such a list has to be told
    where the caller may see them.
    """

    def __init__(
        self,
        selection: Selection,
        *,
        name: str,
        id_column: Column,
        sorts: Mapping[str, Sort],
        default_sort: str,
        filters: Mapping[str, Filter] | None = None,
        few_by: tuple[str, ...] = (),
        scoped: Scoped | None = None,
    ) -> None:
        self.name = name
        self.scoped = scoped
        self.selection = selection
        self.sorts = sorts
        self.default_sort = default_sort
        self.filters = dict(filters or {})
        self._few_by = few_by
        self._id = id_column
        self._statements: dict[Any, Any] = {}
        self._columns = selection.selected_columns.keys()
        self.sort_position = lru_cache(64)(self._position_of)
        self.parse = lru_cache(1024)(partial(self._parse, plain=PLAIN, limit=DEFAULT_LIMIT))
        self.parse_whole = lru_cache(128)(partial(self._parse, plain=PLAIN_OF_ALL, limit=EVERYTHING))
        """For an answer that is the whole list, or the first `limit` rows of it (`Reads.pages`)."""
        self._check_definition()

    def _check_definition(self) -> None:
        """Raises TypeError where a page could not be found by an index, or rows would be lost between two pages."""
        for name, sort in self.sorts.items():
            if not sort.index or (sort.may_be_null and sort.column.type.python_type not in LEAST_VALUES):
                raise TypeError(f"{self.name}: the sort {name} has no index, or nothing can stand for its nulls")
        for name, filter_ in self.filters.items():
            orders = [filter_.order.columns] if filter_.order else []
            if not filter_.index or any(order.keys() != self.sorts.keys() for order in orders):
                raise TypeError(f"{self.name}: the filter {name} has no index, or not one for each sort")
            if filter_.along and (filter_.share is None or filter_.row_id is None):
                raise TypeError(f"{self.name}: nothing tells how many rows the filter {name} finds")

    def is_planned_by_value(self, query: ListQuery) -> bool:
        """Whether the plan for unknown values will not do. Of two filters the rarer one has to lead, and which one that
        is only the values tell."""
        many = bool(query.extent) and not self.has_order_to_remember(query)
        return bool(self._few_by) or len(query.filters) > 1 or many or self.may_be_walked(query)

    def may_be_walked(self, query: ListQuery) -> bool:
        """Whether the rows have to be looked at one by one in their order, or all that match gathered and sorted."""
        return any(self.filters[name].along for name in query.filters)

    def indexes(self, query: ListQuery) -> set[str]:
        """One of them finds the page: each filter's, and where there is none the sort's, or that of a short list."""
        sort_name = query.sort.removeprefix("-")
        sort_index, given = self.sorts[sort_name].index, self._given(query)
        names = {filter_.index_of(value) if filter_.index_of else filter_.index for _, filter_, value in given}
        found = {name.format(sort=sort_name, sort_index=sort_index) for name in names}
        return found or {sort_index, *self._few_by}

    def statement(self, query: ListQuery) -> Selection:
        return self._once(query, "page", self._build)

    def walk_statement(self, query: ListQuery) -> Selection:
        """The same page, of what is among the next `walk_rows` rows of the list: for `may_be_walked`."""
        return self._once(query, "walk", self._build_walk)

    def look_statement(self, query: ListQuery) -> Selection:
        """The same page, found by looking at each row that the other filters leave: for `may_be_walked`."""
        return self._once(query, "look", self._build_look)

    def estimate_statement(self, query: ListQuery) -> CompoundSelection:
        """To be explained, not run: PostgreSQL says among how many rows is searched, and how many of them the other
        filters leave."""
        return self._once(query, "estimate", self._build_estimate)

    def share_statement(self, query: ListQuery) -> Selection:
        """Of all rows, those that have what is searched for."""
        return self._once(query, "share", self._build_share)

    def has_order_to_remember(self, query: ListQuery) -> bool:
        """Whether the rows that the caller may see are named by their ids, and always come in the same order."""
        own_id: object = self._id
        if self.scoped is None or self.scoped.source_id is not own_id or not query.extent or query.filters:
            return False
        return query.extent.is_of_named_sources and self.sorts[query.sort.removeprefix("-")].never_changes

    def order_statement(self, query: ListQuery) -> Selection:
        """The value and the id of each row that the caller may see, in this order."""
        return self._once(structs.replace(query, after=None), "order", self._build_order)

    def _build_order(self, query: ListQuery) -> Selection:
        column, row_id = self._order(query)
        return self._in_scope(query).with_only_columns(column, row_id).order_by(column, row_id)

    def _once(self, query: ListQuery, form: str, build: Callable[[ListQuery], S]) -> S:
        shape = (form, query.sort, query.after is not None, self._conditions(query), _parts(query))
        if shape not in self._statements:
            self._statements[shape] = build(query)
        found: S = self._statements[shape]
        return found

    def count_statement(self, query: ListQuery, *, looks: bool = False) -> Selection:
        """`looks` is for `look_statement`."""
        shape = (looks, self._conditions(query), _parts(query))
        if shape not in self._statements:
            rows = self._looked_at(query) if looks else self._filtered(query)
            inner = rows.with_only_columns(self._id, maintain_column_froms=True).order_by(None)
            self._statements[shape] = select(func.count()).select_from(inner.subquery())
        found: Selection = self._statements[shape]
        return found

    def query_behind(self, query: ListQuery, cursor: str) -> ListQuery:
        """For the page that the cursor of this one leads to."""
        return structs.replace(query, after=self._after(cursor, query.sort, query.filters))

    def parameters(self, query: ListQuery) -> dict[str, object]:
        """The values for `statement(query)`; one row more than the limit tells whether there is a next page."""
        values = {f"filter_{name}": value for name, value in query.filters.items()}
        values["page_limit"] = query.limit + 1
        if query.after is not None:
            values["after_value"], values["after_id"] = query.after
        if query.extent:
            values |= query.extent.values()
        return values

    def cursor_after(self, query: ListQuery, row: Sequence[Any]) -> str:
        """For the page behind this row of `statement(query)`."""
        mark = mark_of(self.name, query.sort, query.filters)
        packed = msgspec.msgpack.encode((mark, row[self.sort_position(query.sort)], row[0].bytes))
        return base64url.encode(packed)

    def _build(self, query: ListQuery) -> Selection:
        return self._gathered(query, self._filtered(query))

    def _build_look(self, query: ListQuery) -> Selection:
        return self._gathered(query, self._looked_at(query))

    def _gathered(self, query: ListQuery, rows: Selection) -> Selection:
        """What has to be gathered is sorted by what no index has: PostgreSQL takes the rows that match for scattered
        evenly, and would walk to the end of the list where they stand together there."""
        column, row_id = self._order(query)
        order = func.greatest(column, type_=column.type) if self.may_be_walked(query) else column
        return self._page(query, rows, order, row_id)

    def _build_walk(self, query: ListQuery) -> Selection:
        column, row_id = self._order(query)
        rows = self._after_last(query, self._unsearched(query))
        edge = rows.with_only_columns(column, row_id, maintain_column_froms=True)
        edge = edge.order_by(*_directed(query, column, row_id)).offset(bindparam("walk_rows", type_=_INT)).limit(_ONE)
        bound = edge.correlate(None).scalar_subquery()
        is_near = tuple_(column, row_id).op(">=" if query.sort.startswith("-") else "<=", is_comparison=True)(bound)
        return self._page(query, self._looked_at(query).where(is_near), column, row_id)

    def _build_estimate(self, query: ListQuery) -> CompoundSelection:
        row_id = self._unordered(query)[0][1].row_id
        assert row_id is not None
        table = row_id.class_
        every = select(row_id).where(table.tenant_id == bindparam("tenant_id", type_=table.tenant_id.type))
        return union_all(every, self._unsearched(query).with_only_columns(self._id, maintain_column_froms=True))

    def _build_share(self, query: ListQuery) -> Selection:
        shares = (
            filter_.share(value)(f"filter_{name}")
            for name, filter_, value in self._unordered(query)
            if filter_.share is not None
        )
        return select(reduce(operator.mul, shares))

    def _unordered(self, query: ListQuery) -> list[tuple[str, Filter, object]]:
        """The filters whose indexes have no order."""
        return [each for each in self._given(query) if each[1].along is not None]

    def _page(self, query: ListQuery, rows: Selection, column: Column, row_id: Column) -> Selection:
        """The longest page, of which the asked one is the beginning: a limit that the planner does not know it takes
        for a tenth of all rows, and sorts them all."""
        if self.sort_position(query.sort) == len(self._columns):
            rows = rows.add_columns(column.label("sort_value"))
        ordered = self._after_last(query, rows).order_by(*_directed(query, column, row_id))
        longest = ordered.limit(literal_column(str(MAX_LIMIT + 1))).subquery("page")
        return select(*longest.c).limit(bindparam("page_limit", type_=_INT))

    def _after_last(self, query: ListQuery, rows: Selection) -> Selection:
        """Those behind the last row of the page before."""
        if query.after is None:
            return rows
        column, row_id = self._order(query)
        row = tuple_(column, row_id)
        last = tuple_(bindparam("after_value", type_=column.type), bindparam("after_id", type_=row_id.type))
        return rows.where(row < last if query.sort.startswith("-") else row > last)

    def _order(self, query: ListQuery) -> tuple[Column, Column]:
        """The columns in whose order the rows come: those of the filter that has the order in rows of its own."""
        name = query.sort.removeprefix("-")
        for filter_ in (self.filters[name] for name in sorted(query.filters)):
            if filter_.order is not None:
                return filter_.order.columns[name], filter_.order.id_column
        return _without_null(self.sorts[name]), self._id

    def _position_of(self, sort: str) -> int:
        """Where a row has the value that it is sorted by: in a column of its own at the end, if nowhere else."""
        order = self.sorts[sort.removeprefix("-")]
        is_shown = order.column.key in self._columns and not order.may_be_null
        return self._columns.index(order.column.key) if is_shown else len(self._columns)

    def _in_scope(self, query: ListQuery) -> Selection:
        """The rows that the caller may see. Raises TypeError where nobody said where that is."""
        if self.scoped is None:
            return self.selection
        if isinstance(query.extent, UnsetType):
            raise TypeError(f"{self.name}: say where the caller may see rows")
        return self.selection if query.extent is None else self.selection.where(self.scoped.where(query.extent.parts))

    def _filtered(self, query: ListQuery) -> Selection:
        return self._in_scope(query).where(*(where(f"filter_{name}") for name, where in self._conditions(query)))

    def _looked_at(self, query: ListQuery) -> Selection:
        """As `_filtered`, but that nothing is looked up for what is searched for."""
        along = (
            filter_.along(value)(f"filter_{name}")
            for name, filter_, value in self._unordered(query)
            if filter_.along is not None
        )
        return self._unsearched(query).where(*along)

    def _unsearched(self, query: ListQuery) -> Selection:
        """Narrowed by the filters that have an order alone."""
        ordered = (each for each in self._given(query) if each[1].along is None)
        return self._in_scope(query).where(*(filter_.where(f"filter_{name}") for name, filter_, _ in ordered))

    def _given(self, query: ListQuery) -> list[tuple[str, Filter, object]]:
        return [(name, self.filters[name], value) for name, value in sorted(query.filters.items())]

    def _conditions(self, query: ListQuery) -> tuple[tuple[str, Condition], ...]:
        return tuple(
            (name, filter_.choose(value) if filter_.choose else filter_.where)
            for name, filter_, value in self._given(query)
        )

    def _parse(self, query_string: bytes, *, plain: Mapping[str, Callable[[str], object]], limit: int) -> ListQuery:
        """Raises BadRequest naming every parameter at fault."""
        own = {name: filter_.parse for name, filter_ in self.filters.items()}
        known: dict[str, Callable[[str], object]] = {**plain, "sort": self._sort, "cursor": str, **own}
        given, faults = parsed_as(parse_parameters(query_string), known)
        refuse_faulty_parameters(faults)
        filters = {name: given.pop(name) for name in own if name in given}
        values: Parsed = {"sort": self.default_sort, "limit": limit} | given
        if (cursor := values.pop("cursor", None)) is not None:
            values["after"] = self._after(cursor, values["sort"], filters)
        return ListQuery(filters=filters, **values)

    def _sort(self, text: str) -> str:
        if text.removeprefix("-") not in self.sorts or text.startswith("--"):
            raise ValueError(f"must be one of {', '.join(self.sorts)}, with - before it for descending order")
        return text

    def _after(self, cursor: str, sort: str, filters: Mapping[str, object]) -> tuple[object, UUID]:
        kind: Any = _CURSOR_TYPES[self.sorts[sort.removeprefix("-")].column.type.python_type]
        try:
            packed = base64url.decode(cursor, strictly=True)
            mark, value, row_id = msgspec.msgpack.decode(packed, type=GenericAlias(tuple, (bytes, kind, bytes)))
            if mark != mark_of(self.name, sort, filters) or (isinstance(value, str) and "\x00" in value):
                raise ValueError("another list's cursor")
            return value.astimezone(UTC) if isinstance(value, datetime) else value, UUID(bytes=row_id)
        except (ValueError, OverflowError, msgspec.MsgspecError):
            raise invalid_cursor() from None


def _parts(query: ListQuery) -> tuple[str, ...] | None:
    return query.extent.parts if query.extent else None


def _directed(query: ListQuery, column: Column, row_id: Column) -> tuple[Any, Any]:
    return (column.desc(), row_id.desc()) if query.sort.startswith("-") else (column, row_id)


_INT: TypeEngine[Any] = literal_column("1::int").type
_ONE: ColumnElement[int] = literal_column("1")


def mark_of(name: str, sort: str, filters: Mapping[str, object]) -> bytes:
    """What a cursor belongs to: with another list, sort or filter it would lead to rows that nobody asked for."""
    asked = msgspec.msgpack.encode((name, sort, sorted(filters.items())))
    return hashlib.blake2b(asked, digest_size=8).digest()


def invalid_cursor() -> BadRequest:
    fault = Fault(
        "cursor", "invalid_cursor", "must be the next_cursor of the page before, with the same sort and filters"
    )
    return BadRequest(code="invalid_cursor", errors=[fault])


_BIGINT = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_CURSOR_TYPES: dict[type, Any] = {str: str, datetime: datetime, int: _BIGINT, UUID: UUID}

LEAST_VALUES: dict[type, str] = {str: "''::text", datetime: "'0002-01-01 00:00:00+00'::timestamptz"}
"""What stands for null where a list is sorted: a row of values cannot be compared with one that holds a null, so that a
page could not begin behind it. Part of the statement as it is part of the index, which would not be used otherwise.
Not of the first year: asyncpg sends the first moment that Python knows as minus infinity."""


def _without_null(sort: Sort) -> Column:
    column: Column = sort.column
    if not sort.may_be_null:
        return column
    return func.coalesce(column, literal_column(LEAST_VALUES[column.type.python_type], column.type), type_=column.type)


def link_to_next(path: str, query_string: bytes, cursor: str) -> tuple[bytes, bytes]:
    """The `Link` header (RFC 8288) to the page behind, for a body that has no room for the cursor."""
    after = urlencode(parse_parameters(query_string) | {"cursor": cursor})
    return b"link", f'<{path}?{after}>; rel="next"'.encode()
