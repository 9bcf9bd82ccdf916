"""From a data folder to a running server: the one that runs already, or one of our own."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.core.embedded.cluster import ensure_cluster
from app.core.embedded.failures import EmbeddedError, EmbeddedFailed, EmbeddedInUse, explain_os_error
from app.core.embedded.installation import find_installation, runnable
from app.core.embedded.lock import Lock, read_pid
from app.core.embedded.names import APP_ROLE, DATABASE, HOST, OWNER_ROLE, SUPERUSER
from app.core.embedded.programs import POLL_S, is_alive
from app.core.embedded.record import read_record, write_record
from app.core.embedded.server import Server
from app.core.embedded.site import Site, account_for, home_for, make_folder

ATTACH_TIMEOUT_S = 10.0

LONGEST_PATH_BYTES = 900
"""PostgreSQL keeps paths in 1,024 bytes and appends names of its own."""


@dataclass(slots=True)
class EmbeddedPostgres:
    """A running embedded server, as seen by its owner or by a process that attached to it."""

    data_dir: Path
    port: int
    pid: int
    """The postmaster's process id."""
    is_owner: bool
    """Whether this process started the server and stops it."""
    host: str = HOST
    _passwords: dict[str, str] = field(default_factory=dict, repr=False)
    _server: Server | None = field(default=None, repr=False)
    _held: ExitStack = field(default_factory=ExitStack, repr=False)
    """The locks of the owner."""
    _owner_pid: int = field(default_factory=os.getpid, repr=False)
    _when_restarted: Callable[[], None] = field(default=lambda: None, repr=False)

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

    def watch(
        self,
        *,
        tell: Callable[[str], None],
        lost: Callable[[EmbeddedError], None],
        restarted: Callable[[], None] = lambda: None,
    ) -> None:
        """From now on the owner starts the server again, on its port, each time it ends by itself; does nothing where
        another process owns it. `tell` gets a sentence about each time, `lost` the reason when it is given up after
        many times in a row, `restarted` is called once it runs again; all are called in a thread."""
        self._when_restarted = restarted
        if self._server is not None:
            self._server.watch(restarted=self._restarted, tell=tell, lost=lost)

    def _restarted(self, pid: int) -> None:
        self.pid = pid
        self._when_restarted()
        # Whoever attaches later cannot, until there is room for this line. Who is attached does not notice.
        with suppress(OSError):
            write_record(self.data_dir, pid=pid)

    def stop(self) -> None:
        """End the server if this process owns it; a second call does nothing, nor does one in a forked child."""
        server = self._server
        if server is None or self._owner_pid != os.getpid():
            return
        self._server = None
        with self._held:
            # First, so that nobody attaches to a server that is going away. A full disk must not keep it running.
            with suppress(OSError):
                write_record(self.data_dir, pid=None, owner=None)
            server.stop()


@contextmanager
def running(data_dir: Path | str, *, exclusive: bool = False, durable: bool = True) -> Iterator[EmbeddedPostgres]:
    """The embedded server of a data folder: attached to where it runs, else started here and stopped at the end.

    `exclusive` is for the one process that must own the server: it raises EmbeddedInUse instead of attaching.
    `durable=False` trades safety against power loss for speed; for tests only. Enter it in the main thread: on Linux
    the server stops when the thread that started it ends, which is what leaves no orphan behind a killed hub.
    """
    server = start(data_dir, exclusive=exclusive, durable=durable)
    try:
        yield server
    finally:
        server.stop()


def start(data_dir: Path | str, *, exclusive: bool = False, durable: bool = True) -> EmbeddedPostgres:
    """As `running`, for a caller that calls `stop` itself. Raises EmbeddedError, nothing else."""
    folder = Path(os.path.abspath(data_dir))
    prefix = find_installation()
    try:
        _make_data_dir(folder)
        lock = _own_or_attach(folder, exclusive)
        if isinstance(lock, EmbeddedPostgres):
            return lock
        return _start_owned(folder, lock, prefix, durable)
    except OSError as error:
        raise explain_os_error(error, folder) from error


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
    with ExitStack() as held:
        held.callback(lock.release)
        account = account_for(data_dir / "postgres")
        home = home_for(data_dir, account)
        if home != data_dir:
            held.callback(_lock_home(home, data_dir).release)
        binaries = runnable(prefix, account) / "bin"
        site = Site(home / "postgres", binaries, account, data_dir / "postgres.log", durable)
        passwords = ensure_cluster(site, data_dir)
        server = Server(site, read_record(data_dir).get("port"))
        try:
            write_record(data_dir, host=HOST, port=server.port, pid=server.process.pid, owner=os.getpid())
        except BaseException:
            server.stop()
            raise
        return EmbeddedPostgres(
            data_dir, server.port, server.process.pid, True,
            _passwords=passwords, _server=server, _held=held.pop_all(),
        )  # fmt: skip


def _lock_home(home: Path, data_dir: Path) -> Lock:
    """The link to a cluster outside of the data folder may have been copied with the folder."""
    lock = Lock.take(home / "lock")
    if lock is None:
        raise EmbeddedInUse(data_dir, read_pid(home / "lock"))
    return lock
