"""Redis, on Debian's server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from tests.connectors.contract import CANARY, HASTY_S, Case, FieldFacts, Kind, Ports, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.starting import place, place_certificate, private_folder, program, running, unprivileged
from tests.ports import free_port

NEEDS_SERVICES = True

BIG = "9007199254740993"
BYTES = b"\x00\xff\xfe"
_USERS = """
user default off
user admin on >admin-{canary} ~* &* +@all
user reader on >pw-{canary} ~* resetchannels -@all +@read +@connection +info +cluster|slots
user lister on >pw-{canary} ~* resetchannels -@all +@connection +ping
user untyped on >pw-{canary} ~* resetchannels -@all +@read -type +@connection
"""


@contextmanager
def redis_server(*settings: str, users: str = "") -> Iterator[tuple[int, int]]:
    """Yields its ports, without and with TLS; what is stored is gone at the end."""
    port, tls_port = free_port(), free_port()
    with private_folder() as folder:
        certificate, key = place_certificate(folder)
        ca = place(folder / "ca.crt", authority().pem)
        command = [
            *(program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)),
            *("--tls-port", str(tls_port), "--tls-auth-clients", "optional"),
            *("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(ca)),
            *settings,
        ]
        if users:
            command += ["--aclfile", str(place(folder / "users.acl", users.encode()))]
        with running(command, port, cwd=folder, **unprivileged()):
            yield port, tls_port


@contextmanager
def server() -> Iterator[tuple[int, int]]:
    """With a list of users; `reader` may read, `lister` may not list keys, and `untyped` may not ask
    for their types."""
    with redis_server(users=_USERS.format(canary=CANARY).strip()) as ports:
        with redis.Redis(port=ports[0], username="admin", password=f"admin-{CANARY}") as client:
            fill(client)
        yield ports


def fill(client: redis.Redis) -> None:
    for key, value in {"page:1": "Zoë 李雷 🦆", "page:2": BIG, "page:30": ""}.items():
        client.set(key, value)
    client.set("blob:1", BYTES)
    client.set("a.b*c", "odd")
    client.hset("user:1", mapping={"name": "Zoë", "age": "42", "key": "k", "raw": BYTES})
    client.hset("user:2", mapping={"name": "李雷"})
    client.hset("wide:1", mapping={f"f{number:03}": number for number in range(120)})
    client.rpush("queue:mail", "first", "second", "first")
    client.sadd("tags", "only")
    client.zadd("scores:2024", {"Zoë": 1.5, "last": float("inf")})
    client.xadd("log", {"line": "a", "n": "1"}, id="1700000000000-7")
    client.xadd("log", {"line": "b"}, id="1700000000001-0")


KEY: FieldFacts = ("key", "string", "key", False)
TTL: FieldFacts = ("ttl_s", "integer", "ttl", True)


def kind(start: Start, ports: Ports) -> Kind:
    port, tls_port = start(server)
    own_ca = {"ca_certificate": authority().pem.decode(), "tls_mode": "verify-full", "port": tls_port}
    wrong = {"password": f"wrong-{CANARY}"}
    return Kind(
        type="redis",
        config={"host": "localhost", "port": port, "username": "reader"},
        secrets={"password": f"pw-{CANARY}"},
        server={"encryption": "none", "product": "Redis", "mode": "standalone"},
        cases=(
            Case("wrong_password", "authenticate", "authentication_failed", {}, wrong),
            Case("wrong_user", "authenticate", "authentication_failed", {"username": "nobody_here"}),
            Case("disabled_user", "authenticate", "authentication_failed", {"username": "default"}),
            Case("no_password", "authenticate", "authentication_failed", {"username": None}, {"password": None}),
            Case("password_of_nobody", "authenticate", "authentication_failed", {"username": None}),
            Case("wrong_database", "list", "not_found", {"database": 99}),
            Case("forbidden_types", "list", "permission_denied", {"username": "untyped"}),
            Case("forbidden_listing", "list", "permission_denied", {"username": "lister"}),
            Case("no_cluster", "list", "server_error", {"cluster": True}),
            Case("closed_port", "connect", "connection_refused", {"port": ports.closed}),
            Case("unknown_name", "resolve", "name_not_resolved", {"host": "nowhere.invalid"}),
            Case("link_local", "resolve", "egress_refused", {"host": "169.254.169.254"}),
            Case("silent", "connect", "timeout", {"port": ports.silent, "connect_timeout_s": HASTY_S}),
            Case("other_protocol", "connect", "protocol_mismatch", {"port": ports.ssh}),
            Case("no_tls", "tls", "tls_unavailable", {"tls_mode": "require"}),
            Case("tls_only", "connect", "tls_required", {"tls_mode": "disable", "port": tls_port}),
            Case("unknown_ca", "tls", "tls_certificate_invalid", {"tls_mode": "verify-full", "port": tls_port}),
            Case("other_name", "tls", "tls_certificate_invalid", {**own_ca, "host": "127.0.0.1"}),
            Case("broken_ca", "tls", "invalid_configuration", {**own_ca, "ca_certificate": "-----BEGIN X\n"}),
        ),
        objects={
            ("string", r"a.b\*c"): ("string", (KEY, ("value", "string", "string", False), TTL)),
            ("string", "blob:*"): ("string", (KEY, ("value", "binary", "bytes", False), TTL)),
            ("string", "page:*"): ("string", (KEY, ("value", "string", "string", False), TTL)),
            ("hash", "user:*"): (
                "hash",
                (
                    KEY,
                    ("name", "string", "string", False),
                    ("age", "string", "string", True),
                    ("key (field)", "string", "string", True),
                    ("raw", "binary", "bytes", True),
                    TTL,
                ),
            ),
            ("hash", "wide:*"): (
                "hash",
                (KEY, ("field", "string", "string", False), ("value", "string", "string", False), TTL),
            ),
            ("list", "queue:mail"): (
                "list",
                (KEY, ("index", "integer", "index", False), ("value", "string", "string", False), TTL),
            ),
            ("set", "tags"): ("set", (KEY, ("member", "string", "string", False), TTL)),
            ("zset", "scores:*"): (
                "zset",
                (KEY, ("member", "string", "string", False), ("score", "number", "double", False), TTL),
            ),
            ("stream", "log"): (
                "stream",
                (KEY, ("id", "string", "stream id", False), ("fields", "object", "entry", False), TTL),
            ),
        },
        previews={
            ("string", "page:*"): [
                ["page:1", "Zoë 李雷 🦆", None],
                ["page:2", BIG, None],
                ["page:30", "", None],
            ],
            ("string", r"a.b\*c"): [["a.b*c", "odd", None]],
            ("string", "blob:*"): [["blob:1", "AP/+", None]],
            ("hash", "user:*"): [
                ["user:1", "Zoë", "42", "k", "AP/+", None],
                ["user:2", "李雷", None, None, None, None],
            ],
            ("list", "queue:mail"): [
                ["queue:mail", 0, "first", None],
                ["queue:mail", 1, "second", None],
                ["queue:mail", 2, "first", None],
            ],
            ("set", "tags"): [["tags", "only", None]],
            ("zset", "scores:*"): [["scores:2024", "Zoë", 1.5, None], ["scores:2024", "last", "Infinity", None]],
            ("stream", "log"): [
                ["log", "1700000000000-7", {"line": "a", "n": "1"}, None],
                ["log", "1700000000001-0", {"line": "b"}, None],
            ],
        },
    )
