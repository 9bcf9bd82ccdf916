"""How the processor time of a piece of work grows with its size, told on a machine that others use, too.

A look at a size is what this thread's CPU clock takes for it. Three things make one look longer than the work is: a
neighbour on the same core (the clock runs on at half the speed), caches that are cold, and a garbage collection of all
that the process holds, which has nothing to do with the work: late in a run of thousands of tests it takes most of a
second. The first two only ever add, so the shortest look is nearest to the truth, and what looks dear is looked at again,
small and large in turn. The third is ruled out: what is there before a look is no business of the collector during it;
what the work makes itself stays in the count.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import thread_time

LOOKS = 12
"""At each size, while the larger looks too dear. Work that is linear needs two or three, quadratic work needs all."""


@dataclass
class CpuGrowth:
    """The CPU seconds of a work at two sizes, the shortest look at each.

    growth = CpuGrowth(20_000, 40_000)
    for size in growth.sizes():
        text = text_of(size)
        with growth.look(size):
            work(text)
    growth.assert_bounded()
    """

    small: int
    large: int
    times: float = 3.0
    """That the larger may take of what the smaller takes. Of twice the size: linear work takes 2, up to 2.7 where a
    machine's caches hold what the smaller makes and not what the larger does; quadratic work takes 4."""
    floor_s: float = 0.03
    """The smaller counts as at least this much: what a machine takes more or less at random."""
    at_most_s: float = float("inf")
    seen: dict[int, float] = field(default_factory=dict)

    def sizes(self) -> Iterator[int]:
        """Small and large in turn, twice at least: a neighbour may have made the first look at the small one long."""
        for number in range(LOOKS):
            yield self.small
            yield self.large
            if number and self.is_bounded:
                return

    @contextmanager
    def look(self, size: int) -> Iterator[None]:
        with without_what_is_there():
            began = thread_time()
            yield
            taken = thread_time() - began
        self.seen[size] = min(taken, self.seen.get(size, taken))

    @property
    def is_bounded(self) -> bool:
        bound = min(self.times * max(self.seen[self.small], self.floor_s), self.at_most_s)
        return self.seen[self.large] <= bound

    def assert_bounded(self, what: str = "the work") -> None:
        small, large = self.seen[self.small], self.seen[self.large]
        assert self.is_bounded, f"{what}: {small:.3f} s at {self.small:,}, {large:.3f} s at {self.large:,}"


@contextmanager
def without_what_is_there() -> Iterator[None]:
    """Garbage collections go over nothing but what is made meanwhile."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
