"""The server's process: started, waited for until it is ready, watched over, stopped."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.core.embedded.failures import (
    EmbeddedDiskFull,
    EmbeddedError,
    EmbeddedFailed,
    explain_os_error,
    failure_of,
    names_full_disk,
)
from app.core.embedded.names import HOST
from app.core.embedded.programs import POLL_S, STOP_TIMEOUT_S, child_options, end_leftovers, stop_process
from app.core.embedded.site import Site

START_TIMEOUT_S = 60.0
"""Long, because a start may have to recover from a crash; a server that dies is noticed at once."""
LOOK_EVERY_S = 0.5

STEADY_S = 10.0
"""A server that ran that long counts as well: what ends it then is not the next in a row."""
LONGEST_PAUSE_S = 5.0
GIVEN_UP_AFTER = 12
"""Ends and failed starts in a row, half a minute altogether. A full disk is waited for: only an operator can mend it,
and a hub that is still there when he has needs no second visit."""

LOG_LIMIT_BYTES = 5 * 1024 * 1024

# Statement errors are the application's to log: they hold values that may be secret. LOG and FATAL are the server's.
_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Server:
    """A server that this process started. Once watched it is started again, on its port, each time it ends by itself.

    The thread that watches lasts as long as what it started, because on Linux that is told to stop when the thread
    ends.
    """

    def __init__(self, site: Site, port: int | None) -> None:
        """The port of last time if it is free. What another process can undo at any moment (a port, the memory of
        backends whose postmaster was killed) is tried again. Raises EmbeddedFailed."""
        self._site = site
        self._ending = threading.Event()
        self._watch: threading.Thread | None = None
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while True:
            self.port = free_port(port)
            try:
                self.process = self._launch()
                break
            except EmbeddedFailed as error:
                if not error.may_pass or time.monotonic() > deadline:
                    raise
            port = None
            end_leftovers(site)
            time.sleep(POLL_S * 10)

    def stop(self) -> None:
        """Also what is being started again in this moment."""
        self._ending.set()
        stop_process(self.process)
        if self._watch:
            self._watch.join()
            stop_process(self.process)

    def watch(
        self,
        *,
        restarted: Callable[[int], None],
        tell: Callable[[str], None],
        lost: Callable[[EmbeddedError], None],
    ) -> None:
        """`restarted` gets the new process id, `tell` a sentence for the operator, `lost` why no start is tried any
        more. All are called in a thread."""
        self._restarted, self._tell, self._lost = restarted, tell, lost
        self._watch = threading.Thread(target=self._keep_up, name="embedded PostgreSQL", daemon=True)
        self._watch.start()

    def _keep_up(self) -> None:
        in_a_row = 0
        while not self._ending.is_set():
            began = time.monotonic()
            how = _how_it_ended(self.process.wait())
            ended = time.monotonic()
            in_a_row = 1 if ended - began >= STEADY_S else in_a_row + 1
            if not self._start_again(in_a_row, how):
                return
            self._tell(f"PostgreSQL {how}; it runs again after {time.monotonic() - ended:.1f} s.")

    def _start_again(self, in_a_row: int, how: str) -> bool:
        """False where a stop came in between, or where it was tried often enough."""
        cause, told = EmbeddedFailed(f"It {how}."), ""
        while not self._ending.wait(min(2.0**in_a_row / 100, LONGEST_PAUSE_S)):
            if in_a_row > GIVEN_UP_AFTER and not isinstance(cause, EmbeddedDiskFull):
                sentence = f"PostgreSQL ended or did not start {GIVEN_UP_AFTER} times in a row. {cause.sentence}"
                self._lost(EmbeddedFailed(sentence, cause.log))
                return False
            try:
                end_leftovers(self._site)
                self.process = self._launch()
            except (EmbeddedFailed, OSError) as error:
                in_a_row += 1
                cause = error if isinstance(error, EmbeddedFailed) else explain_os_error(error, self._site.log.parent)
                if cause.sentence != told and not self._ending.is_set():
                    self._tell(f"PostgreSQL does not start, and it is tried again: {cause.sentence}")
                told = cause.sentence
            else:
                self._restarted(self.process.pid)
                return not self._ending.is_set()
        return False

    def _launch(self) -> "subprocess.Popen[bytes]":
        """A process that is ready for connections. Raises EmbeddedFailed; then none runs."""
        site = self._site
        if site.log.exists() and site.log.stat().st_size > LOG_LIMIT_BYTES:
            site.log.replace(site.log.with_name("postgres.log.1"))
        before = site.log.stat().st_size if site.log.exists() else 0
        process = _spawn(site, self.port)
        try:
            if self._wait_until_ready(process, before):
                return process
        except BaseException:
            stop_process(process, at_once=True)
            raise
        stop_process(process, at_once=True)
        raise failure_of(_log_since(site.log, before), site.cluster, site.log)

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]", before: int) -> bool:
        """False where it died before, or is not wanted any more. `before` is how long the log was at its launch.

        The postmaster writes its state into the eighth line of its pid file (as pg_ctl reads it). On a full disk it
        recovers in vain again and again, and never ends: its log tells.
        """
        began = looked = time.monotonic()
        while process.poll() is None and not self._ending.is_set():
            with suppress(FileNotFoundError):
                lines = (self._site.cluster / "postmaster.pid").read_text(errors="replace").splitlines()
                if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                    return True
            time.sleep(POLL_S)
            now = time.monotonic()
            if now > began + START_TIMEOUT_S:
                raise EmbeddedFailed(
                    f"PostgreSQL was not ready within {START_TIMEOUT_S:.0f} s: see {self._site.log}; "
                    f"if it is recovering from a crash, start again to let it go on.",
                    _log_since(self._site.log, before),
                )
            if now > looked + LOOK_EVERY_S:
                looked = now
                if names_full_disk(_log_since(self._site.log, before)):
                    return False
        return False


def _spawn(site: Site, port: int) -> "subprocess.Popen[bytes]":
    settings = _SETTINGS | {"port": str(port), "cluster_name": site.marker} | ({} if site.durable else _NOT_DURABLE)
    arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    fd = os.open(site.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [site.binaries / "postgres", "-D", site.cluster, *arguments],
            stdin=subprocess.DEVNULL, stdout=fd, stderr=fd, **child_options(site.account, signal.SIGINT),
        )  # fmt: skip
    finally:
        os.close(fd)


def free_port(wanted: int | None) -> int:
    """The port of last time while nobody listens there, else any free one."""
    for port in (wanted or 0, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if port else 0)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise EmbeddedFailed(
        f"There is no free port on {HOST} for PostgreSQL: end what holds them, or set HUB_DATABASE_URL."
    )


def _log_since(log: Path, position: int) -> list[str]:
    with suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(max(position, log.stat().st_size - 20_000))
        return file.read().decode(errors="replace").splitlines()
    return []


def _how_it_ended(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
