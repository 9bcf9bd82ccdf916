"""Tests of connections: what they find out, what they leave behind, and when the hub dials at all."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.embedded import EmbeddedPostgres
from tests.conftest import Hub, running_hub
from tests.connectors.servers.starting import say_nothing, scripted_server
from tests.domain.conftest import Records
from tests.domain.sources import NOWHERE, SOURCES, Shop, faults, open_shop, post_source, registered, registered_shop

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def shop(cluster: EmbeddedPostgres) -> Shop:
    return await open_shop(cluster)


async def unsaved(hub: Hub, config: dict[str, Any], password: str | None = None, type_name: str = "postgresql") -> Any:
    secrets = {"password": password} if password else {}
    answer = await hub.admin.post(f"{SOURCES}/test", json={"type": type_name, "config": config, "secrets": secrets})
    assert answer.status_code == 200, answer.text
    return answer.json()


def failed_step(result: Any) -> tuple[str, str]:
    """The name and code of the one step that failed; the ones behind it were not reached."""
    steps = result["steps"]
    assert [step["name"] for step in steps] == ["resolve", "connect", "tls", "authenticate", "list"]
    (place,) = [place for place, step in enumerate(steps) if step["status"] == "failed"]
    assert {step["status"] for step in steps[:place]} <= {"passed", "skipped"}
    assert {step["status"] for step in steps[place + 1 :]} <= {"skipped"}
    return steps[place]["name"], steps[place]["code"]


# --- what they find out ---


async def test_a_good_connection_passes_unsaved_and_saved(hub: Hub, shop: Shop) -> None:
    for result in (
        await unsaved(hub, shop.config, shop.password),
        (await hub.admin.post(f"{await registered_shop(hub, shop)}/test")).json(),
    ):
        assert set(result) == {"status", "steps", "server", "duration_ms"}
        assert result["status"] == "passed"
        assert result["server"]["product"] == "PostgreSQL"
        assert {step["name"]: step["status"] for step in result["steps"]}["list"] == "passed"
        assert all(set(step) >= {"name", "status", "code", "message", "duration_ms"} for step in result["steps"])


@pytest.mark.parametrize(
    ("change", "step", "code"),
    [
        ({"password": "not it"}, "authenticate", "authentication_failed"),
        ({"database": "nowhere"}, "list", "not_found"),
        ({"port": "closed"}, "connect", "connection_refused"),
        ({"port": "silent", "connect_timeout_s": 0.5}, "connect", "timeout"),
        ({"host": "nowhere.invalid"}, "resolve", "name_not_resolved"),
        ({"host": "169.254.169.254"}, "resolve", "egress_refused"),
        ({"host": "10.0.0.1"}, "resolve", "egress_refused"),
        ({"host": "[fe80::1]"}, "resolve", "egress_refused"),
        ({"host": "::ffff:169.254.169.254"}, "resolve", "egress_refused"),
        ({"host": "0.0.0.0"}, "resolve", "egress_refused"),
        ({"tls_mode": "require"}, "tls", "tls_unavailable"),
    ],
)
async def test_a_failure_names_its_step(
    hub: Hub,
    shop: Shop,
    closed_port: int,
    silent_port: int,
    change: dict[str, Any],
    step: str,
    code: str,
) -> None:
    change = dict(change)
    password = change.pop("password", shop.password)
    change |= {"port": {"closed": closed_port, "silent": silent_port}[change["port"]]} if "port" in change else {}
    result = await unsaved(hub, shop.config | change, password)
    assert result["status"] == "failed"
    assert failed_step(result) in {(step, code), ("resolve", "invalid_configuration")}
    assert shop.password not in str(result)


async def test_an_unsaved_test_is_validated_like_a_source(hub: Hub) -> None:
    body = {"type": "postgresql", "config": {"host": 5}, "secrets": {"pin": "x"}, "name": "x"}
    answer = await hub.admin.post(f"{SOURCES}/test", json=body)
    assert answer.status_code == 400
    assert set(faults(answer)) == {"config.host", "config.database", "config.username", "secrets.pin", "name"}


async def test_an_unsaved_test_leaves_one_audit_row_and_no_history(hub: Hub, records: Records) -> None:
    before = await records.one("SELECT count(*) FROM data_source_tests")
    answer = await hub.admin.post(f"{SOURCES}/test", json={"type": "postgresql", "config": NOWHERE})
    (row,) = await records.audit(answer)
    ended = {"type": "postgresql", "status": "failed", "step": "resolve", "code": "name_not_resolved"}
    assert (row["action"], row["after"]) == ("data_source.test_unsaved", ended)
    assert await records.one("SELECT count(*) FROM data_source_tests") == before


# --- what they leave behind ---


async def test_a_test_goes_into_the_history_and_counts_no_version(hub: Hub, shop: Shop, records: Records) -> None:
    path = await registered_shop(hub, shop)
    before = (await hub.admin.get(path)).json()
    assert (before["status"], before["status_since"], before["last_tested_at"]) == ("untested", None, None)
    result = await hub.admin.post(f"{path}/test")
    after = (await hub.admin.get(path)).json()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"status", "status_since", "last_tested_at"}
    (kept,) = (await hub.admin.get(f"{path}/tests")).json()["items"]
    assert {name: kept[name] for name in result.json()} == result.json()
    assert (kept["created_at"], kept["created_by"]) == (after["last_tested_at"], after["created_by"])
    use, row = await records.audit(result)
    assert (use["action"], use["detail"]) == ("secret.use", "test: password v1")
    assert (row["action"], str(row["resource_id"])) == ("data_source.test", after["id"])
    assert row["after"] == {"status": "passed", "test_id": kept["id"]}


async def test_an_event_tells_of_a_changed_status_alone(hub: Hub, shop: Shop, records: Records) -> None:
    path = await registered_shop(hub, shop)
    _, since = await records.mark()
    moments = []
    for change in (None, None, {"secrets": {"password": "wrong"}}, None, {"secrets": {"password": shop.password}}):
        if change:
            await hub.admin.patch(path, json=change)
        await hub.admin.post(f"{path}/test")
        source = (await hub.admin.get(path)).json()
        moments.append((source["status"], source["status_since"]))
    events = [event for event in await records.events(since) if event["type"].endswith(".status_changed")]
    told = [(event["data"]["before"], event["data"]["status"]) for event in events]
    assert told == [("untested", "passed"), ("passed", "failed"), ("failed", "passed")]
    assert [status for status, _ in moments] == ["passed", "passed", "failed", "failed", "passed"]
    since_of = [moment for _, moment in moments]
    assert since_of[0] == since_of[1] < since_of[2] == since_of[3] < since_of[4]


async def test_the_history_comes_newest_first_and_by_status(hub: Hub, shop: Shop) -> None:
    path = await registered_shop(hub, shop)
    for password in (shop.password, "wrong", shop.password):
        await hub.admin.patch(path, json={"secrets": {"password": password}})
        await hub.admin.post(f"{path}/test")
    page = (await hub.admin.get(f"{path}/tests?count=exact&limit=2")).json()
    rest = (await hub.admin.get(f"{path}/tests?limit=2&cursor={page['next_cursor']}")).json()
    assert [item["status"] for item in page["items"] + rest["items"]] == ["passed", "failed", "passed"]
    assert (page["total"], rest["next_cursor"]) == (3, None)
    assert len((await hub.admin.get(f"{path}/tests?status=failed")).json()["items"]) == 1
    assert (await hub.admin.get(f"{path}/tests?status=untested")).status_code == 400


async def test_a_source_deleted_while_its_test_runs_is_a_404(hub: Hub, records: Records) -> None:
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    def linger(connection: socket.socket) -> None:
        loop.call_soon_threadsafe(arrived.set)
        say_nothing(connection)

    with scripted_server(linger) as port:
        config = NOWHERE | {"host": "127.0.0.1", "port": port, "connect_timeout_s": 1}
        path = f"{SOURCES}/{(await registered(hub, config=config))['id']}"
        running = asyncio.create_task(hub.admin.post(f"{path}/test"))
        await asyncio.wait_for(arrived.wait(), 20)
        assert (await hub.admin.delete(path)).status_code == 204
        answer = await running
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert await records.audit(answer) == []


# --- caps ---


@pytest.mark.slow
async def test_too_many_runs_are_refused_with_a_time_to_come_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    def linger(connection: socket.socket) -> None:
        loop.call_soon_threadsafe(arrived.release)
        say_nothing(connection)

    for limits, wanted in (((8, 1), (429, "too_many_connector_runs")), ((1, 8), (503, "connectors_busy"))):
        sandbox = ConnectorSandbox(max_runs=limits[0], max_runs_per_tenant=limits[1])
        monkeypatch.setattr(hub.parts, "sandbox", sandbox)
        with scripted_server(linger) as port:
            config = NOWHERE | {"host": "127.0.0.1", "port": port, "connect_timeout_s": 3}
            body = {"type": "postgresql", "config": config}
            first = asyncio.create_task(hub.admin.post(f"{SOURCES}/test", json=body))
            await asyncio.wait_for(arrived.acquire(), 20)
            refused = await hub.admin.post(f"{SOURCES}/test", json=body)
            assert (refused.status_code, refused.json()["code"]) == wanted
            assert int(refused.headers["retry-after"]) >= 1
            path = f"{SOURCES}/{(await registered(hub, config=config))['id']}"
            for call in (hub.admin.post(f"{path}/test"), hub.admin.post(f"{path}/preview", json={"object": "a"})):
                assert (await call).status_code == wanted[0]
            assert (await hub.admin.get(path)).json()["status"] == "untested"
            assert (await first).status_code == 200
        await sandbox.close()


# --- where the hub may go ---


@pytest.fixture(scope="module")
async def walled(
    cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hub]:
    """A development hub, which may dial loopback, whose operator says otherwise."""
    rules = {"HUB_EGRESS_DENY": "127.0.0.0/8,localhost", "HUB_EGRESS_ALLOW": "127.0.0.0/8,10.0.0.0/8"}
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("walled"), **rules) as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.0.0.1", "::ffff:127.0.0.1"])
async def test_what_is_denied_is_denied_whatever_is_allowed(walled: Hub, host: str) -> None:
    with counting_listener() as (port, dialled):
        for type_name, config in (
            ("postgresql", NOWHERE | {"host": host, "port": port}),
            ("rest", {"base_url": f"http://{f'[{host}]' if ':' in host else host}:{port}", "connect_timeout_s": 1}),
        ):
            answer = await walled.admin.post(f"{SOURCES}/test", json={"type": type_name, "config": config})
            if answer.status_code == 400:
                continue
            assert answer.json()["status"] == "failed"
            assert answer.json()["steps"][0]["status"] == "failed", answer.text
        assert dialled() == 0


@contextmanager
def counting_listener() -> Iterator[tuple[int, Any]]:
    """A port, and how many connections came in: none is accepted, so each of them waits to be counted."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=50)
    listener.setblocking(False)

    def dialled() -> int:
        count = 0
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1

    try:
        yield int(listener.getsockname()[1]), dialled
    finally:
        listener.close()


async def test_only_a_test_dials(hub: Hub) -> None:
    with counting_listener() as (port, dialled):
        config = NOWHERE | {"host": "127.0.0.1", "port": port, "connect_timeout_s": 0.3}
        answer = await post_source(hub.admin, config=config, secrets={"password": "pw"}, name=uuid4().hex)
        path = answer.headers["location"]
        await hub.admin.patch(path, json={"config": {"connect_timeout_s": 0.2}, "description": "x"})
        await hub.admin.get(f"{SOURCES}?q=x&count=exact")
        for below in ("", "/tests", "/objects"):
            assert (await hub.admin.get(path + below)).status_code == 200
        assert dialled() == 0
        assert (await hub.admin.post(f"{path}/test")).json()["status"] == "failed"
        assert dialled() >= 1
        await hub.admin.delete(path)
        assert dialled() == 0
