"""Jobs: who sees them, how they are stopped, and what happens to them when workers die."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from sqlalchemy import text

from app.core import streams
from app.core import watching as looks
from app.core.embedded import SUPERUSER, EmbeddedPostgres
from app.core.errors import Conflict, TooManyRequests
from app.domain import following
from app.domain.jobs import runner
from app.domain.jobs.runner import JobHandler, JobRun
from tests.conftest import ADMIN_EMAIL, Hub
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, ended, registered, until, working
from tests.domain.streams import Streaming

pytestmark = pytest.mark.anyio

DISCOVER = "data_source.discover"


async def queued(hub: Hub, client: httpx.AsyncClient | None = None) -> str:
    """The id of a job that waits."""
    path = f"{SOURCES}/{(await registered(hub))['id']}"
    answer = await (client or hub.admin).post(f"{path}/discover")
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@pytest.fixture(autouse=True)
async def no_job_waits(hub: Hub, records: Records) -> None:
    await records.run("UPDATE jobs SET status = 'cancelled' WHERE status IN ('queued', 'running')")


class Handler:
    """A handler that waits until it is told what to do."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.runs: list[JobRun] = []

    async def __call__(self, run: JobRun) -> dict[str, Any]:
        self.runs.append(run)
        self.begun.set()
        await self.go_on.wait()
        return {"done": True}

    @property
    def handlers(self) -> Mapping[str, JobHandler]:
        return {DISCOVER: self}


# --- who sees them ---


async def test_a_job_is_seen_by_its_owner_and_by_who_may_see_all(hub: Hub) -> None:
    owner = await hub.user_with("data-sources:discover")
    job = f"/api/v1/jobs/{await queued(hub, owner)}"
    stranger, reader = await hub.user_with("data-sources:discover"), await hub.user_with("jobs:read")
    writer = await hub.user_with("jobs:write")
    for below in ("", "/events"):
        assert (await stranger.get(job + below)).status_code == 404
    assert (await writer.get(job)).status_code == 404
    for client in (owner, reader, hub.admin):
        assert (await client.get(job)).status_code == 200
    assert (await owner.get("/api/v1/jobs")).status_code == 403
    assert (await reader.get("/api/v1/jobs")).status_code == 200


async def test_a_job_is_cancelled_by_its_owner_and_by_who_may_cancel_all(hub: Hub, records: Records) -> None:
    owner, reader = await hub.user_with("data-sources:discover"), await hub.user_with("jobs:read")
    stranger, writer = await hub.user_with("data-sources:read"), await hub.user_with("jobs:write")
    cancel = f"/api/v1/jobs/{await queued(hub, owner)}/cancel"
    unseen, refused = await stranger.post(cancel), await reader.post(cancel)
    assert (unseen.status_code, refused.status_code) == (404, 403)
    assert [row["outcome"] for row in await records.audit(refused)] == ["refused"]
    assert (await owner.post(cancel)).json()["status"] == "cancelled"
    other = f"/api/v1/jobs/{await queued(hub, owner)}/cancel"
    assert (await writer.post(other)).json()["status"] == "cancelled"


async def test_jobs_of_another_tenant_do_not_exist(hub: Hub, records: Records) -> None:
    job_id, tenant = await queued(hub), uuid4()
    await records.run(
        "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, $2, 'x', true, now(), now())",
        tenant,
        tenant.hex,
    )
    await records.run("UPDATE jobs SET tenant_id = $1 WHERE id = $2::uuid", tenant, job_id)
    for call in (hub.admin.get(f"/api/v1/jobs/{job_id}"), hub.admin.post(f"/api/v1/jobs/{job_id}/cancel")):
        assert (await call).status_code == 404
    listed = (await hub.admin.get("/api/v1/jobs?limit=200")).json()["items"]
    assert job_id not in {item["id"] for item in listed}


async def test_jobs_are_listed_newest_first_and_narrowed(hub: Hub) -> None:
    first, second = await queued(hub), await queued(hub)
    page = (await hub.admin.get("/api/v1/jobs?status=queued&count=exact")).json()
    assert ([item["id"] for item in page["items"]], page["total"]) == ([second, first], 2)
    subject = page["items"][0]["subject_id"]
    assert [item["id"] for item in (await hub.admin.get(f"/api/v1/jobs?subject_id={subject}")).json()["items"]] == [
        second
    ]
    assert (await hub.admin.get("/api/v1/jobs?kind=nope")).json()["items"] == []
    assert (await hub.admin.get("/api/v1/jobs?status=done")).status_code == 400


# --- stopping ---


async def test_a_waiting_job_is_cancelled_at_once(hub: Hub, records: Records) -> None:
    job_id = await queued(hub)
    _, since = await records.mark()
    answer = await hub.admin.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (answer.json()["status"], answer.json()["version"]) == ("cancelled", 2)
    assert answer.json()["finished_at"] is not None
    assert answer.headers["etag"] == '"v2"'
    assert [row["action"] for row in await records.audit(answer)] == ["job.cancel"]
    assert [event["type"] for event in await records.events(since)] == ["org.datafusionhub.job.cancelled"]
    again = await hub.admin.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job_ended")
    handler = Handler()
    async with working(hub.parts, handler.handlers):
        marker = await queued(hub)
        async with asyncio.timeout(20):
            await handler.begun.wait()
        await until(hub.admin, marker, "running")
    assert [str(run.job_id) for run in handler.runs] == [marker]


async def test_a_running_job_is_cancelled_as_its_worker_sees_the_wish(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RENEWAL_S", 0.1)
    handler, job_id = Handler(), await queued(hub)
    async with working(hub.parts, handler.handlers):
        await asyncio.wait_for(handler.begun.wait(), 20)
        _, since = await records.mark()
        wish = await hub.admin.post(f"/api/v1/jobs/{job_id}/cancel")
        assert (wish.json()["status"], wish.json()["finished_at"]) == ("running", None)
        job = await until(hub.admin, job_id, "cancelled")
    assert (job["error"], job["result"]) == (None, None)
    types = [event["type"].removeprefix("org.datafusionhub.") for event in await records.events(since)]
    assert types == ["job.cancel_requested", "job.cancelled"]


async def test_a_wish_is_seen_at_the_next_report(hub: Hub) -> None:
    job_id, wished = await queued(hub), asyncio.Event()

    async def handle(run: JobRun) -> dict[str, Any]:
        await run.report(1, 10)
        await wished.wait()
        await run.report(2, 10)
        raise AssertionError

    async with working(hub.parts, {DISCOVER: handle}):
        await until(hub.admin, job_id, "running")
        await hub.admin.post(f"/api/v1/jobs/{job_id}/cancel")
        wished.set()
        job = await until(hub.admin, job_id, "cancelled", within_s=4)
    assert job["progress"]["total"] == 10


async def test_a_job_that_ends_as_it_is_cancelled_has_one_end(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RENEWAL_S", 0.01)
    for _ in range(5):
        handler, job_id = Handler(), await queued(hub)
        _, since = await records.mark()
        async with working(hub.parts, handler.handlers) as task:
            await asyncio.wait_for(handler.begun.wait(), 20)
            handler.go_on.set()
            await hub.admin.post(f"/api/v1/jobs/{job_id}/cancel")
            job = await ended(hub.admin, job_id)
            assert not task.done()
        ends = [
            event["type"]
            for event in await records.events(since)
            if event["type"].endswith((".cancelled", ".succeeded"))
        ]
        assert ends == [f"org.datafusionhub.job.{job['status']}"]


# --- ending ---


async def test_progress_and_result_are_shown(hub: Hub) -> None:
    job_id, go_on = await queued(hub), asyncio.Event()

    async def handle(run: JobRun) -> dict[str, Any]:
        await run.report(3, 7)
        await go_on.wait()
        return {"found": 7}

    async with working(hub.parts, {DISCOVER: handle}):
        await until(hub.admin, job_id, "running")
        for _ in range(200):
            job = (await hub.admin.get(f"/api/v1/jobs/{job_id}")).json()
            if job["progress"]["done"]:
                break
            await asyncio.sleep(0.02)
        assert job["progress"] == {"done": 3, "total": 7}
        go_on.set()
        after = await ended(hub.admin, job_id)
    assert (after["status"], after["result"]) == ("succeeded", {"found": 7})
    assert after["version"] > job["version"]


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (Conflict("Mend it.", code="unsupported"), {"code": "unsupported", "message": "Mend it.", "can_retry": False}),
        (TooManyRequests("Wait.", code="login_busy"), {"code": "login_busy", "message": "Wait.", "can_retry": True}),
        (
            RuntimeError("secret-canary"),
            {"code": "internal_error", "message": "Something went wrong on our side.", "can_retry": False},
        ),
    ],
)
async def test_a_handlers_error_fails_the_job(
    hub: Hub, error: Exception, wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RETRY_AFTER_S", ())
    job_id = await queued(hub)

    async def handle(run: JobRun) -> dict[str, Any]:
        raise error

    async with working(hub.parts, {DISCOVER: handle}):
        job = await ended(hub.admin, job_id)
    assert (job["status"], job["error"]) == ("failed", wanted)


async def test_a_statement_that_fails_fails_the_job_at_once(hub: Hub) -> None:
    """Only a database that is away is waited for."""
    job_id = await queued(hub)

    async def handle(run: JobRun) -> dict[str, Any]:
        async with run.parts.sessions.begin(run.tenant_id) as session:
            await session.execute(text("SELECT 1 / 0"))
        raise AssertionError

    async with working(hub.parts, {DISCOVER: handle}):
        job = await until(hub.admin, job_id, "failed", within_s=10)
    assert job["error"]["code"] == "internal_error"


async def test_a_job_of_an_unknown_kind_fails(hub: Hub) -> None:
    job_id = await queued(hub)
    async with working(hub.parts, {}):
        job = await ended(hub.admin, job_id)
    assert job["status"] == "failed"


async def test_as_many_jobs_run_at_once_as_there_are_places(hub: Hub) -> None:
    handler = Handler()
    jobs = [await queued(hub) for _ in range(3)]
    async with working(hub.parts, handler.handlers, concurrency=2):
        for job_id in jobs[:2]:
            await until(hub.admin, job_id, "running")
        await asyncio.sleep(0.2)
        assert (await hub.admin.get(f"/api/v1/jobs/{jobs[2]}")).json()["status"] == "queued"
        handler.go_on.set()
        for job_id in jobs:
            assert (await ended(hub.admin, job_id))["status"] == "succeeded"
    assert len(handler.runs) == 3


# --- workers that die ---


async def lost_by_its_worker(records: Records, job_id: str, attempts: int) -> None:
    """As a job is after its worker was killed and the lease ran out."""
    await records.run(
        "UPDATE jobs SET status = 'running', lease_id = gen_random_uuid(), lease_until = $1, attempts = $2 WHERE id = $3::uuid",
        datetime.now(UTC) - timedelta(seconds=1),
        attempts,
        job_id,
    )


async def test_a_killed_workers_job_is_taken_up_by_another(hub: Hub, records: Records) -> None:
    job_id, handler = await queued(hub), Handler()
    await lost_by_its_worker(records, job_id, 1)
    handler.go_on.set()
    async with working(hub.parts, handler.handlers):
        job = await ended(hub.admin, job_id)
    assert (job["status"], len(handler.runs)) == ("succeeded", 1)
    assert await records.one("SELECT attempts FROM jobs WHERE id = $1::uuid", job_id) == 2


async def test_a_job_whose_lease_holds_is_left_alone(hub: Hub, records: Records) -> None:
    held, handler = await queued(hub), Handler()
    await records.run(
        "UPDATE jobs SET status = 'running', lease_id = gen_random_uuid(), lease_until = $1 WHERE id = $2::uuid",
        datetime.now(UTC) + timedelta(seconds=20),
        held,
    )
    handler.go_on.set()
    async with working(hub.parts, handler.handlers):
        await ended(hub.admin, await queued(hub))
    assert [str(run.job_id) for run in handler.runs if str(run.job_id) == held] == []


async def test_a_job_that_kills_its_workers_is_given_up(hub: Hub, records: Records) -> None:
    job_id, handler = await queued(hub), Handler()
    await lost_by_its_worker(records, job_id, runner.MAX_ATTEMPTS)
    async with working(hub.parts, handler.handlers):
        job = await ended(hub.admin, job_id)
    assert (job["status"], job["error"]["code"], handler.runs) == ("failed", "worker_lost", [])


async def test_a_lost_job_that_somebody_cancelled_is_not_begun_again(hub: Hub, records: Records) -> None:
    job_id, handler = await queued(hub), Handler()
    await lost_by_its_worker(records, job_id, 1)
    await hub.admin.post(f"/api/v1/jobs/{job_id}/cancel")
    async with working(hub.parts, handler.handlers):
        job = await ended(hub.admin, job_id)
    assert (job["status"], handler.runs) == ("cancelled", [])


async def test_a_worker_that_shuts_down_gives_its_jobs_back(hub: Hub, records: Records) -> None:
    job_id, handler = await queued(hub), Handler()
    async with working(hub.parts, handler.handlers):
        await asyncio.wait_for(handler.begun.wait(), 20)
        running = (await hub.admin.get(f"/api/v1/jobs/{job_id}")).json()
    waiting = (await hub.admin.get(f"/api/v1/jobs/{job_id}")).json()
    assert (running["status"], waiting["status"]) == ("running", "queued")
    assert waiting["version"] > running["version"]
    assert await records.one("SELECT attempts FROM jobs WHERE id = $1::uuid", job_id) == 0
    handler.go_on.set()
    async with working(hub.parts, handler.handlers):
        assert (await ended(hub.admin, job_id))["status"] == "succeeded"


async def test_a_worker_that_is_woken_as_it_is_stopped_stops(hub: Hub) -> None:
    running = runner.JobRunner(hub.parts, {})
    task = asyncio.create_task(running.run_forever())
    await asyncio.sleep(0.5)  # it waits by now
    running._woken.set()
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait((task,), timeout=5)
    assert done


async def test_a_worker_that_lost_its_lease_ends_nothing(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RENEWAL_S", 0.05)
    job_id, handler = await queued(hub), Handler()
    async with working(hub.parts, handler.handlers):
        await asyncio.wait_for(handler.begun.wait(), 20)
        lease, until_then = uuid4(), datetime.now(UTC) + timedelta(seconds=20)
        await records.run(
            "UPDATE jobs SET lease_id = $1, lease_until = $2 WHERE id = $3::uuid", lease, until_then, job_id
        )
        _, since = await records.mark()
        handler.go_on.set()
        await asyncio.sleep(0.3)
        (row,) = await records.run("SELECT status, lease_id, result FROM jobs WHERE id = $1::uuid", job_id)
    assert (row["status"], row["lease_id"], row["result"]) == ("running", lease, None)
    assert await records.events(since) == []


async def test_a_worker_outlives_a_database_that_refuses_it(
    hub: Hub, cluster: EmbeddedPostgres, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "IDLE_POLL_S", 0.05)
    handler = Handler()
    handler.go_on.set()
    superuser = await asyncpg.connect(cluster.url(SUPERUSER, "postgres"))
    name = hub.url.rpartition("/")[2].partition("?")[0]
    own = await records.one("SELECT pg_backend_pid()")
    async with working(hub.parts, handler.handlers) as task:
        await ended(hub.admin, await queued(hub))
        try:
            await superuser.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            await superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> $2", name, own
            )
            await asyncio.sleep(0.5)
            assert not task.done()
        finally:
            await superuser.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            await superuser.close()
        for _ in range(100):
            with contextlib.suppress(AssertionError, KeyError):
                job_id = await queued(hub)
                break
            await asyncio.sleep(0.1)
        assert (await ended(hub.admin, job_id))["status"] == "succeeded"


# --- watching ---


class Watching(Streaming):
    """A client of a job's stream; of several ids, with commas between them, of the stream of all of these jobs."""

    def __init__(self, hub: Hub, job_id: str, client: httpx.AsyncClient, method: str = "GET") -> None:
        many = "," in job_id
        path = "/api/v1/jobs/events" if many else f"/api/v1/jobs/{job_id}/events"
        super().__init__(hub, client, path, method=method, query=f"ids={job_id}" if many else "")

    @property
    def statuses(self) -> list[str]:
        return [job["status"] for job in self.data]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "LOOK_EVERY_S", 0.05)


@pytest.mark.usefixtures("quick")
async def test_a_stream_tells_of_each_change_and_ends_with_the_job(hub: Hub) -> None:
    job_id, handler = await queued(hub), Handler()
    watching = Watching(hub, job_id, hub.admin)
    await watching.first()
    async with working(hub.parts, handler.handlers):
        await asyncio.wait_for(handler.begun.wait(), 20)
        await asyncio.sleep(0.3)
        handler.go_on.set()
        await asyncio.wait_for(watching.task, 20)
    start = dict(watching.sent[0]["headers"])
    assert start[b"content-type"] == b"text/event-stream"
    assert start[b"cache-control"] == b"no-store"
    assert watching.statuses == ["queued", "running", "succeeded"]
    assert watching.text.startswith("event: job\nid: 1\ndata: ")
    assert watching.is_complete


async def test_the_stream_of_an_ended_job_is_one_event(hub: Hub) -> None:
    job_id = await queued(hub)
    await hub.admin.post(f"/api/v1/jobs/{job_id}/cancel")
    answer = await hub.admin.get(f"/api/v1/jobs/{job_id}/events")
    assert answer.status_code == 200
    assert answer.text.count("event: job") == 1


@pytest.mark.usefixtures("quick")
async def test_a_stream_ends_with_the_session(hub: Hub) -> None:
    owner = await hub.user_with("data-sources:discover")
    watching = Watching(hub, await queued(hub, owner), owner)
    await watching.first()
    assert (await owner.post("/api/v1/auth/logout")).status_code == 204
    await asyncio.wait_for(watching.task, 5)
    assert watching.is_complete
    assert watching.statuses == ["queued"]


@pytest.mark.usefixtures("quick")
async def test_a_stream_ends_with_the_permission(hub: Hub) -> None:
    reader = await hub.user_with("jobs:read")
    me = (await reader.get("/api/v1/auth/me")).json()
    watching = Watching(hub, await queued(hub), reader)
    await watching.first()
    (role,) = [role["id"] for role in me["roles"] if role["name"] != "public"]
    assert (await hub.admin.delete(f"/api/v1/users/{me['user']['id']}/roles/{role}")).status_code in (200, 204)
    await asyncio.wait_for(watching.task, 5)
    assert watching.is_complete


@pytest.mark.usefixtures("quick")
async def test_a_stream_ends_with_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = Watching(hub, await queued(hub), hub.admin)
    await watching.first()
    monkeypatch.setattr(following, "time", lambda: datetime.now(UTC).timestamp() + 3600)
    await asyncio.wait_for(watching.task, 5)
    assert watching.is_complete


@pytest.mark.usefixtures("quick")
async def test_a_client_that_leaves_ends_its_stream(hub: Hub) -> None:
    before = len(asyncio.all_tasks())
    watching = Watching(hub, await queued(hub), hub.admin)
    await watching.first()
    watching.leave()
    await asyncio.wait_for(watching.task, 5)
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0.01)


async def test_a_quiet_stream_says_that_it_is_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(following, "KEEP_ALIVE_S", 0.04)
    watching = Watching(hub, await queued(hub), hub.admin)
    for _ in range(200):
        if ": still here\n\n" in watching.text:
            break
        await asyncio.sleep(0.02)
    assert ": still here\n\n" in watching.text
    watching.leave()
    await watching.task


async def test_head_of_a_stream_does_not_wait_for_the_job(hub: Hub) -> None:
    watching = Watching(hub, await queued(hub), hub.admin, "HEAD")
    await asyncio.wait_for(watching.task, 5)
    assert watching.sent[0]["status"] == 200
    assert watching.text == ""


@pytest.mark.usefixtures("quick")
async def test_many_quiet_streams_ask_the_database_no_more_than_one_does(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    rows = hub.parts.reads.rows

    async def counted(statement: Any, values: Any, **options: Any) -> list[Any]:
        asked.append(values.get("ids"))
        return await rows(statement, values, **options)

    ids = [await queued(hub) for _ in range(3)]
    streams = [Watching(hub, job_id, hub.admin) for job_id in ids * 5]
    for stream in streams:
        await stream.first()
    with monkeypatch.context() as patched:
        patched.setattr(hub.parts.reads, "rows", counted)
        await asyncio.sleep(1)
    for stream in streams:
        stream.leave()
    await asyncio.gather(*(stream.task for stream in streams))
    assert 1 <= len(asked) <= 1 / 0.05 + len(streams)  # a first look may have been begun before the last one came
    assert {UUID(job_id) for job_id in ids} in [set(each) for each in asked if isinstance(each, list)]
    assert all(stream.statuses == ["queued"] for stream in streams)


@pytest.mark.usefixtures("quick")
async def test_one_stream_tells_of_several_jobs_and_ends_with_the_last(hub: Hub) -> None:
    ids, handler = sorted([await queued(hub) for _ in range(3)]), Handler()
    await hub.admin.post(f"/api/v1/jobs/{ids[0]}/cancel")
    watching = Watching(hub, ",".join(ids), hub.admin)
    await watching.first()
    async with working(hub.parts, handler.handlers):
        await asyncio.wait_for(handler.begun.wait(), 20)
        await asyncio.sleep(0.3)
        handler.go_on.set()
        await asyncio.wait_for(watching.task, 20)
    told = watching.data
    of_each = {job_id: [job["status"] for job in told if job["id"] == job_id] for job_id in ids}
    assert of_each == {ids[0]: ["cancelled"], **{job_id: ["queued", "running", "succeeded"] for job_id in ids[1:]}}
    assert f"event: job\nid: {ids[1]}:1\ndata: " in watching.text
    assert watching.is_complete


async def test_a_stream_of_jobs_that_have_ended_ends_at_once(hub: Hub) -> None:
    ids = [await queued(hub) for _ in range(2)]
    for job_id in ids:
        await hub.admin.post(f"/api/v1/jobs/{job_id}/cancel")
    answer = await hub.admin.get(f"/api/v1/jobs/events?ids={','.join(ids)}")
    assert (answer.status_code, answer.text.count("event: job")) == (200, 2)
    assert not hub.parts.streams._open


async def test_one_job_that_may_not_be_seen_hides_them_all(hub: Hub) -> None:
    """Alike, whether it is there or not."""
    own_jobs = await hub.user_with("data-sources:read", "data-sources:discover")
    path = f"{SOURCES}/{(await registered(hub, type='simulated', config={}))['id']}"
    own = (await own_jobs.post(f"{path}/discover")).json()["id"]
    for other in (await queued(hub), str(uuid4())):
        answer = await own_jobs.get(f"/api/v1/jobs/events?ids={own},{other}")
        assert answer.status_code == 404, answer.text
    assert (await hub.admin.get(f"/api/v1/jobs/events?ids={uuid4()}")).status_code == 404
    assert (await asked_for_streams(own_jobs, own)).status_code == 200


async def asked_for_streams(client: httpx.AsyncClient, ids: str) -> httpx.Response:
    return await client.head(f"/api/v1/jobs/events?ids={ids}")


@pytest.mark.usefixtures("quick")
async def test_without_ids_ones_own_jobs_are_watched(hub: Hub) -> None:
    someone = await hub.user_with("data-sources:read", "data-sources:discover")
    assert (await someone.get("/api/v1/jobs/events")).text == ""
    path = f"{SOURCES}/{(await registered(hub, type='simulated', config={}))['id']}"
    own = (await someone.post(f"{path}/discover")).json()["id"]
    await queued(hub)
    asked = asyncio.create_task(someone.get("/api/v1/jobs/events"))
    await asyncio.sleep(0.2)
    async with working(hub.parts):
        text = (await asyncio.wait_for(asked, 20)).text
    told = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert {job["id"] for job in told} == {own}
    assert told[-1]["status"] == "succeeded"


@pytest.mark.parametrize(
    "query", ["?ids=", "?ids=x", "?ids=01900000-0000-7000-8000-000000000001,", "?id=x", "?ids=x&ids=y"]
)
async def test_ids_that_are_none_are_refused(hub: Hub, query: str) -> None:
    answer = await hub.admin.get(f"/api/v1/jobs/events{query}")
    assert answer.status_code == 400, answer.text


async def test_twenty_five_jobs_to_a_stream(hub: Hub) -> None:
    ids = [str(uuid4()) for _ in range(26)]
    assert (await hub.admin.get(f"/api/v1/jobs/events?ids={','.join(ids[:25])}")).status_code == 404
    refused = await hub.admin.get(f"/api/v1/jobs/events?ids={','.join(ids)}")
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, "ids")


@pytest.mark.usefixtures("quick")
async def test_a_stream_of_several_jobs_ends_with_the_right_to_see_one(hub: Hub) -> None:
    reader = await hub.user_with("jobs:read")
    ids = [await queued(hub) for _ in range(2)]
    watching = Watching(hub, ",".join(ids), reader)
    await watching.first()
    user = (await reader.get("/api/v1/auth/me")).json()["user"]["id"]
    await hub.admin.patch(f"/api/v1/users/{user}", json={"is_active": False})
    await asyncio.wait_for(watching.task, 20)
    assert watching.statuses == ["queued", "queued"]


# --- A3: streams have limits ---


@contextlib.asynccontextmanager
async def many_streams(hub: Hub, job_id: str, client: httpx.AsyncClient, count: int) -> AsyncIterator[list[Watching]]:
    streams = [Watching(hub, job_id, client) for _ in range(count)]
    try:
        for stream in streams:
            await stream.first()
        yield streams
    finally:
        for stream in streams:
            stream.leave()
        await asyncio.gather(*(stream.task for stream in streams))


async def asked_for_stream(hub: Hub, job_id: str, client: httpx.AsyncClient) -> httpx.Response:
    """Its answer, and none where there is a stream: that one is left at once."""
    return await client.head(f"/api/v1/jobs/{job_id}/events")


@pytest.mark.found("A3")
async def test_so_many_streams_of_one_principal_and_no_more(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "OF_ONE_PRINCIPAL", 3)
    other = await hub.user_with("jobs:read")
    job_id = await queued(hub)
    again = await hub.sign_in(ADMIN_EMAIL)
    async with many_streams(hub, job_id, hub.admin, 3) as opened:
        for client in (hub.admin, again):
            refused = await client.get(f"/api/v1/jobs/{job_id}/events")
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
            assert int(refused.headers["retry-after"]) >= 1
        assert (await asked_for_stream(hub, job_id, other)).status_code == 200
        opened[0].leave()
        await opened[0].task
        assert (await asked_for_stream(hub, job_id, hub.admin)).status_code == 200
    for _ in range(5):
        assert (await asked_for_stream(hub, job_id, hub.admin)).status_code == 200, "each one has ended"
    assert not hub.parts.streams._open


@pytest.mark.found("A3")
async def test_so_many_streams_of_all_together(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "OF_ONE_PROCESS", 3)
    other = await hub.user_with("jobs:read")
    job_id = await queued(hub)
    async with many_streams(hub, job_id, hub.admin, 3):
        refused = await other.get(f"/api/v1/jobs/{job_id}/events")
        assert (refused.status_code, refused.json()["code"]) == (503, "server_busy")
    assert not hub.parts.streams._open
