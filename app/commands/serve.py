"""`hub serve`: database, migrations, first admin, worker, server; and all of it gone again after Ctrl-C."""

import _thread
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from app.commands.database import (
    CommandFailed,
    Database,
    bring_up_to_date,
    database,
    is_up_to_date,
    refuse_mighty_role,
)
from app.commands.metrics import answering_scrapes, listening_for_metrics
from app.commands.places import Place, place_of, reached_at, written_down
from app.core import collector
from app.core.connections import KEEP_ALIVE_S, connection_limit
from app.core.processes import HANDED_OVER, STARTED_BY, fork_between_imports
from app.core.stopping import KILLED_AFTER_S
from app.settings import Settings, variable

READY_POLL_S = 0.02
RESTART_PAUSE_S = 1.0
"""Before a worker that was lost is replaced."""


def serve(settings: Settings, host: str, port: int, *, workers: int, with_worker: bool) -> int:
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            _refuse_taken_port(host, port)
            stack.enter_context(_shared_metrics(are_several=_are_several(settings, workers, with_worker=with_worker)))
            metrics = listening_for_metrics(settings)
            with collector.at_rest():
                imports = _import_beside()
                target = stack.enter_context(database(settings, exclusive=True))
                # Asked while the rest is imported: two connections of a second start that nobody has to wait for.
                is_current = is_up_to_date(target)
                is_new = not is_current or _is_without_users(target)
                imports.join()
            if not is_current:
                print("Preparing the database ...", flush=True)
                bring_up_to_date(target)
            refuse_mighty_role(settings, target)
            _read_keys(settings, target, with_worker=with_worker)
            if settings.is_development:
                settings.files_root.mkdir(parents=True, exist_ok=True)
            admin = _first_admin(settings, target) if is_new else None
            place = place_of(settings, host, port)
            _hand_over(target, place)
            if metrics is not None:
                stack.enter_context(answering_scrapes(metrics, target.app_url, settings))
            stack.enter_context(written_down(settings, place))
            announcement = _Announcement(started, target, settings, place, admin)
            stack.enter_context(_Beside((host, port), announcement, with_worker=with_worker))
            _run_server(host, port, workers)
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _are_several(settings: Settings, workers: int, *, with_worker: bool) -> bool:
    """Processes that have metrics: servers, the worker, and this one where it watches over the embedded database or
    answers on the port for metrics."""
    return workers > 1 or with_worker or settings.is_embedded or settings.metrics_port is not None


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _take_no_interrupts() -> None:
    """Ctrl-C at the terminal reaches every process; those that are not the first one wait to be told by it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _refuse_taken_port(host: str, port: int) -> None:
    """Before anything is started: a sentence instead of a worker that dies and is started again."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            option = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
            raise CommandFailed(
                f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with {option}."
            ) from None


def _import_beside() -> threading.Thread:
    """All that the server needs is imported while PostgreSQL starts.

    The server's processes are forks of this one: none of them imports anything again, not even one that replaces
    another.
    """
    thread = threading.Thread(target=_import_server, daemon=True)
    thread.start()
    return thread


def _import_server() -> None:
    import encodings.idna  # noqa: F401 - by whoever looks a name up

    import granian  # noqa: F401

    import app.asgi
    import app.commands.admin  # noqa: F401


def _read_keys(settings: Settings, target: Database, *, with_worker: bool) -> None:
    """Raises SettingsError and CommandFailed. The server's processes would each say it with a traceback, and be started
    again."""
    from app.commands.keys import refuse_replaced_keys
    from app.runtime import load_key_ring, load_sealing_keys, load_signing_keys

    refuse_replaced_keys(settings, target.app_url)
    load_key_ring(settings)
    load_signing_keys(settings)
    if with_worker:
        load_sealing_keys(settings)


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

    from app.core.tenancy import DEFAULT_TENANT_ID, TENANT_SETTING

    async def ask() -> bool:
        settings = {TENANT_SETTING: str(DEFAULT_TENANT_ID)}
        connection = await asyncpg.connect(target.app_url, timeout=5, server_settings=settings)
        try:
            found: bool = await connection.fetchval("SELECT NOT EXISTS (SELECT FROM users)")
        finally:
            await connection.close()
        return found

    return asyncio.run(ask())


def _hand_over(target: Database, place: Place) -> None:
    """What the server's processes are told."""
    os.environ[HANDED_OVER] = target.app_url
    os.environ[variable("public_url")] = place.url
    os.environ[STARTED_BY] = str(os.getpid())


@contextmanager
def _shared_metrics(*, are_several: bool) -> Iterator[None]:
    """Several processes share their metrics through a folder, whose name the library reads as it is imported."""
    folder = tempfile.mkdtemp(prefix="hub-metrics-") if are_several else None
    if folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        yield
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _run_server(host: str, port: int, workers: int) -> None:
    """Returns when the server has stopped."""
    # A worker that is told to end while it still imports must end, and not raise what only we know how to catch.
    os.register_at_fork(after_in_child=_take_no_interrupts)
    fork_between_imports()
    from granian.constants import HTTPModes, Interfaces, Loops
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    connections = connection_limit()
    server_class()(
        "app.asgi:serve",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=connections,
        backpressure=connections,
        http1_settings=HTTP1Settings(header_read_timeout=int(KEEP_ALIVE_S * 1000)),
        respawn_failed_workers=True,
        workers_kill_timeout=KILLED_AFTER_S,
        log_level=LogLevels.warning,
    ).serve()


def server_class() -> Any:
    """granian's server, with a signal handler that cannot wait for the thread that it interrupts.

    granian's own sets the event for which the main thread waits, under the lock that this thread holds for a moment as
    it begins to wait: a signal at that moment would be waited for without end.
    """
    from granian import Granian

    class Server(Granian):  # type: ignore[misc, valid-type]
        def signal_handler_interrupt(self, *_: object, **__: object) -> None:
            self.interrupt_signal = True
            _thread.start_new_thread(self.main_loop_interrupt.set, ())

    return Server


class _Beside:
    """What goes on beside the server, in a thread: say when it answers, and keep a worker running from then on.

    The worker starts last, because at the start it would take the processor from the server. It ends when the thread
    that started it ends (prctl(2)), so the thread lasts as long as the worker.
    """

    def __init__(self, address: tuple[str, int], announce: Callable[[], None], *, with_worker: bool) -> None:
        host, port = address
        self._address = (reached_at(host), port)
        self._announce = announce
        self._with_worker = with_worker
        self._worker: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with self._starting:
            worker = self._worker
        if worker is not None:
            _end(worker)
        self._thread.join(KILLED_AFTER_S)

    def _run(self) -> None:
        while not self._answers():
            if self._stopping.wait(READY_POLL_S):
                return
        self._announce()
        while self._with_worker and self._start_worker():
            assert self._worker is not None
            self._worker.wait()
            self._stopping.wait(RESTART_PAUSE_S)

    def _start_worker(self) -> bool:
        """`hub worker` in a session of its own, so that Ctrl-C at the terminal reaches only us."""
        with self._starting:
            if not self._stopping.is_set():
                command = [sys.executable, "-m", "app", "worker"]
                self._worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        return not self._stopping.is_set()

    def _answers(self) -> bool:
        """By hand, because an HTTP client's imports cost more than the question."""
        host, port = self._address
        try:
            with socket.create_connection(self._address, timeout=5) as connection:
                connection.sendall(
                    f"GET /health/ready HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
                )
                status = connection.recv(64).split(b" ")[1:2]
        except OSError:
            return False
        # Another refusal than 503 (an address that HUB_ALLOWED_HOSTS does not have) is an answer too.
        return bool(status) and status[0] != b"503"


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(KILLED_AFTER_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Announcement:
    """What a person sees once the hub answers."""

    def __init__(
        self, started: float, target: Database, settings: Settings, place: Place, admin: "tuple[str, str] | None"
    ) -> None:
        self._started = started
        self._target = target
        self._settings = settings
        self._place = place
        self._admin = admin

    def __call__(self) -> None:
        seconds = time.monotonic() - self._started
        lines = [
            f"Data Fusion Hub is ready after {seconds:.1f} s.",
            "",
            f"  API       {self._place.url.rstrip('/')}/api/v1",
            f"  Docs      {self._place.url.rstrip('/')}/docs",
            f"  Database  {self._target.server}",
        ]
        if self._place.url != self._place.address:
            lines.append(f"  Listens   {self._place.address}")
        if self._admin:
            email, password = self._admin
            lines += ["", "  The first admin (shown this once):", f"    email     {email}", f"    password  {password}"]
        if self._settings.is_development:
            dialled = "loopback may be dialled, " if self._settings.egress_loopback else ""
            lines += ["", f"  Development mode: keys are generated, {dialled}anyone may register."]
        lines += ["", "  Stop with Ctrl-C.", ""]
        print("\n".join(lines), flush=True)
