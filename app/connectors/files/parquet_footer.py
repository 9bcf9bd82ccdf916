"""The footer of a Parquet file: which bytes hold the first rows of which columns, and a footer for those alone.

Arrow's own reader does the decoding; what it does not offer through arro3 is to leave columns out. So it is given the
same file behind a shorter footer. Only the row groups that are needed are read from the long one: of a table with
10,000 of them the footer has megabytes.

Sources: apache/parquet-format, `parquet.thrift` and README section "File format"; apache/thrift,
`doc/specs/thrift-compact-protocol.md`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from app.connectors.contract.failures import ConnectorError

MAGIC: Final = b"PAR1"
ENCRYPTED_MAGIC: Final = b"PARE"
TRAILER_BYTES: Final = 8
"""The footer's length and the magic number, at the end of the file."""

_MAX_DEPTH: Final = 32

# Compact protocol: types
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_INTEGERS: Final = frozenset({_I16, _I32, _I64})

# Field ids of parquet.thrift
_VERSION, _SCHEMA, _NUM_ROWS, _ROW_GROUPS = 1, 2, 3, 4  # FileMetaData
_CHILDREN, _CONVERTED, _LOGICAL = 5, 6, 10  # SchemaElement
_CONVERTED_JSON = 19  # ConvertedType
_COLUMNS, _GROUP_ROWS, _SORTING = 1, 3, 4  # RowGroup
_META, _CRYPTO = 3, 8  # ColumnChunk
_COMPRESSED_BYTES, _DATA_OFFSET, _DICTIONARY_OFFSET = 7, 9, 11  # ColumnMetaData

_EXTENSION_OF: Final = {12: "arrow.json", 14: "arrow.uuid"}
"""What Arrow calls fields of LogicalType that its reader gives out as mere texts and bytes."""

Fields = dict[int, tuple[int, Any]]
"""A Thrift struct: by field id, the type and the value. A list is a pair of its items' type and the items."""


class Footer(msgspec.Struct):
    """The beginning of a file's metadata, down to the row groups that were asked for."""

    rows: int
    """Of the whole file."""
    version: tuple[int, Any]
    schema: list[Fields]
    """Depth first, the root before its columns."""
    row_groups: list[Fields]
    """Those that have rows: in others, writers leave chunks without a place."""
    has_all_row_groups: bool
    has_left_some_out: bool = False
    """Whether there are row groups without rows."""

    @classmethod
    def parse(cls, thrift: bytes, rows_wanted: int) -> Footer:
        """Reads row groups until they have `rows_wanted` rows. Raises `response_invalid`."""
        try:
            return _parse(_Reader(thrift), rows_wanted)
        except (IndexError, KeyError, TypeError, ValueError, RecursionError, struct.error):
            raise ConnectorError("response_invalid", "The footer of the Parquet file is damaged.") from None

    def only(self, columns: Sequence[int]) -> Footer:
        """Without all columns but those at these positions of the root."""
        leaves, kept = _leaves_and_elements(self.schema)
        wanted = sorted(set(columns))
        root = {**self.schema[0], _CHILDREN: (_I32, len(wanted))}
        schema = [root, *(element for column in wanted for element in kept[column])]
        chosen = [leaf for column in wanted for leaf in leaves[column]]
        groups = [_with_chunks(group, chosen) for group in self.row_groups]
        return msgspec.structs.replace(self, schema=schema, row_groups=groups)

    def extensions(self) -> list[str]:
        """For each column of the root what it is beyond its Arrow type, such as `arrow.uuid`; mostly empty."""
        _, elements = _leaves_and_elements(self.schema)
        return [_extension(element) if not others else "" for element, *others in elements]

    def chunks(self) -> list[tuple[int, int]]:
        """Where the values of each column of each row group are: from, to."""
        return [_chunk_range(chunk) for group in self.row_groups for chunk in group[_COLUMNS][1][1]]

    def thrift(self) -> bytes:
        rows = sum(group[_GROUP_ROWS][1] for group in self.row_groups)
        written = bytearray()
        _write_struct(
            written,
            {
                _VERSION: self.version,
                _SCHEMA: (_LIST, (_STRUCT, self.schema)),
                _NUM_ROWS: (_I64, rows),
                _ROW_GROUPS: (_LIST, (_STRUCT, self.row_groups)),
            },
        )
        return bytes(written)

    def tail(self) -> bytes:
        """What stands behind the values in a file with this footer."""
        thrift = self.thrift()
        return thrift + struct.pack("<I", len(thrift)) + MAGIC


def _parse(reader: _Reader, rows_wanted: int) -> Footer:
    found: Fields = {}
    groups: list[Fields] = []
    field = 0
    while field != _ROW_GROUPS:
        field, kind = reader.field(field)
        if field != _ROW_GROUPS:
            found[field] = (kind, reader.value(kind))
    item, count = reader.list_header()
    rows = read = 0
    while read < count and rows < rows_wanted:
        group, read = reader.value(item), read + 1
        rows += group[_GROUP_ROWS][1]
        if group[_GROUP_ROWS][1]:
            groups.append(group)
    is_all = read == len(groups)
    footer = Footer(found[_NUM_ROWS][1], found[_VERSION], found[_SCHEMA][1][1], groups, read == count, not is_all)
    _refuse_odd(footer)
    return footer


def _refuse_odd(footer: Footer) -> None:
    """The decoder's native code takes these for granted, and ends the process where they are not so."""
    if footer.rows < 0:
        raise ValueError("a number of rows is negative")
    leaves, _ = _leaves_and_elements(footer.schema)
    expected = sum(map(len, leaves))
    for group in footer.row_groups:
        chunks = group[_COLUMNS][1][1]
        if len(chunks) != expected:
            raise ValueError("a row group has another number of columns than the schema")
        if any(_CRYPTO in chunk or _META not in chunk for chunk in chunks):
            raise ConnectorError("unsupported", "The Parquet file has encrypted columns.")
    if any(not len(MAGIC) <= start <= end for start, end in footer.chunks()):
        raise ValueError("a column lies before the start of the file")


def _leaves_and_elements(schema: list[Fields]) -> tuple[list[range], list[list[Fields]]]:
    """For each column of the root, the numbers of its leaves and all its elements."""
    leaves: list[range] = []
    elements: list[list[Fields]] = []
    place, leaf = 1, 0
    for _ in range(_children(schema[0])):
        end = _end_of(schema, place)
        count = sum(not _children(element) for element in schema[place:end])
        elements.append(schema[place:end])
        leaves.append(range(leaf, leaf + count))
        place, leaf = end, leaf + count
    return leaves, elements


def _end_of(schema: list[Fields], place: int) -> int:
    """Behind the element at this place and everything below it."""
    open_elements = 1
    while open_elements:
        open_elements += _children(schema[place]) - 1
        place += 1
    return place


def _children(element: Fields) -> int:
    return int(element.get(_CHILDREN, (_I32, 0))[1])


def _extension(element: Fields) -> str:
    if element.get(_CONVERTED, (_I32, None))[1] == _CONVERTED_JSON:
        return "arrow.json"
    kind, logical = element.get(_LOGICAL, (_STRUCT, {}))
    return next((_EXTENSION_OF[field] for field in logical if field in _EXTENSION_OF), "") if kind == _STRUCT else ""


def _with_chunks(group: Fields, leaves: Sequence[int]) -> Fields:
    kind, chunks = group[_COLUMNS][1]
    kept = {field: content for field, content in group.items() if field != _SORTING}  # It names columns by number.
    return {**kept, _COLUMNS: (_LIST, (kind, [chunks[leaf] for leaf in leaves]))}


def _chunk_range(chunk: Fields) -> tuple[int, int]:
    meta: Fields = chunk[_META][1]
    start = int(meta[_DATA_OFFSET][1])
    dictionary = int(meta.get(_DICTIONARY_OFFSET, (_I64, 0))[1])
    if 0 < dictionary < start:
        start = dictionary
    return start, start + int(meta[_COMPRESSED_BYTES][1])


# Thrift ---------------------------------------------------------------------------------------------------------------


class _Reader:
    """Raises IndexError, ValueError or struct.error where the bytes are no Thrift."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _INTEGERS:
            number = self._varint()
            return (number >> 1) ^ -(number & 1)
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self._struct(depth + 1)
        if kind in {_LIST, _SET}:
            item, count = self.list_header()
            return item, [self._item(item, depth + 1) for _ in range(count)]
        if kind in {_TRUE, _FALSE}:
            return kind == _TRUE
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BYTE:
            return self._take(1)
        raise ValueError("parquet.thrift has no other types")

    def field(self, before: int) -> tuple[int, int]:
        """Id and type of the next field; id 0 at the end of the struct."""
        head = self._take(1)[0]
        if head == 0:
            return 0, 0
        if head >> 4:
            return before + (head >> 4), head & 15
        return self.value(_I16), head & 15

    def list_header(self) -> tuple[int, int]:
        head = self._take(1)[0]
        count = self._varint() if head >> 4 == 15 else head >> 4
        if count > len(self._content) - self._place:
            raise ValueError("a list is longer than the footer")
        return head & 15, count

    def _struct(self, depth: int) -> Fields:
        if depth > _MAX_DEPTH:
            raise ValueError("a footer is not that deep")
        fields: Fields = {}
        field = 0
        while True:
            field, kind = self.field(field)
            if field == 0:
                return fields
            fields[field] = (kind, self.value(kind, depth))

    def _item(self, kind: int, depth: int) -> object:
        if kind in {_TRUE, _FALSE}:
            return self._take(1) == b"\x01"  # A list has its booleans in bytes of their own.
        return self.value(kind, depth)

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._content[self._place]
            self._place += 1
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 63:
                raise ValueError("a number has at most 64 bits")

    def _take(self, count: int) -> bytes:
        taken = self._content[self._place : self._place + count]
        if len(taken) != count:
            raise ValueError("the footer ends early")
        self._place += count
        return taken


def _write_struct(written: bytearray, fields: Fields) -> None:
    before = 0
    for field, (kind, value) in sorted(fields.items()):
        if kind in {_TRUE, _FALSE}:
            kind = _TRUE if value else _FALSE
        if 0 < field - before < 16:
            written.append((field - before) << 4 | kind)
        else:
            written.append(kind)
            _write(written, _I16, field)
        if kind not in {_TRUE, _FALSE}:
            _write(written, kind, value)
        before = field
    written.append(0)


def _write(written: bytearray, kind: int, value: Any) -> None:
    if kind in _INTEGERS:
        _write_varint(written, (value << 1) ^ (value >> 63))
    elif kind == _BINARY:
        _write_varint(written, len(value))
        written += value
    elif kind == _STRUCT:
        _write_struct(written, value)
    elif kind in {_LIST, _SET}:
        _write_list(written, *value)
    else:
        written += value


def _write_list(written: bytearray, item: int, values: Sequence[object]) -> None:
    if len(values) < 15:
        written.append(len(values) << 4 | item)
    else:
        written.append(0xF0 | item)
        _write_varint(written, len(values))
    for value in values:
        if item in {_TRUE, _FALSE}:
            written.append(1 if value else 2)
        else:
            _write(written, item, value)


def _write_varint(written: bytearray, number: int) -> None:
    number &= (1 << 64) - 1
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
