"""The rehearsal type: offered in development, and good for rehearsing drift, slow sources and broken ones."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from app.connectors import registry
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, discovered, faults, objects, post_source, registered

pytestmark = pytest.mark.anyio

SIMULATED: dict[str, Any] = {"type": "simulated", "config": {"objects": 4, "drift": 1}}


@pytest.fixture
def production(hub: Hub) -> Iterator[None]:
    """The same hub, as it would be in production."""
    settings = hub.parts.settings
    hub.parts.settings = msgspec.structs.replace(settings, env="production")
    yield
    hub.parts.settings = settings


async def test_each_generation_drifts_by_what_was_configured(hub: Hub) -> None:
    made = await registered(hub, **SIMULATED)
    path = f"{SOURCES}/{made['id']}"
    complete = {"is_complete": True, "stopped_because": None}
    assert (await discovered(hub, path))["result"] == {"objects": 4, "deactivated": 0, **complete}
    before = await objects(hub, path)
    await hub.admin.patch(path, json={"config": {"generation": 1}})
    assert (await discovered(hub, path))["result"] == {"objects": 4, "deactivated": 1, **complete}
    after = await objects(hub, path)
    assert sorted(name for name, item in after.items() if item["is_active"]) == [
        f"simulated.object_{number:06}" for number in range(1, 5)
    ]
    changed = [name for name in before if before[name]["fields"] != after[name]["fields"]]
    assert changed == ["simulated.object_000001"]


async def test_a_discovery_that_stops_early_says_so_and_takes_nothing_away(hub: Hub, records: Records) -> None:
    made = await registered(hub, **SIMULATED)
    path = f"{SOURCES}/{made['id']}"
    await discovered(hub, path)
    await hub.admin.patch(path, json={"config": {"stops_after": 1, "generation": 2}})
    _, since = await records.mark()
    job = await discovered(hub, path)
    assert job["status"] == "succeeded"
    assert job["result"] == {
        "objects": 1, "deactivated": 0, "is_complete": False,
        "stopped_because": "There are more objects than stops_after (1).",
    }  # fmt: skip
    assert all(item["is_active"] for item in (await objects(hub, path)).values())
    (event,) = [event for event in await records.events(since) if event["type"].endswith("data_source.discovered")]
    assert event["data"] == {"id": made["id"], **job["result"]}
    await hub.admin.patch(path, json={"config": {"stops_after": 4}})
    after = (await discovered(hub, path))["result"]
    assert (after["deactivated"], after["is_complete"]) == (2, True)


async def test_the_same_config_gives_the_same_rows(hub: Hub) -> None:
    made = await registered(hub, **SIMULATED)
    ask = {"object": "simulated.object_000002", "limit": 3}
    first, second = [(await hub.admin.post(f"{SOURCES}/{made['id']}/preview", json=ask)).json() for _ in range(2)]
    assert first["rows"] == second["rows"]
    assert len(first["rows"]) == 3
    assert first["truncated"]


@pytest.mark.slow
@pytest.mark.fault("RL5")
async def test_a_slow_source_ends_at_the_deadline(hub: Hub) -> None:
    config = {"delays_ms": {"connect": 60_000}}
    answer = await hub.admin.post(f"{SOURCES}/test", json={"type": "simulated", "config": config, "secrets": {}})
    failed = [(step["name"], step["code"]) for step in answer.json()["steps"] if step["status"] == "failed"]
    assert failed == [("connect", "timeout")]


@pytest.mark.found("U10")
async def test_in_development_it_is_among_the_types(hub: Hub) -> None:
    names = [item["type"] for item in (await hub.admin.get("/api/v1/data-source-types?limit=200")).json()["items"]]
    assert names == [connector.type for connector in registry.all()]
    assert "simulated" in names


@pytest.mark.found("U10")
@pytest.mark.usefixtures("production")
async def test_in_production_there_is_no_such_type(hub: Hub) -> None:
    listed = (await hub.admin.get("/api/v1/data-source-types?limit=200")).json()["items"]
    assert {item["type"] for item in listed} == {connector.type for connector in registry.all()} - {"simulated"}
    assert (await hub.admin.get("/api/v1/data-source-types/simulated")).status_code == 404
    refused = await post_source(hub.admin, **SIMULATED)
    assert (refused.status_code, faults(refused)) == (400, {"type": "type_unavailable"})
    item = {"name": "one", **SIMULATED}
    many = await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": [item]})
    assert (many.status_code, faults(many)) == (400, {"data_sources[0].type": "type_unavailable"})
    unsaved = await hub.admin.post(f"{SOURCES}/test", json={"secrets": {}, **SIMULATED})
    assert unsaved.status_code == 400


async def test_one_that_came_from_development_is_unsupported_not_failed(hub: Hub, request: Any) -> None:
    made = await registered(hub, **SIMULATED)
    request.getfixturevalue("production")
    path = f"{SOURCES}/{made['id']}"
    assert (await hub.admin.post(f"{path}/test")).json()["status"] == "unsupported"
    assert (await hub.admin.get(path)).json()["status"] == "unsupported"
    preview = await hub.admin.post(f"{path}/preview", json={"object": "simulated.object_000001"})
    assert (preview.status_code, preview.json()["code"]) == (409, "unsupported")


@pytest.mark.parametrize("how", [pytest.param("hang", marks=pytest.mark.slow), "crash", "exhaust_memory"])
async def test_a_driver_that_misbehaves_is_a_failed_step_and_others_read_on(hub: Hub, how: str) -> None:
    """Reads on the same hub are answered while the driver hangs, dies or eats memory, and after it."""
    body = {"type": "simulated", "config": {"misbehaviour": how, "delays_ms": {"resolve": 500}}, "secrets": {}}
    testing = asyncio.create_task(hub.admin.post(f"{SOURCES}/test", json=body))
    answered = 0
    while not testing.done():
        assert (await hub.admin.get("/api/v1/auth/me")).status_code == 200
        assert (await hub.admin.get("/api/v1/roles?limit=1")).status_code == 200
        answered += 1
        await asyncio.sleep(0.01)
    failed = [(step["name"], step["code"]) for step in (await testing).json()["steps"] if step["status"] == "failed"]
    code = {"hang": "timeout", "crash": "crashed", "exhaust_memory": "out_of_memory"}[how]
    assert failed == [("list", code)]
    assert answered > 1
    assert (await hub.admin.get("/api/v1/roles?limit=1")).status_code == 200
