"""The log of one Kafka topic, read backwards from its end. Nothing is joined, committed or moved by it.

A log can be read forwards only, so each partition is read in windows that end where the last one began. The first is
one offset wide; they widen as long as they give too little, which is what leads quickly over the gaps that compaction
and aborted transactions leave. What ends before the last stable offset (`read_committed`) is all there, so no read
waits for messages to come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from app.connectors.contract.failures import ConnectorError

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

T = TypeVar("T")
Aborted = Sequence[tuple[int, int]] | None
"""Producers of transactions that were given up, with the offset at which each of them begins."""
Ask = Callable[[int, Any], Awaitable[Any]]
"""Node id and request in, the response out. Raises `ConnectorError`."""

_EARLIEST: Final = -2  # ListOffsets' names for both ends of a log
_LATEST: Final = -1
_READ_COMMITTED: Final = 1
_MAX_WAIT_MS: Final = 50
_PARTITION_BYTES: Final = 256 * 1024
_FETCH_BYTES: Final = 2 * 1024 * 1024
_WIDER: Final = 4
_MOVING: Final = frozenset({5, 6, 9, 74, 75, 76, 78})  # leaders and replicas that are elected or caught up just now
_TRIMMED: Final = 1


def refuse(error: int, topic: str) -> None:
    """An error code of the protocol in our words."""
    if error == 3:
        raise ConnectorError("not_found", f"The topic {topic} is not there any more.")
    if error == 29:
        raise ConnectorError("permission_denied", f"The user may not read the topic {topic}.")
    if error in _MOVING:
        raise ConnectorError("server_error", f"A partition of {topic} has no leader at the moment.")
    if error:
        raise ConnectorError("server_error", f"A broker answered with error {error} for {topic}.")


def _unreadable(error: Exception, topic: str) -> ConnectorError:
    from aiokafka.codec import has_snappy
    from aiokafka.errors import UnsupportedCodecError

    if isinstance(error, UnsupportedCodecError) and not has_snappy():  # cramjam brings snappy, lz4 and zstd together.
        return ConnectorError(
            "driver_missing", f"Messages of {topic} are compressed in a way that needs the package cramjam."
        )
    return ConnectorError("response_invalid", f"Messages of {topic} are damaged, or compressed in an unknown way.")


class TopicLog:
    """The messages of a topic, newest first: by offset inside a partition, by timestamp among partitions."""

    def __init__(self, topic: str, leaders: Mapping[int, int], ask: Ask, max_bytes: int) -> None:
        """`leaders` are the node ids by partition; `max_bytes` is what may be fetched, as it is stored."""
        self.is_cut = False
        """Whether `max_bytes` left out messages that would have been among the newest."""
        self._topic = topic
        self._leaders = leaders
        self._ask = ask
        self._left = max_bytes

    async def newest(self, count: int) -> list[ConsumerRecord]:
        """At most `count` of aiokafka's `ConsumerRecord`."""
        tails = await self._tails()
        found: list[ConsumerRecord] = []
        while len(found) < count:
            while empty := [tail for tail in tails if tail.is_empty]:
                await self._read(empty, count - len(found))
            heads = [tail for tail in tails if tail.records]
            if not heads:
                break
            found.append(max(heads, key=Tail.age).records.pop())
        return found

    async def _tails(self) -> list[Tail]:
        if any(leader < 0 for leader in self._leaders.values()):
            refuse(5, self._topic)
        begins, ends = await asyncio.gather(self._offsets(_EARLIEST), self._offsets(_LATEST))
        return [Tail(self._topic, number, begins[number], ends[number]) for number in sorted(ends)]

    async def _offsets(self, end: int) -> dict[int, int]:
        from aiokafka.protocol.offset import OffsetRequest

        found: dict[int, int] = {}
        for leader, numbers in _grouped((leader, number) for number, leader in self._leaders.items()):
            topics = [(self._topic, [(number, end) for number in numbers])]
            answer = await self._ask(leader, OffsetRequest(-1, _READ_COMMITTED, topics))
            for _, partitions in answer.topics:
                for number, error, _, offset in partitions:
                    refuse(error, self._topic)
                    found[number] = offset
        return found

    async def _read(self, tails: Sequence[Tail], wanted: int) -> None:
        """One window of each."""
        for tail in tails:
            tail.open_window(wanted)
        while waiting := [tail for tail in tails if not tail.is_covered]:
            if self._left <= 0:
                self.is_cut = True
                for tail in waiting:
                    tail.give_up()
                break
            leaders = _grouped((self._leaders[tail.number], tail) for tail in waiting)
            await asyncio.gather(*(self._fetch(leader, group) for leader, group in leaders))
        for tail in tails:
            tail.close_window()

    async def _fetch(self, leader: int, tails: Sequence[Tail]) -> None:
        """A leader that gives nothing for any of them was asked for a gap at the end of its logs."""
        from aiokafka.protocol.fetch import FetchRequest

        wanted = [(tail.number, tail.position, _PARTITION_BYTES) for tail in tails]
        request = FetchRequest(_MAX_WAIT_MS, 1, _FETCH_BYTES, _READ_COMMITTED, [(self._topic, wanted)])
        answer = await self._ask(leader, request)
        refuse(getattr(answer, "error_code", 0), self._topic)
        by_number = {tail.number: tail for tail in tails}
        before = sum(tail.position for tail in tails)
        for _, partitions in answer.topics:
            for number, error, *rest in partitions:
                self._take(by_number[number], error, rest[-1] or b"", rest[-3 if answer.API_VERSION >= 11 else -2])
        if sum(tail.position for tail in tails) == before:
            for tail in tails:
                tail.skip_gap()

    def _take(self, tail: Tail, error: int, records: bytes, aborted: Aborted) -> None:
        if error == _TRIMMED:
            tail.give_up()
            return
        refuse(error, self._topic)
        self._left -= len(records)
        tail.take(records, aborted)


def _grouped(pairs: Iterable[tuple[int, T]]) -> list[tuple[int, list[T]]]:
    groups: dict[int, list[T]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return list(groups.items())


class Tail:
    """One partition: what of its end has been read."""

    def __init__(self, topic: str, number: int, begin: int, end: int) -> None:
        self.number = number
        self.records: list[ConsumerRecord] = []
        """Read and not yet given away, oldest first."""
        self.position = end
        """The next offset to fetch."""
        self._topic = topic
        self._begin = begin
        self._low = end  # Whatever lies from here on has been read.
        self._start = end
        self._width = 1
        self._is_dense = True
        self._window: deque[ConsumerRecord] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether there is none at hand, and more in the log."""
        return not self.records and self._low > self._begin

    @property
    def is_covered(self) -> bool:
        return self.position >= self._low

    def age(self) -> tuple[int, int]:
        """The greater, the newer is the newest record at hand."""
        return self.records[-1].timestamp, -self.number

    def open_window(self, wanted: int) -> None:
        width = min(self._width, wanted) if self._is_dense else self._width
        self._start = self.position = max(self._begin, self._low - width)
        self._window = deque(maxlen=wanted)

    def take(self, records: bytes, aborted: Aborted) -> None:
        """Batches come whole: what lies before the window in its first one is kept, too."""
        try:
            self._take(records, aborted)
        except MemoryError:
            raise
        except Exception as error:
            raise _unreadable(error, self._topic) from error

    def _take(self, records: bytes, aborted: Aborted) -> None:
        from aiokafka.record.memory_records import MemoryRecords

        before = self._window.copy(), self._start
        try:
            self._take_all(MemoryRecords(records), aborted)
        except UnicodeDecodeError:  # A name of a header: aiokafka would give none of the records from there on.
            from app.connectors.types.kafka.records import AnyRecords

            self._window, self._start = before
            self._take_all(AnyRecords(records), aborted)

    def _take_all(self, records: Any, aborted: Aborted) -> None:
        from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
        from aiokafka.structs import TopicPartition

        place = TopicPartition(self._topic, self.number)
        found = PartitionRecords(place, records, aborted, self._begin, None, None, True, READ_COMMITTED)
        for record in found:
            if record.offset >= self._low:
                break
            self._window.append(record)
            self._start = min(self._start, record.offset)
        self.position = max(self.position, found.next_fetch_offset)

    def skip_gap(self) -> None:
        self.position = self._low

    def give_up(self) -> None:
        """What was fetched of the window would leave a hole before what is known."""
        self._window.clear()
        self._start = self._begin
        self.position = self._low

    def close_window(self) -> None:
        self._is_dense = len(self._window) >= self._low - self._start
        self._width *= _WIDER
        self.records = list(self._window)
        self._low = self._start
