"""REST, on an application of another framework."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.starting import ROOT, running, tls_front
from tests.ports import free_port


@contextmanager
def shop_api() -> Iterator[int]:
    """`tests/connectors/servers/shop_api.py` on uvicorn; yields the port."""
    port = free_port()
    options = ["--host", "127.0.0.1", "--log-level", "critical", "--no-access-log", "--port", str(port)]
    with running([sys.executable, "-m", "uvicorn", "tests.connectors.servers.shop_api:app", *options], port, cwd=ROOT):
        yield port


def kind(start: Start, ports: Ports) -> Kind:
    port = start(shop_api)
    tls_port = start(tls_front, port)
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
    oauth2 = {"auth": "oauth2_client_credentials", "client_id": "client", "token_url": f"{url}/token"}
    hasty = {"connect_timeout_s": HASTY_S, "read_timeout_s": HASTY_S}
    return Kind(
        "rest",
        {"base_url": url, "auth": "bearer"},
        {"token": f"{CANARY}-rest"},
        (
            Case("wrong_token", "authenticate", "authentication_failed", {}, {"token": f"wrong-{CANARY}"}),
            Case("no_auth", "authenticate", "authentication_failed", {"auth": "none"}, {"token": None}),
            Case("forbidden", "authenticate", "permission_denied", {"resources": [{"name": "x", "path": "forbidden"}]}),
            Case("impatient", "authenticate", "rate_limited", {"resources": [{"name": "x", "path": "limited"}]}),
            Case("wrong_client", "authenticate", "authentication_failed", oauth2, {"client_secret": f"wrong-{CANARY}"}),
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
                "wrong_name",
                "tls",
                "tls_certificate_invalid",
                {"base_url": f"https://127.0.0.1:{tls_port}", "ca_certificate": authority().pem.decode()},
            ),
            Case(
                "broken_ca",
                "tls",
                "invalid_configuration",
                {"base_url": f"https://localhost:{tls_port}", "ca_certificate": "-----BEGIN CERTIFICATE-----"},
            ),
            Case(
                "slow_answer",
                "authenticate",
                "timeout",
                {"resources": [{"name": "x", "path": "slow"}], "read_timeout_s": HASTY_S},
            ),
        ),
        {
            ("empty",): ("resource", order),
            ("orders",): ("resource", order),
            ("shop", "wrapped"): ("resource", order),
        },
        {("orders",): rows, ("shop", "wrapped"): rows, ("empty",): []},
    )
