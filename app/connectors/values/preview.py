"""A preview in the making: the one place where its limits are kept.

Columns and rows share the bytes that a preview may take: 100,000 columns without a row are as many bytes as rows are.
What a limit leaves out makes the preview `truncated`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredField, PreviewColumn, PreviewRequest, PreviewResult
from app.connectors.contract.steps import elapsed_ms
from app.connectors.values.values import cut, encoded_size, without_surrogates

MAX_COLUMNS: Final = 2_000
"""Without a choice of the reader's."""


class Preview:
    """Made when the work begins, asked for columns once they are known, and given rows as they come."""

    def __init__(self, request: PreviewRequest) -> None:
        self.request = request
        self.columns: tuple[DiscoveredField, ...] = ()
        """What `choose` chose."""
        self.rows: list[list[object]] = []
        self.truncated = False
        self._started = time.perf_counter()
        self._left = request.max_bytes
        self._notes: dict[str, None] = {}

    def choose(self, fields: Sequence[DiscoveredField], what: str = "object") -> tuple[DiscoveredField, ...]:
        """The columns that were asked for, in that order; all of them where none were named, as far as there is room.
        But for the first one they take no more than half of the bytes, so that there are rows beside them. `what` is
        how messages call the object. Raises `not_found`."""
        wanted = self._named(fields, what)
        chosen: list[DiscoveredField] = []
        for field in wanted:
            left = self._left - encoded_size(PreviewColumn(field.name, field.type)) - 1
            if len(chosen) == MAX_COLUMNS or left < (self.request.max_bytes // 2 if chosen else 0):
                self.truncated = True
                self.note(f"Only the first {len(chosen):,} of {len(wanted):,} columns are shown.")
                break
            self._left = left
            chosen.append(field)
        self.columns = tuple(chosen)
        return self.columns

    def _named(self, fields: Sequence[DiscoveredField], what: str) -> Sequence[DiscoveredField]:
        if self.request.columns is None:
            return fields
        by_name = {field.name: field for field in fields}
        if unknown := [name for name in self.request.columns if name not in by_name]:
            raise ConnectorError(
                "not_found", f"The {what} has no column {', '.join(unknown)[:200]}.", unknown_columns=unknown
            )
        return [by_name[name] for name in self.request.columns]

    def add(self, row: list[object]) -> bool:
        """Whether there is room for another row: of JSON-safe values, one for each column. A row that does not fit is
        left out; a value that is too long is cut."""
        if len(self.rows) >= self.request.limit:
            self.truncated = True
            return False
        row = [self._cut(value) for value in row]
        self._left -= encoded_size(row) + 1
        if self._left < 0:
            self.truncated = True
            return False
        self.rows.append(row)
        return True

    def note(self, sentence: str) -> None:
        """What the reader should know of how this was read. Said twice, it is kept once."""
        self._notes[sentence] = None

    def result(self, *, has_more: bool = False, notes: Iterable[str] = ()) -> PreviewResult:
        """`has_more` where the source holds rows that were never given to `add`."""
        columns = tuple(PreviewColumn(field.name, field.type) for field in self.columns)
        told = (*self._notes, *(note for note in notes if note not in self._notes))
        return PreviewResult(columns, self.rows, self.truncated or has_more, elapsed_ms(self._started), told)

    def _cut(self, value: Any) -> object:
        most = self.request.max_value_bytes
        if isinstance(value, dict | list):
            written = without_surrogates(value)
            if encoded_size(written) <= most:
                return written
            value = msgspec.json.encode(written).decode()
        if not isinstance(value, str):
            return value
        value = without_surrogates(value)
        shorter = cut(value, most)
        self.truncated = self.truncated or shorter != value
        return shorter
