"""Discovery: a job that brings what a source holds into the catalogue of its objects."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.connectors.contract.objects import DiscoveredField, DiscoveredObject
from app.core.embedded import EmbeddedPostgres
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.jobs import runner
from app.domain.jobs.models import Job
from app.domain.jobs.runner import JobRun, LeaseLost
from app.domain.source_work import discovery
from tests.conftest import Hub
from tests.connectors.contract import CANARY
from tests.connectors.types.s3 import ObjectStore
from tests.domain.conftest import Records
from tests.domain.sources import (
    NOWHERE,
    SOURCES,
    Shop,
    discovered,
    ended,
    objects,
    open_shop,
    registered,
    registered_shop,
    until,
    working,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shop(cluster: EmbeddedPostgres) -> Shop:
    return await open_shop(cluster)


# --- what is found ---


async def test_a_discovery_finds_objects_with_their_fields(hub: Hub, shop: Shop, records: Records) -> None:
    path = await registered_shop(hub, shop)
    _, since = await records.mark()
    job = await discovered(hub, path)
    assert (job["status"], job["error"], job["kind"]) == ("succeeded", None, "data_source.discover")
    assert job["result"] == {"objects": 5, "deactivated": 0, "is_complete": True, "stopped_because": None}
    assert job["progress"]["done"] == 5
    assert job["started_at"] <= job["finished_at"]
    found = await objects(hub, path)
    assert set(found) == {"public.orders", "public.recent", "public.gone", "public.cells", '"odd.schema"."a ""b"".c"'}
    orders = found["public.orders"]
    assert {name: orders[name] for name in ("name", "path", "kind", "is_active")} == {
        "name": "orders", "path": ["public", "orders"], "kind": "table", "is_active": True,
    }  # fmt: skip
    assert [(field["name"], field["type"], field["is_nullable"], field["position"]) for field in orders["fields"]] == [
        ("id", "integer", False, 1), ("name", "string", True, 2), ("total", "decimal", False, 3),
        ("paid", "boolean", True, 4), ("placed_at", "timestamp_tz", True, 5),
    ]  # fmt: skip
    assert found["public.recent"]["kind"] == "view"
    assert (await hub.admin.get(f"{path}/objects/{orders['id']}")).json() == orders
    types = [event["type"].removeprefix("org.datafusionhub.") for event in await records.events(since)]
    assert types == ["job.created", "data_source.discovered", "job.succeeded"]


async def test_a_second_discovery_follows_what_changed(hub: Hub, shop: Shop) -> None:
    path = await registered_shop(hub, shop)
    await discovered(hub, path)
    before = await objects(hub, path)
    await shop.run(
        """DROP TABLE gone; DROP VIEW recent; ALTER TABLE cells RENAME TO boxes; ALTER TABLE orders DROP COLUMN name;
           ALTER TABLE orders ADD COLUMN note text; CREATE TABLE fresh (id integer)"""
    )
    job = await discovered(hub, path)
    assert job["result"] == {"objects": 4, "deactivated": 3, "is_complete": True, "stopped_because": None}
    after = await objects(hub, path)
    assert {name for name, item in after.items() if not item["is_active"]} == {
        "public.gone",
        "public.recent",
        "public.cells",
    }
    assert after["public.gone"]["fields"] == before["public.gone"]["fields"]
    assert after["public.orders"]["id"] == before["public.orders"]["id"]
    assert [field["name"] for field in after["public.orders"]["fields"]] == ["id", "total", "paid", "placed_at", "note"]
    active = await objects(hub, path, "&is_active=true")
    assert set(active) == {"public.orders", "public.boxes", "public.fresh", '"odd.schema"."a ""b"".c"'}
    await shop.run("CREATE VIEW gone AS SELECT 1 AS one")
    await discovered(hub, path)
    again = (await objects(hub, path))["public.gone"]
    assert (again["id"], again["is_active"], again["kind"]) == (before["public.gone"]["id"], True, "view")


async def test_objects_are_searched_sorted_and_counted(hub: Hub, shop: Shop) -> None:
    path = await registered_shop(hub, shop)
    await discovered(hub, path)
    assert set(await objects(hub, path, "&kind=view")) == {"public.recent"}
    assert set(await objects(hub, path, "&q=ORD")) == {"public.orders"}
    page = (await hub.admin.get(f"{path}/objects?count=exact&limit=2&sort=-qualified_name")).json()
    assert (page["total"], [item["name"] for item in page["items"]]) == (5, ["recent", "orders"])


async def test_an_object_belongs_to_its_source(hub: Hub, shop: Shop) -> None:
    path, other = await registered_shop(hub, shop), await registered_shop(hub, shop)
    await discovered(hub, path)
    item = (await objects(hub, path))["public.orders"]["id"]
    assert (await hub.admin.get(f"{other}/objects/{item}")).status_code == 404
    assert (await hub.admin.get(f"{path}/objects/{uuid4()}")).status_code == 404
    assert await objects(hub, other) == {}


@pytest.mark.slow
async def test_apis_and_object_stores_are_discovered(hub: Hub, shop_api: int, object_store: ObjectStore) -> None:
    api = {"base_url": f"http://127.0.0.1:{shop_api}", "auth": "bearer"}
    store = {
        "bucket": "shop-data", "endpoint_url": f"http://127.0.0.1:{object_store.port}",
        "access_key_id": object_store.access_key_id,
    }  # fmt: skip
    key = {"secret_access_key": object_store.secret_access_key}
    for type_name, config, secrets, name in (
        ("rest", api, {"token": f"{CANARY}-rest"}, "orders"),
        ("s3", store, key, '"customers.csv"'),
    ):
        path = f"{SOURCES}/{(await registered(hub, type=type_name, config=config, secrets=secrets))['id']}"
        assert (await discovered(hub, path))["status"] == "succeeded"
        assert (await objects(hub, path))[name]["fields"]


# --- starting ---


async def test_two_discoveries_of_one_source_are_one_job(hub: Hub, records: Records) -> None:
    path = f"{SOURCES}/{(await registered(hub))['id']}"
    answers = await asyncio.gather(*(hub.admin.post(f"{path}/discover") for _ in range(4)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert {answer.headers["location"] for answer in answers} == {f"/api/v1/jobs/{answers[0].json()['id']}"}
    rows = [row for answer in answers for row in await records.audit(answer)]
    assert [(row["action"], row["resource_type"]) for row in rows] == [("data_source.discover", "data_source")]
    assert rows[0]["after"] == {"job_id": answers[0].json()["id"]}
    await hub.admin.post(f"/api/v1/jobs/{answers[0].json()['id']}/cancel")
    assert (await hub.admin.post(f"{path}/discover")).json()["id"] != answers[0].json()["id"]


async def test_discover_replays_by_key(hub: Hub) -> None:
    path, headers = f"{SOURCES}/{(await registered(hub))['id']}", {"Idempotency-Key": uuid4().hex}
    first = await hub.admin.post(f"{path}/discover", headers=headers)
    await hub.admin.post(f"/api/v1/jobs/{first.json()['id']}/cancel")
    again = await hub.admin.post(f"{path}/discover", headers=headers)
    assert (again.status_code, again.content, again.headers["location"]) == (
        202,
        first.content,
        first.headers["location"],
    )
    other = await hub.admin.post(f"{SOURCES}/{(await registered(hub))['id']}/discover", headers=headers)
    assert other.json()["id"] != first.json()["id"]


# --- failing ---


async def test_a_source_that_fails_fails_the_job_with_advice(
    hub: Hub, shop: Shop, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RETRY_AFTER_S", ())
    cases: list[tuple[dict[str, Any], str, bool]] = [
        (shop.config | {"port": closed_port}, "connection_refused", True),
        (NOWHERE, "name_not_resolved", True),
        (shop.config, "authentication_failed", False),
    ]
    for config, code, can_retry in cases:
        made = await registered(hub, config=config, secrets={"password": "wrong"})
        job = await discovered(hub, f"{SOURCES}/{made['id']}")
        assert (job["status"], job["result"]) == ("failed", None)
        assert (job["error"]["code"], job["error"]["can_retry"]) == (code, can_retry)
        assert "Check" in job["error"]["message"]


async def test_a_failed_discovery_takes_no_object_away(hub: Hub, shop: Shop) -> None:
    path = await registered_shop(hub, shop)
    await discovered(hub, path)
    await hub.admin.patch(path, json={"secrets": {"password": "wrong"}})
    assert (await discovered(hub, path))["status"] == "failed"
    assert len(await objects(hub, path, "&is_active=true")) == 5


async def test_a_source_deleted_before_its_job_runs_fails_it(hub: Hub) -> None:
    path = f"{SOURCES}/{(await registered(hub))['id']}"
    job = (await hub.admin.post(f"{path}/discover")).json()
    await hub.admin.delete(path)
    async with working(hub.parts):
        after = await ended(hub.admin, job["id"])
    assert (after["status"], after["error"]["code"], after["error"]["can_retry"]) == ("failed", "not_found", False)


class Batches:
    """A sandbox whose discovery stops between two batches until it is told to go on."""

    def __init__(self, *batches: list[DiscoveredObject]) -> None:
        self.batches = batches
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def discover(self, *_: Any, **__: Any) -> AsyncIterator[list[DiscoveredObject]]:
        for batch in self.batches:
            yield batch
            self.reached.set()
            await self.go_on.wait()


def table(*path: str) -> DiscoveredObject:
    return DiscoveredObject.at(path, "table", [DiscoveredField("id", "integer", "int4", False, 1)])


async def test_a_source_deleted_while_it_is_discovered_fails_the_job_at_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Batches([table("a")], [table("b")])
    monkeypatch.setattr(hub.parts, "sandbox", batches)
    path = f"{SOURCES}/{(await registered(hub))['id']}"
    job = (await hub.admin.post(f"{path}/discover")).json()
    async with working(hub.parts):
        await asyncio.wait_for(batches.reached.wait(), 20)
        assert (await hub.admin.delete(path)).status_code == 204
        batches.go_on.set()
        after = await until(hub.admin, job["id"], "failed", within_s=15)
    assert (after["error"]["code"], after["error"]["can_retry"]) == ("source_deleted", False)


@pytest.mark.found("D2")
@pytest.mark.parametrize("name", ["nul\x00byte", "x" * 200_000])
async def test_a_name_that_cannot_be_stored_is_escaped_or_cut_and_fails_nothing(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    name = name if len(name) < 100 else "".join(random.Random(5).choices("abcdefghijklmnop", k=len(name)))
    batches = Batches([table("fine")], [table(name)])
    batches.go_on.set()
    monkeypatch.setattr(hub.parts, "sandbox", batches)
    path = f"{SOURCES}/{(await registered(hub))['id']}"
    job = await discovered(hub, path)
    assert (job["status"], job["error"]) == ("succeeded", None)
    kept = await objects(hub, path)
    assert "fine" in kept
    assert len(kept) == 2


# --- under a lease ---


async def running_job(hub: Hub, records: Records, path: str) -> Job:
    """The source's job, as the worker holds it that took it first."""
    job_id = (await hub.admin.post(f"{path}/discover")).json()["id"]
    lease = uuid4()
    await records.run(
        "UPDATE jobs SET status = 'running', lease_id = $1, lease_until = $2, attempts = 1 WHERE id = $3::uuid",
        lease,
        datetime.now(UTC) + timedelta(seconds=30),
        job_id,
    )
    async with hub.parts.sessions(DEFAULT_TENANT_ID) as session:
        job = await session.get(Job, UUID(job_id))
    assert job is not None
    return job


async def test_a_worker_that_lost_its_lease_writes_nothing(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{SOURCES}/{(await registered(hub))['id']}"
    job = await running_job(hub, records, path)
    batches = Batches([table("a")], [table("b")])
    monkeypatch.setattr(hub.parts, "sandbox", batches)
    late = asyncio.create_task(discovery.discover(JobRun(hub.parts, job)))
    await asyncio.wait_for(batches.reached.wait(), 20)
    await records.run("UPDATE jobs SET lease_id = gen_random_uuid() WHERE id = $1", job.id)
    _, since = await records.mark()
    batches.go_on.set()
    with pytest.raises(LeaseLost):
        await late
    assert set(await objects(hub, path)) == {"a"}
    assert await records.events(since) == []


async def test_a_worker_that_lost_its_lease_at_the_end_takes_nothing_away(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{SOURCES}/{(await registered(hub))['id']}"
    batches = Batches([table("a")], [])
    batches.go_on.set()
    monkeypatch.setattr(hub.parts, "sandbox", batches)
    await discovered(hub, path)
    job = await running_job(hub, records, path)
    empty = Batches([])
    monkeypatch.setattr(hub.parts, "sandbox", empty)
    late = asyncio.create_task(discovery.discover(JobRun(hub.parts, job)))
    await asyncio.wait_for(empty.reached.wait(), 20)
    await records.run("UPDATE jobs SET lease_id = gen_random_uuid() WHERE id = $1", job.id)
    empty.go_on.set()
    with pytest.raises(LeaseLost):
        await late
    assert set(await objects(hub, path, "&is_active=true")) == {"a"}


async def test_objects_seen_by_a_worker_whose_clock_is_ahead_are_still_taken_away(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{SOURCES}/{(await registered(hub))['id']}"
    for name in ("a", "b"):
        batches = Batches([table(name)])
        batches.go_on.set()
        monkeypatch.setattr(hub.parts, "sandbox", batches)
        await discovered(hub, path)
        await records.run("UPDATE source_objects SET discovered_at = now() + interval '1 hour' WHERE name = $1", name)
    assert set(await objects(hub, path, "&is_active=true")) == {"b"}
