"""PostgreSQL, on the server that is embedded in the hub."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from app.core.embedded import find_installation
from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.starting import (
    pipe,
    place,
    private_folder,
    running,
    scripted_server,
    server_context,
    unprivileged,
)
from tests.ports import free_port


@dataclass(frozen=True)
class PostgresServer:
    port: int
    superuser_password: str

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:{self.superuser_password}@127.0.0.1:{self.port}/{database}?sslmode=prefer"


def postgres_binaries() -> Path:
    return find_installation() / "bin"


@contextmanager
def postgres_server(binaries: Path | None = None) -> Iterator[PostgresServer]:
    """A cluster without durability, scram on TCP only."""
    programs = binaries or postgres_binaries()
    password = f"super-{CANARY}"
    with private_folder() as folder:
        data = _initdb(programs, folder, password)
        port = free_port()
        settings = {"fsync": "off", "unix_socket_directories": "", "listen_addresses": "127.0.0.1"}
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), *options]
        with running(command, port, cwd=folder, **unprivileged()):
            yield PostgresServer(port, password)


def _initdb(programs: Path, folder: Path, password: str) -> Path:
    place(folder / "password", password.encode())
    data = folder / "data"
    command = [
        *(str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--no-sync"),
        *("-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-E", "UTF8", "--locale=C.UTF-8"),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, **unprivileged())
    return data


@contextmanager
def filled_postgres(binaries: Path | None = None) -> Iterator[PostgresServer]:
    """The databases `shop`, which `reader` may read, and `closed`, which it may not enter."""
    with postgres_server(binaries) as server:
        asyncio.run(_fill(server))
        yield server


async def _ready(server: PostgresServer) -> asyncpg.Connection[Any]:
    """The port is open a moment before the server lets anybody in."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await asyncpg.connect(server.url())
            except asyncpg.CannotConnectNowError:
                await asyncio.sleep(0.05)


async def _fill(server: PostgresServer) -> None:
    connection = await _ready(server)
    await connection.execute(f"CREATE ROLE reader LOGIN PASSWORD 'pw-{CANARY}'")
    for database in ("shop", "closed"):
        await connection.execute(f"CREATE DATABASE {database}")
    await connection.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    await connection.execute(
        "CREATE TABLE long AS SELECT repeat('ü', 1000) AS t, decode(repeat('00', 1000), 'hex') AS b"
    )
    await connection.close()
    connection = await asyncpg.connect(server.url("shop"))
    await connection.execute((Path(__file__).parents[1] / "servers/shop.sql").read_text())
    await connection.close()


@contextmanager
def tls_postgres(plain_port: int) -> Iterator[int]:
    """The same server behind a front that ends TLS, as poolers do: the build that comes with the wheel has none of its
    own. Its certificate is made for `localhost` and for no address. Yields the port."""
    context = server_context()

    def end_tls(connection: socket.socket) -> None:
        assert connection.recv(8) == bytes.fromhex("0000000804d2162f")
        connection.sendall(b"S")
        with context.wrap_socket(connection, server_side=True) as plain:
            pipe(plain, plain_port)

    with scripted_server(end_tls) as port:
        yield port


def kind(start: Start, ports: Ports) -> Kind:
    return kind_on(start, ports, start(filled_postgres))


def kind_on(start: Start, ports: Ports, server: PostgresServer) -> Kind:
    """What is expected of any PostgreSQL."""
    tls_port = start(tls_postgres, server.port)
    ca = authority().pem.decode()
    config = {"host": "localhost", "port": server.port, "database": "shop", "username": "reader"}
    own_ca = {"ca_certificate": ca, "tls_mode": "verify-full", "port": tls_port}
    return Kind(
        "postgresql",
        config,
        {"password": f"pw-{CANARY}"},
        (
            Case("wrong_password", "authenticate", "authentication_failed", {}, {"password": f"wrong-{CANARY}"}),
            Case("wrong_user", "authenticate", "authentication_failed", {"username": "nobody_here"}),
            Case("no_password", "authenticate", "authentication_failed", {}, {"password": None}),
            Case("wrong_database", "list", "not_found", {"database": "nowhere"}),
            Case("forbidden_database", "list", "permission_denied", {"database": "closed"}),
            Case("closed_port", "connect", "connection_refused", {"port": ports.closed}),
            Case("unknown_name", "resolve", "name_not_resolved", {"host": "nowhere.invalid"}),
            Case("link_local", "resolve", "egress_refused", {"host": "169.254.169.254"}),
            Case("silent", "connect", "timeout", {"port": ports.silent, "connect_timeout_s": HASTY_S}),
            Case("other_protocol", "connect", "protocol_mismatch", {"port": ports.ssh}),
            Case("no_tls", "tls", "tls_unavailable", {"tls_mode": "require"}),
            Case("unknown_ca", "tls", "tls_certificate_invalid", {"tls_mode": "verify-full", "port": tls_port}),
            Case("other_name", "tls", "tls_certificate_invalid", {**own_ca, "host": "127.0.0.1"}),
            Case("broken_ca", "tls", "invalid_configuration", {**own_ca, "ca_certificate": "-----BEGIN X\n"}),
        ),
        {
            ("odd.schema", 'a "b".c'): ("table", (("x y", "integer", "integer", True),)),
            ("shop", "empty"): ("table", ()),
            ("shop", "orders"): (
                "table",
                (
                    ("id", "integer", "bigint", False),
                    ("name", "string", "character varying(40)", True),
                    ("total", "decimal", "numeric(12,2)", False),
                    ("at", "timestamp_tz", "timestamp with time zone", True),
                    ("local", "timestamp", "timestamp without time zone", True),
                    ("day", "date", "date", True),
                    ("clock", "time", "time with time zone", True),
                    ("took", "interval", "interval", True),
                    ("ok", "boolean", "boolean", True),
                    ("ratio", "number", "double precision", True),
                    ("raw", "binary", "bytea", True),
                    ("doc", "json", "jsonb", True),
                    ("nums", "array", "numeric[]", True),
                    ("grid", "array", "integer[]", True),
                    ("key", "uuid", "uuid", True),
                    ("mood", "string", "shop.mood", True),
                    ("plus", "integer", "shop.positive", True),
                    ("pair", "object", "shop.pair", True),
                    ("span", "string", "int4range", True),
                    ("addr", "string", "inet", True),
                    ("spot", "geometry", "point", True),
                ),
            ),
            ("shop", "parts"): ("table", (("id", "integer", "integer", True),)),
            ("shop", "recent"): ("view", (("id", "integer", "bigint", True),)),
            ("shop", "totals"): ("materialized_view", (("sum", "decimal", "numeric", True),)),
        },
        {
            ("shop", "orders"): [
                [
                    "9007199254740993",
                    "Zoë 李雷 🦆",
                    "10.50",
                    "2024-01-02T01:04:05.678901Z",
                    "2024-01-02T03:04:05",
                    "2024-01-02",
                    "03:04:05+02:00",
                    "P1DT2H",
                    True,
                    0.1,
                    "AP8=",
                    {"a": [1, 2.5, None], "b": "9007199254740993"},
                    ["1", "12345678901234567890.12", None],
                    [[1, 2], [3, 4]],
                    "00000000-0000-0000-0000-000000000001",
                    "glad",
                    5,
                    {"left": 1, "right": "x"},
                    "[1,5)",
                    "10.0.0.1/24",
                    "(1,2)",
                ],
                [2, None, "-0.10", "infinity", *[None] * 5, "NaN", *[None] * 11],
            ],
            ("shop", "empty"): [],
            ("odd.schema", 'a "b".c'): [[7]],
        },
    )
