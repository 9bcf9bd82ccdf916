"""Releases before, from their own commits, beside the schema of this one. The last one goes on, with whatever this one
writes, and the other way round. One behind a declared break says so and stops, and nothing that it acknowledged is lost."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from app.asgi import create_app, framed
from app.core import migrations
from app.core.embedded import EmbeddedPostgres
from app.runtime import prepare_parts
from app.settings import load
from tests.ports import free_port
from tests.postgres import create_database, discard, drop_database, reachable_folder
from tests.serving import ADMIN_EMAIL, NO_LIMIT, PASSWORD

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

RELEASE_BEFORE = "fd38a1d"
"""0.4.0."""
BEHIND_A_BREAK = "3489235"
"""0.2.0: 0.3.0 is the break."""
PASSED_ON = (503, "database_migrated")
"""Of a change that a migration came in between of: not done, to be tried again."""
ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 60


@contextmanager
def source_of(commit: str) -> Iterator[Path]:
    """The tree of that commit in a folder of its own."""
    if subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, check=False).returncode:
        pytest.fail(f"The commit {commit} is not in this clone: `git fetch --unshallow` brings it.")
    folder = reachable_folder()
    archive = subprocess.run(["git", "archive", commit, "app", "db"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    yield folder
    discard(folder)


@pytest.fixture(scope="module")
def source_of_before() -> Iterator[Path]:
    with source_of(RELEASE_BEFORE) as folder:
        yield folder


@pytest.fixture(scope="module")
def source_behind_a_break() -> Iterator[Path]:
    with source_of(BEHIND_A_BREAK) as folder:
        yield folder


class HubOfBefore:
    """Serves on a database that it has migrated itself, as far as it knows how."""

    def __init__(self, source: Path, database: str, cluster: EmbeddedPostgres) -> None:
        self.owner_url, self.app_url = cluster.url("hub_owner", database), cluster.url("hub_app", database)
        self.data_dir = source / f"data-{database}"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.log = source / f"serve-{port}.log"
        variables = {
            "HUB_DATABASE_URL": self.app_url,
            "HUB_OWNER_DATABASE_URL": self.owner_url,
            "HUB_ENV": "development",
            "HUB_DATA_DIR": str(self.data_dir),
            "HUB_ADMIN_EMAIL": ADMIN_EMAIL,
            "HUB_ADMIN_PASSWORD": PASSWORD,
            "HUB_LOG_LEVEL": "warning",
            **NO_LIMIT,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
        command = [sys.executable, "-m", "app", "serve", "--port", str(port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=source, env=inherited | variables, stdout=log, stderr=log)

    async def wait_until_ready(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            for _ in range(READY_WITHIN_S * 10):
                assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
                try:
                    if (await client.get("/health/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
        raise AssertionError(self.log.read_text(encoding="utf-8"))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@asynccontextmanager
async def running(source: Path, cluster: EmbeddedPostgres) -> AsyncIterator[HubOfBefore]:
    database = await create_database(cluster)
    hub = HubOfBefore(source, database, cluster)
    try:
        await hub.wait_until_ready()
        yield hub
    finally:
        hub.stop()
        await drop_database(cluster, database)


@pytest.fixture
async def before(source_of_before: Path, cluster: EmbeddedPostgres) -> AsyncIterator[HubOfBefore]:
    async with running(source_of_before, cluster) as hub:
        yield hub


@pytest.fixture
async def behind(source_behind_a_break: Path, cluster: EmbeddedPostgres) -> AsyncIterator[HubOfBefore]:
    async with running(source_behind_a_break, cluster) as hub:
        yield hub


class Traffic:
    """Everything that clients do, one after the other, and what was answered."""

    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=f"{url}/api/v1", trust_env=False, timeout=30)
        self.given: list[tuple[str, str]] = []
        self.taken: list[tuple[str, str]] = []
        """What was said to be taken away."""
        self.asked_to_take: list[tuple[str, str]] = []
        """What may have been: whatever was answered."""
        self.rounds = 0
        self.answers: list[tuple[int, str]] = []
        """Status and code of each."""

    async def sign_in(self) -> None:
        pair = await self._ask("POST", "/auth/login", json={"email": ADMIN_EMAIL, "password": PASSWORD})
        self.client.headers["Authorization"] = f"Bearer {pair['access_token']}"

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = await self.client.request(method, path, **options)
        body = answer.json() if answer.content else {}
        self.answers.append((answer.status_code, body.get("code", "")))
        return body if answer.status_code < 400 else {}

    async def once(self) -> None:
        name = uuid4().hex
        role = await self._ask("POST", "/roles", json={"name": name, "permissions": ["roles:read"]})
        user = await self._ask("POST", "/users", json={"email": f"{name}@example.org", "password": PASSWORD})
        if role and user:
            if await self._ask("PUT", f"/users/{user['id']}/roles/{role['id']}"):
                self.given.append((user["id"], role["id"]))
            await self._ask("PATCH", f"/users/{user['id']}", json={"email": f"new-{name}@example.org"})
            await self._ask("PATCH", f"/roles/{role['id']}", json={"name": f"new {name}"})
            await self._ask("GET", f"/roles/{role['id']}/members?sort=email")
            await self._ask("GET", f"/users/{user['id']}/roles")
            if self.rounds % 2:
                self.asked_to_take.append((user["id"], role["id"]))
                path = f"/users/{user['id']}/roles/{role['id']}"
                if (await self.client.delete(path)).status_code < 400:
                    self.taken.append((user["id"], role["id"]))
        source = await self._ask(
            "POST",
            "/data-sources",
            json={
                "name": name,
                "type": "postgresql",
                "config": {"host": "db.example.org", "database": "shop", "username": "reader"},
                "secrets": {"password": "a secret of before"},
                "tags": ["shop"],
            },
        )
        if source:
            await self._ask("PATCH", f"/data-sources/{source['id']}", json={"secrets": {"password": "another one"}})
            await self._ask("GET", f"/data-sources/{source['id']}")
            await self._ask("GET", f"/data-sources/{source['id']}/objects")
            await self._ask("GET", f"/data-sources/{source['id']}/tests")
            if self.rounds % 2:
                await self._ask("DELETE", f"/data-sources/{source['id']}")
        for path in (
            "/users?q=exam&sort=-updated_at&count=exact",
            "/users?is_active=true&sort=email",
            "/roles?is_system=false",
            "/data-sources?tag=shop&status=untested&type=postgresql",
            "/jobs?status=queued",
            "/audit-events?outcome=success&action=role.create",
            "/auth/sessions?sort=last_seen_at",
            "/auth/me",
        ):
            await self._ask("GET", path)
        self.rounds += 1

    async def until(self, done: asyncio.Event) -> None:
        while not done.is_set():
            await self.once()


def faults_of(traffic: Traffic) -> list[tuple[int, str]]:
    return [answer for answer in traffic.answers if answer[0] >= 400 and answer != PASSED_ON]


async def test_the_release_before_serves_while_and_after_the_database_is_migrated(before: HubOfBefore) -> None:
    clients = [Traffic(before.url) for _ in range(3)]
    for client in clients:
        await client.sign_in()
        await client.once()
    found = await migrations.current(before.owner_url)
    assert found is not None
    assert found < migrations.head()
    done = asyncio.Event()
    working = [asyncio.create_task(client.until(done)) for client in clients]
    await migrations.migrate(before.owner_url)
    rounds = [client.rounds for client in clients]
    while min(client.rounds - at for client, at in zip(clients, rounds, strict=True)) < 3:
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in working)
    done.set()
    await asyncio.gather(*working)
    assert [fault for client in clients for fault in faults_of(client)] == []
    assert await migrations.current(before.owner_url) == migrations.head()
    passed_on = [answer for client in clients for answer in client.answers if answer == PASSED_ON]
    assert len(passed_on) < len(clients) * 20, "once for each statement that a migration has changed, not for good"
    async with httpx.AsyncClient(base_url=before.url, trust_env=False) as probe:
        assert (await probe.get("/health/ready")).status_code == 200


async def test_both_releases_serve_one_database(before: HubOfBefore) -> None:
    """While hubs are replaced one by one. What each of them writes, the other shows."""
    traffic = Traffic(before.url)
    await traffic.sign_in()
    await migrations.migrate(before.owner_url)
    async with this_release(before) as now:
        await sign_in(now)
        for made_by, shown_by in ((traffic.client, now), (now, traffic.client)):
            name = f"a{uuid4().hex}"
            role = (await made_by.post("/roles", json={"name": name, "permissions": ["roles:read"]})).json()
            user = (await made_by.post("/users", json={"email": f"{name}@example.org"})).json()
            given = await made_by.put(f"/users/{user['id']}/roles/{role['id']}")
            assert given.status_code == 200, given.text
            members = (await shown_by.get(f"/roles/{role['id']}/members")).json()["items"]
            assert [member["email"] for member in members] == [f"{name}@example.org"]
            renamed = await shown_by.patch(f"/roles/{role['id']}", json={"name": f"now {name}"})
            assert renamed.status_code == 200, renamed.text
            shown = (await made_by.get(f"/users/{user['id']}")).json()
            assert f"now {name}" in [each["name"] for each in shown["roles"]]
            assert (await shown_by.delete(f"/roles/{role['id']}")).status_code == 204
            told = (await shown_by.get("/audit-events", params={"resource_id": role["id"]})).json()["items"]
            assert [event["action"] for event in told] == ["role.delete", "role.update", "role.create"]


@asynccontextmanager
async def this_release(before: HubOfBefore) -> AsyncIterator[httpx.AsyncClient]:
    settings = load({"HUB_DATA_DIR": str(before.data_dir), "HUB_LOG_LEVEL": "error", **NO_LIMIT}, env_file=None)
    litestar = create_app(prepare_parts(settings, before.app_url))
    async with litestar.lifespan():
        transport = httpx.ASGITransport(framed(litestar, settings), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://hub.test/api/v1") as now:
            yield now


async def sign_in(client: httpx.AsyncClient, email: str = ADMIN_EMAIL) -> None:
    pair = (await client.post("/auth/login", json={"email": email, "password": PASSWORD})).json()
    client.headers["Authorization"] = f"Bearer {pair['access_token']}"


async def test_a_release_behind_a_break_says_that_it_cannot_follow_and_stops(behind: HubOfBefore) -> None:
    """With what it had acknowledged: every role that it gave is held, and every one that it took away is not."""
    clients = [Traffic(behind.url) for _ in range(3)]
    for client in clients:
        await client.sign_in()
        await client.once()
    done = asyncio.Event()
    working = [asyncio.create_task(client.until(done)) for client in clients]
    while min(client.rounds for client in clients) < 3:
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in working)
    await migrations.migrate(behind.owner_url)
    ended = await asyncio.to_thread(behind.process.wait, 30)
    done.set()
    await asyncio.gather(*working, return_exceptions=True)
    said = behind.log.read_text(encoding="utf-8")
    assert ended == 0, said
    assert "`user_roles` is gone" in said
    assert "Traceback" not in said
    assert await migrations.current(behind.owner_url) == migrations.head()
    given = {pair for client in clients for pair in client.given}
    taken = {pair for client in clients for pair in client.taken}
    held = await held_roles(behind.owner_url)
    assert len(given) > len(clients)
    asked_to_take = {pair for client in clients for pair in client.asked_to_take}
    assert given - asked_to_take - held == set()
    assert taken & held == set()


async def held_roles(url: str) -> set[tuple[str, str]]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT subject_id::text, role_id::text FROM role_assignments WHERE ended_at IS NULL AND scope_type = 'tenant'"
        )
    finally:
        await connection.close()
    return {(user_id, role_id) for user_id, role_id in rows}


async def test_this_release_goes_on_with_what_one_behind_a_break_wrote(behind: HubOfBefore) -> None:
    traffic = Traffic(behind.url)
    await traffic.sign_in()
    await traffic.once()
    name = f"a{uuid4().hex}"
    role = (await traffic.client.post("/roles", json={"name": name, "permissions": ["roles:read"]})).json()
    user = (await traffic.client.post("/users", json={"email": f"{name}@example.org", "password": PASSWORD})).json()
    assert (await traffic.client.put(f"/users/{user['id']}/roles/{role['id']}")).status_code == 200
    await migrations.migrate(behind.owner_url)
    async with this_release(behind) as now:
        await sign_in(now, user["email"])
        assert (await now.get("/auth/me")).json()["permissions"] == ["roles:read"]
        await sign_in(now)
        members = (await now.get(f"/roles/{role['id']}/members")).json()["items"]
        assert [member["email"] for member in members] == [user["email"]]
        assert (await now.delete(f"/users/{user['id']}/roles/{role['id']}")).status_code == 204
