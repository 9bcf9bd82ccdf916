"""What narrows a list: each filter is a query parameter, the condition that it becomes, and the index that finds it."""

import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Literal

from msgspec import Struct
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
)
from sqlalchemy.dialects.postgresql import ARRAY

from app.core.database import Attribute
from app.core.lists.parameters import STRING, UUID_SCHEMA, parse_time, parse_uuid
from app.core.schemas import canonical_name

Column = Attribute | ColumnElement[Any]


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


def may_be_null(column: Column) -> bool:
    """Raises TypeError for an expression, of which nothing is known."""
    columns = getattr(getattr(column, "property", None), "columns", None)
    if not columns:
        raise TypeError(f"a list is sorted by a column, not by {column}")
    return bool(columns[0].nullable)


def text_filter(column: Column, *, index: str, description: str = "", name_key: bool = False) -> Filter:
    """Equality; with `name_key` case-insensitively, against a column of canonical names."""
    return _equal(column, canonical_name if name_key else str, STRING, index, description)


def choice_filter(column: Column, choices: tuple[str, ...], *, index: str, description: str = "") -> Filter:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return _equal(column, parse, {"type": "string", "enum": list(choices)}, index, description)


def boolean_filter(column: Column, *, index: str, description: str = "") -> Filter:
    def parse(text: str) -> bool:
        if text not in ("true", "false"):
            raise ValueError("must be `true` or `false`")
        return text == "true"

    return _equal(column, parse, {"type": "boolean"}, index, description)


def uuid_filter(column: Column, *, index: str, description: str = "") -> Filter:
    return _equal(column, parse_uuid, UUID_SCHEMA, index, description)


def _equal(
    column: Column, parse: Callable[[str], object], schema: Mapping[str, object], index: str, description: str
) -> Filter:
    return Filter(
        where=lambda name: column == bindparam(name, type_=column.type),
        parse=parse,
        schema=schema,
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
    texts = [func.coalesce(column, literal_column("''")) if may_be_null(column) else column for column in columns]
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
