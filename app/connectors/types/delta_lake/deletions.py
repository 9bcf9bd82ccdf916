"""Deletion vectors of Delta tables: which rows at the beginning of a file are gone.

Source: delta-io/delta, `PROTOCOL.md`, section "Deletion Vectors"; RoaringBitmap/RoaringFormatSpec.
"""

from __future__ import annotations

import base64
import struct
import uuid
import zlib
from typing import Final

from app.connectors.contract.failures import ConnectorError
from app.connectors.files.object_store import Store
from app.connectors.types.delta_lake.log import DeletionVector, path_below

ROWS_KNOWN: Final = 65_536
"""Rows of a file about which can be said whether they are deleted: those of a bitmap's first container. A preview
looks at no later ones."""
_MAX_BYTES: Final = 16 * 1024 * 1024
_MAGIC: Final = 1_681_511_377
"""Of the serialisation that the protocol calls portable."""
_WITH_RUNS, _WITHOUT_RUNS = 12_347, 12_346
_MAX_ARRAY: Final = 4096
_LENGTH_BYTES: Final = 4
_CHECKSUM_BYTES: Final = 4


async def deleted_rows(store: Store, folder: str, vector: DeletionVector) -> frozenset[int]:
    """Positions of deleted rows among the first `ROWS_KNOWN` of the file, counted from 0.

    Raises `response_invalid` for damaged vectors, and as `path_below` for those that lie elsewhere.
    """
    content = await _content(store, folder, vector)
    try:
        return _first_container(content)
    except (struct.error, IndexError, ValueError):
        raise _damaged() from None


async def _content(store: Store, folder: str, vector: DeletionVector) -> bytes:
    if vector.size_in_bytes > _MAX_BYTES:
        raise ConnectorError("response_too_large", "A deletion vector of the Delta table is larger than 16 MiB.")
    if vector.storage_type == "i":
        return _from_z85(vector.path_or_inline_dv)[: vector.size_in_bytes]
    if vector.storage_type == "u":
        path = path_below(folder, _relative_path(vector.path_or_inline_dv))
    else:
        path = path_below(folder, vector.path_or_inline_dv)
    start = vector.offset or 0
    end = start + _LENGTH_BYTES + vector.size_in_bytes + _CHECKSUM_BYTES
    return _checked(await store.read(path, start, end), vector.size_in_bytes)


def _relative_path(text: str) -> str:
    """A folder of the table, perhaps none, and an id in 20 characters."""
    try:
        name = uuid.UUID(bytes=_from_z85(text[-20:]))
    except ValueError:
        raise _damaged() from None
    prefix = text[:-20]
    return f"{prefix}/deletion_vector_{name}.bin" if prefix else f"deletion_vector_{name}.bin"


def _from_z85(text: str) -> bytes:
    """ZeroMQ RFC 32. Its alphabet is not that of `base64.b85decode`, its order is."""
    try:
        return base64.b85decode(text.translate(_TO_B85))
    except ValueError:
        raise _damaged() from None


_B85: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_Z85: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_TO_B85: Final = str.maketrans(_Z85, _B85)


def _checked(stored: bytes, size: int) -> bytes:
    """Length and checksum stand around what is stored in files, in big-endian order."""
    content = stored[_LENGTH_BYTES : _LENGTH_BYTES + size]
    if stored != struct.pack(">I", size) + content + struct.pack(">I", zlib.crc32(content)):
        raise _damaged()
    return content


def _first_container(content: bytes) -> frozenset[int]:
    """Of the 64-bit bitmap array: a 32-bit bitmap for each value of the upper 32 bits, the lowest first."""
    magic, count = struct.unpack_from("<IQ", content)
    if magic != _MAGIC:
        raise _damaged()
    if not count or struct.unpack_from("<I", content, 12)[0] != 0:
        return frozenset()
    return _first_of_bitmap(content[16:])


def _first_of_bitmap(bitmap: bytes) -> frozenset[int]:
    """Of the portable format: containers for each value of the upper 16 bits, the lowest first."""
    (cookie,) = struct.unpack_from("<I", bitmap)
    if cookie & 0xFFFF == _WITH_RUNS:
        containers = (cookie >> 16) + 1
        has_runs, keys = bool(bitmap[4] & 1), 4 + (containers + 7) // 8
        start = keys + 4 * containers + (4 * containers if containers >= 4 else 0)
    elif cookie == _WITHOUT_RUNS:
        (containers,) = struct.unpack_from("<I", bitmap, 4)
        has_runs, keys = False, 8
        start = keys + 8 * containers
    else:
        raise _damaged()
    if not containers:
        return frozenset()
    key, cardinality = struct.unpack_from("<HH", bitmap, keys)
    return frozenset() if key else _container(bitmap[start:], cardinality + 1, has_runs=has_runs)


def _container(content: bytes, cardinality: int, *, has_runs: bool) -> frozenset[int]:
    if has_runs:
        (runs,) = struct.unpack_from("<H", content)
        pairs = struct.iter_unpack("<HH", content[2 : 2 + 4 * runs])
        return frozenset(row for start, more in pairs for row in range(start, start + more + 1))
    if cardinality <= _MAX_ARRAY:
        return frozenset(struct.unpack_from(f"<{cardinality}H", content))
    words = struct.unpack_from("<1024Q", content)
    return frozenset(64 * place + bit for place, word in enumerate(words) for bit in range(64) if word >> bit & 1)


def _damaged() -> ConnectorError:
    return ConnectorError("response_invalid", "A deletion vector of the Delta table is damaged.")
