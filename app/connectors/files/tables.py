"""Files as tables, wherever they are: the rows that `read_file` finds, and behind a file's own columns the `name=value`
folders above it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import (
    DiscoveredField,
    DiscoveredObject,
    PreviewColumn,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import elapsed_ms
from app.connectors.files.datasets import Dataset, is_pattern, partitions
from app.connectors.files.reading import read_file
from app.connectors.files.table import Table, format_of
from app.connectors.values.values import RowBudget

UNREADABLE: Final = frozenset(
    {"response_invalid", "response_too_large", "permission_denied", "not_found", "unsupported", "driver_missing"}
)
"""What ends with one of these codes hides no other file."""


class Reader(Protocol):
    async def read(self, key: str, start: int, end: int) -> bytes:
        """From one offset of a file up to another, as far as it goes. Raises `ConnectorError`."""


async def read_table(reader: Reader, key: str, size: int, columns: Sequence[str] | None, limit: int) -> Table:
    """As `read_file`, with the partitions behind the file's own columns."""
    if format_of(key)[0] is None:
        raise ConnectorError("unsupported", "Files of this format have no preview.")
    table = await read_file(key, size, partial(reader.read, key), columns, limit)
    own = {field.name for field in table.fields}
    extra = [(name, value) for name, value in partitions(key) if name not in own]
    fields = [
        DiscoveredField(name, "string", "partition", False, position)
        for position, (name, _) in enumerate(extra, len(table.fields) + 1)
    ]
    rows = [[*row, *(value for _, value in extra)] for row in table.rows]
    return Table((*table.fields, *fields), rows, table.is_whole)


async def described(reader: Reader, datasets: Sequence[Dataset], at_once: int) -> list[DiscoveredObject]:
    """The datasets with the fields of their samples, of which `at_once` are read at a time."""
    turns = asyncio.Semaphore(at_once)

    async def describe(dataset: Dataset) -> DiscoveredObject:
        async with turns:
            return DiscoveredObject.at(dataset.path, dataset.kind, await _fields(reader, dataset))

    return list(await asyncio.gather(*(describe(dataset) for dataset in datasets)))


async def _fields(reader: Reader, dataset: Dataset) -> tuple[DiscoveredField, ...]:
    """None for a file that cannot be read: the dataset is there nevertheless."""
    try:
        return (await read_table(reader, dataset.sample, dataset.sample_size, None, 0)).fields
    except ConnectorError as error:
        if error.code in UNREADABLE:
            return ()
        raise


async def preview_of(reader: Reader, key: str, size: int, request: PreviewRequest, started: float) -> PreviewResult:
    """The first rows of one file; `started` is a reading of `time.perf_counter`. What stands for a pattern has more."""
    table = await read_table(reader, key, size, request.columns, request.limit + 1)
    columns, places = _columns(table, request.columns)
    budget = RowBudget(request.limit, request.max_bytes, request.max_value_bytes)
    for row in table.rows:
        if not budget.add([row[place] for place in places]):
            break
    is_all = table.is_whole and not budget.truncated and not is_pattern(request.path)
    return PreviewResult(columns, budget.rows, not is_all, elapsed_ms(started))


def _columns(table: Table, names: Sequence[str] | None) -> tuple[tuple[PreviewColumn, ...], list[int]]:
    places = {field.name: place for place, field in enumerate(table.fields)}
    chosen = list(places) if names is None else list(names)
    if unknown := [name for name in chosen if name not in places]:
        raise ConnectorError("not_found", f"The file has no column {', '.join(unknown)[:200]}.")
    columns = tuple(PreviewColumn(name, table.fields[places[name]].type) for name in chosen)
    return columns, [places[name] for name in chosen]
