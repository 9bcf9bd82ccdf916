"""The first rows of a file of any format, through a function that reads a part of it."""

from __future__ import annotations

from collections.abc import Sequence

from app.connectors.files.table import ReadRange, Table, format_of
from app.connectors.files.text_rows import bytes_needed, read


async def read_file(
    name: str, size: int, read_range: ReadRange, columns: Sequence[str] | None = None, limit: int = 1000
) -> Table:
    """The first rows of a file of this size, of any format; `read_range` is asked for the bytes that are needed.

    `columns` and `limit` save reading where the format allows: a Parquet table has only the columns that were named,
    in the file's order, and only that many rows; with `limit` 0 its fields come from the footer alone. Others have all
    that the beginning of the file holds. Names that no column has are left to the caller. Raises as `read` and
    `bytes_needed` do.
    """
    if format_of(name)[0] == "parquet":
        from app.connectors.files.parquet_rows import read_parquet  # its driver is an extra

        return await read_parquet(size, read_range, columns, limit)
    needed = bytes_needed(name, size)
    beginning = await read_range(0, needed) if needed else b""
    return read(name, beginning, is_whole=needed >= size)
