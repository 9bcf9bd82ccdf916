"""A canary secret in a source of every type: searched for in all that the hub says and keeps."""

import base64
import io
import logging
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import pytest

from app.connectors.contract.objects import qualify
from app.core.egress import EgressPolicy
from app.core.embedded import EmbeddedPostgres
from app.core.exchange import Exchange
from app.core.logging import JsonFormatter, RequestLog
from tests.conftest import Hub, running_hub
from tests.connectors.contract import Case, Kind, Ports, Start
from tests.connectors.servers.starting import scripted_server
from tests.connectors.types import KINDS, all_kinds
from tests.domain.sources import SOURCES, discovered, registered

pytestmark = pytest.mark.anyio

PREFIX = "CANARY_"


@pytest.fixture(scope="module")
async def hub(cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    variables = {"HUB_SECRET_ENV_PREFIXES": PREFIX}
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("hub"), **variables) as running:
        yield running


@dataclass
class Everything:
    """All that a hub says while the block runs: answers, log lines, and in the end its whole database."""

    answers: list[httpx.Response]
    log: io.StringIO
    requests: io.BytesIO

    def said(self) -> str:
        spoken = (f"{answer.headers} {answer.text}" for answer in self.answers)
        return "\n".join((*spoken, self.log.getvalue(), self.requests.getvalue().decode()))


@pytest.fixture
def everything(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Everything]:
    heard = Everything([], io.StringIO(), io.BytesIO())

    async def note(answer: httpx.Response) -> None:
        await answer.aread()
        heard.answers.append(answer)

    write = RequestLog("json", "debug", heard.requests)
    observe = hub.app._observe

    def hear(exchange: Exchange) -> None:
        observe(exchange)
        write(exchange, 0.0)
        write.flush()

    monkeypatch.setattr(hub.app, "_observe", hear)
    handler = logging.StreamHandler(heard.log)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.DEBUG)
    root.addHandler(handler)
    hub.admin.event_hooks["response"].append(note)
    yield heard
    hub.admin.event_hooks["response"].remove(note)
    root.removeHandler(handler)


async def dump(cluster: EmbeddedPostgres, hub: Hub) -> str:
    """Every row of every table as text, as `pg_dump` would write it."""
    connection = await asyncpg.connect(cluster.url("hub_owner", hub.url.rpartition("/")[2].partition("?")[0]))
    try:
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        )
        assert len(tables) >= 14
        texts = [await connection.fetch(f'SELECT t::text AS row FROM "{name}" AS t') for (name,) in tables]
        return "\n".join(row["row"] for rows in texts for row in rows)
    finally:
        await connection.close()


def spellings(secret: str) -> set[str]:
    """As it is, as other texts hold it, and each line of a key: no line of one may be known."""
    whole = {secret, secret.encode().hex(), quote(secret, safe=""), base64.b64encode(secret.encode()).decode()}
    return whole | {msgspec.json.encode(secret).decode()[1:-1]} | set(re.findall(r"[A-Za-z0-9+/=]{40,}", secret))


@pytest.fixture(params=all_kinds())
def kind(request: pytest.FixtureRequest, start: Start, ports: Ports, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """A source of each type, as the contract tests have it. Asked for before `everything`, which would hear how its
    server is set up."""
    built: Kind = KINDS[request.param].kind(start, ports)
    monkeypatch.setattr(hub.parts, "egress", EgressPolicy(**built.policy))
    return built


def wrong_secrets(kind: Kind) -> dict[str, Any] | None:
    """Others that the type takes and the server does not, where the contract has some."""
    for case in kind.cases:
        if case.step == "authenticate" and not case.config and any(case.secrets.values()):
            return _changed(kind, case)
    return None


def _changed(kind: Kind, case: Case) -> dict[str, Any]:
    return {name: value for name, value in (kind.secrets | case.secrets).items() if value is not None}


async def use(hub: Hub, kind: Kind, path: str) -> tuple[str, str, list[int]]:
    """How a test, a discovery and previews of everything that has rows end."""
    tested, job = await hub.admin.post(f"{path}/test"), await discovered(hub, path)
    previews = [
        await hub.admin.post(f"{path}/preview", json={"object": qualify(place)}, headers={"Accept": accept})
        for place in list(kind.previews)[:2]
        for accept in ("application/json", "text/csv")
    ]
    async with hub.admin.stream("GET", f"/api/v1/jobs/{job['id']}/events") as stream:
        await stream.aread()
    return tested.json()["status"], job["status"], sorted({answer.status_code for answer in previews})


WELL = ("passed", "succeeded", [200])


async def test_a_secret_appears_nowhere(
    hub: Hub, cluster: EmbeddedPostgres, kind: Kind, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, wrong = kind.secrets, wrong_secrets(kind) or {}
    bare = {"type": kind.type, "config": kind.config, "secrets": good}
    body, headers = bare | {"name": uuid4().hex}, {"Idempotency-Key": uuid4().hex}
    path = (await hub.admin.post(SOURCES, json=body, headers=headers)).headers["location"]
    await hub.admin.post(SOURCES, json=body, headers=headers)
    await hub.admin.post(SOURCES, json=body)  # the name is taken
    await hub.admin.post(f"{SOURCES}/test", json=bare)
    assert await use(hub, kind, path) == WELL
    await ask_wrongly(hub, kind, path, body)
    if wrong:
        await hub.admin.post(f"{SOURCES}/test", json=bare | {"secrets": wrong})
        assert (await hub.admin.post(f"{path}/test", json={"secrets": wrong})).json()["status"] == "failed"
        await hub.admin.patch(path, json={"secrets": wrong})
        assert (await use(hub, kind, path))[0] == "failed"
    for name, value in good.items():
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    referred = {name: {"ref": f"env:{PREFIX}{name.upper()}"} for name in good}
    items = [bare | {"name": uuid4().hex, "secrets": secrets} for secrets in (good, referred)]
    bulk = await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": items})
    assert bulk.status_code == 201, bulk.text
    by_reference = f"{SOURCES}/{bulk.json()['items'][1]['data_source']['id']}"
    assert (await hub.admin.post(f"{by_reference}/test")).json()["status"] == "passed"
    await hub.admin.post(f"{by_reference}/preview", json={"object": "nope"})
    await read_everything(hub, path)
    stored = await dump(cluster, hub)
    await hub.admin.delete(path)
    said = everything.said() + stored + await dump(cluster, hub)
    assert path in said  # the ear was open
    assert '"event":"request"' in said
    assert "hub_http_request_duration_seconds_count" in said
    assert [form for secret in canaries(kind, good, wrong) for form in spellings(secret) if form in said] == []


def canaries(kind: Kind, *secrets: dict[str, Any]) -> set[str]:
    """What can be searched for: some servers have a password that is the name of its user, too."""
    open_to_all = msgspec.json.encode(kind.config).decode()
    return {value for given in secrets for value in given.values() if value and value not in open_to_all}


async def ask_wrongly(hub: Hub, kind: Kind, path: str, body: dict[str, Any]) -> None:
    """The secret where no secret belongs, so that the answer has to name what is wrong without repeating it."""
    for name, secret in kind.secrets.items():
        await hub.admin.post(SOURCES, json=body | {"name": "", "config": kind.config | {"zz": secret}})
        await hub.admin.post(SOURCES, json=body | {"secrets": {name: [secret], "zz": secret}})
        await hub.admin.post(SOURCES, json=body | {"secrets": {name: {"ref": "env:PATH", "zz": secret}}})
        await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": [body, body | {"secrets": secret}, secret]})
        await hub.admin.patch(path, json={"secrets": {name: secret, "unknown": secret}})
        await hub.admin.patch(path, json={"config": secret})


async def read_everything(hub: Hub, path: str) -> None:
    for below in ("", "/tests", "/objects"):
        assert (await hub.admin.get(path + below)).status_code == 200
    for listing in ("jobs", "audit-events", "data-sources"):
        assert (await hub.admin.get(f"/api/v1/{listing}?limit=200")).status_code == 200
    assert (await hub.admin.get("/metrics")).status_code == 200
    assert (await hub.admin.get("/health/ready")).status_code == 200


async def test_a_secret_that_the_source_sends_back_is_not_shown(hub: Hub, cluster: EmbeddedPostgres) -> None:
    """A source is not trusted with what it says: it knows the secret, the reader of a preview does not."""
    secret = f"echoed-{uuid4().hex}"

    def echo(connection: Any) -> None:
        connection.recv(65_536)
        body = f'[{{"{secret}": 1, "who": "Bearer {secret}", "deep": [{{"a": "{secret}"}}]}}]'.encode()
        head = (
            f"HTTP/1.1 200 OK\r\nServer: {secret}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)

    with scripted_server(echo) as port:
        patience = {"connect_timeout_s": 60, "read_timeout_s": 60}
        config = {"base_url": f"http://127.0.0.1:{port}", "auth": "bearer", "resources": [{"name": "a", "path": "a"}]}
        made = await registered(hub, type="rest", config=config | patience, secrets={"token": secret})
        path = f"{SOURCES}/{made['id']}"
        answers = [
            await hub.admin.post(f"{path}/test"),
            await hub.admin.post(
                f"{SOURCES}/test", json={"type": "rest", "config": config, "secrets": {"token": secret}}
            ),
            await hub.admin.post(f"{path}/preview", json={"object": "a"}),
            await hub.admin.post(f"{path}/preview", json={"object": "a"}, headers={"Accept": "text/csv"}),
        ]
        job = await discovered(hub, path)
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200]
    assert job["status"] == "succeeded"
    assert "Bearer" in answers[2].text
    said = (
        " ".join(answer.text for answer in answers)
        + await dump(cluster, hub)
        + (await hub.admin.get(f"{path}/objects")).text
    )
    assert secret not in said


async def test_a_secret_in_the_address_to_which_the_source_redirects_is_not_shown(
    hub: Hub, cluster: EmbeddedPostgres
) -> None:
    secret = f"Led-{uuid4().hex}"

    def redirect(connection: Any) -> None:
        connection.recv(65_536)
        head = f"HTTP/1.1 302 Found\r\nLocation: http://{secret}.invalid/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())

    with scripted_server(redirect) as port:
        patience = {"connect_timeout_s": 60, "read_timeout_s": 60}
        config = {"base_url": f"http://127.0.0.1:{port}", "auth": "bearer", "resources": [{"name": "a", "path": "a"}]}
        made = await registered(hub, type="rest", config=config | patience, secrets={"token": secret})
        path = f"{SOURCES}/{made['id']}"
        tested, preview = (
            await hub.admin.post(f"{path}/test"),
            await hub.admin.post(f"{path}/preview", json={"object": "a"}),
        )
        job = await discovered(hub, path)
    assert preview.json()["code"] == f"source_{job['error']['code']}" == "source_name_not_resolved"
    said = tested.text + preview.text + str(job) + await dump(cluster, hub)
    assert secret.lower() not in said.lower()


@pytest.mark.parametrize("secret", ["424242", "connect", "configuration", "passed", "nfoobar", "u0000ff"])
async def test_a_secret_that_looks_like_a_part_of_the_answer_spoils_none(hub: Hub, secret: str) -> None:
    """Numbers, fixed words and the escapes of JSON are no texts of the source."""

    def answer(connection: Any) -> None:
        heard = b""
        while b"\r\n\r\n" not in heard:  # a head may come in parts, and a connection that is only tried brings none
            if not (part := connection.recv(65_536)):
                return
            heard += part
        body = msgspec.json.encode([{"n": 1_424_242, "t": "\nfoobar", "u": "\x00ff", "s": f"is {secret}!"}])
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)

    with scripted_server(answer) as port:
        patience = {"connect_timeout_s": 60, "read_timeout_s": 60}
        config = {"base_url": f"http://127.0.0.1:{port}", "auth": "bearer", "resources": [{"name": "a", "path": "a"}]}
        made = await registered(hub, type="rest", config=config | patience, secrets={"token": secret})
        path = f"{SOURCES}/{made['id']}"
        tested = await hub.admin.post(f"{path}/test")
        preview = await hub.admin.post(f"{path}/preview", json={"object": "a"})
    assert (tested.status_code, tested.json().get("status")) == (200, "passed"), tested.text
    assert preview.status_code == 200, preview.text
    (row,) = preview.json()["rows"]
    assert 1_424_242 in row
    assert "\nfoobar" in row
    assert "is <hidden>!" in row


def test_the_log_shows_no_parameters_of_a_failed_statement(hub: Hub) -> None:
    assert hub.parts.engine.sync_engine.hide_parameters


async def test_request_lines_hold_no_query(hub: Hub) -> None:
    stream = io.BytesIO()
    scope = {
        "method": "GET",
        "path": "/a\r\nb",
        "query_string": b"token=canary",
        "headers": [(b"authorization", b"canary")],
    }
    exchange = Exchange(scope)
    exchange.status = 200
    log = RequestLog("json", "info", stream)
    log(exchange, 0.0)
    log.flush()
    assert b"canary" not in stream.getvalue()
    assert stream.getvalue().count(b"\n") == 1
