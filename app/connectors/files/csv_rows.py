"""Rows of a file of cells, of which the beginning is known.

A cell in quotes may hold line ends, so that one quote too many could swallow the rest of a file. A quote counts only
where it is closed: before a delimiter or a line end, and not behind lines that are rows themselves. One that does not
count is a character like any other, which is noted.

Types of columns are guessed from the beginning, the same one for discovery and preview, so that both agree.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredField, PortableType
from app.connectors.files.csv_dialect import Dialect, dialect_of
from app.connectors.files.csv_settings import CsvSettings
from app.connectors.files.sample import Sample
from app.connectors.files.table import MAX_ROWS, Table
from app.connectors.files.text import MAX_TEXT_BYTES
from app.connectors.values.json_text import exact_number
from app.connectors.values.names import told_apart
from app.connectors.values.values import json_safe

_LOOKED_AT: Final = 100
"""Lines."""
_MAX_BEYOND: Final = 100
"""Cells of a line beyond the names; more of them are no table."""
_UNCLOSED: Final = "unexpected end of data"
"""What the `csv` module says of quotes that are open at the end."""
_ONE_MORE_LINE: Final = "x"
_LONE_QUOTE: Final = "A quote that nothing closes was taken for a part of its cell."
_MAX_LONE_QUOTES: Final = 20
"""Behind so many of them, quotes mean nothing."""


def rows_of_cells(text: str, usual: str, settings: CsvSettings, *, is_whole: bool) -> Table:
    """`usual` is the delimiter that the file's name promises. The first line has the names, unless the settings say
    that there are none. An empty cell is null. Cells beyond the names have columns of their own, as those without a
    name have. Where the file goes on, the last line is not trusted to be a whole one: a line end may be part of a
    cell. Raises `response_invalid` for lines that are far longer than the first."""
    dialect = dialect_of(list(islice(io.StringIO(text, newline=""), _LOOKED_AT)), usual, settings)
    found = _records(text, dialect, is_whole=is_whole)
    records, notes = found.records, (*dialect.notes, *([_LONE_QUOTE] if found.lone_quotes else []))
    if not records:
        return Table((), [], is_whole, notes, found.is_short)
    names, cells = (records[0], records[1:]) if settings.header else (_no_names(records), records)
    cells = cells[:MAX_ROWS]
    names = told_apart([*names, *[""] * _beyond(len(names), cells)])
    columns = [[line[place] if place < len(line) else "" for line in cells] for place in range(len(names))]
    types = [_guess(column) for column in columns]
    fields = tuple(
        DiscoveredField(name, guessed, "text", "" in column or not column, position)
        for position, (name, guessed, column) in enumerate(zip(names, types, columns, strict=True), 1)
    )
    values = [[_value(cell, guessed) for cell in column] for guessed, column in zip(types, columns, strict=True)]
    rows = [list(row) for row in zip(*values, strict=True)]
    return Table(fields, rows, is_whole and not found.is_cut and len(rows) < MAX_ROWS, notes, found.is_short)


def _no_names(records: Sequence[Sequence[str]]) -> list[str]:
    return [""] * max(len(record) for record in records[:MAX_ROWS])


def _beyond(columns: int, cells: Sequence[Sequence[str]]) -> int:
    """How many columns more the cells fill: a delimiter at the end of a line fills none."""
    longest = max((len(line) for line in cells), default=0)
    while longest > columns and not any(line[longest - 1 : longest] not in ([], [""]) for line in cells):
        longest -= 1
    beyond = max(longest - columns, 0)
    if beyond > _MAX_BEYOND:
        raise ConnectorError("response_invalid", f"A line has {beyond:,} cells more than the first one has names.")
    return beyond


# Records --------------------------------------------------------------------------------------------------------------


class _Found(msgspec.Struct):
    records: list[list[str]]
    lone_quotes: int
    is_cut: bool
    """Whether there are more than are ever shown."""
    is_short: bool
    """See `Table`."""


def _records(text: str, dialect: Dialect, *, is_whole: bool) -> _Found:
    """As many as are ever shown, and two more: one for the names, one to know of the rest."""
    lines = _Lines(islice(io.StringIO(text, newline=""), dialect.passed_over, None), dialect.comment)
    reader = _Reader(lines, dialect, is_whole=is_whole)
    records: list[list[str]] = []
    sample = Sample()
    while len(records) < MAX_ROWS + 2:
        record = reader.next_record(len(records[0]) if records else 0)
        sample.add(lines.taken_characters)
        if record is None:
            break
        if record:
            records.append(record)
    is_cut = len(records) == MAX_ROWS + 2
    if not is_whole and not is_cut and not reader.is_open:
        records = records[:-1]
    return _Found(records, reader.lone_quotes, is_cut, not is_whole and not is_cut and sample.is_short)


class _Lines:
    """Lines of a file with their ends, of which some can be given back."""

    def __init__(self, lines: Iterator[str], comment: str) -> None:
        self.taken: list[str] = []
        """Since the last record."""
        self._lines = lines
        self._comment = comment
        self._given_back: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            line = self._given_back.popleft() if self._given_back else next(self._lines)
            if self.taken or not self._comment or not line.startswith(self._comment):
                self.taken.append(line)
                return line

    def keep_first(self) -> str:
        """The first line that was taken; the others will come again."""
        first, *others = self.taken
        self._given_back.extendleft(reversed(others))
        self.taken = [first]
        return first

    @property
    def taken_characters(self) -> int:
        return sum(map(len, self.taken))


class _Reader:
    def __init__(self, lines: _Lines, dialect: Dialect, *, is_whole: bool) -> None:
        csv.field_size_limit(MAX_TEXT_BYTES)
        self.lone_quotes = 0
        self.is_open = False
        """Whether the file goes on in the middle of a cell in quotes."""
        self._lines = lines
        self._dialect = dialect
        self._is_whole = is_whole
        self._quoted = self._over(lines) if dialect.quote else self._plain(lines)

    def next_record(self, width: int) -> list[str] | None:
        """None at the end; no cells for an empty line. `width` is how many cells the first record has, or 0."""
        self._lines.taken = []
        try:
            record = next(self._quoted)
        except StopIteration:
            return None
        except csv.Error as error:
            return self._after(error, width)
        return self._literally() if self._swallowed_rows(record, width) else record

    def _after(self, error: csv.Error, width: int) -> list[str] | None:
        """A quote is not closed by the end, or something stands behind a closed one."""
        if _UNCLOSED in str(error):
            if self._is_whole or self._swallowed_rows(None, width):
                return self._literally()
            self.is_open = True
            return None
        record = self._leniently()
        return self._literally() if record is None or self._swallowed_rows(record, width) else record

    def _swallowed_rows(self, record: Sequence[str] | None, width: int) -> bool:
        """Whether the lines of a record are rows, each by itself."""
        first, *others = (line.count(self._dialect.delimiter) + 1 for line in self._lines.taken)
        width = width or first
        if width < 2 or first != width or not others or self._is_all_in_quotes(record):
            return False
        if sum(cells == width for cells in others) < 0.8 * len(others):
            return False
        is_unlikely_in_a_cell = len(others) > 2 or width > 2 or self._dialect.delimiter == "\t"
        return is_unlikely_in_a_cell or record is None or len(record) != width

    def _is_all_in_quotes(self, record: Sequence[str] | None) -> bool:
        """Whether each cell of it is, as a tool writes them: none of these quotes is one too many."""
        quote = self._dialect.quote
        cells = (quote + cell.replace(quote, quote * 2) + quote for cell in record or ())
        return "".join(self._lines.taken).rstrip("\r\n") == self._dialect.delimiter.join(cells)

    def _leniently(self) -> list[str] | None:
        """What was taken, as one record in which something stands behind a closed quote; None if a quote is open at its
        end, so that one more line would belong to it."""
        *records, last = self._over([*self._lines.taken, _ONE_MORE_LINE], strict=False)
        return records[0] if len(records) == 1 and last == [_ONE_MORE_LINE] else None

    def _literally(self) -> list[str]:
        self.lone_quotes += 1
        record = next(self._plain([self._lines.keep_first()]))
        if self.lone_quotes == _MAX_LONE_QUOTES:
            self._quoted = self._plain(self._lines)
        return record

    def _over(self, lines: Iterable[str], *, strict: bool = True) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self._dialect.delimiter, quotechar=self._dialect.quote, strict=strict)

    def _plain(self, lines: Iterable[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self._dialect.delimiter, quoting=csv.QUOTE_NONE)


# Types ----------------------------------------------------------------------------------------------------------------

_LOCAL: Final = r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2}(?:\.[0-9]{1,9})?)?"
_ZONE: Final = r" ?(?:Z|z|UTC|([+-][0-9]{2})(?::?([0-9]{2}))?)"
"""As PostgreSQL (`+02`), BigQuery (`UTC`) and others write it."""
_MOMENT: Final = re.compile(f"{_LOCAL}({_ZONE})?")
_GUESSES: Final[tuple[tuple[PortableType, re.Pattern[str]], ...]] = (
    ("boolean", re.compile(r"true|false|TRUE|FALSE|True|False")),
    ("integer", re.compile(r"-?(?:0|[1-9][0-9]*)")),
    ("decimal", re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")),
    ("number", re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")),
    ("date", re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")),
    ("timestamp", re.compile(_LOCAL)),
    ("timestamp_tz", re.compile(_LOCAL + _ZONE)),
)


def _guess(column: Sequence[str]) -> PortableType:
    """The narrowest type that every cell of the column has."""
    filled = [cell for cell in column if cell]
    if not filled:
        return "string"
    for guessed, pattern in _GUESSES:
        if all(pattern.fullmatch(cell) for cell in filled):
            return guessed
    return "string"


def _value(cell: str, guessed: PortableType) -> object:
    if not cell:
        return None
    reader = _READERS.get(guessed)
    return reader(cell) if reader and len(cell) < 400 else cell


def _moment(cell: str) -> str:
    """As RFC 3339 has it."""
    found = _MOMENT.fullmatch(cell)
    assert found is not None  # That is how the type was guessed.
    date, time, seconds, zone, hours, minutes = found.groups()
    offset = f"{hours}:{minutes or '00'}" if hours else "Z"
    return f"{date}T{time}{seconds or ':00'}{offset if zone else ''}".replace("+00:00", "Z")


_READERS: Final[dict[PortableType, Callable[[str], object]]] = {
    "boolean": lambda cell: cell.lower() == "true",
    "integer": lambda cell: json_safe(int(cell)),
    "number": lambda cell: json_safe(exact_number(cell)),
    "timestamp": _moment,
    "timestamp_tz": _moment,
}
