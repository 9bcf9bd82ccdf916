"""Names whose name servers say nothing: the system's resolver waits for them, and cannot be called off."""

import socket
import threading
from typing import Any

import pytest

WAIT_S = 30.0


class SilentNames:
    """All below `unanswered.example`, until they are released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[str] = []
        """Where each was asked for."""
        self._released = threading.Event()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def release(self) -> None:
        self._released.set()

    def _answer(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        if not str(host).endswith(".unanswered.example"):
            return self._real(host, *args, **kwargs)
        self.threads.append(threading.current_thread().name)
        self._released.wait(WAIT_S)
        raise socket.gaierror(socket.EAI_AGAIN, "nobody answered")
