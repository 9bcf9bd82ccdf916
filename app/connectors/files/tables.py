"""Files as tables, wherever they are: the rows that `read_file` finds, and behind a file's own columns the `name=value`
folders above it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final, Protocol

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import (
    DiscoveredField,
    DiscoveredObject,
    PreviewResult,
)
from app.connectors.files.datasets import Dataset, is_pattern, partitions
from app.connectors.files.reading import read_file
from app.connectors.files.table import Choose, Table, every_column, format_of
from app.connectors.values.preview import Preview

UNREADABLE: Final = frozenset(
    {"response_invalid", "response_too_large", "permission_denied", "not_found", "unsupported", "driver_missing"}
)
"""What ends with one of these codes hides no other file."""


class Reader(Protocol):
    async def read(self, key: str, start: int, end: int) -> bytes:
        """From one offset of a file up to another, as far as it goes. Raises `ConnectorError`."""


async def read_table(reader: Reader, key: str, size: int, limit: int, choose: Choose = every_column) -> Table:
    """As `read_file`, with the partitions behind the file's own columns."""
    if format_of(key)[0] is None:
        raise ConnectorError("unsupported", "Files of this format have no preview.")
    choice = _Choice(key, choose)
    table = await read_file(key, size, partial(reader.read, key), choice.of_own, limit)
    return choice.with_partitions(table)


class _Choice:
    """A choice among a file's own columns and its partitions, made once the former are known."""

    def __init__(self, key: str, choose: Choose) -> None:
        self._partitions = partitions(key)
        self._choose = choose
        self._chosen: Sequence[DiscoveredField] = ()
        self._beside: dict[int, str] = {}
        """Values of the partitions by the positions of their fields."""

    def of_own(self, own: Sequence[DiscoveredField]) -> Sequence[DiscoveredField]:
        names = {field.name for field in own}
        extra = [(name, value) for name, value in self._partitions if name not in names]
        self._beside = {position: value for position, (_, value) in enumerate(extra, len(own) + 1)}
        fields = [
            DiscoveredField(name, "string", "partition", False, position)
            for position, (name, _) in enumerate(extra, len(own) + 1)
        ]
        self._chosen = self._choose((*own, *fields))
        return [field for field in self._chosen if field.position not in self._beside]

    def with_partitions(self, table: Table) -> Table:
        rows = [self._row(iter(row)) for row in table.rows]
        return Table(tuple(self._chosen), rows, table.is_whole)

    def _row(self, own: Iterator[Any]) -> list[Any]:
        beside = self._beside
        return [beside[field.position] if field.position in beside else next(own) for field in self._chosen]


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
        return (await read_table(reader, dataset.sample, dataset.sample_size, 0)).fields
    except ConnectorError as error:
        if error.code in UNREADABLE:
            return ()
        raise


async def preview_of(reader: Reader, key: str, size: int, preview: Preview) -> PreviewResult:
    """The first rows of one file. What stands for a pattern has more."""

    def choose(fields: Sequence[DiscoveredField]) -> Sequence[DiscoveredField]:
        return preview.choose(fields, "file")

    table = await read_table(reader, key, size, preview.request.limit + 1, choose)
    for row in table.rows:
        if not preview.add(row):
            break
    return preview.result(has_more=not table.is_whole or is_pattern(preview.request.path))
