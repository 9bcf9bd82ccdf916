"""What goes on for a suspended tenant: nothing, a second later, on any worker; and all of it again once resumed."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.source_work import schedule
from app.domain.source_work.schedule import test_on_schedule as run_schedule
from tests.beside import beside
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records
from tests.domain.sources import registered, working
from tests.domain.test_jobs import Handler, queued

pytestmark = pytest.mark.anyio

TENANTS = "/api/v1/tenants"


@pytest.fixture
async def other(hub: Hub) -> Hub:
    """A tenant of one test's own."""
    return await hub.new_tenant()


async def path_of(other: Hub) -> str:
    return f"{TENANTS}/{(await other.admin.get('/api/v1/auth/me')).json()['tenant']['id']}"


async def suspend(hub: Hub, path: str) -> None:
    answer = await hub.admin.post(f"{path}/suspend")
    assert (answer.status_code, answer.json()["is_active"]) == (200, False)


async def resume(hub: Hub, path: str) -> None:
    answer = await hub.admin.post(f"{path}/resume")
    assert (answer.status_code, answer.json()["is_active"]) == (200, True)


async def until(records: Records, question: str, row_id: str, wanted: object) -> None:
    async with asyncio.timeout(20):
        while await records.one(question, row_id) != wanted:
            await asyncio.sleep(0.02)


async def test_sessions_end_on_every_worker_and_go_on_when_it_is_resumed(
    hub: Hub, other: Hub, other_worker: Hub
) -> None:
    path, token = await path_of(other), other.admin.headers["authorization"]
    elsewhere = other_worker.client(token.removeprefix("Bearer "))
    assert (await elsewhere.get("/api/v1/auth/me")).status_code == 200
    await suspend(hub, path)
    assert (await other.admin.get("/api/v1/auth/me")).json()["code"] == "session_ended"
    await until_ended(elsewhere)
    assert (await hub.admin.get("/api/v1/auth/me")).status_code == 200
    await resume(hub, path)
    for client in (other.admin, elsewhere):
        assert (await client.get("/api/v1/auth/me")).status_code == 200


async def until_ended(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(1):
        while (await client.get("/api/v1/auth/me")).status_code != 401:
            await asyncio.sleep(0.02)


async def test_nobody_of_it_signs_in_refreshes_or_registers(hub: Hub, other: Hub, records: Records) -> None:
    path, me = await path_of(other), (await other.admin.get("/api/v1/auth/me")).json()
    slug, email = me["tenant"]["slug"], me["user"]["email"]
    login = {"email": email, "password": PASSWORD}
    refresh = (await hub.client().post("/api/v1/auth/login", json=login)).json()["refresh_token"]
    await suspend(hub, path)
    for given in (login, login | {"tenant": slug}):
        answer = await hub.client().post("/api/v1/auth/login", json=given)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")
        (row,) = await records.audit(answer)
        assert (row["outcome"], row["actor_name"]) == ("failure", None)
    answer = await hub.client().post("/api/v1/auth/refresh", json={"refresh_token": refresh})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_refresh_token")
    new = {"email": "new@example.org", "password": PASSWORD, "tenant": slug}
    assert (await hub.client().post("/api/v1/auth/register", json=new)).status_code == 403
    await resume(hub, path)
    assert (await hub.client().post("/api/v1/auth/login", json=login)).status_code == 200
    assert (await hub.client().post("/api/v1/auth/refresh", json={"refresh_token": refresh})).status_code == 200


async def test_a_running_job_is_given_back_and_no_job_is_taken_up_before_it_is_resumed(
    hub: Hub, other: Hub, records: Records
) -> None:
    path, handler = await path_of(other), Handler()
    running = await queued(other)
    async with working(hub.parts, handler.handlers):
        await asyncio.wait_for(handler.begun.wait(), 10)
        waiting = await queued(other)
        await suspend(hub, path)
        status = "SELECT status || ' ' || attempts FROM jobs WHERE id = $1::uuid"
        for job in (running, waiting):  # the second may have been taken up as the tenant was suspended
            await until(records, status, job, "queued 0")
        theirs = await queued(hub)
        handler.go_on.set()
        await until(records, status, theirs, "succeeded 1")
        assert [await records.one(status, job) for job in (running, waiting)] == ["queued 0", "queued 0"]
        await resume(hub, path)
        for job in (running, waiting):
            await until(records, status, job, "succeeded 1")


async def test_its_sources_are_not_tested_on_schedule(
    hub: Hub, other: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "POLL_S", 0.05)
    path = await path_of(other)
    theirs, ours = [await registered(one, type="simulated", config={}, test_interval_s=60) for one in (other, hub)]
    await suspend(hub, path)
    await records.run("UPDATE data_sources SET next_test_at = now() WHERE next_test_at IS NOT NULL")
    at = asyncio.create_task(run_schedule(hub.parts))
    try:
        tested = "SELECT count(*) FROM data_source_tests WHERE data_source_id = $1::uuid"
        await until(records, tested, ours["id"], 1)
        assert await records.one(tested, theirs["id"]) == 0
        assert (await gauge(hub)) == 0.0
        await resume(hub, path)
        await until(records, tested, theirs["id"], 1)
    finally:
        at.cancel()
        await asyncio.gather(at, return_exceptions=True)


async def gauge(hub: Hub) -> float:
    text = (await hub.admin.get("/metrics")).text
    line = next(line for line in text.splitlines() if line.startswith("hub_scheduled_tests_oldest_due_seconds "))
    return float(line.split()[1])


async def test_a_scheduled_test_that_goes_on_is_stopped(
    hub: Hub, other: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(*_: Any, **__: Any) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(schedule, "run_test", hang)
    await registered(other, type="simulated", config={}, test_interval_s=60)
    await records.run("UPDATE data_sources SET next_test_at = now() WHERE next_test_at IS NOT NULL")
    async with beside(run_schedule(hub.parts)):
        await asyncio.wait_for(begun.wait(), 10)
        await suspend(hub, await path_of(other))
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_stream_of_a_job_ends(hub: Hub, other: Hub) -> None:
    job = await queued(other)
    path = await path_of(other)

    async def watched() -> list[str]:
        async with other.admin.stream("GET", f"/api/v1/jobs/{job}/events") as answer:
            return [line async for line in answer.aiter_lines() if line.startswith("data: ")]

    stream = asyncio.create_task(watched())
    await asyncio.sleep(0.2)
    await suspend(hub, path)
    assert len(await asyncio.wait_for(stream, 5)) == 1


async def test_a_request_that_is_under_way_ends(hub: Hub, other: Hub, records: Records) -> None:
    """On a worker that learns of it from the database alone; what others have asked goes on."""
    tenant_id, path = UUID((await path_of(other)).rpartition("/")[2]), "/api/v1/data-sources"
    owner = await asyncpg.connect(hub.owner_url)
    async with owner.transaction():
        await owner.execute("LOCK TABLE data_sources IN ACCESS EXCLUSIVE MODE")
        theirs, ours = [asyncio.create_task(each.admin.get(path)) for each in (other, hub)]
        await asyncio.sleep(0.1)
        await records.run("UPDATE tenants SET is_active = false WHERE id = $1", tenant_id)
        answer = await theirs
        assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")
    assert (await ours).status_code == 200
    await owner.close()


async def test_what_is_being_written_in_a_tenant_keeps_no_operator_waiting(hub: Hub, other: Hub) -> None:
    """Whoever writes a row holds the key of its tenant."""
    path = await path_of(other)
    writing = await asyncpg.connect(hub.owner_url)
    transaction = writing.transaction()
    await transaction.start()
    try:
        for tenant_id in (UUID(path.rpartition("/")[2]), DEFAULT_TENANT_ID):
            await writing.execute(
                "INSERT INTO service_accounts (id, tenant_id, name, name_key, is_active, created_at, updated_at)"
                " VALUES ($1, $2, 'x', 'x', true, now(), now())",
                uuid4(),
                tenant_id,
            )
        async with asyncio.timeout(5):
            await hub.new_tenant()
            await suspend(hub, path)
            assert (await hub.admin.delete(path)).status_code == 204
    finally:
        await transaction.rollback()
        await writing.close()


async def test_a_key_of_it_opens_nothing_until_it_is_resumed(hub: Hub, other: Hub, other_worker: Hub) -> None:
    path, key = await path_of(other), await key_of(other)
    clients = [hub.client(key), other_worker.client(key)]
    for client in clients:
        assert (await client.get("/api/v1/auth/me")).status_code == 200
    await suspend(hub, path)
    for client in clients:
        await until_ended(client)
    await resume(hub, path)
    for client in clients:
        assert (await client.get("/api/v1/auth/me")).status_code == 200


async def key_of(other: Hub) -> str:
    made = await other.admin.post("/api/v1/api-keys", json={"name": "of a test"})
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


async def test_suspending_again_changes_nothing(hub: Hub, other: Hub, records: Records) -> None:
    path = await path_of(other)
    first, second = [await hub.admin.post(f"{path}/suspend") for _ in range(2)]
    assert first.headers["etag"] == second.headers["etag"] == '"v2"'
    assert [row["action"] for row in await records.audit(first)] == ["tenant.suspend"]
    assert await records.audit(second) == []
    listed = await hub.admin.get(TENANTS, params={"is_active": "false", "limit": 200})
    assert path.rpartition("/")[2] in {each["id"] for each in listed.json()["items"]}


async def test_the_operators_tenant_stays(hub: Hub, records: Records) -> None:
    me = (await hub.admin.get("/api/v1/auth/me")).json()
    answer = await hub.admin.post(f"{TENANTS}/{me['tenant']['id']}/suspend")
    assert (answer.status_code, answer.json()["code"]) == (409, "default_tenant")
    (row,) = await records.audit(answer)
    assert (row["outcome"], row["detail"]) == ("refused", "default_tenant")
