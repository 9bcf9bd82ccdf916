"""Time limits for many short pieces of work at once.

`asyncio.timeout` opens and closes a timer of the event loop each time, which is a tenth of what a plain read costs. All
work with the same limit ends in the order in which it began, so one timer is enough: for the piece that is next.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Limited:
    """Something whose time is limited; `expire` is called when it is up."""

    __slots__ = ("_deadlines", "_expires_at")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._expires_at = self._deadlines._add(self, loop)

    def lift(self) -> None:
        """It may take as long as it wants from now on."""
        self._deadlines._running.pop(self, None)

    def expire(self) -> None:
        raise NotImplementedError


class Deadline(Limited):
    """A limit for the block, entered with `with`. Raises TimeoutError out of it when its time is up."""

    __slots__ = ("_is_expired", "_is_over", "_requests_before", "_task")

    def __enter__(self) -> Deadline:
        loop, task = self._deadlines._running_task()
        self._task = task
        self._requests_before = task.cancelling()
        self._is_expired = self._is_over = False
        self.begin(loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lift()
        self._is_over = True
        if self._is_expired and self._task.uncancel() <= self._requests_before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Nothing, where the block is over: what its task does by then is none of this."""
        if not self._is_over:
            self._is_expired = True
            self._task.cancel()


class Deadlines:
    """Gives out deadlines of one length, in seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[Limited, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> Deadline:
        return Deadline(self)

    def _running_task(self) -> tuple[asyncio.AbstractEventLoop, asyncio.Task[object]]:
        """With the loop of last time, which nearly always is the one of now: asking for that is a system call each
        time (`asyncio.get_running_loop` of Python 3.11)."""
        loop = self._loop or asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            loop = asyncio.get_running_loop()
            task = asyncio.current_task(loop)
            assert task is not None
        return loop, task

    def shorten(self, seconds: float) -> None:
        """Nothing has longer than that from now on, neither what runs nor what begins later."""
        self._seconds = min(self._seconds, seconds)
        if self._timer is None or self._loop is None:
            return
        self._timer.cancel()
        latest = self._loop.time() + seconds
        for limited in self._running:
            limited._expires_at = min(limited._expires_at, latest)
        self._expire_due(self._loop)

    def _add(self, limited: Limited, loop: asyncio.AbstractEventLoop) -> float:
        if loop is not self._loop:  # another event loop: what ran in the one before ended with it
            self._loop, self._timer = loop, None
            self._running.clear()
        expires_at = loop.time() + self._seconds
        self._running[limited] = None
        if self._timer is None:
            self._timer = loop.call_at(expires_at, self._expire_due, loop)
        return expires_at

    def _expire_due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for limited in list(self._running):
            if limited._expires_at > now:
                self._timer = loop.call_at(limited._expires_at, self._expire_due, loop)
                return
            limited.lift()
            limited.expire()


class PatientDeadlines(Deadlines):
    """Counts turns of the event loop, some of a second each, in place of the seconds themselves: an answer is not late
    that waits here to be read, by a process that others keep from the processor.
    """

    def __init__(self, turns: int, *, turn_s: float) -> None:
        super().__init__(turns * turn_s)
        self._turns = turns
        self._turn_s = turn_s
        self._turn = 0

    def _add(self, limited: Limited, loop: asyncio.AbstractEventLoop) -> float:
        if loop is not self._loop:
            self._loop, self._timer = loop, None
            self._running.clear()
        self._running[limited] = None
        if self._timer is None:
            self._timer = loop.call_later(self._turn_s, self._expire_due, loop)
        return self._turn + self._turns

    def _expire_due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turn += 1
        for limited in list(self._running):
            if limited._expires_at > self._turn:
                break
            limited.lift()
            limited.expire()
        self._timer = loop.call_later(self._turn_s, self._expire_due, loop) if self._running else None
