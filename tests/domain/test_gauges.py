"""What a scrape tells of pools, queues and jobs."""

import asyncio
import re
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
import yaml

from app.core.errors import Unavailable
from app.domain.events.sequencing import give_positions
from app.domain.health import gauges
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, registered
from tests.readme_tables import README

pytestmark = pytest.mark.anyio


async def scraped(hub: Hub) -> dict[str, float]:
    answer = await hub.admin.get("/metrics")
    assert answer.status_code == 200, answer.text
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def test_pools_say_how_many_places_are_taken_and_how_many_wait(hub: Hub) -> None:
    size = hub.settings.pool_size
    async with AsyncExitStack() as held:
        for _ in range(size - 1):
            await held.enter_async_context(hub.parts.engine.connect())
        await held.enter_async_context(hub.parts.reads.connection(None, None))
        found = await scraped(hub)
    assert found['hub_database_places{pool="changes",role="server",state="taken"}'] == size - 1
    assert found['hub_database_places{pool="changes",role="server",state="all"}'] == size
    assert found['hub_database_places{pool="reads",role="server",state="taken"}'] == 1
    assert found['hub_database_places{pool="reads",role="server",state="waiting"}'] == 0
    assert found["hub_password_checks_waiting"] == 0
    assert found["hub_streams_open"] == 0
    assert "hub_principals_cached" in found


async def test_jobs_that_wait_are_counted_by_kind_with_the_age_of_the_oldest(hub: Hub) -> None:
    for _ in range(2):
        await hub.admin.post(f"{SOURCES}/{(await registered(hub))['id']}/discover")
    await asyncio.sleep(0.05)
    found = await scraped(hub)
    labels = '{kind="data_source.discover",status="queued"}'
    assert found[f"hub_jobs{labels}"] == 2
    assert 0.05 <= found[f"hub_oldest_job_age_seconds{labels}"] < 60


async def test_a_scrape_without_a_database_tells_what_the_process_knows(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.parts.reads, "connection", _none_to_be_had)
    found = await scraped(hub)
    assert "hub_principals_cached" in found
    assert found["hub_database_up"] == 0
    assert not [name for name in found if name.startswith("hub_jobs")]


def _none_to_be_had(*_: object) -> None:
    raise Unavailable(code="database_busy")


async def test_a_figure_that_cannot_be_had_takes_no_other_along(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    (_, of_jobs), *others = gauges.FIGURES
    monkeypatch.setattr(gauges, "FIGURES", (("SELECT FROM nothing_of_that_name", of_jobs), *others))
    found = await scraped(hub)
    assert found["hub_database_up"] == 1
    assert "hub_data_sources_failing" in found
    assert not [name for name in found if name.startswith("hub_jobs")]


async def test_what_a_process_is_made_of(hub: Hub) -> None:
    found = await scraped(hub)
    assert found['hub_processes{role="server"}'] == 1
    assert found['hub_resident_memory_bytes{role="server"}'] > 10_000_000
    assert found['hub_cpu_seconds_total{role="server"}'] > 0
    assert found['hub_connector_runs_under_way{role="server"}'] == 0
    assert found['hub_database_waits_total{pool="reads",role="server"}'] >= 0
    assert found["hub_embedded_database_restarts_total"] == 0
    (build,) = [name for name in found if name.startswith("hub_build_info")]
    assert re.fullmatch(r'hub_build_info\{version="[0-9.]+"\}', build)


async def test_who_finds_no_place_is_counted(hub: Hub) -> None:
    series = 'hub_database_waits_total{pool="changes",role="server"}'
    before = (await scraped(hub))[series]
    async with AsyncExitStack() as held:
        for _ in range(hub.settings.pool_size):
            await held.enter_async_context(hub.parts.engine.connect())
        late = asyncio.create_task(hub.admin.patch("/api/v1/tenant-settings", json={"max_key_days": 30}))
        while not hub.parts.change_places.waiting:
            await asyncio.sleep(0.01)
    assert (await late).status_code == 200
    assert (await scraped(hub))[series] >= before + 1


async def test_events_that_no_worker_has_put_in_order_are_told_of(hub: Hub, records: Records) -> None:
    await hub.new_role()
    await records.run("UPDATE outbox_events SET time = now() - interval '1 hour' WHERE position IS NULL")
    found = await scraped(hub)
    assert found["hub_events_without_position"] >= 1
    assert 3600 <= found["hub_events_oldest_without_position_seconds"] < 3700
    while await give_positions(hub.parts):
        pass
    found = await scraped(hub)
    assert found["hub_events_without_position"] == 0
    assert found["hub_events_oldest_without_position_seconds"] == 0


async def test_a_run_of_a_connector_is_counted_by_type_outcome_and_code(hub: Hub) -> None:
    source = await registered(hub)
    tested = (await hub.admin.post(f"{SOURCES}/{source['id']}/test")).json()
    code = next(step["code"] for step in tested["steps"] if step["status"] == "failed")
    found = await scraped(hub)
    assert found[f'hub_connector_runs_total{{action="check",code="{code}",outcome="failure",type="postgresql"}}'] >= 1
    assert found['hub_connector_run_duration_seconds_count{action="check",type="postgresql"}'] >= 1


# --- who may scrape ---


async def test_prometheus_scrapes_with_the_key_of_a_service_account(hub: Hub) -> None:
    """As the README has it: a role with one permission, an account that holds it, a key in a file."""
    role = await hub.new_role(permissions=["metrics:read"])
    account = (await hub.admin.post("/api/v1/service-accounts", json={"name": uuid4().hex})).json()
    owner = {"type": "service_account", "id": account["id"]}
    given = await hub.admin.post("/api/v1/role-assignments", json={"subject": owner, "role_id": role["id"]})
    assert given.status_code == 201, given.text
    made = await hub.admin.post(
        "/api/v1/api-keys", json={"name": "prometheus", "owner": owner, "permissions": ["metrics:read"]}
    )
    assert made.status_code == 201, made.text
    key = hub.client(made.json()["key"])
    answer = await key.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert (await key.get("/api/v1/roles")).status_code == 403
    assert (await hub.client().get("/metrics")).status_code == 401
    assert (await (await hub.user_with()).get("/metrics")).status_code == 403


def test_the_readme_says_how_prometheus_scrapes() -> None:
    (job, by_port) = _scrape_configs()
    assert job["authorization"] == {"credentials_file": "/etc/prometheus/hub.key"}
    assert job["scheme"] == "https"
    assert "authorization" not in by_port
    assert by_port["static_configs"] == [{"targets": ["127.0.0.1:9100"]}]
    assert all(each["job_name"].startswith("data-fusion-hub") for each in (job, by_port)), "as the alerts have it"


def _scrape_configs() -> list[dict[str, Any]]:
    text = README.read_text(encoding="utf-8")
    (snippet,) = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "scrape_configs" in block]
    found: list[dict[str, Any]] = yaml.safe_load(snippet)["scrape_configs"]
    return found


# --- how many series there are ---


@pytest.mark.slow
async def test_ten_thousand_made_up_paths_names_methods_and_hosts_make_no_new_series(hub: Hub) -> None:
    token = hub.admin.headers["authorization"].encode()
    await _flood(hub, token, 8)
    await scraped(hub)  # which is a request itself
    before = set(await scraped(hub))
    await _flood(hub, token, 2000)
    after = set(await scraped(hub))
    assert after - before == set()
    assert len(after) < 10_000  # with all that the tests before have left in this process
    assert not [name for name in after if "made-up" in name]


async def _flood(hub: Hub, token: bytes, count: int) -> None:
    """So many of each kind."""
    for number in range(count):
        name = f"made-up-{number}-{uuid4().hex}"
        await _ask(hub, "GET", f"/{name}", b"", token)
        await _ask(hub, "GET", f"/api/v1/roles/{uuid4()}", b"", token)
        await _ask(hub, f"MADE-UP-{number}", "/api/v1/roles", b"", token)
        await _ask(hub, "GET", "/api/v1/roles", f"name={name}".encode(), token)
        await _ask(hub, "GET", "/health/live", b"", b"", host=f"{name}.example".encode())


async def _ask(hub: Hub, method: str, path: str, query: bytes, token: bytes, host: bytes = b"hub.test") -> None:
    """Without a client's own work, which is most of what ten thousand requests would take."""
    headers = [(b"host", host), (b"authorization", token)] if token else [(b"host", host)]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": query, "root_path": "", "headers": headers, "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None: ...

    await hub.app(scope, receive, send)
