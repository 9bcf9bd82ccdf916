"""The watch over a running server: when it ends by itself it is started again, where its clients know it."""

import subprocess
import threading
import time
from collections.abc import Callable

from app.core.embedded.failures import EmbeddedDiskFull, EmbeddedError, EmbeddedFailed, explain_os_error
from app.core.embedded.processes import stop_process
from app.core.embedded.server import restart_server
from app.core.embedded.site import Site

STEADY_S = 10.0
"""A server that ran that long counts as well: what ends it then is not the next in a row."""
PROMPT_RESTARTS = 3
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
GIVEN_UP_AFTER = 12
"""Ends and failed starts in a row, half a minute altogether. A full disk is waited for: only an operator can mend it,
and a hub that is still there when he has needs no second visit."""


class Watch:
    """Waits for the server's process in a thread of its own, and replaces it, until `end`.

    The thread lasts as long as what it started, because on Linux that is told to stop when the thread ends.
    """

    def __init__(
        self,
        site: Site,
        port: int,
        process: "subprocess.Popen[bytes]",
        *,
        restarted: Callable[[int], None],
        tell: Callable[[str], None],
        lost: Callable[[EmbeddedError], None],
    ) -> None:
        """`restarted` gets the new process id, `tell` a sentence for the operator, `lost` why no start is tried any
        more. All are called in the thread."""
        self._site = site
        self._port = port
        self._process = process
        self._restarted = restarted
        self._tell = tell
        self._lost = lost
        self._ending = threading.Event()
        self._replacing = threading.Lock()
        self._in_a_row = 0
        self._thread = threading.Thread(target=self._run, name="embedded PostgreSQL", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """From here on nothing is started any more; the server that runs is left to the caller."""
        with self._replacing:
            self._ending.set()

    def join(self) -> None:
        """After `end`, and after the server was stopped: what was being started in that moment is stopped, too."""
        self._thread.join()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        return self._process

    def _run(self) -> None:
        is_up = True
        while is_up:
            began = time.monotonic()
            status = self._process.wait()
            if self._ending.is_set():
                return
            ended = time.monotonic()
            self._in_a_row = 1 if ended - began >= STEADY_S else self._in_a_row + 1
            is_up = self._start_again(EmbeddedFailed(f"It {_how_it_ended(status)}."))
            if is_up:
                self._tell(f"PostgreSQL {_how_it_ended(status)}; it runs again after {time.monotonic() - ended:.1f} s.")

    def _start_again(self, cause: EmbeddedFailed) -> bool:
        """False where a stop came in between, or where it was tried often enough."""
        told = ""
        while not self._ending.wait(_pause_s(self._in_a_row)):
            if self._in_a_row > GIVEN_UP_AFTER and not isinstance(cause, EmbeddedDiskFull):
                sentence = f"PostgreSQL ended or did not start {GIVEN_UP_AFTER} times in a row. {cause.sentence}"
                self._lost(EmbeddedFailed(sentence, cause.log))
                return False
            try:
                self._replace(restart_server(self._site, self._port, self._ending.is_set))
            except (EmbeddedFailed, OSError, subprocess.SubprocessError) as error:
                self._in_a_row += 1
                cause = self._explained(error)
                if cause.sentence != told and not self._ending.is_set():
                    self._tell(f"PostgreSQL does not start, and it is tried again: {cause.sentence}")
                told = cause.sentence
            else:
                return not self._ending.is_set()
        return False

    def _replace(self, process: "subprocess.Popen[bytes]") -> None:
        with self._replacing:
            self._process = process
            if not self._ending.is_set():
                self._restarted(process.pid)
                return
        stop_process(process)

    def _explained(self, error: Exception) -> EmbeddedFailed:
        if isinstance(error, OSError):
            return explain_os_error(error, self._site.log.parent)
        return error if isinstance(error, EmbeddedFailed) else EmbeddedFailed(f"{error}.")


def _pause_s(in_a_row: int) -> float:
    late = in_a_row - PROMPT_RESTARTS
    return 0.0 if late <= 0 else min(FIRST_PAUSE_S * 2.0 ** (late - 1), LONGEST_PAUSE_S)


def _how_it_ended(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
