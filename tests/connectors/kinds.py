"""What each type is expected to do, for the contract tests: a new type adds one `Kind` here and a fixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.connectors.conftest import (
    BUCKET,
    CANARY,
    FORBIDDEN_BUCKET,
    MISSING_BUCKET,
    ObjectStore,
    PostgresServer,
)

Values = dict[str, Any]
FieldFacts = tuple[str, str, str, bool]
"""Name, portable type, native type, nullable."""


@dataclass(frozen=True)
class Case:
    """A source that does not work: what is changed about the good one, and how the check has to end."""

    name: str
    step: str
    code: str
    config: Values = field(default_factory=dict)
    secrets: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Ports:
    closed: int
    silent: int
    ssh: int


@dataclass(frozen=True)
class Kind:
    """Everything the contract asks about one type."""

    type: str
    config: Values
    secrets: Values
    cases: tuple[Case, ...]
    objects: dict[tuple[str, ...], tuple[str, tuple[FieldFacts, ...]]]
    """Path to kind and fields: all objects there are."""
    previews: dict[tuple[str, ...], list[list[Any]]]


Build = Callable[[pytest.FixtureRequest, Ports], Kind]


def postgresql(request: pytest.FixtureRequest, ports: Ports) -> Kind:
    server: PostgresServer = request.getfixturevalue("filled_postgres")
    tls_port: int = request.getfixturevalue("tls_postgres")
    ca = request.getfixturevalue("authority").pem.decode()
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
            Case("silent", "connect", "timeout", {"port": ports.silent, "connect_timeout_s": 0.5}),
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


def rest(request: pytest.FixtureRequest, ports: Ports) -> Kind:
    port: int = request.getfixturevalue("shop_api")
    tls_port: int = request.getfixturevalue("tls_shop_api")
    order = (
        ("id", "integer", "integer(int64)", False),
        ("name", "string", "string", True),
        ("total", "decimal", "string(decimal)", False),
        ("at", "timestamp_tz", "string(date-time)", True),
        ("lines", "array", "array", True),
    )
    rows: list[list[Any]] = [
        ["9007199254740993", "Zoë 李雷", "10.50", "2024-01-02T03:04:05+02:00", [1, 2]],
        [2, None, "0", "2024-01-03T00:00:00Z", []],
    ]
    url = f"http://localhost:{port}"
    hasty = {"connect_timeout_s": 0.5, "read_timeout_s": 0.5}
    return Kind(
        "rest",
        {"base_url": url, "auth": "bearer"},
        {"token": f"{CANARY}-rest"},
        (
            Case("wrong_token", "authenticate", "authentication_failed", {}, {"token": f"wrong-{CANARY}"}),
            Case("no_auth", "authenticate", "authentication_failed", {"auth": "none"}, {"token": None}),
            Case("wrong_path", "list", "not_found", {"resources": [{"name": "x", "path": "nowhere"}]}),
            Case("broken", "authenticate", "server_error", {"resources": [{"name": "x", "path": "broken"}]}),
            Case("nested", "list", "response_invalid", {"resources": [{"name": "x", "path": "nested"}]}),
            Case("no_document", "authenticate", "not_found", {"openapi_url": "nowhere.json"}),
            Case("closed_port", "connect", "connection_refused", {"base_url": f"http://localhost:{ports.closed}"}),
            Case("unknown_name", "resolve", "name_not_resolved", {"base_url": "http://nowhere.invalid"}),
            Case("link_local", "resolve", "egress_refused", {"base_url": "http://169.254.169.254/latest"}),
            Case("silent", "connect", "timeout", {"base_url": f"http://localhost:{ports.silent}", **hasty}),
            Case("silent_tls", "tls", "timeout", {"base_url": f"https://localhost:{ports.silent}", **hasty}),
            Case("other_protocol", "connect", "protocol_mismatch", {"base_url": f"http://localhost:{ports.ssh}"}),
            Case("no_tls", "tls", "tls_unavailable", {"base_url": f"https://localhost:{port}"}),
            Case("unknown_ca", "tls", "tls_certificate_invalid", {"base_url": f"https://localhost:{tls_port}"}),
            Case(
                "slow_answer",
                "authenticate",
                "timeout",
                {"resources": [{"name": "x", "path": "slow"}], "read_timeout_s": 0.5},
            ),
        ),
        {
            ("empty",): ("resource", order),
            ("orders",): ("resource", order),
            ("shop", "wrapped"): ("resource", order),
        },
        {("orders",): rows, ("shop", "wrapped"): rows, ("empty",): []},
    )


def s3(request: pytest.FixtureRequest, ports: Ports) -> Kind:
    store: ObjectStore = request.getfixturevalue("object_store")
    config = {
        "bucket": BUCKET,
        "region": "us-east-1",
        "endpoint_url": f"http://localhost:{store.port}",
        "access_key_id": store.access_key_id,
    }
    hasty = {"connect_timeout_s": 0.5, "read_timeout_s": 0.5}
    wrong = {"secret_access_key": f"wrong-{CANARY}"}
    return Kind(
        "s3",
        config,
        {"secret_access_key": store.secret_access_key},
        (
            Case("wrong_secret", "authenticate", "authentication_failed", {}, wrong),
            Case("wrong_key", "authenticate", "authentication_failed", {"access_key_id": "AKIAWRONG"}, wrong),
            Case("wrong_bucket", "list", "not_found", {"bucket": MISSING_BUCKET}),
            Case("forbidden_bucket", "list", "permission_denied", {"bucket": FORBIDDEN_BUCKET}),
            Case("closed_port", "connect", "connection_refused", {"endpoint_url": f"http://localhost:{ports.closed}"}),
            Case("unknown_name", "resolve", "name_not_resolved", {"endpoint_url": "http://nowhere.invalid"}),
            Case("link_local", "resolve", "egress_refused", {"endpoint_url": "http://169.254.169.254"}),
            Case("silent", "connect", "timeout", {"endpoint_url": f"http://localhost:{ports.silent}", **hasty}),
            Case("other_protocol", "connect", "protocol_mismatch", {"endpoint_url": f"http://localhost:{ports.ssh}"}),
            Case("no_tls", "tls", "tls_unavailable", {"endpoint_url": f"https://localhost:{store.port}"}),
        ),
        {
            ("customers.csv",): (
                "file",
                (
                    ("id", "integer", "text", False),
                    ("name", "string", "text", False),
                    ("joined", "date", "text", False),
                    ("balance", "decimal", "text", True),
                ),
            ),
            ("empty.csv",): ("file", ()),
            ("events", "*", "*", "part-*.ndjson"): (
                "dataset",
                (
                    ("id", "integer", "integer", False),
                    ("tags", "array", "array", False),
                    ("who", "unknown", "null", True),
                ),
            ),
            ("photo.jpg",): ("file", ()),
            ("sales", "year=*", "part-*.csv"): (
                "dataset",
                (("amount", "integer", "text", False), ("year", "string", "partition", False)),
            ),
        },
        {
            ("customers.csv",): [[1, "Zoë", "2024-01-02", "10.50"], [2, "李雷", "2024-02-03", None]],
            ("events", "*", "*", "part-*.ndjson"): [["9007199254740993", ["a"], None]],
            ("sales", "year=*", "part-*.csv"): [[1, "2023"]],
            ("empty.csv",): [],
        },
    )


KINDS: dict[str, Build] = {"postgresql": postgresql, "rest": rest, "s3": s3}
