"""Time limits for many short pieces of work at once.

`asyncio.timeout` opens and closes a timer of the event loop each time, which is a tenth of what a plain read costs. All
work with the same limit ends in the order in which it began, so one timer is enough: for the piece that is next.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """A limit for the block, entered with `async with`. Raises TimeoutError out of it when its time is up."""

    __slots__ = ("_deadlines", "_expires_at", "_is_expired", "_requests_before", "_task")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._is_expired = False

    async def __aenter__(self) -> Deadline:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._requests_before = task.cancelling()
        self._expires_at = self._deadlines._add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lift()
        if self._is_expired and self._task.uncancel() <= self._requests_before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def lift(self) -> None:
        """The rest of the block may take as long as it wants."""
        self._deadlines._running.pop(self, None)

    def _expire(self) -> None:
        self._is_expired = True
        self._task.cancel()


class Deadlines:
    """Gives out deadlines of one length, in seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> Deadline:
        return Deadline(self)

    def shorten(self, seconds: float) -> None:
        """Nothing has longer than that from now on, neither what runs nor what begins later."""
        self._seconds = min(self._seconds, seconds)
        if self._timer is None or self._loop is None:
            return
        self._timer.cancel()
        latest = self._loop.time() + seconds
        for deadline in self._running:
            deadline._expires_at = min(deadline._expires_at, latest)
        self._expire_due(self._loop)

    def _add(self, deadline: Deadline) -> float:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # another event loop: what ran in the one before ended with it
            self._loop, self._timer = loop, None
            self._running.clear()
        expires_at = loop.time() + self._seconds
        self._running[deadline] = None
        if self._timer is None:
            self._timer = loop.call_at(expires_at, self._expire_due, loop)
        return expires_at

    def _expire_due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for deadline in list(self._running):
            if deadline._expires_at > now:
                self._timer = loop.call_at(deadline._expires_at, self._expire_due, loop)
                return
            deadline.lift()
            deadline._expire()
