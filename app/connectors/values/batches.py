"""Batches of a discovery: large enough to be stored at once, small enough to be held in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")

BATCH: Final = 250
"""Objects of a catalogue that is read as a list; those that are looked into one by one come in smaller batches."""


async def batches(items: AsyncIterable[Item], size: int = BATCH) -> AsyncGenerator[list[Item], None]:
    """As the items come; the last batch is the rest, and none is empty."""
    batch: list[Item] = []
    async for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def slices(items: Sequence[Item], size: int = BATCH) -> Iterator[Sequence[Item]]:
    """The same of what is known already."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
