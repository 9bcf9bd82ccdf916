"""LISTEN/NOTIFY: how every worker learns within a second that something in its memory is no longer true.

The listener proves that it is alive: it asks its connection for an answer several times a second, and PostgreSQL
delivers the notifications of committed transactions before that answer. While there is no fresh proof, nothing in
memory may be trusted.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from time import monotonic

import asyncpg

from app.core.database import CONNECT_TIMEOUT_S, driver_url

log = logging.getLogger("hub.notifications")

PROOF_INTERVAL_S = 0.2
PROOF_VALID_S = 0.8
"""With the time a request takes this stays below the promised second."""


class Listener:
    """One connection that listens on one channel and hands each payload to `on_message`.

    `on_gap` is called whenever notifications may have been missed: after every (re)connection.
    """

    def __init__(
        self, url: str, channel: str, *, on_message: Callable[[str], None], on_gap: Callable[[], None]
    ) -> None:
        self._url = driver_url(url)
        self._channel = channel
        self._on_message = on_message
        self._on_gap = on_gap
        self._proven_until = 0.0
        self._is_lost = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_proven_alive(self) -> bool:
        return monotonic() < self._proven_until

    def start(self) -> None:
        self._task = asyncio.create_task(self._listen_forever(), name=f"listen {self._channel}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _listen_forever(self) -> None:
        while True:
            try:
                await self._listen_once()
            except Exception as error:  # whatever ended it: a listener that stays away makes every request a load
                self._tell_of(error)
            self._proven_until = 0.0
            await asyncio.sleep(PROOF_INTERVAL_S)

    def _tell_of(self, error: Exception) -> None:
        """Once for each outage: it tries again several times in a second."""
        if not self._is_lost:
            log.warning("listener lost its connection: %s", type(error).__name__)
        self._is_lost = True

    async def _listen_once(self) -> None:
        settings = {"application_name": "hub listener"}
        connection = await asyncpg.connect(self._url, timeout=CONNECT_TIMEOUT_S, server_settings=settings)
        try:
            await connection.add_listener(self._channel, lambda _c, _p, _ch, payload: self._on_message(str(payload)))
            self._on_gap()
            self._is_lost = False
            while True:
                asked = monotonic()
                await connection.execute("SELECT 1", timeout=PROOF_VALID_S)
                self._proven_until = asked + PROOF_VALID_S
                await asyncio.sleep(PROOF_INTERVAL_S)
        finally:
            connection.terminate()
