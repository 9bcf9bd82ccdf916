"""What the servers of the connector tests are started with: free ports, processes that end with their block, TLS, and
servers that are of no use."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.connectors.servers.certificates import authority

ROOT = Path(__file__).resolve().parents[3]
_FOLDERS = (
    "/usr/sbin",
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/rabbitmq/bin",
    *sorted(str(folder) for folder in (ROOT / ".servers").glob("*/bin")),
    str(ROOT / ".servers/npm/node_modules/.bin"),
)


def program(name: str) -> str:
    """Where an installed server is. One that is missing skips the test by its name, and fails it in CI."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *_FOLDERS))
    if found := shutil.which(name, path=path):
        return found
    sentence = f"{name} is not installed; `just services` brings it."
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


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


def unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@contextmanager
def private_folder() -> Iterator[Path]:
    """A short-lived folder for a server's data, owned by whom `unprivileged` names."""
    folder = Path(tempfile.mkdtemp(prefix="connectors-"))
    who = unprivileged()
    if who:
        os.chown(folder, who["user"], who["group"])
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def place(path: Path, content: bytes) -> Path:
    """A file that only its server may read."""
    path.write_bytes(content)
    path.chmod(0o600)
    if who := unprivileged():
        os.chown(path, who["user"], who["group"])
    return path


# TLS ------------------------------------------------------------------------------------------------------------------


def place_certificate(folder: Path, host: str = "localhost") -> tuple[Path, Path]:
    """Certificate and key files of a server, signed by the tests' authority."""
    certificate, key = authority().certificate_for(host)
    return place(folder / "server.crt", certificate), place(folder / "server.key", key)


def server_context() -> ssl.SSLContext:
    """For a server whose certificate is made for `localhost` and for no address."""
    return authority().server_context("localhost")


@contextmanager
def tls_front(port: int) -> Iterator[int]:
    """Ends TLS in front of a server on another port, for protocols in which TLS is there from the first byte."""
    context = server_context()

    def end_tls(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as plain:
            pipe(plain, port)

    with scripted_server(end_tls) as front:
        yield front


def pipe(near: socket.socket, port: int) -> None:
    """Both ways, until one side hangs up."""
    with socket.create_connection(("127.0.0.1", port)) as far:
        threading.Thread(target=_pour, args=(far, near), daemon=True).start()
        _pour(near, far)


def _pour(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)


# Servers that are of no use -------------------------------------------------------------------------------------------

Script = Callable[[socket.socket], None]


@contextmanager
def scripted_server(script: Script) -> Iterator[int]:
    """Takes one connection after the other and runs the script on it. Yields the port."""
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
