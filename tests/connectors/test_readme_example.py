"""The README's example of a new type: found by the registry, and held to the contract as every type is.

Its server is a stand-in that answers what the connector asks, as CouchDB's documentation has it.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import pytest

from app.connectors import registry
from app.connectors.contract.config import InvalidField, config_schema
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy
from tests.connectors import test_contract as contract
from tests.connectors.contract import CANARY, Case, Kind, Ports, Start
from tests.connectors.example import couchdb
from tests.connectors.servers.starting import tls_front
from tests.readme_tables import EXAMPLE, README

pytestmark = pytest.mark.anyio

PACKAGE = "tests.connectors.example"
USERS = {f"reader:pw-{CANARY}": 200, f"nobody:pw-{CANARY}": 403}
ORDERS: list[dict[str, Any]] = [
    {"_id": "1", "total": "10.50", "name": "Zoë 李雷", "big": 2**60},
    {"_id": "2", "name": None, "lines": [1, [2]]},
]
DATABASES: dict[str, list[dict[str, Any]]] = {
    "empty": [],
    "odd/name+(x)": [{"_id": "ü"}],
    "orders": ORDERS,
    **{f"shard-{number:03}": [] for number in range(300)},
}


class StandIn(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        given = base64.b64decode(self.headers.get("authorization", "").removeprefix("Basic ")).decode()
        status = USERS.get(given, 401)
        self._answer(*((status, {"error": given}) if status == 401 else self._found(status)))

    def _found(self, status: int) -> tuple[int, Any]:
        url = urlsplit(self.path)
        asked = {name: json.loads(values[0]) for name, values in parse_qs(url.query).items()}
        parts = [unquote(part) for part in url.path.split("/")[1:]]
        match parts:
            case ["_session"]:
                return 200, {"ok": True}
            case ["_all_dbs"] if status == 200:
                names = sorted(name for name in DATABASES if name >= asked.get("start_key", ""))
                return 200, names[asked.get("skip", 0) :][: asked["limit"]]
            case [name, "_all_docs"] if name in DATABASES:
                rows = [{"id": doc["_id"], "key": doc["_id"], "doc": doc} for doc in DATABASES[name]]
                return 200, {"total_rows": len(rows), "offset": 0, "rows": rows[: asked["limit"]]}
        return (403 if status == 403 else 404), {"error": "not for you"}

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def stand_in() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


FIELDS = (("id", "string", "_id", False), ("doc", "object", "JSON", False))


@pytest.fixture
def kind(start: Start, ports: Ports) -> Kind:
    port = start(stand_in)
    tls_port = start(tls_front, port)
    return Kind(
        "couchdb",
        {"url": f"http://localhost:{port}", "username": "reader"},
        {"password": f"pw-{CANARY}"},
        (
            Case("wrong_password", "authenticate", "authentication_failed", {}, {"password": f"wrong-{CANARY}"}),
            Case("unknown_user", "authenticate", "authentication_failed", {"username": "somebody"}),
            Case("may_not_list", "list", "permission_denied", {"username": "nobody"}),
            Case("closed_port", "connect", "connection_refused", {"url": f"http://localhost:{ports.closed}"}),
            Case("unknown_name", "resolve", "name_not_resolved", {"url": "http://nowhere.invalid"}),
            Case("link_local", "resolve", "egress_refused", {"url": "http://169.254.169.254"}),
            Case("silent", "connect", "timeout", {"url": f"http://localhost:{ports.silent}", "timeout_s": 0.5}),
            Case("other_protocol", "connect", "protocol_mismatch", {"url": f"http://localhost:{ports.ssh}"}),
            Case("no_tls", "tls", "tls_unavailable", {"url": f"https://localhost:{port}"}),
            Case("unknown_ca", "tls", "tls_certificate_invalid", {"url": f"https://localhost:{tls_port}"}),
        ),
        {(name,): ("collection", FIELDS) for name in DATABASES},
        {
            ("orders",): [["1", {**ORDERS[0], "big": str(2**60)}], ["2", ORDERS[1]]],
            ("odd/name+(x)",): [["ü", {"_id": "ü"}]],
            ("empty",): [],
        },
    )


@pytest.fixture
async def sandbox() -> AsyncIterator[ConnectorSandbox]:
    sandbox = ConnectorSandbox(packages=(PACKAGE,))
    yield sandbox
    await sandbox.close()


def test_the_readme_shows_the_example_that_is_tested() -> None:
    assert f"```python\n{EXAMPLE.read_text(encoding='utf-8')}```\n" in README.read_text(encoding="utf-8")


def test_the_registry_finds_it_by_its_file_alone() -> None:
    assert registry.find((PACKAGE,)) == {"couchdb": couchdb.Couchdb}
    assert config_schema(couchdb.CouchdbConfig)["required"] == ["url", "username"]


@pytest.mark.parametrize(
    "fact",
    [
        contract.test_a_good_source_passes_with_every_step_told,
        contract.test_each_bad_source_fails_at_its_step,
        contract.test_discovery_finds_exactly_what_is_there,
        contract.test_previews_show_exactly_the_rows,
        contract.test_a_preview_keeps_to_its_limit_and_columns,
        contract.test_a_preview_of_what_is_not_there_is_not_found,
    ],
)
async def test_it_keeps_the_contract(
    fact: Callable[..., Any], kind: Kind, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    await fact(kind, sandbox, loopback)


async def test_it_dials_nothing_that_the_policy_refuses(kind: Kind, sandbox: ConnectorSandbox) -> None:
    await contract.test_without_leave_for_loopback_nothing_is_dialled(kind, sandbox)


async def test_no_name_leads_out_of_the_databases(
    kind: Kind, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    for path in ((".",), ("..",), ("_session",), ("", "orders"), ("orders", ""), ("orders?x=",), ("orders\n",)):
        with pytest.raises(ConnectorError) as caught:
            await sandbox.preview(kind.type, kind.config, kind.secrets, loopback, PreviewRequest(path=path))
        assert caught.value.code == "not_found"


def test_its_config_and_secrets_are_judged() -> None:
    for url in ("ftp://a", "http://user@a", "http://a/path", "http://a?x"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"url": url, "username": "x"}, couchdb.CouchdbConfig)
    with pytest.raises(InvalidField) as caught:
        couchdb.Couchdb.validate(couchdb.CouchdbConfig(url="http://a", username="x"), couchdb.CouchdbSecrets())
    assert caught.value.path == ("secrets", "password")
