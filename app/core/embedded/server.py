"""The server: started, and waited for until it is ready."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.core.embedded.diagnosis import failure_of, log_since, may_pass, names_full_disk
from app.core.embedded.failures import EmbeddedFailed
from app.core.embedded.leftovers import end_leftovers
from app.core.embedded.names import HOST
from app.core.embedded.processes import POLL_S, STOP_TIMEOUT_S, stop_process
from app.core.embedded.programs import child_options
from app.core.embedded.site import Site

START_TIMEOUT_S = 60.0
"""Long, because a start may have to recover from a crash; a server that dies is noticed at once."""
LOOK_EVERY_S = 0.5

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


def start_server(site: Site, port: int | None) -> "tuple[subprocess.Popen[bytes], int]":
    """The port of last time if it is free. What another process can undo at any moment (a port, the memory of
    backends whose postmaster was killed) is tried again."""
    _rotate(site.log)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while True:
        port = free_port(port)
        before = _length(site.log)
        process = _launch(site, port)
        if _is_ready(process, site, before):
            return process, port
        said = log_since(site.log, before)
        if not may_pass(said) or time.monotonic() > deadline:
            raise failure_of(said, site)
        port = None
        end_leftovers(site)
        time.sleep(POLL_S * 10)


def restart_server(site: Site, port: int, is_unwanted: Callable[[], bool]) -> "subprocess.Popen[bytes]":
    """After it ended by itself: on the port that its clients know, or not at all.

    Raises EmbeddedFailed, also where it is not wanted any more in the meantime.
    """
    end_leftovers(site)
    if is_unwanted():
        raise EmbeddedFailed("PostgreSQL is not wanted any more.")
    _rotate(site.log)
    before = _length(site.log)
    process = _launch(site, port)
    if _is_ready(process, site, before, is_unwanted):
        return process
    raise failure_of(log_since(site.log, before), site)


def _launch(site: Site, port: int) -> "subprocess.Popen[bytes]":
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


def _is_ready(
    process: "subprocess.Popen[bytes]", site: Site, before: int, is_unwanted: Callable[[], bool] = lambda: False
) -> bool:
    """Once it is; False where it died before, or was not wanted any more. What is not ready runs no more afterwards.

    `before` is how long the log was when it was launched.
    """
    try:
        if _wait_until_ready(process, site, before, is_unwanted):
            return True
    except BaseException:
        stop_process(process, at_once=True)
        raise
    stop_process(process, at_once=True)
    return False


def _wait_until_ready(
    process: "subprocess.Popen[bytes]", site: Site, before: int, is_unwanted: Callable[[], bool]
) -> bool:
    """The postmaster writes its state into the eighth line of its pid file (as pg_ctl reads it).

    On a full disk it recovers in vain again and again, and never ends: its log tells.
    """
    began = looked = time.monotonic()
    while process.poll() is None and not is_unwanted():
        with suppress(FileNotFoundError):
            lines = (site.cluster / "postmaster.pid").read_text(errors="replace").splitlines()
            if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return True
        time.sleep(POLL_S)
        now = time.monotonic()
        if now > began + START_TIMEOUT_S:
            raise EmbeddedFailed(
                f"PostgreSQL was not ready within {START_TIMEOUT_S:.0f} s: see {site.log}; "
                f"if it is recovering from a crash, start again to let it go on.",
                log_since(site.log, before),
            )
        if now > looked + LOOK_EVERY_S:
            looked = now
            if names_full_disk(log_since(site.log, before)):
                return False
    return False


def _length(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


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


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_name("postgres.log.1"))
