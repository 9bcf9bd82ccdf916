"""Places of a worker that are filled from two lanes: what is well has places that what is doubtful cannot take, so that
thousands that are silent or dead hold nobody else up."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, Literal, Protocol, TypeVar
from uuid import UUID

Lane = Literal["well", "doubtful"]
"""What was well the last time, and all others."""
GATHER_S: Final = 0.02
"""After a place got free, so that the others that do at this moment are filled with it."""


class Owned(Protocol):
    @property
    def tenant_id(self) -> UUID: ...


Work = TypeVar("Work", bound=Owned)
Key = TypeVar("Key")


class Lanes(Generic[Work]):
    """What goes on at this moment, a task for each."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.running: dict[asyncio.Task[None], tuple[Lane, Work]] = {}

    def add(self, task: asyncio.Task[None], lane: Lane, work: Work) -> None:
        self.running[task] = (lane, work)
        task.add_done_callback(self.running.pop)

    def free(self, lane: Lane) -> int:
        """Of all places, for what is well; of half of them, for the others."""
        doubtful = sum(1 for its_lane, _ in self.running.values() if its_lane == "doubtful")
        free = self.places - len(self.running)
        return free if lane == "well" else min(free, max(1, self.places // 2) - doubtful)

    def works(self, *lanes: Lane) -> list[Work]:
        """In these lanes, or in both."""
        return [work for lane, work in self.running.values() if not lanes or lane in lanes]

    def tenant_by_task(self) -> dict[asyncio.Task[None], UUID]:
        return {task: work.tenant_id for task, (_, work) in self.running.items()}

    async def wait(self, seconds: float, *, for_a_place: bool) -> None:
        if for_a_place and self.running:
            await asyncio.wait(self.running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(GATHER_S)
        else:
            await asyncio.sleep(seconds)

    async def cancel(self) -> None:
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)


def in_turn(
    due: Iterable[Any], places: int, running: Mapping[Key, int], cap: int, key: Callable[[Any], Key | None]
) -> Sequence[Any]:
    """The first ones, but of no key more than may go on at once. What has no key is not counted."""
    taken = Counter(running)
    chosen: list[Any] = []
    for row in due:
        if len(chosen) == places:
            break
        whose = key(row)
        if whose is None:
            chosen.append(row)
        elif taken[whose] < cap:
            chosen.append(row)
            taken[whose] += 1
    return chosen
