"""RabbitMQ, on the server of Debian 12 with its management plugin."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiormq
from yarl import URL

from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.starting import (
    place,
    place_certificate,
    private_folder,
    program,
    running,
    unprivileged,
    wait_for_port,
)
from tests.ports import free_port

NEEDS_SERVICES = True

VHOST = "shop/eu"
SPARE_VHOST = "spare"
"""Empty, for tests that need queues of their own."""
PASSWORD = f"pw-{CANARY}"
CLIENT = "cert-reader"
"""Signs in by a certificate of this name."""
_NOON = dt.datetime(2024, 1, 2, 12, tzinfo=dt.UTC)


@dataclass(frozen=True)
class RabbitServer:
    port: int
    tls_port: int
    management_port: int

    @property
    def management_url(self) -> str:
        return f"http://localhost:{self.management_port}"


@contextmanager
def rabbit_server() -> Iterator[RabbitServer]:
    """A node without neighbours: its own port mapper (epmd) is started and ended with it, everything on loopback."""
    server = RabbitServer(free_port(), free_port(), free_port())
    mapper_port = free_port()
    with ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        mapper = [program("epmd"), "-port", str(mapper_port), "-address", "127.0.0.1"]
        stack.enter_context(running(mapper, mapper_port, **unprivileged()))
        command = [str(Path(program("rabbitmq-env")).with_name("rabbitmq-server"))]
        settings = {**_settings(folder, server), "ERL_EPMD_PORT": str(mapper_port)}
        options = {**unprivileged(), "env": settings, "cwd": folder, "stdin": subprocess.DEVNULL}
        process = stack.enter_context(_killed(command, **options))
        for port in (server.port, server.tls_port, server.management_port):
            wait_for_port(port, process, 60)
        asyncio.run(_fill(server))
        yield server


@contextmanager
def _killed(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Ended at once: a node takes seconds to say good-bye, and nothing of it is kept."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _settings(folder: Path, server: RabbitServer) -> dict[str, str]:
    place(folder / "plugins", b"[rabbitmq_management,rabbitmq_auth_mechanism_ssl].")
    place(folder / "definitions.json", json.dumps(_definitions()).encode())
    place(folder / "ca.crt", authority().pem)
    certificate, key = place_certificate(folder)
    place(folder / "rabbitmq.conf", _CONFIG.format(folder=folder, server=server, cert=certificate, key=key).encode())
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "RABBITMQ_NODENAME": f"hub{server.port}@localhost",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_ALLOW_INPUT": "1",  # The start script then becomes the node instead of watching over it.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }


_CONFIG = """
listeners.tcp.1 = 127.0.0.1:{server.port}
listeners.ssl.1 = 127.0.0.1:{server.tls_port}
ssl_options.cacertfile = {folder}/ca.crt
ssl_options.certfile = {cert}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = AMQPLAIN
auth_mechanisms.3 = EXTERNAL
management.tcp.ip = 127.0.0.1
management.tcp.port = {server.management_port}
load_definitions = {folder}/definitions.json
loopback_users = none
log.file = false
log.console = false
disk_free_limit.absolute = 10MB
"""


def _definitions() -> dict[str, Any]:
    def queue(name: str, kind: str, **arguments: Any) -> dict[str, Any]:
        everything = {"x-queue-type": kind, **arguments}
        return {"name": name, "vhost": VHOST, "durable": True, "auto_delete": False, "arguments": everything}

    def may(user: str, read: str = ".*", vhost: str = VHOST) -> dict[str, str]:
        return {"user": user, "vhost": vhost, "configure": ".*", "write": ".*", "read": read}

    exchange = {"vhost": VHOST, "type": "topic", "durable": True, "auto_delete": False, "internal": False}
    return {
        "users": [
            _user("reader", "management"),
            _user("writer", "administrator"),
            _user("plain", ""),
            _user("blind", "management"),
            _user(CLIENT, "management"),
        ],
        "vhosts": [{"name": VHOST}, {"name": "closed"}, {"name": SPARE_VHOST}],
        "permissions": [
            may("reader"),
            may("writer"),
            may("plain"),
            may("blind", "^$"),
            may(CLIENT),
            may("writer", vhost="closed"),
            *(may(user, vhost=SPARE_VHOST) for user in ("reader", "writer")),
        ],
        "exchanges": [{**exchange, "name": "orders.topic", "arguments": {}}],
        "queues": [
            queue("orders", "classic"),
            queue('odd "name".x', "quorum"),
            queue("events", "stream"),
            queue("blobs", "stream"),
            queue("quiet", "stream"),
        ],
        "bindings": [
            {
                **{"source": "orders.topic", "vhost": VHOST, "destination": "events", "destination_type": "queue"},
                **{"routing_key": "order.#", "arguments": {}},
            }
        ],
    }


def _user(name: str, tags: str) -> dict[str, str]:
    """Salt and hash as RabbitMQ's documentation of passwords has them."""
    salt = b"salt"
    digest = base64.b64encode(salt + hashlib.sha256(salt + PASSWORD.encode()).digest()).decode()
    algorithm = "rabbit_password_hashing_sha256"
    return {"name": name, "password_hash": digest, "hashing_algorithm": algorithm, "tags": tags}


ORDER = '{"id": 9007199254740993, "name": "Zoë 李雷 🦆", "total": 10.5, "tags": ["a", null], "who": {"x": 1}}'.encode()


async def _fill(server: RabbitServer) -> None:
    async with writing(server) as channel:
        properties = {"content_type": "application/json", "message_id": "m-1", "timestamp": _NOON, "delivery_mode": 2}
        headers = {"region": "ü", "big": 2**60, "ok": True}
        await publish(channel, "orders.topic", "order.new", ORDER, **properties, headers=headers)
        await publish(channel, "", "events", b' {"id": 2, "name": null}')
        await publish(channel, "", "blobs", b"\x00\xff")
        await publish(channel, "", "blobs", b"text")
        for queue in ("orders", 'odd "name".x'):
            for number in range(3):
                await publish(channel, "", queue, b"%d" % number)


@asynccontextmanager
async def writing(server: RabbitServer, vhost: str = VHOST) -> AsyncIterator[Any]:
    """A channel of a user who may do everything; each publication is confirmed."""
    url = URL.build(scheme="amqp", host="127.0.0.1", port=server.port, user="writer", password=PASSWORD)
    connection = aiormq.Connection(url)
    connection.vhost = vhost
    await connection.connect()
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def publish(channel: Any, exchange: str, routing_key: str, body: bytes, **properties: Any) -> None:
    """aiormq would make up a message_id."""
    given = aiormq.spec.Basic.Properties(**{"message_id": "m-0", **properties})
    await channel.basic_publish(body, exchange=exchange, routing_key=routing_key, properties=given)


def kind(start: Start, ports: Ports) -> Kind:
    server = start(rabbit_server)
    config = {
        "host": "localhost",
        "port": server.port,
        "virtual_host": VHOST,
        "username": "reader",
        "management_url": server.management_url,
    }
    hasty = {"connect_timeout_s": HASTY_S}
    tls = {"port": server.tls_port, "tls_mode": "verify-full"}
    ca = {"ca_certificate": authority().pem.decode()}
    wrong = {"password": f"wrong-{CANARY}"}

    def management(place: str) -> dict[str, Any]:
        return {"management_url": place, "read_timeout_s": 3.0}

    return Kind(
        "rabbitmq",
        config,
        {"password": PASSWORD},
        (
            Case("wrong_password", "authenticate", "authentication_failed", {}, wrong),
            Case("wrong_user", "authenticate", "authentication_failed", {"username": "nobody_here"}),
            Case("no_password", "authenticate", "authentication_failed", {}, {"password": None}),
            Case("wrong_amqplain", "authenticate", "authentication_failed", {"auth_mechanism": "AMQPLAIN"}, wrong),
            Case("wrong_vhost", "list", "not_found", {"virtual_host": "nowhere"}),
            Case("forbidden_vhost", "list", "permission_denied", {"virtual_host": "closed"}),
            Case("no_management_tag", "list", "permission_denied", {"username": "plain"}),
            Case("management_closed", "list", "connection_refused", management(f"http://localhost:{ports.closed}")),
            Case("management_link_local", "list", "egress_refused", management("http://169.254.169.254")),
            Case("management_unknown_name", "list", "name_not_resolved", management("http://nowhere.invalid")),
            Case("management_silent", "list", "timeout", management(f"http://localhost:{ports.silent}")),
            Case(
                "management_no_tls",
                "list",
                "tls_unavailable",
                management(f"https://localhost:{server.management_port}"),
            ),
            Case("management_elsewhere", "list", "not_found", management(f"{server.management_url}/elsewhere")),
            Case("closed_port", "connect", "connection_refused", {"port": ports.closed}),
            Case("unknown_name", "resolve", "name_not_resolved", {"host": "nowhere.invalid"}),
            Case("link_local", "resolve", "egress_refused", {"host": "169.254.169.254"}),
            Case("silent", "connect", "timeout", {"port": ports.silent, **hasty}),
            Case("other_protocol", "connect", "protocol_mismatch", {"port": ports.ssh}),
            Case("tls_needed", "connect", "tls_required", {"port": server.tls_port}),
            Case("no_tls", "tls", "tls_unavailable", {"tls_mode": "require"}),
            Case("silent_tls", "tls", "timeout", {"tls_mode": "require", "port": ports.silent, **hasty}),
            Case("unknown_ca", "tls", "tls_certificate_invalid", tls),
            Case("other_name", "tls", "tls_certificate_invalid", {**tls, **ca, "host": "127.0.0.1"}),
            Case("broken_ca", "tls", "invalid_configuration", {**tls, "ca_certificate": "-----BEGIN X\n"}),
        ),
        {
            ("queues", "blobs"): ("stream", (_OFFSET, *_ENVELOPE, ("payload", "binary", "bytes", True))),
            ("queues", "events"): (
                "stream",
                (
                    _OFFSET,
                    *_ENVELOPE,
                    ("payload", "json", "bytes", True),
                    ("payload.id", "integer", "integer", False),
                    ("payload.name", "string", "string", True),
                    ("payload.total", "number", "number", True),
                    ("payload.tags", "array", "array", True),
                    ("payload.who", "object", "object", True),
                ),
            ),
            ("queues", 'odd "name".x'): ("queue", (*_ENVELOPE, _UNKNOWN)),
            ("queues", "orders"): ("queue", (*_ENVELOPE, _UNKNOWN)),
            ("queues", "quiet"): ("stream", (_OFFSET, *_ENVELOPE, _UNKNOWN)),
            ("exchanges", "orders.topic"): ("exchange", (*_ENVELOPE, _UNKNOWN)),
        },
        {
            ("queues", "events"): [
                [1, "", "events", _PLAIN, {}, {"id": 2, "name": None}, 2, None, None, None, None],
                [0, "orders.topic", "order.new", _PROPERTIES, _HEADERS, _WHOLE, *_WHOLE.values()],
            ],
            ("queues", "blobs"): [[1, "", "blobs", _PLAIN, {}, "dGV4dA=="], [0, "", "blobs", _PLAIN, {}, "AP8="]],
            ("queues", "quiet"): [],
        },
        server={"encryption": "none", "product": "RabbitMQ"},
    )


_WHOLE = {"id": "9007199254740993", "name": "Zoë 李雷 🦆", "total": 10.5, "tags": ["a", None], "who": {"x": 1}}
_HEADERS = {"region": "ü", "big": str(2**60), "ok": True}
_PROPERTIES = {
    "content_type": "application/json",
    "delivery_mode": 2,
    "message_id": "m-1",
    "timestamp": "2024-01-02T12:00:00Z",
}
_PLAIN = {"message_id": "m-0"}
_OFFSET = ("offset", "integer", "long", False)
_ENVELOPE = (
    ("exchange", "string", "shortstr", False),
    ("routing_key", "string", "shortstr", False),
    ("properties", "object", "basic-properties", False),
    ("headers", "object", "table", False),
)
_UNKNOWN = ("payload", "unknown", "bytes", True)
