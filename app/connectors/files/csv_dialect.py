"""How a file of cells is written, found by looking at its first lines where the settings do not say it.

    sep=;                          a line that spreadsheets write for each other: the delimiter
    # exported by a tool           lines before the header that are no data
    Orders of the second quarter   a title: one cell above a line of names
    id;name;amount                 the header

Everything that was passed over is noted. What is in doubt is taken for data: a lost line is worse than an ugly name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from app.connectors.files.csv_settings import CsvSettings

QUOTE: Final = '"'
_APOSTROPHE: Final = "'"
_DELIMITERS: Final = ",;\t|"
_SPECIAL: Final = re.compile(r"[,;\t|#\r\n]")
_NAMES: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MAX_TITLE_LINES: Final = 20
_MAX_NAME: Final = 64
_SEP: Final = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_IN_APOSTROPHES: Final = re.compile(r"(?:^|[,;\t|])'(?:[^']|'')*'(?=[,;\t|\r\n]|$)")
_COMMENT: Final = "#"
_WORD: Final = re.compile(r"[^\W\d]\w*")
_NO_NAME: Final = re.compile(r"[-+]?[0-9][0-9.,:/ T+-]*%?|")
"""Numbers, dates and nothing at all."""


class Dialect(msgspec.Struct, frozen=True):
    delimiter: str
    quote: str
    """Empty where quotes mean nothing."""
    comment: str
    """Lines of data that begin with it are none; empty for none."""
    passed_over: int
    """Lines before the header."""
    notes: tuple[str, ...] = ()


def dialect_of(lines: Sequence[str], usual: str, settings: CsvSettings) -> Dialect:
    """Of a file that begins with these lines, each with its end; `usual` is the delimiter that its name promises."""
    start, notes = settings.skip_lines or 0, list[str]()
    quote = settings.quote
    if quote is None:
        quote = _APOSTROPHE if _stand_in_apostrophes(lines[start:]) else QUOTE
        notes += ["Cells stand in single quotes."] if quote == _APOSTROPHE else []
    delimiter = settings.delimiter
    if delimiter is None and (hint := _hint(lines[start:])):
        delimiter, start = hint, start + 1
        notes.append(f"The first line names the delimiter: {hint!r}.")
    bare = [(start + place, line) for place, line in _records(lines[start:], quote)]
    if settings.comment is None:
        comments = _comments([line for _, line in bare], delimiter, usual)
        bare = bare[comments:]
        if comments:
            notes.append(f"{_lines(comments)} before the header, beginning with #, {_were(comments)} passed over.")
    elif settings.comment:
        bare = [(place, line) for place, line in bare if not line.startswith(settings.comment)]
    if delimiter is None and bare and (hint := _hint(lines[bare[0][0] :])):
        delimiter, bare = hint, bare[1:]
        notes.append(f"A line above the header names the delimiter: {hint!r}.")
    texts = [line for _, line in bare]
    if delimiter is None:
        delimiter = found_delimiter(texts, usual)
        if delimiter != usual:
            notes.append(f"Cells are divided by {_NAMES[delimiter]}.")
    if settings.skip_lines is None and settings.header and (titles := _titles(texts, delimiter)):
        bare = bare[titles:]
        notes.append(f"{_lines(titles)} above the header {_were(titles)} passed over.")
    return Dialect(delimiter, quote, settings.comment or "", bare[0][0] if bare else start, tuple(notes))


def _lines(count: int) -> str:
    return "A line" if count == 1 else f"{count} lines"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _hint(lines: Sequence[str]) -> str | None:
    found = _SEP.fullmatch(lines[0].rstrip("\r\n")) if lines else None
    return found[1] if found else None


def _stand_in_apostrophes(lines: Sequence[str]) -> bool:
    """Whether cells of most lines do, and nothing stands in the usual quotes."""
    filled = [line for line in lines if line.strip()]
    in_apostrophes = sum(bool(_IN_APOSTROPHES.search(line)) for line in filled)
    return in_apostrophes > 1 and in_apostrophes >= 0.5 * len(filled) and not any(QUOTE in line for line in filled)


def _records(lines: Sequence[str], quote: str) -> Iterator[tuple[int, str]]:
    """Lines with those that their open quotes go on to, without quotes and ends; each with its place. A quote that no
    other closes goes on to nothing."""
    place = 0
    while place < len(lines):
        end = place + 1
        if quote and lines[place].count(quote) % 2:
            closing = (other for other in range(end, len(lines)) if lines[other].count(quote) % 2)
            end = next(closing, place) + 1
        yield place, _without_quoted("".join(lines[place:end]), quote)
        place = end


def _without_quoted(record: str, quote: str) -> str:
    """What is special stands for itself in quotes."""
    record = record.rstrip("\r\n")
    if not quote or quote not in record:
        return record
    around = re.escape(quote)
    return re.sub(f"{around}([^{around}]*){around}", lambda found: _SPECIAL.sub("_", found[1]) or "_", record)


def found_delimiter(lines: Sequence[str], usual: str) -> str:
    """The one that divides the most lines into the same number of cells; where none does, the one that the first line
    has most of. Tabs are what they promise to be."""
    if usual == "\t":
        return usual
    filled = [line for line in lines if line.strip()]
    candidates = [usual, *(delimiter for delimiter in _DELIMITERS if delimiter != usual)]
    judged = {delimiter: _regularity(filled, delimiter) for delimiter in candidates}
    best = max(candidates, key=lambda delimiter: judged[delimiter])
    if judged[best] > _NOT_AT_ALL:
        return best
    return max(candidates, key=(filled[0] if filled else "").count)


_NOT_AT_ALL: Final = (0.0, 0.0, 0)


def _regularity(lines: Sequence[str], delimiter: str) -> tuple[float, float, int]:
    """The share of lines with the most usual number of cells, from the first of these on and of all; and that number.
    Nothing where it is one cell."""
    counts = [line.count(delimiter) + 1 for line in lines]
    usual, count = max(Counter(counts).items(), key=lambda item: (item[1], item[0]), default=(1, 0))
    if usual == 1:
        return _NOT_AT_ALL
    return count / (len(counts) - counts.index(usual)), count / len(counts), usual


# Lines before the header ----------------------------------------------------------------------------------------------


def _comments(lines: Sequence[str], delimiter: str | None, usual: str) -> int:
    """How many lines there are before the header that begin with `#`. The last of them is the header itself where it
    has a name right behind the `#` and as many cells as the lines that follow (`#id,name`)."""
    count = 0
    while count < len(lines) and (lines[count].startswith(_COMMENT) or (count and not lines[count].strip())):
        count += 1
    behind = [line for line in lines[count:] if line.strip()]
    if not count or not behind:
        return 0
    delimiter = delimiter or found_delimiter(behind, usual)
    last = max(place for place in range(count) if lines[place].strip())
    divided = Counter(line.count(delimiter) for line in behind).most_common(1)[0][0]
    is_header = divided and lines[last].count(delimiter) == divided and lines[last][1:2].strip(" ") != ""
    return last if is_header else count


def _titles(lines: Sequence[str], delimiter: str) -> int:
    """How many lines stand above the header: of a single cell each, where a line of names follows, and lines as long as
    that. A single word might be a name itself: it is a title where there are rows below that leave no doubt."""
    for place, line in enumerate(lines[: _MAX_TITLE_LINES + 1]):
        filled = [cell for cell in map(str.strip, line.split(delimiter)) if cell]
        if len(filled) > 1:
            above = [title.strip(delimiter + " ") for title in lines[:place]]
            if not any(above) or not _are_names(line, lines[place + 1 :], delimiter):
                return 0
            are_sentences = all(not title or _is_no_name(title) for title in above)
            return place if are_sentences or _are_names_of_rows(line, lines[place + 1 :], delimiter) else 0
    return 0


def _is_no_name(title: str) -> bool:
    return " " in title or len(title) > _MAX_NAME or bool(_NO_NAME.fullmatch(title))


def _are_names(line: str, behind: Sequence[str], delimiter: str) -> bool:
    cells = line.rstrip(delimiter).split(delimiter)
    if any(cell != cell.strip() or _NO_NAME.fullmatch(cell) or len(cell) > _MAX_NAME for cell in cells):
        return False
    following = [other for other in behind if other.strip()]
    as_long = sum(other.count(delimiter) == line.count(delimiter) for other in following)
    return as_long >= 0.8 * len(following)


def _are_names_of_rows(line: str, behind: Sequence[str], delimiter: str) -> bool:
    """Whether numbers stand below one of the names, or all of them are words and every line is as long."""
    rows = [other.split(delimiter) for other in behind if other.strip()]
    as_long = [row for row in rows if len(row) == line.count(delimiter) + 1]
    columns = zip(*as_long, strict=True)
    has_numbers = any(any(column) and all(_NO_NAME.fullmatch(cell.strip()) for cell in column) for column in columns)
    are_words = all(_WORD.fullmatch(cell) for cell in line.rstrip(delimiter).split(delimiter))
    return has_numbers or (are_words and len(rows) > 0 and len(as_long) == len(rows))
