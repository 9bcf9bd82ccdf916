"""Batches of records whose headers have names that are no UTF-8.

A broker looks at no header, and some producers send any bytes as a name; aiokafka takes none of a batch then, nor of
what is behind it. Here such a name is read as `with_bad_bytes` reads texts. Slower than aiokafka's own reading, which
is in C: for batches that it refuses.
"""

from __future__ import annotations

from typing import Any, Final

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint

from app.connectors.values.bad_bytes import with_bad_bytes

_MAGIC_OF_HEADERS: Final = 2
"""The version of batches that has headers (Kafka documentation, "Message Format")."""


class AnyRecords(_MemoryRecordsPy):  # type: ignore[misc]
    """As aiokafka's `MemoryRecords`."""

    def next_batch(self, *args: Any) -> Any:
        content = self._next_slice
        if content is None or len(content) < self.MIN_SLICE or content[self.MAGIC_OFFSET] < _MAGIC_OF_HEADERS:
            return super().next_batch(*args)
        self._cache_next()
        return _AnyBatch(content)


class _AnyBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    _pos: int

    def _read_msg(self, *_: Any) -> Any:
        length = self._number()
        end = self._pos + length
        self._number()  # Attributes; none are in use.
        timestamp = self.first_timestamp + self._number()
        offset = self.base_offset + self._number()
        key, value = self._bytes(), self._bytes()
        headers = [(with_bad_bytes(self._bytes() or b""), self._bytes()) for _ in range(self._number())]
        if self._pos != end:
            raise CorruptRecordException("A record is longer or shorter than it says.")
        if self.timestamp_type == self.LOG_APPEND_TIME:
            timestamp = self.max_timestamp
        return _DefaultRecordPy(offset, timestamp, self.timestamp_type, key, value, headers)

    def _number(self) -> int:
        number, self._pos = decode_varint(self._buffer, self._pos)
        return int(number)

    def _bytes(self) -> bytes | None:
        length = self._number()
        if length < 0:
            return None
        start, self._pos = self._pos, self._pos + length
        if self._pos > len(self._buffer):
            raise CorruptRecordException("A record ends before what is in it.")
        return bytes(self._buffer[start : self._pos])
