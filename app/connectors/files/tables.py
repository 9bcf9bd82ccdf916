"""Files as tables, wherever they are: the rows that `read_file` finds, and behind a file's own columns the `name=value`
folders above it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import (
    DiscoveredField,
    DiscoveredObject,
    PreviewResult,
)
from app.connectors.files.csv_settings import ALL_FOUND, CsvSettings
from app.connectors.files.datasets import Dataset, is_pattern, partitions
from app.connectors.files.reading import read_file
from app.connectors.files.table import NO_ROWS, Choose, Table, every_column, format_of
from app.connectors.values.describing import Describer, Description, together
from app.connectors.values.names import told_apart
from app.connectors.values.preview import Preview


class Reader(Protocol):
    async def read(self, key: str, start: int, end: int) -> bytes:
        """From one offset of a file up to another, as far as it goes. Raises `ConnectorError`."""


async def read_table(
    reader: Reader, key: str, size: int, limit: int, choose: Choose = every_column, settings: CsvSettings = ALL_FOUND
) -> Table:
    """As `read_file`, with the partitions behind the file's own columns."""
    if format_of(key)[0] is None:
        raise ConnectorError("unsupported", NO_ROWS)
    choice = _Choice(key, choose)
    table = await read_file(key, size, partial(reader.read, key), choice.of_own, limit, settings)
    return choice.with_partitions(table)


class _Choice:
    """A choice among a file's own columns and its partitions, made once the former are known."""

    def __init__(self, key: str, choose: Choose) -> None:
        self._partitions = partitions(key)
        self._choose = choose
        self._chosen: Sequence[DiscoveredField] = ()
        self._beside: dict[int, str | None] = {}
        """Values of the partitions by the positions of their fields."""

    def of_own(self, own: Sequence[DiscoveredField]) -> Sequence[DiscoveredField]:
        names = {field.name for field in own}
        extra = [(name, value) for name, value in self._partitions if name not in names]
        self._beside = {position: value for position, (_, value) in enumerate(extra, len(own) + 1)}
        apart = told_apart([*(field.name for field in own), *(name for name, _ in extra)])[len(own) :]
        fields = [
            DiscoveredField(name, "string", "partition", value is None, position)
            for name, (position, value) in zip(apart, self._beside.items(), strict=True)
        ]
        self._chosen = self._choose((*own, *fields))
        return [field for field in self._chosen if field.position not in self._beside]

    def with_partitions(self, table: Table) -> Table:
        rows = [self._row(iter(row)) for row in table.rows]
        return msgspec.structs.replace(table, fields=tuple(self._chosen), rows=rows)

    def _row(self, own: Iterator[object]) -> list[object]:
        beside = self._beside
        return [beside[field.position] if field.position in beside else next(own) for field in self._chosen]


async def described(
    reader: Reader, datasets: Iterable[Dataset], describer: Describer, settings: CsvSettings = ALL_FOUND
) -> list[DiscoveredObject]:
    """The datasets with the fields of their samples."""

    async def look(dataset: Dataset) -> Description:
        table = await read_table(reader, dataset.sample, dataset.sample_size, 0, settings=settings)
        return Description(table.fields, table.notes)

    return await together(describer.describe(one.path, one.kind, partial(look, one)) for one in datasets)


async def preview_of(
    reader: Reader, key: str, size: int, preview: Preview, settings: CsvSettings = ALL_FOUND
) -> PreviewResult:
    """The first rows of one file. What stands for a pattern has more."""

    def choose(fields: Sequence[DiscoveredField]) -> Sequence[DiscoveredField]:
        return preview.choose(fields, "file")

    table = await read_table(reader, key, size, preview.request.limit + 1, choose, settings)
    for row in table.rows:
        if not preview.add(row):
            break
    return preview.result(has_more=not table.is_whole or is_pattern(preview.request.path), notes=table.notes)
