"""The first rows of a file of any format, through a function that reads a part of it."""

from __future__ import annotations

from app.connectors.files.csv_settings import ALL_FOUND, CsvSettings
from app.connectors.files.table import Choose, ReadRange, Table, every_column, format_of
from app.connectors.files.text_rows import bytes_needed, read


async def read_file(
    name: str,
    size: int,
    read_range: ReadRange,
    choose: Choose = every_column,
    limit: int = 1000,
    settings: CsvSettings = ALL_FOUND,
) -> Table:
    """The first rows of a file of this size, of any format; `read_range` is asked for the bytes that are needed.

    `choose` and `limit` save reading where the format allows: of a Parquet file no more is read than the chosen columns
    of so many rows; with `limit` 0 its fields come from the footer alone. Raises as `read`, `bytes_needed` and `choose`
    do.
    """
    if format_of(name)[0] == "parquet":
        from app.connectors.files.parquet_rows import read_parquet  # its driver is an extra

        return await read_parquet(size, read_range, choose, limit)
    table = await _read_text(name, size, read_range, settings)
    return table.of(choose(table.fields))


async def _read_text(name: str, size: int, read_range: ReadRange, settings: CsvSettings) -> Table:
    """Further parts are read only where records are so long that the first one tells next to nothing."""
    content = b""
    while True:
        needed = bytes_needed(name, size, len(content))
        content += await read_range(len(content), needed) if needed > len(content) else b""
        is_whole = len(content) < needed or needed >= size  # Not every server tells the size.
        table = read(name, content, is_whole=is_whole, settings=settings)
        if not table.is_short or is_whole or bytes_needed(name, size, needed) == needed:
            return table
