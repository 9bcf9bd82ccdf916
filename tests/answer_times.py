"""Whether the time of an answer tells what was asked about, told on a machine that others use, too."""

from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from time import perf_counter

ROUNDS = 40
LOOKS = 6
"""So many times that number of rounds, while the medians are too far apart. What others do to the machine is not the
same from one look to the next; a difference that is there stays, however often it is looked at."""


async def assert_alike(asked: Mapping[str, Callable[[], Awaitable[object]]], *, within_ms: float) -> None:
    """In the median of each, asked in turns."""
    times: dict[str, list[float]] = {name: [] for name in asked}
    medians: dict[str, float] = {}
    for _ in range(LOOKS):
        for _ in range(ROUNDS):
            for name, ask in asked.items():
                begun = perf_counter()
                await ask()
                times[name].append((perf_counter() - begun) * 1000)
        medians = {name: median(each) for name, each in times.items()}
        if max(medians.values()) - min(medians.values()) < within_ms:
            return
    raise AssertionError({name: round(each, 1) for name, each in medians.items()})
