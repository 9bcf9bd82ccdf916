"""Places for work that waits for the same thing, shared out so that no kind of work has them all.

A table that somebody has locked, or a search that reads a million rows, is the trouble of those who ask for it: a kind
of work gets a place as long as more than a quarter are free, or more than it has already. So one kind has at most three
quarters of all places, a second one half of what is left, and there is one for the next.
"""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator

from app.core.deadlines import Deadlines, Limited
from app.core.error_codes import UnavailableCode
from app.core.errors import Unavailable


class _Turn(Limited):
    """Of somebody who waits: `admitted` is set when there is a place for them, and refused when their time is up."""

    __slots__ = ("_refusal", "admitted", "number")

    def __init__(self, waits: Deadlines, number: int, refusal: UnavailableCode) -> None:
        super().__init__(waits)
        self._refusal = refusal
        self.number = number
        loop = asyncio.get_running_loop()
        self.admitted: asyncio.Future[None] = loop.create_future()
        self.begin(loop)

    def expire(self) -> None:
        if not self.admitted.done():
            self.admitted.set_exception(Unavailable(code=self._refusal))

    @property
    def has_place(self) -> bool:
        return self.admitted.done() and not self.admitted.cancelled() and self.admitted.exception() is None


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
        self._kept = max(1, size // 4)
        """So many are left for those who have fewer."""
        self._taken: dict[str | None, int] = {}
        self._waits = Deadlines(wait_s)
        self._longest_queue = longest_queue
        self._refusal = refusal
        self._queues: dict[str | None, deque[_Turn]] = {}
        self._numbers = itertools.count()
        self.waits = 0
        """Of all times: who found no place at once, whether they got one later or not."""

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
        if kind is None:
            return self.free > 0
        return self.free > self._kept or self.free > self._taken.get(kind, 0)

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
        self.waits += 1
        if self._longest_queue is not None and len(self._queues.get(kind, ())) >= self._longest_queue:
            raise Unavailable(code=self._refusal)
        turn = _Turn(self._waits, next(self._numbers), self._refusal)
        self._queues.setdefault(kind, deque()).append(turn)
        try:
            await turn.admitted
        except BaseException:
            turn.lift()
            self._leave(kind, turn)
            raise

    def _leave(self, kind: str | None, turn: _Turn) -> None:
        """Without having used it: a place that was given in this very moment is for others."""
        queue = self._queues.get(kind)
        if queue is not None and turn in queue:
            queue.remove(turn)
            self._forget_if_empty(kind)
        if turn.has_place:
            self.give_back(kind)

    def _let_in(self) -> None:
        """Those who have waited longest and may have a place now."""
        while kinds := [kind for kind in self._queues if self._is_room_for(kind)]:
            kind = kinds[0] if len(kinds) == 1 else min(kinds, key=self._number_of_first)
            turn = self._queues[kind].popleft()
            self._forget_if_empty(kind)
            turn.lift()
            if not turn.admitted.done():  # or else they are just leaving
                self.try_take(kind)
                turn.admitted.set_result(None)

    def _number_of_first(self, kind: str | None) -> int:
        return self._queues[kind][0].number

    def _forget_if_empty(self, kind: str | None) -> None:
        if not self._queues[kind]:
            del self._queues[kind]
