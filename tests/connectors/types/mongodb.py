"""MongoDB's protocol, on SecantusDB."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bson import Binary, Code, DBRef, Decimal128, Int64, MinKey, ObjectId, Regex, Timestamp
from pymongo import MongoClient

from tests.connectors.contract import CANARY, HASTY_S, Case, FieldFacts, Kind, Ports, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.starting import private_folder, program, running, tls_front
from tests.ports import free_port

NEEDS_SERVICES = True

FIRST = "0123456789abcdef01234567"


@contextmanager
def server() -> Iterator[int]:
    """Yields the port. `reader` may read the database `shop`, `auditor` every one, and `nobody` none."""
    with private_folder() as folder:
        port = free_port()
        command = [program("secantusd-py"), "--port", str(port), "--storage-path", str(folder / "data")]
        options: dict[str, Any] = {"cwd": folder, "env": {"HOME": str(folder)}}
        command += ["--cache-size", "64M", "--log-level", "ERROR"]
        with running(command, port, **options):
            _fill(port)
        with running([*command, "--auth"], port, **options):
            yield port


def _fill(port: int) -> None:
    with MongoClient[Any]("127.0.0.1", port, directConnection=True, uuidRepresentation="standard") as client:
        client.shop.orders.insert_many([FULL, {"_id": 2, "n": 1, "ratio": float("nan"), "mixed": "x"}])
        client.shop.create_collection("empty")
        client.shop.create_collection("log", capped=True, size=65_536)
        client.shop.log.insert_many([{"_id": number, "line": f"line {number}"} for number in (1, 2, 3)])
        client.shop.create_collection("readings", timeseries={"timeField": "at"})
        client.shop.readings.insert_one({"_id": 1, "at": dt.datetime(2024, 1, 2, tzinfo=dt.UTC), "value": 1.5})
        client.shop.create_collection("recent", viewOn="orders", pipeline=[{"$match": {"_id": 2}}])
        client.shop["odd.name x"].insert_one({"_id": "ü", "a.b": 1})
        client.closed.things.insert_one({"_id": 1})
        client.bulk.many.insert_many([{"_id": number} for number in range(300)])
        client.bulk.many.insert_one({"_id": 300, "new": True})
        client.bulk.long.insert_one({"_id": 1, "text": "ü" * 1_000, "raw": bytes(1_000), "deep": {"a": "x" * 1_000}})
        for user, roles in USERS.items():
            client.admin.command("createUser", user, pwd=f"pw-{CANARY}", roles=roles)


USERS: dict[str, list[Any]] = {
    "reader": [{"role": "read", "db": "shop"}],
    "auditor": ["readAnyDatabase", "clusterMonitor"],
    "nobody": [],
}
FULL: dict[str, Any] = {
    "_id": ObjectId(FIRST),
    "n": Int64(9007199254740993),
    "name": "Zoë 李雷 🦆",
    "total": Decimal128("10.50"),
    "at": dt.datetime(2024, 1, 2, 3, 4, 5, 678000, dt.UTC),
    "raw": b"\x00\xff\x80",
    "hash": Binary(b"\x01" * 18, 5),
    "key": uuid.UUID(int=1),
    "ok": True,
    "ratio": 0.1,
    "tags": ["a", 1, None],
    "nested": {"a": {"b": Int64(2**60), "c": [Decimal128("1E+3"), b"\x00"]}},
    "pattern": Regex("a.b", "im"),
    "stamp": Timestamp(1_700_000_000, 7),
    "link": DBRef("orders", 2),
    "code": Code("x = 1"),
    "least": MinKey(),
    "nothing": None,
    "mixed": 1,
}


def kind(start: Start, ports: Ports) -> Kind:
    port: int = start(server)
    tls_port: int = start(tls_front, port)
    own_ca = {"ca_certificate": authority().pem.decode(), "tls_mode": "verify-full", "port": tls_port}
    auditor = {"username": "auditor"}
    link_local = {"hosts": [{"host": "localhost", "port": port}, {"host": "169.254.169.254"}], "host": None}
    return Kind(
        type="mongodb",
        config={"host": "localhost", "port": port, "database": "shop", "username": "reader"},
        secrets={"password": f"pw-{CANARY}"},
        server={"encryption": "none", "product": "SecantusDB", "role": "primary"},
        cases=(
            Case("wrong_password", "authenticate", "authentication_failed", {}, {"password": f"wrong-{CANARY}"}),
            Case("wrong_user", "authenticate", "authentication_failed", {"username": "nobody_here"}),
            Case("no_password", "authenticate", "authentication_failed", {}, {"password": None}),
            Case("no_user", "authenticate", "authentication_failed", {"username": None}, {"password": None}),
            Case("wrong_auth_source", "authenticate", "authentication_failed", {"auth_source": "shop"}),
            Case("odd_password", "authenticate", "invalid_configuration", {}, {"password": f"\u0007{CANARY}"}),
            Case("wrong_database", "list", "not_found", {**auditor, "database": "nowhere"}),
            Case("forbidden_database", "list", "permission_denied", {"database": "closed"}),
            Case("forbidden_databases", "list", "permission_denied", {"database": None, "username": "nobody"}),
            Case("wrong_replica_set", "connect", "not_found", {"replica_set": "others"}),
            Case("closed_port", "connect", "connection_refused", {"port": ports.closed}),
            Case("unknown_name", "resolve", "name_not_resolved", {"host": "nowhere.invalid"}),
            Case("link_local", "resolve", "egress_refused", {"host": "169.254.169.254"}),
            Case("link_local_member", "resolve", "egress_refused", link_local),
            Case("silent", "connect", "timeout", {"port": ports.silent, "connect_timeout_s": HASTY_S}),
            Case("other_protocol", "connect", "protocol_mismatch", {"port": ports.ssh}),
            Case("other_protocol_tls", "connect", "protocol_mismatch", {"port": ports.ssh, "tls_mode": "require"}),
            Case("no_tls", "tls", "tls_unavailable", {"tls_mode": "require"}),
            Case("tls_only", "connect", "tls_required", {"tls_mode": "disable", "port": tls_port}),
            Case("unknown_ca", "tls", "tls_certificate_invalid", {"tls_mode": "verify-full", "port": tls_port}),
            Case("other_name", "tls", "tls_certificate_invalid", {**own_ca, "host": "127.0.0.1"}),
            Case("broken_ca", "tls", "invalid_configuration", {**own_ca, "ca_certificate": "-----BEGIN X\n"}),
        ),
        objects=OBJECTS,
        previews=PREVIEWS,
    )


OBJECTS: dict[tuple[str, ...], tuple[str, tuple[FieldFacts, ...]]] = {
    ("shop", "empty"): ("collection", ()),
    ("shop", "log"): ("capped_collection", (("_id", "integer", "int", False), ("line", "string", "string", False))),
    ("shop", "odd.name x"): ("collection", (("_id", "string", "string", False), ("a.b", "integer", "int", False))),
    ("shop", "orders"): (
        "collection",
        (
            ("_id", "json", "int|objectId", False),
            ("n", "integer", "int|long", False),
            ("name", "string", "string", True),
            ("total", "decimal", "decimal", True),
            ("at", "timestamp_tz", "date", True),
            ("raw", "binary", "binData", True),
            ("hash", "binary", "binData", True),
            ("key", "uuid", "binData(4)", True),
            ("ok", "boolean", "bool", True),
            ("ratio", "number", "double", False),
            ("tags", "array", "array", True),
            ("nested", "object", "object", True),
            ("pattern", "string", "regex", True),
            ("stamp", "object", "timestamp", True),
            ("link", "object", "object", True),
            ("code", "string", "javascript", True),
            ("least", "unknown", "minKey", True),
            ("nothing", "unknown", "null", True),
            ("mixed", "json", "int|string", False),
        ),
    ),
    ("shop", "readings"): (
        "time_series",
        (("_id", "integer", "int", False), ("at", "timestamp_tz", "date", False), ("value", "number", "double", False)),
    ),
    ("shop", "recent"): (
        "view",
        (
            ("_id", "integer", "int", False),
            ("n", "integer", "int", False),
            ("ratio", "number", "double", False),
            ("mixed", "string", "string", False),
        ),
    ),
}
PREVIEWS: dict[tuple[str, ...], list[list[Any]]] = {
    ("shop", "orders"): [
        [
            FIRST,
            "9007199254740993",
            "Zoë 李雷 🦆",
            "10.50",
            "2024-01-02T03:04:05.678Z",
            "AP+A",
            "AQEBAQEBAQEBAQEBAQEBAQEB",
            "00000000-0000-0000-0000-000000000001",
            True,
            0.1,
            ["a", 1, None],
            {"a": {"b": "1152921504606846976", "c": ["1000", "AA=="]}},
            "/a.b/im",
            {"t": 1_700_000_000, "i": 7},
            {"$ref": "orders", "$id": 2},
            "x = 1",
            "MinKey",
            None,
            1,
        ],
        [2, 1, *[None] * 7, "NaN", *[None] * 8, "x"],
    ],
    ("shop", "recent"): [[2, 1, "NaN", "x"]],
    ("shop", "readings"): [[1, "2024-01-02T00:00:00Z", 1.5]],
    ("shop", "log"): [[1, "line 1"], [2, "line 2"], [3, "line 3"]],
    ("shop", "odd.name x"): [["ü", 1]],
    ("shop", "empty"): [],
}
