"""`hub serve`: database, migrations, first admin, worker, server; and all of it gone again after Ctrl-C."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from app.commands.database import CommandFailed, Database, bring_up_to_date, database
from app.core.processes import HANDED_OVER
from app.settings import Settings

HEADER_TIMEOUT_MS = 10_000
STOP_TIMEOUT_S = 10
"""What is in flight at SIGTERM has that long."""


def serve(settings: Settings, host: str, port: int, *, workers: int, with_worker: bool) -> int:
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            _refuse_taken_port(host, port)
            target = stack.enter_context(database(settings, exclusive=True))
            bring_up_to_date(target)
            admin = _first_admin(settings, target)
            stack.enter_context(_environment(target, workers))
            if with_worker:
                stack.enter_context(_worker_beside())
            announcement = _Announcement(started, host, port, target, settings, admin)
            threading.Thread(target=announcement.when_ready, daemon=True).start()
            _run_server(host, port, workers)
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _refuse_taken_port(host: str, port: int) -> None:
    """Before anything is started: a sentence instead of a worker that dies and is started again."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandFailed(
                f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with --port."
            ) from None


def _first_admin(settings: Settings, target: Database) -> "tuple[str, str] | None":
    """Email and password to show, where the database had no user and the password was generated."""
    if not _is_without_users(target):
        return None
    from app.commands.admin import ensure_first_admin
    from app.core.errors import HubError

    try:
        made = ensure_first_admin(settings, target.app_url)
    except HubError as error:
        reasons = "; ".join(fault.message for fault in error.errors) or error.detail
        raise CommandFailed(
            f"The first admin cannot be made from HUB_ADMIN_EMAIL and HUB_ADMIN_PASSWORD: {reasons}"
        ) from None
    return (made.email, made.password) if made and not settings.admin_password else None


def _is_without_users(target: Database) -> bool:
    import asyncio

    import asyncpg

    async def ask() -> bool:
        connection = await asyncpg.connect(target.app_url, timeout=5)
        try:
            found: bool = await connection.fetchval("SELECT NOT EXISTS (SELECT FROM users)")
        finally:
            await connection.close()
        return found

    return asyncio.run(ask())


@contextmanager
def _environment(target: Database, workers: int) -> Iterator[None]:
    """What the server's processes are told; several of them share their metrics through a folder."""
    os.environ[HANDED_OVER] = target.app_url
    folder = tempfile.mkdtemp(prefix="hub-metrics-") if workers > 1 else None
    if folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        yield
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _worker_beside() -> Iterator[None]:
    """`hub worker` in a session of its own, so that Ctrl-C at the terminal reaches only us."""
    process = subprocess.Popen([sys.executable, "-m", "app", "worker"], start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _run_server(host: str, port: int, workers: int) -> None:
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces, Loops
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    Granian(
        "app.asgi:serve",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_TIMEOUT_S,
        log_level=LogLevels.warning,
    ).serve()


class _Announcement:
    """What a person sees once the hub answers."""

    def __init__(
        self,
        started: float,
        host: str,
        port: int,
        target: Database,
        settings: Settings,
        admin: "tuple[str, str] | None",
    ) -> None:
        self._started = started
        self._base = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"  # noqa: S104
        self._target = target
        self._settings = settings
        self._admin = admin

    def when_ready(self) -> None:
        while not self._is_ready():
            time.sleep(0.02)
        seconds = time.monotonic() - self._started
        lines = [
            f"Data Fusion Hub is ready after {seconds:.1f} s.",
            "",
            f"  API       {self._base}/api/v1",
            f"  Docs      {self._base}/docs",
            f"  Database  {self._target.server}",
        ]
        if self._admin:
            email, password = self._admin
            lines += ["", "  The first admin (shown this once):", f"    email     {email}", f"    password  {password}"]
        if self._settings.is_development:
            lines += ["", "  Development mode: keys are generated, loopback may be dialled, anyone may register."]
        lines += ["", "  Stop with Ctrl-C.", ""]
        print("\n".join(lines), flush=True)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._base}/health/ready", timeout=1) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False
