"""GraphQL, on Strawberry."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.starting import ROOT, running, tls_front
from tests.ports import free_port

NUMBER = (("id", "string", "ID!", False), ("half", "number", "Float!", False))
NUMBERS: list[list[Any]] = [[base64.b64encode(f"Number:{n}".encode()).decode(), n / 2] for n in range(25)]


@contextmanager
def shop_graphql() -> Iterator[int]:
    """`tests/connectors/servers/shop_graphql.py` on uvicorn; yields the port."""
    port = free_port()
    options = ["--host", "127.0.0.1", "--log-level", "critical", "--no-access-log", "--port", str(port)]
    with running(
        [sys.executable, "-m", "uvicorn", "tests.connectors.servers.shop_graphql:app", *options], port, cwd=ROOT
    ):
        yield port


def kind(start: Start, ports: Ports) -> Kind:
    port = start(shop_graphql)
    tls_port = start(tls_front, port)
    url = f"http://localhost:{port}"
    hasty = {"connect_timeout_s": HASTY_S, "read_timeout_s": HASTY_S}
    oauth2 = {"auth": "oauth2_client_credentials", "client_id": "client", "token_url": f"{url}/token"}
    open_url = {"auth": "none", "url": f"{url}/not-graphql"}
    order = (
        ("id", "string", "ID!", False),
        ("number", "integer", "BigInt!", False),
        ("name", "string", "String", True),
        ("total", "decimal", "Decimal!", False),
        ("ratio", "number", "Float", True),
        ("isPaid", "boolean", "Boolean!", False),
        ("state", "string", "State", True),
        ("at", "timestamp_tz", "DateTime", True),
        ("day", "date", "Date", True),
        ("key", "uuid", "UUID", True),
        ("notes", "json", "JSON", True),
        ("lines", "array", "[Int!]!", False),
        ("customer", "object", "Customer", True),
        ("items", "array", "[Item!]!", False),
        ("parent", "object", "Order", True),
    )
    return Kind(
        "graphql",
        {"url": f"{url}/graphql/", "auth": "bearer"},
        {"token": f"{CANARY}-rest"},
        (
            Case("wrong_token", "authenticate", "authentication_failed", {}, {"token": f"wrong-{CANARY}"}),
            Case("no_auth", "authenticate", "authentication_failed", {"auth": "none"}, {"token": None}),
            Case("wrong_client", "authenticate", "authentication_failed", oauth2, {"client_secret": f"wrong-{CANARY}"}),
            Case("wrong_path", "authenticate", "not_found", {"url": f"{url}/nowhere"}),
            Case("elsewhere", "authenticate", "response_invalid", {"url": f"{url}/elsewhere"}),
            Case("not_graphql", "authenticate", "protocol_mismatch", open_url),
            Case("forbidden", "authenticate", "permission_denied", {"url": f"{url}/not-graphql?status=403"}),
            Case("impatient", "authenticate", "rate_limited", {"url": f"{url}/not-graphql?status=429"}),
            Case("broken", "authenticate", "server_error", {"url": f"{url}/not-graphql?status=500"}),
            Case("without_data", "authenticate", "response_invalid", {"url": f"{url}/without-data"}),
            Case("no_introspection", "list", "permission_denied", {"url": f"{url}/closed/"}),
            Case("broken_schema", "list", "response_invalid", {"url": f"{url}/broken-schema"}),
            Case("closed_port", "connect", "connection_refused", {"url": f"http://localhost:{ports.closed}"}),
            Case("unknown_name", "resolve", "name_not_resolved", {"url": "http://nowhere.invalid"}),
            Case("link_local", "resolve", "egress_refused", {"url": "http://169.254.169.254/graphql"}),
            Case("silent", "connect", "timeout", {"url": f"http://localhost:{ports.silent}", **hasty}),
            Case("silent_tls", "tls", "timeout", {"url": f"https://localhost:{ports.silent}", **hasty}),
            Case("other_protocol", "connect", "protocol_mismatch", {"url": f"http://localhost:{ports.ssh}"}),
            Case("no_tls", "tls", "tls_unavailable", {"url": f"https://localhost:{port}"}),
            Case("unknown_ca", "tls", "tls_certificate_invalid", {"url": f"https://localhost:{tls_port}"}),
            Case(
                "wrong_name",
                "tls",
                "tls_certificate_invalid",
                {"url": f"https://127.0.0.1:{tls_port}", "ca_certificate": authority().pem.decode()},
            ),
            Case(
                "broken_ca",
                "tls",
                "invalid_configuration",
                {"url": f"https://localhost:{tls_port}", "ca_certificate": "-----BEGIN CERTIFICATE-----"},
            ),
        ),
        {
            ("orders",): ("list", order),
            ("empty",): ("list", order),
            ("holes",): ("list", (("sku", "string", "String!", False), ("count", "integer", "Int!", False))),
            ("order",): ("object", order),
            ("tags",): ("list", (("value", "string", "String", True),)),
            ("summary",): ("object", (("orders", "integer", "Int!", False), ("best", "object", "Order", True))),
            ("found",): (
                "list",
                (
                    ("__typename", "string", "String!", False),
                    ("name", "string", "String", True),
                    ("sku", "string", "String!", True),
                    ("count", "integer", "Int!", True),
                ),
            ),
            ("byOffset",): ("list", NUMBER),
            ("byLimit",): ("list", NUMBER),
            ("page",): ("list", NUMBER),
            ("numbers",): ("connection", NUMBER),
            ("many",): ("list", NUMBER),
        },
        {
            ("orders",): [
                [
                    "o-1",
                    "9007199254740993",
                    "Zoë 李雷",
                    "10.50",
                    0.1,
                    True,
                    "PAID",
                    "2024-01-02T03:04:05+02:00",
                    "2024-01-02",
                    "00000000-0000-0000-0000-000000000001",
                    {"a": [1, None]},
                    [1, 2],
                    {"name": None, "address": {"city": "Łódź"}},
                    [{"sku": "x", "count": 1}],
                    None,
                ],
                ["o-2", 2, None, "-0.1", None, False, *[None] * 5, [], None, [], None],
            ],
            ("empty",): [],
            ("holes",): [["x", 1], [None, None]],
            ("tags",): [["new"], [None], ["ü"]],
            ("summary",): [[2, None]],
            ("found",): [["Item", None, "x", 1], ["Customer", "Zoë", None, None]],
            ("byOffset",): NUMBERS,
            ("byLimit",): NUMBERS,
            ("page",): NUMBERS,
            ("numbers",): NUMBERS,
        },
    )
