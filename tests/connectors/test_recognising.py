"""What answers where it should not: named in one place for all types, and long before a time-out."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.connectors import registry
from app.connectors.contract.pinning import Network
from app.connectors.contract.steps import Step
from app.connectors.network.recognising import Protocol, recognised, what_answers
from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Ports, Start
from tests.connectors.servers.starting import say_nothing, scripted_server, tls_front
from tests.connectors.types import mysql, postgresql, rabbitmq, redis, rest

pytestmark = [pytest.mark.anyio, pytest.mark.found("D17")]

MYSQL_GREETING = (
    bytes.fromhex("4a0000000a") + b"8.0.36\x00" + bytes(4) + b"abcdefgh\x00" + bytes(44) + b"mysql_native\x00"
)
MYSQL_REFUSAL = b"\x46\x00\x00\x00\xff\x6a\x04Host '10.0.0.1' is not allowed to connect to this MySQL server of ours"
SAID = {
    Protocol.AMQP: [b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00\x00\x00\x01\xf8\x00\x0a\x00\x0a"],
    Protocol.CLICKHOUSE: [b"HTTP/1.0 400 Bad Request\r\n\r\nPort 9000 is for clickhouse-client program\r\n"],
    Protocol.FTP: [b"220 (vsFTPd 3.0.3)\r\n", b"220-Welcome\r\n220 ProFTPD\r\n"],
    Protocol.HTTP: [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 404 Not Found\r\n\r\n"],
    Protocol.IMAP: [b"* OK [CAPABILITY IMAP4rev1] Dovecot ready.\r\n"],
    Protocol.KAFKA: [b"\x00\x00\x00\x0ahub\x01\x00\x00"],
    Protocol.MAIL_OR_FTP: [b"220 ready\r\n"],
    Protocol.MEMCACHED: [b"ERROR\r\n"],
    Protocol.MONGODB: [
        b"HTTP/1.0 200 OK\r\n\r\nIt looks like you are trying to access MongoDB over HTTP on the native",
        b"\x59\x01\x00\x00\x0a\x00\x00\x00\x02buh\x01\x00\x00\x00" + bytes(329),
        b"\x40\x00\x00\x00\xff\x00\x00\x00\x02buh\xdd\x07\x00\x00" + bytes(48),
    ],
    Protocol.MYSQL: [MYSQL_GREETING, MYSQL_REFUSAL],
    Protocol.NATS: [b'INFO {"server_id":"N"}\r\n'],
    Protocol.OPENWIRE: [b"\x00\x00\x01\x4d\x01ActiveMQ\x00\x00\x00\x0c"],
    Protocol.POP3: [b"+OK Dovecot ready.\r\n"],
    Protocol.POSTGRESQL: [b"E\x00\x00\x00\x8eSFATAL\x00VFATAL\x00C0A000\x00Munsupported frontend protocol\x00"],
    Protocol.REDIS: [b"+PONG\r\n", b"-NOAUTH Authentication required.\r\n", b"-ERR unknown command\r\n"],
    Protocol.RSYNC: [b"@RSYNCD: 31.0\n"],
    Protocol.SMTP: [b"220 mail.example.org ESMTP Postfix\r\n"],
    Protocol.SSH: [b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", b"SSH-1.99-Cisco-1.25\n"],
    Protocol.TLS: [
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS",
    ],
    Protocol.VNC: [b"RFB 003.008\n"],
}


@pytest.mark.parametrize("protocol", Protocol, ids=lambda protocol: protocol.name)
def test_the_first_bytes_tell(protocol: Protocol) -> None:
    assert {recognised(answer) for answer in SAID[protocol]} == {protocol}


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x00", b"\r\n", b"hello\r\n", bytes(64), b"{}", b"\xff" * 4096, b"\x0a\x00\x00\x00\x0aabc\x00" + bytes(99)],
)
def test_what_is_unknown_is_left_unnamed(answer: bytes) -> None:
    assert recognised(answer) is None


# Servers -------------------------------------------------------------------------------------------------------------


def says(banner: bytes) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        connection.sendall(banner)
        say_nothing(connection)

    return script


def answers(reply: bytes) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        if connection.recv(4096):
            connection.sendall(reply)

    return script


def http_in_lines(connection: socket.socket) -> None:
    """Waits for the end of a request, as many do, and says then what it is."""
    heard = b""
    while b"\r\n\r\n" not in heard and (piece := connection.recv(4096)):
        heard += piece
    if heard.startswith((b"GET ", b"HEAD ")):
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


def redis_in_lines(connection: socket.socket) -> None:
    """Waits for the rest of what it takes for a command."""
    while piece := connection.recv(4096):
        if piece.startswith(b"*"):
            connection.sendall(b"+PONG\r\n")


one_at_a_time = threading.Lock()


def http_for_one(connection: socket.socket) -> None:
    """As the web servers of programming languages: who comes next waits for whoever is there."""
    with one_at_a_time:
        http_in_lines(connection)


def mongo_in_messages(connection: socket.socket) -> None:
    """Hangs up on whoever says something else, web browsers too."""
    heard = connection.recv(4096)
    if heard[12:16] in {(2004).to_bytes(4, "little"), (2013).to_bytes(4, "little")}:
        connection.sendall(b"\x24\0\0\0\x0a\0\0\0" + heard[4:8] + b"\1\0\0\0" + bytes(20))


SPEAKERS: dict[Protocol, Callable[[socket.socket], None]] = {
    Protocol.SSH: says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    Protocol.SMTP: says(b"220 mail.example.org ESMTP\r\n"),
    Protocol.MYSQL: says(MYSQL_GREETING),
    Protocol.HTTP: http_in_lines,
    Protocol.REDIS: redis_in_lines,
    Protocol.AMQP: answers(b"AMQP\x00\x00\x09\x01"),
    Protocol.MONGODB: mongo_in_messages,
}


@contextmanager
def speaker(protocol: Protocol) -> Iterator[int]:
    with scripted_server(SPEAKERS[protocol]) as port:
        yield port


@contextmanager
def speaker_over_tls() -> Iterator[int]:
    with scripted_server(http_in_lines) as port, tls_front(port) as front:
        yield front


PROTOCOLS = (*SPEAKERS, Protocol.POSTGRESQL, Protocol.TLS)


def port_of(protocol: Protocol, start: Start) -> int:
    """Of a server that speaks it; PostgreSQL is a real one."""
    if protocol is Protocol.POSTGRESQL:
        return start(postgresql.filled_postgres).port
    if protocol is Protocol.TLS:
        return start(speaker_over_tls)
    return start(speaker, protocol)


@pytest.fixture(params=PROTOCOLS, ids=lambda protocol: protocol.name)
def server(request: pytest.FixtureRequest, start: Start) -> tuple[Protocol, int]:
    return request.param, port_of(request.param, start)


async def test_a_server_is_recognised(server: tuple[Protocol, int], loopback: EgressPolicy) -> None:
    assert await asked(server[1], loopback) is server[0]


async def test_a_silent_server_and_a_closed_port_are_not(loopback: EgressPolicy, ports: Ports) -> None:
    assert await asked(ports.silent, loopback) is None
    assert await asked(ports.closed, loopback) is None


async def asked(port: int, policy: EgressPolicy) -> Protocol | None:
    pinned = await Network(policy).resolve("localhost", port, 1)
    return await what_answers(pinned, port)


@pytest.fixture
def real_servers(start: Start) -> dict[Protocol, int]:
    return {
        Protocol.MYSQL: start(mysql.filled_mariadb).port,
        Protocol.REDIS: start(redis.server)[0],
        Protocol.AMQP: start(rabbitmq.rabbit_server).port,
        Protocol.HTTP: start(rest.shop_api),
    }


@pytest.mark.services
async def test_real_servers_are_recognised(real_servers: dict[Protocol, int], loopback: EgressPolicy) -> None:
    found = await asyncio.gather(*(asked(port, loopback) for port in real_servers.values()))
    assert found == list(real_servers)


# Types at the wrong server -------------------------------------------------------------------------------------------

SECRETS = {"password": f"pw-{CANARY}"}
TYPES: dict[str, tuple[Protocol, Callable[[int], dict[str, Any]], dict[str, str]]] = {
    "postgresql": (Protocol.POSTGRESQL, lambda port: _at(port, database="shop", username="reader"), SECRETS),
    "mysql": (Protocol.MYSQL, lambda port: _at(port, username="reader"), SECRETS),
    "redis": (Protocol.REDIS, lambda port: _at(port, tls_mode="disable"), {}),
    "mongodb": (Protocol.MONGODB, lambda port: _at(port, tls_mode="disable"), {}),
    "kafka": (Protocol.KAFKA, lambda port: {"bootstrap_servers": [f"localhost:{port}"]}, {}),
    "rabbitmq": (Protocol.AMQP, lambda port: _at(port, username="reader"), SECRETS),
    "sftp": (Protocol.SSH, lambda port: _at(port, username="reader"), SECRETS),
    "rest": (Protocol.HTTP, lambda port: {"base_url": f"http://localhost:{port}"}, {}),
    "clickhouse": (Protocol.HTTP, lambda port: {"url": f"http://localhost:{port}"}, {}),
    "s3": (Protocol.HTTP, lambda port: {"bucket": "sales", "endpoint_url": f"http://localhost:{port}"}, {}),
}
PATIENCE_S = 30
"""Longer than a check may take: whoever waited for it would be cut off, and would not know what answers."""


def patient(name: str, config: dict[str, Any]) -> dict[str, Any]:
    fields = registry.get(name).config_type.__struct_fields__
    return config | {field: PATIENCE_S for field in ("connect_timeout_s", "read_timeout_s") if field in fields}


NEVER_OVER_TLS = {"postgresql", "mysql", "sftp"}
"""Those that have no TLS, or begin without it."""


def _at(port: int, **more: Any) -> dict[str, Any]:
    return {"host": "localhost", "port": port, **more}


@pytest.fixture
def others(start: Start) -> dict[Protocol, int]:
    return {protocol: port_of(protocol, start) for protocol in PROTOCOLS}


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
async def test_a_type_names_what_answers_in_its_place(
    name: str, others: dict[Protocol, int], sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    expected, config, secrets = TYPES[name]
    for protocol, port in others.items():
        if protocol is expected:
            continue
        failed = await failed_step(sandbox, name, patient(name, config(port)), secrets, loopback)
        if protocol is Protocol.TLS and name not in NEVER_OVER_TLS:
            assert (failed.name, failed.code) == ("connect", "tls_required"), (protocol, failed)
        else:
            assert (failed.name, failed.code) == ("connect", "protocol_mismatch"), (protocol, failed)
            assert protocol.value in failed.message


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TYPES if TYPES[name][0] is not Protocol.HTTP])
async def test_a_web_server_that_serves_one_after_the_other_is_named_too(
    name: str, start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config = TYPES[name][1](start(scripted_server, http_for_one))
    failed = await failed_step(sandbox, name, config, TYPES[name][2], loopback)
    assert (failed.name, failed.code) == ("connect", "protocol_mismatch")
    assert Protocol.HTTP.value in failed.message


OVER_TLS: dict[str, Callable[[int], dict[str, Any]]] = {
    "kafka": lambda port: {"bootstrap_servers": [f"localhost:{port}"], "security_protocol": "SSL"},
    "rabbitmq": lambda port: _at(port, username="reader", tls_mode="require"),
    "rest": lambda port: {"base_url": f"https://localhost:{port}"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OVER_TLS)
async def test_so_it_does_where_tls_was_expected(
    name: str, others: dict[Protocol, int], sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    for protocol, port in others.items():
        if protocol is Protocol.TLS:
            continue
        failed = await failed_step(sandbox, name, OVER_TLS[name](port), TYPES[name][2], loopback)
        if protocol is TYPES[name][0]:
            assert failed.code == "tls_unavailable", (protocol, failed)
        else:
            assert (failed.name, failed.code) == ("tls", "protocol_mismatch"), (protocol, failed)
            assert protocol.value in failed.message


async def failed_step(
    sandbox: ConnectorSandbox, name: str, config: dict[str, Any], secrets: dict[str, str], policy: EgressPolicy
) -> Step:
    result = await sandbox.check(name, config, secrets, policy)
    (failed,) = [step for step in result.steps if step.status == "failed"]
    assert CANARY not in failed.message
    return failed
