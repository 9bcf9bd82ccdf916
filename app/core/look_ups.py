"""Look-ups of names by the system's resolver, in threads that are shared out among those whose names they are.

A look-up cannot be called off: it has its thread until name servers answer or the resolver gives up, long after anybody
waits for it. So it counts against whose name it is until then, and who has as many under way as their share stands in
a line of their own. Others go on, however many names there are.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final
from weakref import WeakValueDictionary

from app.core.egress import Lookup

AT_ONCE: Final = 256
"""In a process that serves, or works, in all: a thread is there once it is needed. As many tenants as have a share in
that may ask for silent names at once before others wait."""
SHARE: Final = 4
"""Of one tenant, or of one identity provider of the settings."""


class LookUps:
    def __init__(self, at_once: int = AT_ONCE, *, share: int = SHARE) -> None:
        self._threads = ThreadPoolExecutor(at_once, "look up")
        self._share = share
        self._shares: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()
        """Of those who have something under way, or wait."""

    def of(self, whose: Hashable) -> Lookup:
        """That counts against them alone. Whoever gives up while they wait in line asks nobody."""

        async def look_up(host: str, port: int) -> list[str]:
            found = await asyncio.wrap_future(await self._begin(whose, host, port))
            return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))

        return look_up

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _begin(self, whose: Hashable, host: str, port: int) -> Future[list[Any]]:
        share = self._shares.setdefault(whose, asyncio.Semaphore(self._share))
        await share.acquire()
        loop = asyncio.get_running_loop()

        def give_back(_: Future[list[Any]]) -> None:
            with suppress(RuntimeError):  # the loop has ended before the resolver has
                loop.call_soon_threadsafe(share.release)

        try:
            asked: Future[list[Any]] = self._threads.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        except RuntimeError as error:  # no thread can be started, or the hub stops
            share.release()
            raise OSError(str(error)) from error
        asked.add_done_callback(give_back)
        return asked
