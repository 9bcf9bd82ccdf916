"""Secrets of data sources: sealed to their place, written and used, shown nowhere, and sent only where they were given for."""

import base64
import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from app.asgi import create_app
from app.connectors import registry
from app.core.embedded import EmbeddedPostgres
from app.core.exchange import Exchange
from app.core.frame import Frame, FrameConfig
from app.core.logging import JsonFormatter, RequestLog
from app.core.sealing import KeyRing, SealingError
from app.domain.sources.secrets import MASKS
from app.runtime import prepare_parts
from tests.conftest import Hub
from tests.connectors.contract import CANARY as FIXED_CANARY
from tests.connectors.kinds.s3 import BUCKET, ObjectStore
from tests.connectors.servers import scripted_server
from tests.domain.conftest import Records
from tests.domain.sources import (
    NOWHERE,
    SOURCES,
    Shop,
    discovered,
    faults,
    open_shop,
    post_source,
    registered,
    registered_shop,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def shop(cluster: EmbeddedPostgres) -> Shop:
    return await open_shop(cluster)


# --- sealed ---


async def sealed_row(records: Records, source_id: str, name: str = "password") -> asyncpg.Record:
    (row,) = await records.run(
        "SELECT * FROM data_source_secrets WHERE data_source_id = $1::uuid AND name = $2", source_id, name
    )
    return row


async def test_a_secret_is_sealed_to_its_tenant_row_and_field(hub: Hub, records: Records) -> None:
    made = await registered(hub, secrets={"password": "sealed-canary", "client_key": "sealed-key"})
    row, ring = await sealed_row(records, made["id"]), hub.parts.key_ring
    place = {"tenant_id": row["tenant_id"], "row_id": UUID(made["id"]), "field": "data_sources.secrets.password"}
    assert ring.open(row["sealed"], **place) == b"sealed-canary"
    assert b"canary" not in row["sealed"]
    assert row["key_id"] == ring.current_id
    for elsewhere in ({"tenant_id": uuid4()}, {"row_id": uuid4()}, {"field": "data_sources.secrets.client_key"}):
        with pytest.raises(SealingError):
            ring.open(row["sealed"], **(place | elsewhere))


async def test_equal_secrets_are_sealed_differently(hub: Hub, records: Records) -> None:
    rows = [await sealed_row(records, (await registered(hub, secrets={"password": "same"}))["id"]) for _ in range(2)]
    assert rows[0]["sealed"] != rows[1]["sealed"]


async def test_a_sealed_value_moved_to_another_source_does_not_open(hub: Hub, records: Records, shop: Shop) -> None:
    """Whoever can write rows, but has no key, cannot make the hub send a secret elsewhere."""
    theirs = (await registered_shop(hub, shop)).rpartition("/")[2]
    mine = await registered(hub, secrets={"password": "mine"})
    stolen = (await sealed_row(records, theirs))["sealed"]
    await records.run("UPDATE data_source_secrets SET sealed = $1 WHERE data_source_id = $2::uuid", stolen, mine["id"])
    answer = await hub.admin.post(f"{SOURCES}/{mine['id']}/test")
    assert (answer.status_code, answer.json()["code"]) == (409, "secret_unreadable")


# --- versions, clearing, masks ---


async def test_each_time_a_secret_is_given_counts(hub: Hub) -> None:
    made = await registered(hub, secrets={"password": "one"})
    path = f"{SOURCES}/{made['id']}"
    again = (await hub.admin.patch(path, json={"secrets": {"password": "one"}})).json()
    assert (again["version"], again["secrets"]["password"]["version"]) == (2, 2)
    assert again["secrets"]["password"]["updated_at"] > made["secrets"]["password"]["updated_at"]
    kept = (await hub.admin.patch(path, json={"description": "x"})).json()
    assert kept["secrets"] == again["secrets"]
    more = (await hub.admin.patch(path, json={"secrets": {"client_key": "k"}})).json()
    assert more["secrets"]["password"] == again["secrets"]["password"]
    assert more["secrets"]["client_key"]["version"] == 1


async def test_null_clears_a_secret(hub: Hub, records: Records) -> None:
    made = await registered(hub, secrets={"password": "one", "client_key": "two"})
    path = f"{SOURCES}/{made['id']}"
    cleared = (await hub.admin.patch(path, json={"secrets": {"password": None}})).json()
    assert (cleared["version"], list(cleared["secrets"])) == (2, ["client_key"])
    emptied = (await hub.admin.patch(path, json={"secrets": None})).json()
    assert emptied["secrets"] == {}
    count = "SELECT count(*) FROM data_source_secrets WHERE data_source_id = $1::uuid"
    assert await records.one(count, made["id"]) == 0


async def test_a_secret_that_the_config_needs_cannot_be_cleared(hub: Hub) -> None:
    config = {"base_url": "http://nowhere.invalid", "auth": "bearer"}
    made = await registered(hub, type="rest", config=config, secrets={"token": "t0ken"})
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"secrets": {"token": None}})
    assert (answer.status_code, faults(answer)) == (400, {"secrets.token": "invalid"})


MASKED = [
    "***",
    "********",
    "•" * 8,
    "●●●●",
    "xxxxxx",
    "XXX",
    "......",
    "<hidden>",
    "[REDACTED]",
    "(secret)",
    "**redacted**",
]
REAL = [
    "xxx-my-real-xxx",
    "x-x-x",
    "a",
    "*",
    "**",
    "xx",
    "***a***",
    "•secret•",
    "hidden",
    "redacted",
    "...a",
    "x.x.x",
    "-----BEGIN KEY-----",
]


@pytest.mark.parametrize("mask", MASKED)
async def test_a_mask_is_refused_as_a_secret(hub: Hub, mask: str) -> None:
    answer = await post_source(hub.admin, secrets={"password": mask})
    assert (answer.status_code, faults(answer)) == (400, {"secrets.password": "masked_secret"})
    unsaved = await hub.admin.post(
        f"{SOURCES}/test", json={"type": "postgresql", "config": NOWHERE, "secrets": {"password": mask}}
    )
    assert (unsaved.status_code, faults(unsaved)) == (400, {"secrets.password": "masked_secret"})


async def test_a_mask_does_not_replace_a_stored_secret(hub: Hub) -> None:
    made = await registered(hub, secrets={"password": "one"})
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"secrets": {"password": "********"}})
    assert (answer.status_code, faults(answer)) == (400, {"secrets.password": "masked_secret"})
    assert (await hub.admin.get(f"{SOURCES}/{made['id']}")).json()["secrets"] == made["secrets"]


@pytest.mark.parametrize("secret", REAL)
def test_a_secret_that_only_looks_a_little_like_a_mask_is_none(secret: str) -> None:
    assert not MASKS.fullmatch(secret)


# --- sent only where they were given for ---

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
BASES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "postgresql": (
        {
            "host": "db.invalid", "port": 5433, "database": "shop", "username": "reader", "tls_mode": "verify-full",
            "ca_certificate": PEM, "client_certificate": PEM,
        },
        {"password": "pw", "client_key": "key"},
    ),
    "rest": (
        {
            "base_url": "https://api.invalid/v1", "openapi_url": "https://api.invalid/o.json", "verify_tls": False,
            "auth": "oauth2_client_credentials", "token_url": "https://api.invalid/token", "client_id": "me",
            "username": "me", "api_key_name": "X-Key", "ca_certificate": PEM,
        },
        {"client_secret": "cs", "password": "pw", "api_key": "k", "token": "t"},
    ),
    "s3": (
        {
            "bucket": "shop-data", "region": "eu-west-1", "endpoint_url": "https://s3.invalid", "path_style": False,
            "access_key_id": "AK", "verify_tls": False, "ca_certificate": PEM,
        },
        {"secret_access_key": "sk", "session_token": "st"},
    ),
}  # fmt: skip
"""Of each type a config in which every destination field has another value than its default, and all the secrets."""

MOVES: dict[str, list[Any]] = {
    "host": ["evil.invalid", "DB.invalid", "db.invalid.", "ｄb.invalid"],
    "port": [5434, None],
    "database": ["other"],
    "username": ["admin"],
    "tls_mode": ["verify-ca"],
    "ca_certificate": [PEM.replace("A", "B"), None],
    "client_certificate": [PEM.replace("A", "B"), None],
    "base_url": [
        "https://evil.invalid/v1",
        "http://api.invalid/v1",
        "https://api.invalid:8443/v1",
        "https://API.invalid/v1",
    ],
    "openapi_url": ["https://evil.invalid/o.json", None],
    "auth": ["bearer", None],
    "api_key_name": ["X-Other", None],
    "token_url": ["https://evil.invalid/token"],
    "client_id": ["you"],
    "verify_tls": [True, None],
    "bucket": ["other-data"],
    "region": ["us-west-2", None],
    "endpoint_url": ["https://evil.invalid", "http://s3.invalid", None],
    "path_style": [True, None],
    "access_key_id": ["AKEVIL"],
}


def every_move() -> Iterator[tuple[str, str, Any]]:
    for connector in registry.all():
        for field in sorted(connector.destination_fields):
            for value in MOVES.get(field, [None]):
                yield connector.type, field, value


def test_every_destination_field_has_a_move() -> None:
    for connector in registry.all():
        assert connector.type in BASES, f"{connector.type} needs a base config here"
        assert connector.destination_fields <= set(MOVES) & set(BASES[connector.type][0])


@pytest.fixture(scope="module")
async def bases(hub: Hub) -> dict[str, dict[str, Any]]:
    return {
        name: await registered(hub, type=name, config=config, secrets=secrets)
        for name, (config, secrets) in BASES.items()
    }


@pytest.mark.parametrize(("type_name", "field", "value"), list(every_move()))
async def test_a_stored_secret_goes_nowhere_else(
    hub: Hub, bases: dict[str, dict[str, Any]], type_name: str, field: str, value: Any
) -> None:
    made, secrets = bases[type_name], BASES[type_name][1]
    path = f"{SOURCES}/{made['id']}"
    answer = await hub.admin.patch(path, json={"config": {field: value}})
    assert (answer.status_code, answer.json()["code"]) == (409, "secret_reentry_required"), answer.text
    assert faults(answer) == {f"secrets.{name}": "secret_reentry_required" for name in secrets}
    assert field in answer.text
    # Nor does a part of the secrets do, and nothing was changed.
    first = next(iter(secrets))
    partly = await hub.admin.patch(path, json={"config": {field: value}, "secrets": {first: "new"}})
    assert partly.status_code == 409
    assert f"secrets.{first}" not in faults(partly)
    assert (await hub.admin.get(path)).json() == made


@pytest.mark.parametrize("value", ["disable", "prefer", None])
async def test_a_stored_secret_is_not_sent_less_safely(hub: Hub, value: str | None) -> None:
    made = await registered(hub, config=NOWHERE | {"tls_mode": "require"}, secrets={"password": "pw"})
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"config": {"tls_mode": value}})
    assert (answer.status_code, answer.json()["code"]) == (409, "secret_reentry_required")


async def test_a_setting_that_its_type_has_got_since_moves_nothing(hub: Hub, records: Records) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    await records.run("UPDATE data_sources SET config = config - 'tls_mode' WHERE id = $1::uuid", made["id"])
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"config": {"connect_timeout_s": 2}})
    assert (answer.status_code, answer.json()["config"]["tls_mode"]) == (200, "prefer")


async def test_a_move_with_all_secrets_given_again_passes(hub: Hub) -> None:
    config, secrets = BASES["postgresql"]
    made = await registered(hub, config=config, secrets=secrets)
    change = {"config": {"host": "new.invalid"}, "secrets": {"password": "new", "client_key": "new"}}
    moved = await hub.admin.patch(f"{SOURCES}/{made['id']}", json=change)
    assert (moved.status_code, moved.json()["config"]["host"]) == (200, "new.invalid")


async def test_a_move_passes_where_the_secrets_are_cleared_or_there_were_none(hub: Hub) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    path = f"{SOURCES}/{made['id']}"
    cleared = await hub.admin.patch(path, json={"config": {"host": "a.invalid"}, "secrets": {"password": None}})
    assert (cleared.status_code, cleared.json()["secrets"]) == (200, {})
    assert (await hub.admin.patch(path, json={"config": {"host": "b.invalid"}})).status_code == 200


async def test_a_change_of_other_settings_asks_for_nothing(hub: Hub) -> None:
    change = {"config": {"connect_timeout_s": 2, "include_schemas": ["a"], "host": "db.invalid", "port": 5433}}
    made = await registered(hub, config=BASES["postgresql"][0], secrets=BASES["postgresql"][1])
    assert (await hub.admin.patch(f"{SOURCES}/{made['id']}", json=change)).status_code == 200


# --- a lost key ---


@asynccontextmanager
async def without_its_keys(hub: Hub) -> AsyncIterator[Hub]:
    """A worker of the same hub, started with another key ring."""
    parts = prepare_parts(hub.settings, hub.url)
    parts.key_ring = KeyRing.parse(KeyRing.generate("k2"))
    litestar = create_app(parts)
    async with litestar.lifespan():
        frame = Frame(litestar, FrameConfig(timeout_s=30), observe=lambda exchange: None)
        other = replace(hub, parts=parts, app=frame)
        other.admin = other.client(hub.admin.headers["authorization"].removeprefix("Bearer "))
        yield other


async def test_a_lost_key_is_a_clear_answer(hub: Hub, shop: Shop) -> None:
    path = await registered_shop(hub, shop)
    async with without_its_keys(hub) as other:
        for call in (
            other.admin.post(f"{path}/test"),
            other.admin.post(f"{path}/preview", json={"object": "public.orders"}),
            other.admin.patch(path, json={"config": {"connect_timeout_s": 2}}),
        ):
            answer = await call
            assert (answer.status_code, answer.json()["code"]) == (409, "secret_unreadable"), answer.text
            assert faults(answer) == {"secrets.password": "secret_unreadable"}
        job = await discovered(other, path)
        assert (job["status"], job["error"]["code"]) == ("failed", "secret_unreadable")


async def test_what_hangs_on_no_secret_works_without_the_key(hub: Hub) -> None:
    path = f"{SOURCES}/{(await registered(hub, secrets={'password': 'pw'}))['id']}"
    async with without_its_keys(hub) as other:
        assert (await other.admin.get(path)).json()["secrets"]["password"]["set"] is True
        assert (await other.admin.patch(path, json={"description": "x"})).status_code == 200
        assert (await other.admin.patch(path, json={"secrets": {"password": "again"}})).status_code == 200
        assert (await other.admin.post(f"{path}/test")).status_code == 200
        assert (await other.admin.delete(path)).status_code == 204


# --- shown nowhere ---


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
    monkeypatch.setattr(hub.app, "_observe", lambda exchange: (write(exchange, 0.0), write.flush()))
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
    return {secret, secret.encode().hex(), quote(secret, safe=""), base64.b64encode(secret.encode()).decode()}


Live = tuple[str, dict[str, Any], dict[str, str], dict[str, str], str]
"""Type, config, good secrets, wrong secrets, an object."""


@pytest.fixture(params=[connector.type for connector in registry.all()])
def live(request: pytest.FixtureRequest) -> Live:
    """A source of each type. Asked for before `everything`, which would hear how its server is set up."""
    name = str(request.param)
    if name == "postgresql":
        shop: Shop = request.getfixturevalue("shop")
        return name, shop.config, {"password": shop.password}, {"password": f"wrong-{uuid4().hex}"}, "public.orders"
    if name == "rest":
        port = request.getfixturevalue("shop_api")
        config = {"base_url": f"http://127.0.0.1:{port}", "auth": "bearer"}
        return name, config, {"token": f"{FIXED_CANARY}-rest"}, {"token": f"wrong-{uuid4().hex}"}, "orders"
    assert name == "s3", f"{name} needs a source here"
    store: ObjectStore = request.getfixturevalue("object_store")
    config = {"bucket": BUCKET, "endpoint_url": f"http://127.0.0.1:{store.port}", "access_key_id": store.access_key_id}
    good, wrong = store.secret_access_key, uuid4().hex
    return name, config, {"secret_access_key": good}, {"secret_access_key": wrong}, '"customers.csv"'


async def test_a_secret_appears_nowhere(
    hub: Hub, cluster: EmbeddedPostgres, live: Live, everything: Everything
) -> None:
    name, config, good, wrong, preview = live
    unsaved = await hub.admin.post(f"{SOURCES}/test", json={"type": name, "config": config, "secrets": wrong})
    assert unsaved.json()["status"] == "failed"
    body = {"name": uuid4().hex, "type": name, "config": config, "secrets": good}
    headers = {"Idempotency-Key": uuid4().hex}
    path = (await hub.admin.post(SOURCES, json=body, headers=headers)).headers["location"]
    await hub.admin.post(SOURCES, json=body, headers=headers)
    await hub.admin.post(SOURCES, json=body)  # the name is taken
    await hub.admin.post(SOURCES, json=body | {"name": "", "config": config | {"zz": next(iter(good.values()))}})
    await hub.admin.patch(path, json={"secrets": wrong})
    await hub.admin.patch(path, json={"secrets": {**wrong, "unknown": next(iter(good.values()))}})
    assert (await hub.admin.post(f"{path}/test")).json()["status"] == "failed"
    assert (await discovered(hub, path))["status"] == (
        "succeeded" if name == "rest" else "failed"
    )  # its document is open
    assert (await hub.admin.post(f"{path}/preview", json={"object": preview})).status_code == 409
    await hub.admin.patch(path, json={"secrets": good})
    passed = await hub.admin.post(f"{path}/test")
    assert passed.json()["status"] == "passed", passed.text
    assert (await discovered(hub, path))["status"] == "succeeded"
    assert (await hub.admin.post(f"{path}/preview", json={"object": preview})).status_code == 200
    assert (await hub.admin.post(f"{path}/preview", json={"object": "nope"})).status_code == 404
    for below in ("", "/tests", "/objects"):
        assert (await hub.admin.get(path + below)).status_code == 200
    for listing in ("jobs", "audit-events", "data-sources"):
        await hub.admin.get(f"/api/v1/{listing}?limit=200")
    stored = await dump(cluster, hub)
    await hub.admin.delete(path)
    said = everything.said() + stored + await dump(cluster, hub)
    assert path in said  # the ear was open
    assert '"event":"request"' in said
    found = [form for secret in (*good.values(), *wrong.values()) for form in spellings(secret) if form in said]
    assert found == []


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
        config = {"base_url": f"http://127.0.0.1:{port}", "auth": "bearer", "resources": [{"name": "a", "path": "a"}]}
        path = f"{SOURCES}/{(await registered(hub, type='rest', config=config, secrets={'token': secret}))['id']}"
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
