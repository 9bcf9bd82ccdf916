"""That this process was told to end, for whoever waits for somebody outside.

At SIGTERM the server takes no new connection, waits for all requests in flight, and tells the application only then: a
client that sends nothing, or a stream without an end, would hold it up for good. So the application hears the signal
itself, beside the server.
"""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

from app.core.errors import Unavailable

KILLED_AFTER_S = 10
"""From SIGTERM on: what has not ended by then is killed."""
ANSWERED_WITHIN_S = 8.0
"""From SIGTERM on: what is not done by then is told to be asked again, which takes the rest of the time at most."""


class Stopping:
    """Begins once, in the event loop."""

    def __init__(self) -> None:
        self.has_begun = False
        self._reactions: list[Callable[[], None]] = []
        self._waiting: set[asyncio.Future[None]] = set()

    def react(self, reaction: Callable[[], None]) -> None:
        self._reactions.append(reaction)

    async def wait(self) -> None:
        """Until it has begun."""
        if self.has_begun:
            return
        told = asyncio.get_running_loop().create_future()
        self._waiting.add(told)
        try:
            await told
        finally:
            self._waiting.discard(told)

    def begin(self) -> None:
        if self.has_begun:
            return
        self.has_begun = True
        for reaction in self._reactions:
            reaction()
        for told in self._waiting:
            if not told.done():
                told.set_result(None)


def stopping_error(sentence: str) -> Unavailable:
    """For a request that this process cannot finish any more: its connection is not to be used again either."""
    error = Unavailable(sentence, code="stopping")
    error.headers["Connection"] = "close"
    return error


STOPPING = Stopping()
"""Of this process."""


def hear_signals() -> None:
    """Called inside of the event loop, after the server has set its own handlers, which go on to be called."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _beside(signal.getsignal(signum), loop))


def _beside(servers: object, loop: asyncio.AbstractEventLoop) -> Callable[[int, FrameType | None], None]:
    def handle(signum: int, frame: FrameType | None) -> None:
        if callable(servers):
            servers(signum, frame)
        loop.call_soon_threadsafe(STOPPING.begin)

    return handle
