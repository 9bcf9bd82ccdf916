"""Places for work that waits for the same thing, shared out so that no kind of work has them all.

A table that somebody has locked, or a search that reads a million rows, is the trouble of those who ask for it: a kind
of work gets a place as long as more are free than it has already. So one kind has half of all places at most, a second
one half of what is left, and there is one for the next.
"""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator
from operator import itemgetter

from app.core.deadlines import Deadlines
from app.core.error_codes import UnavailableCode
from app.core.errors import Unavailable

_Turn = tuple[int, asyncio.Future[None]]


class Places:
    """`size` of them. Work of no kind takes whatever is free.

    Who has waited `wait_s` seconds, or would stand behind `longest_queue` others of the same kind, is refused with
    `refusal`.
    """

    def __init__(
        self, size: int, *, wait_s: float, longest_queue: int | None = None, refusal: UnavailableCode = "database_busy"
    ) -> None:
        self.size = size
        self.free = size
        self._taken: dict[str | None, int] = {}
        self._waits = Deadlines(wait_s)
        self._longest_queue = longest_queue
        self._refusal = refusal
        self._queues: dict[str | None, deque[_Turn]] = {}
        self._numbers = itertools.count()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    async def take(self, kind: str | None) -> None:
        """Raises Unavailable."""
        if not self.try_take(kind):
            await self.wait(kind)

    def try_take(self, kind: str | None) -> bool:
        """Whether there was one at once."""
        if not self._is_room_for(kind):
            return False
        self._taken[kind] = self._taken.get(kind, 0) + 1
        self.free -= 1
        return True

    def _is_room_for(self, kind: str | None) -> bool:
        return self.free > (self._taken.get(kind, 0) if kind is not None else 0)

    def give_back(self, kind: str | None) -> None:
        self.free += 1
        self._taken[kind] -= 1
        if not self._taken[kind]:
            del self._taken[kind]
        if self._queues:
            self._let_in()

    @contextlib.asynccontextmanager
    async def place(self, kind: str | None) -> AsyncIterator[None]:
        """Raises Unavailable."""
        await self.take(kind)
        try:
            yield
        finally:
            self.give_back(kind)

    async def wait(self, kind: str | None) -> None:
        """For a place that is not there yet. Raises Unavailable."""
        queue = self._queues.setdefault(kind, deque())
        if self._longest_queue is not None and len(queue) >= self._longest_queue:
            raise Unavailable(code=self._refusal)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append((next(self._numbers), turn))
        try:
            async with self._waits.start():
                await turn
        except TimeoutError:
            if not _is_let_in(turn):  # or else in the very moment in which the wait ended
                raise Unavailable(code=self._refusal) from None
        except asyncio.CancelledError:
            if _is_let_in(turn):
                self.give_back(kind)
            raise
        finally:
            self._forget_those_who_left(kind)

    def _let_in(self) -> None:
        """Those who have waited longest and may have a place now."""
        while heads := self._heads():
            _, kind, turn = min(heads, key=itemgetter(0))
            self.try_take(kind)
            turn.set_result(None)
            self._forget_those_who_left(kind)

    def _heads(self) -> list[tuple[int, str | None, "asyncio.Future[None]"]]:
        """The first of each kind for which there is room."""
        for kind in tuple(self._queues):
            self._forget_those_who_left(kind)
        return [(queue[0][0], kind, queue[0][1]) for kind, queue in self._queues.items() if self._is_room_for(kind)]

    def _forget_those_who_left(self, kind: str | None) -> None:
        queue = self._queues.get(kind)
        while queue and queue[0][1].done():
            queue.popleft()
        if queue is not None and not queue:
            del self._queues[kind]


def _is_let_in(turn: "asyncio.Future[None]") -> bool:
    return turn.done() and not turn.cancelled()
