"""Lists: allow-listed filters and sorts, keyset cursors, and the query string that asks for them.

A page costs the same at any depth and among any number of rows. The cursor carries the last row's sort value and id;
the next page starts behind it (`WHERE (sort, id) > (value, id)`), never at an OFFSET. Every sort and every filter names
the index in which its rows stand side by side in the list's order; `tests/core/test_list_plans.py` looks for it in the
plans.
"""

import binascii
import hashlib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial, reduce
from types import GenericAlias
from typing import Annotated, Any, Generic, Literal, TypeVar
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs
from sqlalchemy import (
    ColumnElement,
    Text,
    Uuid,
    any_,
    bindparam,
    collate,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from app.core import base64url
from app.core.database import Attribute, CompoundSelection, Selection
from app.core.errors import BadRequest, Fault
from app.core.extent import Extent, Scoped
from app.core.faults import shown_name
from app.core.schemas import canonical_name

T = TypeVar("T")
S = TypeVar("S", bound="Selection | CompoundSelection")
Column = Attribute | ColumnElement[Any]
Parsed = dict[str, Any]
"""What a query string says, by the names of the parameters."""

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_QUERY_BYTES = 8192
MAX_VALUE_CHARACTERS = 1000


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
        return not self.is_filled and _may_be_null(self.column)


class OrderOfFilter(Struct, frozen=True):
    """The list's own order as it stands in another table's rows: an index cannot reach over to the list's table."""

    columns: Mapping[str, Attribute]
    """By the name of each sort the column that has the same values."""
    id_column: Attribute


Condition = Callable[[str], ColumnElement[bool]]
"""Of a filter: from the name of the bound value to what must hold."""


def plainly(condition: ColumnElement[bool]) -> Condition:
    """For a condition that needs no value. One and the same object each time: statements are remembered by it."""
    return lambda _: condition


class Filter(Struct, frozen=True, kw_only=True):
    """One query parameter that narrows a list."""

    where: Condition
    """From the name of the bound value to the condition."""
    choose: "Callable[[Any], Condition] | None" = None
    """For a filter whose condition depends on the value: from the value to what to use as `where`."""
    parse: Callable[[str], object]
    """From the text to the value. Raises ValueError with what is wanted."""
    schema: Mapping[str, object]
    """JSON Schema of the parameter, for the OpenAPI document."""
    index: str
    """The index that has the matching rows in the list's order. `{sort}` stands for the sort's name, `{sort_index}` for
    the sort's own index: for what only cuts a piece out of the order."""
    index_of: "Callable[[Any], str] | None" = None
    """For a filter whose index depends on the value: from the value to what to use as `index`."""
    description: str = ""
    order: OrderOfFilter | None = None
    along: "Callable[[Any], Condition] | None" = None
    """For a filter whose index has no order: from the value to the condition in a form that no index is looked up for.
    A value that many rows have is found sooner along the sort's index than by all of its rows (`Listing.walk`)."""
    share: "Callable[[Any], Callable[[str], ColumnElement[float]]] | None" = None
    """With `along`: from the value to the share of all rows that have it, as far as some of them tell."""
    row_id: Column | None = None
    """With `along`: the id of the rows that the index finds, and of which `share` tells."""


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
        self.parse = lru_cache(1024)(partial(self._parse, plain=_PLAIN, limit=DEFAULT_LIMIT))
        self.parse_whole = lru_cache(128)(partial(self._parse, plain=_PLAIN_OF_ALL, limit=EVERYTHING))
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
        given = parse_parameters(query_string)
        faults: list[Fault] = []
        values: Parsed = {"sort": given.get("sort", self.default_sort), "limit": limit}
        filters: dict[str, object] = {}
        for place, (name, text) in enumerate(given.items(), 1):
            try:
                if name in self.filters:
                    filters[name] = self.filters[name].parse(text)
                elif name in plain:
                    values[name] = plain[name](text)
                elif name == "sort":
                    self._check_sort(text)
                elif name != "cursor":
                    raise ValueError("is not a parameter of this list")
            except ValueError as error:
                shown = name if name in self.filters or name in plain or name == "sort" else shown_name(name, place)
                faults.append(Fault(shown, "invalid_parameter", str(error)))
        if not faults and "cursor" in given:
            values["after"] = self._after(given["cursor"], values["sort"], filters)
        if faults:
            raise BadRequest(code="invalid_parameter", errors=faults)
        return ListQuery(filters=filters, **values)

    def _check_sort(self, text: str) -> None:
        if text.removeprefix("-") not in self.sorts or text.startswith("--"):
            raise ValueError(f"must be one of {', '.join(self.sorts)}, with - before it for descending order")

    def _after(self, cursor: str, sort: str, filters: Mapping[str, object]) -> tuple[object, UUID]:
        kind: Any = _CURSOR_TYPES[self.sorts[sort.removeprefix("-")].column.type.python_type]
        try:
            packed = base64url.decode(cursor, strictly=True)
            mark, value, row_id = msgspec.msgpack.decode(packed, type=GenericAlias(tuple, (bytes, kind, bytes)))
            if mark != mark_of(self.name, sort, filters) or (isinstance(value, str) and "\x00" in value):
                raise ValueError("another list's cursor")
            return value.astimezone(UTC) if isinstance(value, datetime) else value, UUID(bytes=row_id)
        except (ValueError, OverflowError, binascii.Error, msgspec.MsgspecError):
            raise _invalid_cursor() from None


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


def _invalid_cursor() -> BadRequest:
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


def _may_be_null(column: Column) -> bool:
    """Raises TypeError for an expression, of which nothing is known."""
    columns = getattr(getattr(column, "property", None), "columns", None)
    if not columns:
        raise TypeError(f"a list is sorted by a column, not by {column}")
    return bool(columns[0].nullable)


def _without_null(sort: Sort) -> Column:
    column: Column = sort.column
    if not sort.may_be_null:
        return column
    return func.coalesce(column, literal_column(LEAST_VALUES[column.type.python_type], column.type), type_=column.type)


def link_to_next(path: str, query_string: bytes, cursor: str) -> tuple[bytes, bytes]:
    """The `Link` header (RFC 8288) to the page behind, for a body that has no room for the cursor."""
    after = urlencode(parse_parameters(query_string) | {"cursor": cursor})
    return b"link", f'<{path}?{after}>; rel="next"'.encode()


def parse_parameters(query_string: bytes) -> dict[str, str]:
    """Raises BadRequest for repeated, over-long or undecodable parameters."""
    if not query_string:
        return {}
    if len(query_string) > MAX_QUERY_BYTES:
        raise BadRequest("The query string is too long.", code="invalid_parameter")
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise BadRequest("The query string is not valid.", code="invalid_parameter") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise BadRequest(code="repeated_parameter")
    if any("\x00" in text or len(text) > MAX_VALUE_CHARACTERS for text in given.values()):
        raise BadRequest("A query parameter holds a value that is not allowed.", code="invalid_parameter")
    return given


def _limit(text: str) -> int:
    if not (_is_whole_number(text, digits=4) and 1 <= int(text) <= MAX_LIMIT):
        raise ValueError(f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _count(text: str) -> bool:
    if text != "exact":
        raise ValueError("must be `exact`")
    return True


def _limit_of_all(text: str) -> int:
    if not (_is_whole_number(text, digits=18) and int(text) >= 1):
        raise ValueError("must be a whole number from 1 on")
    return int(text)


def _no_count(_: str) -> bool:
    raise ValueError("has no place where the whole list is sent")


def _is_whole_number(text: str, *, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits


_PLAIN: dict[str, Callable[[str], object]] = {"limit": _limit, "count": _count}
_PLAIN_OF_ALL: dict[str, Callable[[str], object]] = {"limit": _limit_of_all, "count": _no_count}
EVERYTHING = 10**18
"""More rows than there are."""


def text_filter(column: Column, *, index: str, description: str = "", name_key: bool = False) -> Filter:
    """Equality; with `name_key` case-insensitively, against a column of canonical names."""
    parse = canonical_name if name_key else str
    return Filter(
        where=lambda name: column == bindparam(name, type_=column.type),
        parse=parse,
        schema=STRING,
        index=index,
        description=description,
    )


def choice_filter(column: Column, choices: tuple[str, ...], *, index: str, description: str = "") -> Filter:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    schema = {"type": "string", "enum": list(choices)}
    return Filter(
        where=lambda name: column == bindparam(name, type_=column.type),
        parse=parse,
        schema=schema,
        index=index,
        description=description,
    )


def boolean_filter(column: Column, *, index: str, description: str = "") -> Filter:
    def parse(text: str) -> bool:
        if text not in ("true", "false"):
            raise ValueError("must be `true` or `false`")
        return text == "true"

    schema = {"type": "boolean"}
    return Filter(
        where=lambda name: column == bindparam(name, type_=column.type),
        parse=parse,
        schema=schema,
        index=index,
        description=description,
    )


def parse_uuid(text: str) -> UUID:
    try:
        found = UUID(text)
    except ValueError:
        raise ValueError("must be a UUID") from None
    if str(found) != text.lower():
        raise ValueError("must be a UUID")
    return found


def uuid_filter(column: Column, *, index: str, description: str = "") -> Filter:
    return Filter(
        where=lambda name: column == bindparam(name, type_=column.type),
        parse=parse_uuid,
        schema=UUID_SCHEMA,
        index=index,
        description=description,
    )


def time_filter(column: Column, *, bound: Literal["from", "to"], description: str = "") -> Filter:
    """From that moment on (`from`), or before it (`to`)."""

    def where(name: str) -> ColumnElement[bool]:
        value = bindparam(name, type_=column.type)
        return column >= value if bound == "from" else column < value

    schema = {"type": "string", "format": "date-time"}
    return Filter(where=where, parse=parse_time, schema=schema, index="{sort_index}", description=description)


def parse_time(text: str) -> datetime:
    """Raises ValueError."""
    try:
        moment = msgspec.convert(text.replace(" ", "+"), datetime)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (msgspec.ValidationError, OverflowError):
        raise ValueError("must be an RFC 3339 time such as 2025-11-22T14:53:59Z") from None


def search_filter(*columns: Column, index: str) -> Filter:
    """`?q=`: the columns, one behind the other, hold the text, case-insensitively; `%` and `_` are plain characters.

    `index` is a GIN index on the trigrams of `searched_text` and on its symbols, with functions that look in it
    (`schema_changes.make_searchable`). What is too short for a trigram is looked for at the beginning of words, where
    pg_trgm sees two blanks before it (PostgreSQL manual, F: pg_trgm); what has no letter or digit, and so no trigram
    either, among the texts that have these symbols.
    """
    text = searched_text(*columns)
    row_id: Attribute = columns[0].class_.id

    def inside(name: str) -> ColumnElement[bool]:
        return found(name, "inside")

    def at_the_beginning(name: str) -> ColumnElement[bool]:
        return found(name, "at_the_beginning")

    def of_symbols(name: str) -> ColumnElement[bool]:
        return found(name, "of_symbols")

    def found(name: str, form: str) -> ColumnElement[bool]:
        return is_among(row_id, answered("found", name, form))

    def answered(question: str, name: str, form: str) -> ColumnElement[Any]:
        ask = getattr(func, f"{question}_by_{index}")
        answer: ColumnElement[Any] = ask(bindparam(name, type_=Text()), literal_column(f"'{form}'"))
        return answer

    def share(asked: str) -> Callable[[str], ColumnElement[float]]:
        form = choose(asked).__name__
        return lambda name: answered("share", name, form)

    # Of another collation than the index: it is not looked for in it, trigram by trigram.
    def inside_unindexed(name: str) -> ColumnElement[bool]:
        return collate(text, "C").like(_pattern("%", name))

    def at_the_beginning_unindexed(name: str) -> ColumnElement[bool]:
        return collate(text, "C").like(_pattern("% ", name))

    def choose(asked: str) -> Condition:
        if not _WORD.search(asked):
            return of_symbols
        return inside if _has_trigram(asked) else at_the_beginning

    def along(asked: str) -> Condition:
        return at_the_beginning_unindexed if choose(asked) is at_the_beginning else inside_unindexed

    description = "Text to search for. One or two letters are looked for at the beginning of words."
    return Filter(
        where=inside,
        choose=choose,
        parse=_not_empty,
        schema=STRING | {"minLength": 1},
        index=index,
        description=description,
        along=along,
        share=share,
        row_id=row_id,
    )


def is_among(row_id: Column, found: ColumnElement[Any]) -> ColumnElement[bool]:
    """The ids that a function of the owner answers."""
    return row_id == any_(func.array(select(found).scalar_subquery(), type_=ARRAY(Uuid)))


def searched_text(*columns: Column) -> ColumnElement[str]:
    """In lower case, with a space before each column as before each word in it."""
    space: ColumnElement[str] = literal_column("' '", Text())
    texts = [func.coalesce(column, literal_column("''")) if _may_be_null(column) else column for column in columns]
    return func.lower(reduce(lambda whole, text: whole.concat(space).concat(text), texts[1:], space.concat(texts[0])))


def _asked(name: str) -> ColumnElement[str]:
    return func.lower(bindparam(name, type_=Text()))


def _pattern(before: str, name: str) -> ColumnElement[str]:
    """For LIKE, in which `%`, `_` and the backslash stand for themselves."""
    plain = func.regexp_replace(
        _asked(name), literal_column(r"'([%_\\])'"), literal_column(r"'\\\1'"), literal_column("'g'")
    )
    return literal_column(f"'{before}'", Text()).concat(plain).concat(literal_column("'%'"))


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


def _has_trigram(text: str) -> bool:
    """Whether pg_trgm finds one: it puts two blanks before a word and one behind, where the text shows its ends."""
    runs = list(_WORD.finditer(text))
    first = runs[0]
    return len(runs) > 1 or first.start() > 0 or len(first[0]) + (first.end() < len(text)) >= 3


_WORD = re.compile(r"[^\W_]+")


UUID_SCHEMA: dict[str, object] = {"type": "string", "format": "uuid"}
STRING: dict[str, object] = {"type": "string", "maxLength": MAX_VALUE_CHARACTERS}


def page_of_names(items: Mapping[str, T], query_string: bytes) -> Page[T]:
    """A page of something that lives in memory, keyed by name: the parameters and cursors of every list.

    Raises BadRequest like a Listing.
    """
    given = _parsed_by_name(parse_parameters(query_string))
    wanted = given.get("q", "").casefold()
    names = sorted((name for name in items if wanted in name.casefold()), reverse=given.get("sort") == "-name")
    mark = mark_of("names", given.get("sort", "name"), {"q": wanted})
    start = _position_after(names, mark, given["cursor"]) if "cursor" in given else 0
    shown = names[start : start + given.get("limit", DEFAULT_LIMIT)]
    more = start + len(shown) < len(names)
    cursor = base64url.encode(mark + shown[-1].encode()) if more else None
    return Page(
        items=[items[name] for name in shown], next_cursor=cursor, total=len(names) if "count" in given else None
    )


class KeyedQuery(Struct, frozen=True):
    """Of a list whose rows are found by a statement of its own, in the one order of their keys."""

    limit: int
    after: Any
    """The key of the last row of the page before; None for the first page."""
    count: bool
    given: Parsed
    """The list's own parameters."""
    mark: bytes

    def cursor_after(self, key: object) -> str:
        packed = msgspec.msgpack.encode((self.mark, key))
        return base64url.encode(packed)


def parse_keyed(
    query_string: bytes, *, name: str, key: object, own: Mapping[str, Callable[[str], object]]
) -> KeyedQuery:
    """`name` tells the list's cursors from those of others, `key` is the type of its keys, and `own` are the parameters
    that only it has. Raises BadRequest like a Listing."""
    given = parse_parameters(query_string)
    known = {**_PLAIN, **own, "cursor": _name_cursor}
    values, faults = _parsed_as(given, known)
    refuse_faulty_parameters(faults)
    mark = mark_of(name, "", {each: given[each] for each in own if each in given})
    after = _key_in(values["cursor"], mark, key) if "cursor" in values else None
    return KeyedQuery(
        limit=values.get("limit", DEFAULT_LIMIT),
        after=after,
        count="count" in values,
        given={each: values[each] for each in own if each in values},
        mark=mark,
    )


def _key_in(packed: bytes, mark: bytes, key: object) -> object:
    try:
        found, after = msgspec.msgpack.decode(packed, type=GenericAlias(tuple, (bytes, key)))
    except msgspec.MsgspecError:
        raise _invalid_cursor() from None
    if found != mark:
        raise _invalid_cursor()
    return after


def _position_after(names: list[str], mark: bytes, cursor: bytes) -> int:
    last = cursor.removeprefix(mark).decode(errors="replace")
    if not cursor.startswith(mark) or last not in names:
        raise _invalid_cursor()
    return names.index(last) + 1


def _parsed_by_name(given: Mapping[str, str]) -> Parsed:
    values, faults = _parsed_as(given, _BY_NAME)
    refuse_faulty_parameters(faults)
    return values


def _parsed_as(given: Mapping[str, str], known: Mapping[str, Callable[[str], object]]) -> tuple[Parsed, list[Fault]]:
    values: Parsed = {}
    faults: list[Fault] = []
    for place, (name, text) in enumerate(given.items(), 1):
        try:
            values[name] = known.get(name, _unknown_parameter)(text)
        except ValueError as error:
            shown = name if name in known else shown_name(name, place)
            faults.append(Fault(shown, "invalid_cursor" if name == "cursor" else "invalid_parameter", str(error)))
    return values, faults


def refuse_faulty_parameters(faults: Sequence[Fault]) -> None:
    """Raises BadRequest."""
    if faults:
        is_of_cursor = faults[0].code == "invalid_cursor"
        raise BadRequest(code="invalid_cursor" if is_of_cursor else "invalid_parameter", errors=faults)


def _unknown_parameter(text: str) -> object:
    raise ValueError("is not a parameter of this list")


def _by_name(text: str) -> str:
    if text not in ("name", "-name"):
        raise ValueError("must be `name` or `-name`")
    return text


def _name_cursor(text: str) -> bytes:
    try:
        return base64url.decode(text, strictly=True)
    except (ValueError, binascii.Error):
        raise ValueError("must be the next_cursor of the page before") from None


_BY_NAME: dict[str, Callable[[str], object]] = {
    "limit": _limit,
    "count": _count,
    "sort": _by_name,
    "cursor": _name_cursor,
    "q": lambda text: text,
}

COMMON_PARAMETERS: dict[str, dict[str, object]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "cursor": STRING | {"description": "The next_cursor of the page before."},
    "count": {
        "type": "string",
        "enum": ["exact"],
        "description": "Ask for `total`; the only part of a list whose cost grows with it.",
    },
}
IN_MEMORY_PARAMETERS: dict[str, dict[str, object]] = COMMON_PARAMETERS | {
    "sort": {"type": "string", "enum": ["name", "-name"], "default": "name"},
    "q": STRING | {"description": "Text that the name holds."},
}
