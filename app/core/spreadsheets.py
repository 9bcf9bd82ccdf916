"""CSV as spreadsheets may open it: RFC 4180, and no text of somebody else's that is run as a formula."""

import re
from collections.abc import Iterable
from typing import Final

_FORMULA: Final = re.compile(r"'*[=+@\t\r\uff1d\uff0b\uff20\uff0d-]")
"""What spreadsheets take for the beginning of a formula (OWASP, CSV Injection), full-width forms included; behind
apostrophes, so that taking one away leads back to the text."""
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_QUOTED: Final = re.compile(r'[",\r\n]')


def may_be_run(text: str) -> bool:
    """Whether a spreadsheet would take the text for a formula. A number is a number, whatever its sign."""
    return _FORMULA.match(text) is not None and _NUMBER.fullmatch(text) is None


def disarmed(text: str | None) -> str | None:
    """With an apostrophe before what a spreadsheet would run: it shows the text, and not the apostrophe."""
    return "'" + text if text is not None and may_be_run(text) else text


def csv_line(texts: Iterable[str | None]) -> str:
    """None is nothing, an empty text `""`. A line with nothing in it would be none: a None alone is `""`."""
    return (",".join(map(_quoted, texts)) or '""') + "\r\n"


def _quoted(text: str | None) -> str:
    if text is None:
        return ""
    if text and not _QUOTED.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'
