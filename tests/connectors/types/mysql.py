"""MySQL, on Debian's MariaDB."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.starting import (
    place,
    place_certificate,
    private_folder,
    program,
    running,
    say_nothing,
    scripted_server,
    unprivileged,
)
from tests.ports import free_port

NEEDS_SERVICES = True

PASSWORD = f"pw-{CANARY}-ü€"

SHOP = r"""
CREATE DATABASE shop;
CREATE DATABASE `odd.base`;
CREATE DATABASE closed;
CREATE TABLE shop.orders (
    id bigint unsigned NOT NULL PRIMARY KEY,
    name varchar(40) CHARACTER SET utf8mb4,
    old varchar(10) CHARACTER SET latin1,
    total decimal(12, 2) NOT NULL,
    at timestamp(6) NULL DEFAULT NULL,
    local datetime(3),
    day date,
    clock time,
    took time(3),
    year year,
    ok boolean,
    flag bit(1),
    bits bit(12),
    single float,
    ratio double,
    raw varbinary(8),
    blocks blob,
    doc json,
    note longtext,
    `key` uuid,
    address inet6,
    mood enum('glad', 'sad'),
    tags set('a', 'b', 'c'),
    spot point,
    small smallint(4) unsigned zerofill,
    doubled bigint GENERATED ALWAYS AS (small * 2) VIRTUAL,
    hidden int INVISIBLE
);
SET time_zone = '+02:00', sql_mode = 'ALLOW_INVALID_DATES';
INSERT INTO shop.orders
    (id, name, old, total, at, local, day, clock, took, year, ok, flag, bits, single, ratio, raw, blocks, doc, note,
    `key`, address, mood, tags, spot, small, hidden)
VALUES (
    18446744073709551615, 'Zoë 李雷 🦆', 'é', 10.50, '2024-01-02 03:04:05.678901', '2024-01-02 03:04:05.678',
    '2024-01-02', '03:04:05', '-838:59:59', 2024, true, 1, 2049, 0.1, 0.1, x'00ff', x'', '{"a": [1, 2.5, null],
    "b": 9007199254740993}', 'x', '00000000-0000-0000-0000-000000000001', '::1', 'glad', 'a,c', Point(1, 2), 7, 8
);
INSERT INTO shop.orders (id, total, at, local, day, ok, single) VALUES
    (2, -0.10, '0000-00-00', '0000-00-00', '2024-00-00', 2, 16777217);
CREATE TABLE shop.empty (id int);
CREATE TABLE shop.parts (id int) PARTITION BY HASH (id) PARTITIONS 2;
CREATE TABLE shop.versions (id int NOT NULL) WITH SYSTEM VERSIONING;
CREATE VIEW shop.recent AS SELECT id, doc FROM shop.orders;
CREATE SEQUENCE shop.numbers;
CREATE TABLE shop.Empty (`Ä` int);
CREATE TABLE `odd.base`.`a ``b"'.c\` (`x ``y\` int, `100%s` json);
INSERT INTO `odd.base`.`a ``b"'.c\` VALUES (7, '[]');
CREATE TABLE closed.secret (id int);

CREATE USER reader IDENTIFIED BY '{password}';
GRANT SELECT ON shop.* TO reader;
GRANT SELECT ON `odd.base`.* TO reader;
CREATE USER auditor IDENTIFIED BY '{password}';
GRANT SELECT ON *.* TO auditor;
CREATE USER locked IDENTIFIED BY '{password}' ACCOUNT LOCK;
CREATE USER expired IDENTIFIED BY '{password}' PASSWORD EXPIRE;
CREATE USER careful IDENTIFIED BY '{password}' REQUIRE SSL;
CREATE USER signer IDENTIFIED VIA ed25519 USING PASSWORD('{password}');
"""


# What a server says first: protocol 10, version, thread, salt, capabilities without TLS, `mysql_native_password`.
GREETING = (
    bytes.fromhex("0a382e302e3000010000004141414141414141000fa22d0200380015" + "00" * 10)
    + b"A" * 12
    + b"\0mysql_native_password\0"
)


def packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


@contextmanager
def plain_server() -> Iterator[int]:
    """Greets like a MySQL server that has no TLS."""

    def greet(connection: socket.socket) -> None:
        connection.sendall(packet(0, GREETING))
        say_nothing(connection)

    with scripted_server(greet) as port:
        yield port


@dataclass(frozen=True)
class MariadbServer:
    port: int
    folder: Path

    def run(self, statements: str) -> str:
        """As root, over a socket that the connector has no way to."""
        command = ["mariadb", "--no-defaults", "-uroot", f"--socket={self.folder / 'socket'}", "--batch"]
        done = subprocess.run(
            [*command, "--default-character-set=utf8mb4"], input=statements.encode(), capture_output=True, check=True
        )
        return done.stdout.decode()


@contextmanager
def mariadb() -> Iterator[MariadbServer]:
    """A server without durability, its certificate made for `localhost` and for no address."""
    with private_folder() as folder:
        data = folder / "data"
        install = ["--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(
            [program("mariadb-install-db"), *install], check=True, capture_output=True, cwd=folder, **unprivileged()
        )
        certificate, key = place_certificate(folder)
        settings = {
            "datadir": data,
            "socket": folder / "socket",
            "bind-address": "127.0.0.1",
            "ssl-cert": certificate,
            "ssl-key": key,
            "ssl-ca": place(folder / "ca.crt", authority().pem),
            "innodb-flush-log-at-trx-commit": 0,
            "innodb-buffer-pool-size": "16M",
            "plugin-load-add": "auth_ed25519",
        }
        port = free_port()
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = [program("mariadbd"), "--no-defaults", f"--port={port}", *options]
        with running(command, port, cwd=folder, **unprivileged()):
            yield MariadbServer(port, folder)


@contextmanager
def filled_mariadb() -> Iterator[MariadbServer]:
    """The databases `shop` and `odd.base`, which `reader` may read, and `closed`, which it may not."""
    with mariadb() as server:
        server.run(SHOP.replace("{password}", PASSWORD))
        yield server


def kind(start: Start, ports: Ports) -> Kind:
    server = start(filled_mariadb)
    plain_port = start(plain_server)
    own_ca = {"ca_certificate": authority().pem.decode(), "tls_mode": "verify-full"}
    config = {"host": "localhost", "port": server.port, "username": "reader"}
    wrong = {"password": f"wrong-{CANARY}"}
    return Kind(
        "mysql",
        config,
        {"password": PASSWORD},
        (
            Case("wrong_password", "authenticate", "authentication_failed", {}, wrong),
            Case("wrong_password_in_the_open", "authenticate", "authentication_failed", {"tls_mode": "disable"}, wrong),
            Case("wrong_user", "authenticate", "authentication_failed", {"username": "nobody_here"}),
            Case("no_password", "authenticate", "authentication_failed", {}, {"password": None}),
            Case("locked", "authenticate", "authentication_failed", {"username": "locked"}),
            Case("expired", "authenticate", "authentication_failed", {"username": "expired"}),
            Case(
                "only_over_tls", "authenticate", "authentication_failed", {"username": "careful", "tls_mode": "disable"}
            ),
            Case("wrong_database", "list", "not_found", {"username": "auditor", "database": "nowhere"}),
            Case("wrong_or_forbidden_database", "list", "permission_denied", {"database": "nowhere"}),
            Case("forbidden_database", "list", "permission_denied", {"database": "closed"}),
            Case("closed_port", "connect", "connection_refused", {"port": ports.closed}),
            Case("unknown_name", "resolve", "name_not_resolved", {"host": "nowhere.invalid"}),
            Case("link_local", "resolve", "egress_refused", {"host": "169.254.169.254"}),
            Case("silent", "connect", "timeout", {"port": ports.silent, "connect_timeout_s": HASTY_S}),
            Case("other_protocol", "connect", "protocol_mismatch", {"port": ports.ssh}),
            Case("no_tls", "tls", "tls_unavailable", {"tls_mode": "require", "port": plain_port}),
            Case("unknown_ca", "tls", "tls_certificate_invalid", {"tls_mode": "verify-full"}),
            Case("other_name", "tls", "tls_certificate_invalid", {**own_ca, "host": "127.0.0.1"}),
            Case("broken_ca", "tls", "invalid_configuration", {**own_ca, "ca_certificate": "-----BEGIN X\n"}),
        ),
        {
            ("odd.base", _ODD_NAME): (
                "table",
                (("x `y\\", "integer", "int(11)", True), ("100%s", "json", "longtext", True)),
            ),
            ("shop", "Empty"): ("table", (("Ä", "integer", "int(11)", True),)),
            ("shop", "empty"): ("table", (("id", "integer", "int(11)", True),)),
            ("shop", "orders"): ("table", _ORDERS),
            ("shop", "parts"): ("table", (("id", "integer", "int(11)", True),)),
            ("shop", "recent"): (
                "view",
                (("id", "integer", "bigint(20) unsigned", False), ("doc", "string", "longtext", True)),
            ),
            ("shop", "versions"): ("table", (("id", "integer", "int(11)", False),)),
        },
        {
            ("shop", "orders"): [_SPARSE, _FULL],
            ("shop", "empty"): [],
            ("odd.base", _ODD_NAME): [[7, []]],
        },
        statuses=("passed",) * 5,
        server={"encryption": "TLSv1.3", "product": "MariaDB"},
    )


_ODD_NAME = "a `b\"'.c\\"
_ORDERS = (
    ("id", "integer", "bigint(20) unsigned", False),
    ("name", "string", "varchar(40)", True),
    ("old", "string", "varchar(10)", True),
    ("total", "decimal", "decimal(12,2)", False),
    ("at", "timestamp_tz", "timestamp(6)", True),
    ("local", "timestamp", "datetime(3)", True),
    ("day", "date", "date", True),
    ("clock", "time", "time", True),
    ("took", "time", "time(3)", True),
    ("year", "integer", "year(4)", True),
    ("ok", "boolean", "tinyint(1)", True),
    ("flag", "boolean", "bit(1)", True),
    ("bits", "integer", "bit(12)", True),
    ("single", "number", "float", True),
    ("ratio", "number", "double", True),
    ("raw", "binary", "varbinary(8)", True),
    ("blocks", "binary", "blob", True),
    ("doc", "json", "longtext", True),
    ("note", "string", "longtext", True),
    ("key", "uuid", "uuid", True),
    ("address", "string", "inet6", True),
    ("mood", "string", "enum('glad','sad')", True),
    ("tags", "string", "set('a','b','c')", True),
    ("spot", "geometry", "point", True),
    ("small", "integer", "smallint(4) unsigned zerofill", True),
    ("doubled", "integer", "bigint(20)", True),
    ("hidden", "integer", "int(11)", True),
)
_SPARSE = [
    *(2, None, None, "-0.10", "0000-00-00 00:00:00.000000", "0000-00-00 00:00:00.000", "2024-00-00"),
    *(None, None, None, 2, None, None, 16777216.0, *[None] * 13),
]
_FULL = [
    *("18446744073709551615", "Zoë 李雷 🦆", "é", "10.50", "2024-01-02T01:04:05.678901Z", "2024-01-02T03:04:05.678"),
    *("2024-01-02", "03:04:05", "-838:59:59.000", 2024, True, True, 2049, 0.1, 0.1, "AP8=", ""),
    {"a": [1, 2.5, None], "b": "9007199254740993"},
    *("x", "00000000-0000-0000-0000-000000000001", "::1", "glad", "a,c", "POINT(1 2)", 7, 14, 8),
]
