"""Long work in short turns: whatever else the process is asked meanwhile is answered in between."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

SLICE_S = 0.001
"""About as long as the work of five plain requests."""
PAUSE_S = 0.001
"""The loop has to be idle for a moment. What comes in is handed over by the server's own thread, which needs the
interpreter's lock for it: a loop that goes on at once takes that back before the thread is awake, every five
milliseconds but one time (`sys.getswitchinterval`)."""
ROWS_AT_ONCE = 100
"""Of one statement: to encode more of them takes longer than a slice or two."""


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, for a loop whose body waits for nothing: every millisecond it is the others' turn, and at its end
    where more than half of one has gone by since."""
    ends_at = perf_counter() + SLICE_S
    for item in items:
        yield item
        if perf_counter() >= ends_at:
            await give_way()
            ends_at = perf_counter() + SLICE_S
    if perf_counter() >= ends_at - SLICE_S / 2:
        await give_way()


async def give_way() -> None:
    """Everybody else has a turn, whoever has not yet been heard included."""
    await asyncio.sleep(PAUSE_S)


def in_parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Of `ROWS_AT_ONCE` each; one part at least, be it empty."""
    for start in range(0, max(len(items), 1), ROWS_AT_ONCE):
        yield items[start : start + ROWS_AT_ONCE]
