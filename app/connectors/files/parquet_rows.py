"""The first rows of a Parquet file that lies elsewhere, read in ranges: the footer, then the pages that hold them.

arro3 reads through a file-like object, page by page, so that a row group of a gigabyte costs its first pages only. It
works in a thread, and what it misses is fetched by the event loop meanwhile. What it will ask for first is known from
the footer and fetched before, many columns at once.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from bisect import bisect_right, insort
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.files.parquet_footer import ENCRYPTED_MAGIC, MAGIC, TRAILER_BYTES, Footer
from app.connectors.files.table import Choose, ReadRange, Table, every_column
from app.connectors.values.arrow_values import ArrowType, arrow_type, discovered_fields, values_of
from app.connectors.values.values import encoded_size

if TYPE_CHECKING:
    from arro3.core import RecordBatch, RecordBatchReader, Schema

MAX_FOOTER_BYTES: Final = 16 * 1024 * 1024
MAX_BYTES_READ: Final = 64 * 1024 * 1024
"""Of the pages for one preview, as they are stored."""
_MAX_BYTES_KEPT: Final = 16 * 1024 * 1024
"""Of the values: as much as a preview may show."""
_TAIL_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 512 * 1024
"""Of each column, fetched before anybody asks."""
_SMALL_BYTES: Final = 1024 * 1024
"""Row groups up to this size are fetched whole: one request instead of one for each column."""
_AT_ONCE_BYTES: Final = 16 * 1024 * 1024
_READ_AHEAD_BYTES: Final = 256 * 1024
_GAP_BYTES: Final = 32 * 1024
_FETCHERS: Final = 8
_BATCH_ROWS: Final = 128
_SPARSE_BATCH_ROWS: Final = 8192


async def read_parquet(
    file_size: int,
    read_range: ReadRange,
    choose: Choose = every_column,
    limit: int = 1000,
    *,
    is_sparse: bool = False,
) -> Table:
    """At most `limit` rows of the chosen columns. With `limit` 0 the footer only is read, with `is_sparse` rows
    that have nothing but nulls in these columns are left out and not counted.

    Raises `response_invalid` for what is no Parquet file, `unsupported` for encrypted ones, `response_too_large` where
    the first pages of the columns are more than `MAX_BYTES_READ`.
    """
    source = _Source(read_range)
    thrift = await _read_footer(source, file_size)
    schema = await asyncio.to_thread(_schema, source)
    footer = Footer.parse(thrift, sys.maxsize if is_sparse else limit)
    shown = _shown(schema, footer)
    fields = discovered_fields(shown)
    wanted_fields = choose(fields)
    chosen = sorted({field.position - 1 for field in wanted_fields})
    wanted = min(limit, footer.rows)
    found = _Rows([[] for _ in range(0 if is_sparse else wanted)], is_sparse or wanted == footer.rows)
    if chosen and wanted:
        footer = footer.only(chosen)
        if len(chosen) < len(fields) or footer.has_left_some_out:
            source.end_with(footer.tail())
        await source.fetch_all(_first_pages(footer))
        decode = partial(_rows, source, _Columns(schema, shown, chosen), wanted, is_sparse=is_sparse)
        found = await asyncio.to_thread(decode)
        found.is_all = found.is_all and footer.has_all_row_groups and (is_sparse or wanted == footer.rows)
    return Table(tuple(fields[place] for place in chosen), found.rows, found.is_all).of(wanted_fields)


async def _read_footer(source: _Source, file_size: int) -> bytes:
    """The footer's bytes, and the source then ends with them."""
    tail = await source.fetch(max(0, file_size - _TAIL_BYTES), file_size)
    if tail.endswith(ENCRYPTED_MAGIC):
        raise ConnectorError("unsupported", "The Parquet file is encrypted.")
    if len(tail) < TRAILER_BYTES + len(MAGIC) or not tail.endswith(MAGIC):
        raise ConnectorError("response_invalid", "The file is no Parquet file.")
    (length,) = struct.unpack("<I", tail[-TRAILER_BYTES : -len(MAGIC)])
    start = file_size - TRAILER_BYTES - length
    if start < len(MAGIC):
        raise ConnectorError("response_invalid", "The footer of the Parquet file is damaged.")
    if length > MAX_FOOTER_BYTES:
        raise ConnectorError("response_too_large", "The Parquet file has a footer of more than 16 MiB.")
    if length + TRAILER_BYTES > len(tail):
        tail = await source.fetch(start, file_size)
    footer = tail[len(tail) - TRAILER_BYTES - length :]
    source.end_with(footer, start)
    return footer[:-TRAILER_BYTES]


def _shown(schema: Schema, footer: Footer) -> list[ArrowType]:
    """The columns, with what Parquet says of them and Arrow's reader leaves out."""
    columns, extensions = arrow_type(schema).children, footer.extensions()
    if len(columns) != len(extensions):
        raise ConnectorError("response_invalid", "The footer of the Parquet file is damaged.")
    return [
        msgspec.structs.replace(column, extension=column.extension or extension)
        for column, extension in zip(columns, extensions, strict=True)
    ]


def _first_pages(footer: Footer) -> list[tuple[int, int]]:
    """The ranges to fetch at once: all of what is small, the heads of what is large; neighbours together."""
    chunks = footer.chunks()
    if sum(end - start for start, end in chunks) > _SMALL_BYTES:
        head = max(_GAP_BYTES, min(_HEAD_BYTES, _AT_ONCE_BYTES // len(chunks)))
        chunks = [(start, min(end, start + head)) for start, end in chunks]
    merged: list[tuple[int, int]] = []
    for start, end in sorted(_up_to(_AT_ONCE_BYTES, chunks)):
        if merged and start - merged[-1][1] <= _GAP_BYTES:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _up_to(most: int, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, end in ranges:
        most -= end - start
        if most < 0:
            return
        yield start, end


# Decoding, in a thread ------------------------------------------------------------------------------------------------


class _Columns:
    """The chosen columns: as they are declared, and as they are to be shown."""

    def __init__(self, schema: Schema, shown: Sequence[ArrowType], chosen: Sequence[int]) -> None:
        self._declared = [schema.field(place).type for place in chosen]
        self._shown: list[ArrowType] = [shown[place] for place in chosen]

    def are_null(self, batch: RecordBatch) -> bool:
        return all(batch.column(place).null_count == batch.num_rows for place in range(len(self._shown)))

    def rows(self, batch: RecordBatch) -> list[list[object]]:
        """A shortened footer has lost what Arrow wrote beside it: whether a number is a duration, for one. The cast to
        the declared type brings that back."""
        columns = []
        for place, (declared, shown) in enumerate(zip(self._declared, self._shown, strict=True)):
            array = batch.column(place)
            columns.append(values_of(array if array.type == declared else array.cast(declared), shown))
        return [list(row) for row in zip(*columns, strict=True)]


def _schema(source: _Source) -> Schema:
    with _decoding(source):
        return _opened(source, 1).schema


def _opened(source: _Source, batch_rows: int) -> RecordBatchReader:
    """Raises `driver_missing`: a type that reads other formats as well may be installed without arro3."""
    try:
        from arro3.io import read_parquet as decoder
    except ModuleNotFoundError:
        raise ConnectorError("driver_missing", "Parquet files need arro3: the hub's extra `arrow` brings it.") from None
    return decoder(source.opened(), batch_size=batch_rows)


class _Rows(msgspec.Struct):
    rows: list[list[Any]]
    is_all: bool
    """Whether none was left out for want of room."""


def _rows(source: _Source, columns: _Columns, wanted: int, *, is_sparse: bool) -> _Rows:
    found = _Rows([], is_all=False)
    kept_bytes = 0
    with _decoding(source):
        batch_rows = _SPARSE_BATCH_ROWS if is_sparse else min(wanted, _BATCH_ROWS)
        for batch in _opened(source, batch_rows):
            for row in () if is_sparse and columns.are_null(batch) else columns.rows(batch):
                if is_sparse and all(value is None for value in row):
                    continue
                if len(found.rows) == wanted or kept_bytes > _MAX_BYTES_KEPT:
                    return found
                found.rows.append(row)
                kept_bytes += encoded_size(row)
            if len(found.rows) == wanted and not is_sparse:
                break  # The footer knows whether there are more.
    found.is_all = True
    return found


@contextmanager
def _decoding(source: _Source) -> Iterator[None]:
    """Errors of the decoder in our words. A panic of its native code is no `Exception`."""
    try:
        yield
    except (MemoryError, ConnectorError):
        raise
    except BaseException as error:
        if source.failure is not None:
            raise source.failure from None
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ConnectorError("response_invalid", "The Parquet file is damaged, or of a kind unknown.") from error
        raise


# Bytes ----------------------------------------------------------------------------------------------------------------


class _Source:
    """The pieces of the file that were read so far, and the way to further ones."""

    def __init__(self, read_range: ReadRange) -> None:
        self.failure: ConnectorError | None = None
        """Why a read in the decoder's thread did not work: the decoder only tells that it did not."""
        self.size = 0
        self._read_range = read_range
        self._loop = asyncio.get_running_loop()
        self._turns = asyncio.Semaphore(_FETCHERS)
        self._starts: list[int] = []
        self._pieces: dict[int, bytes] = {}
        self._footer_start = 0
        self._footer = b""
        self._left = MAX_FOOTER_BYTES + _TAIL_BYTES

    def end_with(self, footer: bytes, start: int | None = None) -> None:
        """From here on the file ends with these bytes, at the place of its own footer. What is read from now on counts
        as pages."""
        self._footer_start = self._footer_start if start is None else start
        self._footer = footer
        self.size = self._footer_start + len(footer)
        self._left = MAX_BYTES_READ

    def opened(self) -> Any:
        """A file object for the decoder, from the start. It asks for the types of its methods only."""
        return _File(self)

    async def fetch(self, start: int, end: int) -> bytes:
        self._left -= end - start
        if self._left < 0:
            raise ConnectorError(
                "response_too_large",
                f"The first rows of these columns take more than {MAX_BYTES_READ // 1024**2} MiB of the file.",
            )
        async with self._turns:
            piece = await self._read_range(start, end)
        if len(piece) != end - start:
            raise ConnectorError("response_invalid", "The file is shorter than it is said to be.")
        if start not in self._pieces:
            insort(self._starts, start)
        self._pieces[start] = piece
        return piece

    async def fetch_all(self, ranges: Sequence[tuple[int, int]]) -> None:
        clipped = [(max(start, 0), min(end, self._footer_start)) for start, end in ranges]
        missing = [(start, end) for start, end in clipped if start < end and not self._has(start, end)]
        await asyncio.gather(*(self.fetch(start, end) for start, end in missing))

    def _has(self, start: int, end: int) -> bool:
        return len(self._piece(start)) >= end - start

    def _piece(self, place: int) -> memoryview:
        """What is known from this place on without a gap, at least of one piece."""
        index = bisect_right(self._starts, place) - 1
        if index < 0:
            return memoryview(b"")
        start = self._starts[index]
        return memoryview(self._pieces[start])[place - start :]

    def read(self, place: int, count: int) -> bytes:
        """Some bytes from this place on, at most `count`; none at the end. For the decoder's thread."""
        if place >= self._footer_start:
            return self._footer[place - self._footer_start :][:count]
        piece = self._piece(place)
        if not piece:
            end = min(place + max(count, _READ_AHEAD_BYTES), self._footer_start)
            piece = memoryview(self._wait_for(self.fetch(place, end)))
        return bytes(piece[: min(count, self._footer_start - place)])

    def _wait_for(self, fetching: Coroutine[object, object, bytes]) -> bytes:
        try:
            return asyncio.run_coroutine_threadsafe(fetching, self._loop).result()
        except ConnectorError as error:
            self.failure = error
            raise


class _File:
    def __init__(self, source: _Source) -> None:
        self._source = source
        self._place = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._place, self._source.size)[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, count: int = -1) -> bytes:
        taken = self._source.read(self._place, count if count >= 0 else self._source.size)
        self._place += len(taken)
        return taken

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
