"""The first rows of a file of any format, through a function that reads a part of it."""

from __future__ import annotations

from app.connectors.files.table import Choose, ReadRange, Table, every_column, format_of
from app.connectors.files.text_rows import bytes_needed, read


async def read_file(
    name: str, size: int, read_range: ReadRange, choose: Choose = every_column, limit: int = 1000
) -> Table:
    """The first rows of a file of this size, of any format; `read_range` is asked for the bytes that are needed.

    `choose` and `limit` save reading where the format allows: of a Parquet file no more is read than the chosen columns
    of so many rows; with `limit` 0 its fields come from the footer alone. Raises as `read`, `bytes_needed` and `choose`
    do.
    """
    if format_of(name)[0] == "parquet":
        from app.connectors.files.parquet_rows import read_parquet  # its driver is an extra

        return await read_parquet(size, read_range, choose, limit)
    needed = bytes_needed(name, size)
    beginning = await read_range(0, needed) if needed else b""
    table = read(name, beginning, is_whole=needed >= size)
    return table.of(choose(table.fields))
