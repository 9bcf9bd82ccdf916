"""The release before, from its own commit, against the schema of this one: it serves while the database is migrated and
goes on afterwards. Left out, because it looks for exactly its own revision: readiness, and a new start."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
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
from tests.commands.hubs import free_port
from tests.postgres import create_database, discard, drop_database, reachable_folder
from tests.serving import ADMIN_EMAIL, PASSWORD

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

RELEASE_BEFORE = "079f6f7"
"""0.1.0."""
ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 60
PASSED_ON = {("503", "database_migrated")}
"""What 0.1.0 says of a change that a migration came in between of: not done, to be tried again."""


@pytest.fixture(scope="module")
def source_of_before() -> Iterator[Path]:
    """The tree of that commit in a folder of its own."""
    if subprocess.run(["git", "cat-file", "-e", f"{RELEASE_BEFORE}^{{commit}}"], cwd=ROOT, check=False).returncode:
        pytest.fail(f"The release before ({RELEASE_BEFORE}) is not in this clone: `git fetch --unshallow` brings it.")
    folder = reachable_folder()
    archive = subprocess.run(["git", "archive", RELEASE_BEFORE, "app", "db"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    yield folder
    discard(folder)


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


@pytest.fixture
async def before(source_of_before: Path, cluster: EmbeddedPostgres) -> AsyncIterator[HubOfBefore]:
    database = await create_database(cluster)
    hub = HubOfBefore(source_of_before, database, cluster)
    try:
        await hub.wait_until_ready()
        yield hub
    finally:
        hub.stop()
        await drop_database(cluster, database)


class Traffic:
    """Everything that clients do, one after the other, and what was answered."""

    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=f"{url}/api/v1", trust_env=False, timeout=30)
        self.answers: list[tuple[str, str]] = []
        self.rounds = 0

    async def sign_in(self) -> None:
        pair = await self._ask("POST", "/auth/login", json={"email": ADMIN_EMAIL, "password": PASSWORD})
        self.client.headers["Authorization"] = f"Bearer {pair['access_token']}"

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = await self.client.request(method, path, **options)
        code = answer.json().get("code", "") if answer.status_code >= 400 else f"{method} {path}"
        self.answers.append((str(answer.status_code), code))
        return answer.json() if answer.content and answer.status_code < 400 else {}

    async def once(self) -> None:
        name = uuid4().hex
        role = await self._ask("POST", "/roles", json={"name": name, "permissions": ["roles:read"]})
        user = await self._ask("POST", "/users", json={"email": f"{name}@example.org", "password": PASSWORD})
        if role and user:
            await self._ask("PUT", f"/users/{user['id']}/roles/{role['id']}")
            await self._ask("PATCH", f"/users/{user['id']}", json={"email": f"new-{name}@example.org"})
            await self._ask("PATCH", f"/roles/{role['id']}", json={"name": f"new {name}"})
            await self._ask("GET", f"/roles/{role['id']}/members?sort=email")
            await self._ask("GET", f"/users/{user['id']}/roles")
            await self._ask("DELETE", f"/users/{user['id']}/roles/{role['id']}")
            await self._ask("DELETE", f"/roles/{role['id']}")
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


def faults_of(traffic: Traffic) -> list[tuple[str, str]]:
    return [answer for answer in traffic.answers if answer[0] >= "400" and answer not in PASSED_ON]


async def test_the_release_before_serves_while_and_after_the_database_is_migrated(before: HubOfBefore) -> None:
    clients = [Traffic(before.url) for _ in range(3)]
    for client in clients:
        await client.sign_in()
        await client.once()
    assert await migrations.current(before.owner_url) == "0003"
    done = asyncio.Event()
    running = [asyncio.create_task(client.until(done)) for client in clients]
    await migrations.migrate(before.owner_url)
    rounds = [client.rounds for client in clients]
    while min(client.rounds - at for client, at in zip(clients, rounds, strict=True)) < 3:
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in running)
    done.set()
    await asyncio.gather(*running)
    assert [fault for client in clients for fault in faults_of(client)] == []
    assert await migrations.current(before.owner_url) == migrations.head()
    passed_on = [answer for client in clients for answer in client.answers if answer in PASSED_ON]
    assert len(passed_on) < len(clients) * 20, "once for each statement that a migration has changed, not for good"


async def test_what_the_release_before_writes_is_whole_for_this_one(
    before: HubOfBefore,
) -> None:
    """Columns of this release that the one before knows nothing of are kept by the database."""
    traffic = Traffic(before.url)
    await traffic.sign_in()
    await traffic.once()
    await migrations.migrate(before.owner_url)
    for _ in range(3):
        await traffic.once()
    assert faults_of(traffic) == []
    connection = await asyncpg.connect(before.owner_url)
    try:
        differing = await connection.fetch(
            """SELECT users.email_key, user_email_key FROM user_roles JOIN users ON users.id = user_id
               WHERE (user_email_key, user_created_at, user_updated_at)
                 IS DISTINCT FROM (users.email_key, users.created_at, users.updated_at)"""
        )
        assert differing == []
        states = await connection.fetchval("SELECT count(*) FROM data_sources WHERE secret_states = '{}'")
        assert states == 0
        assert await connection.fetchval("SELECT count(*) FROM user_roles") > 3
        tags = await connection.fetch(
            """SELECT count(*) FILTER (WHERE (tag, source_updated_at, source_name_key)
                                         = ('shop', updated_at, name_key)), count(*)
               FROM data_sources LEFT JOIN data_source_tags ON data_source_id = data_sources.id"""
        )
        assert tags[0][0] == tags[0][1] > 1
    finally:
        await connection.close()


async def test_both_releases_serve_one_database(before: HubOfBefore) -> None:
    """While hubs are replaced one by one. What each of them writes, the other shows."""
    traffic = Traffic(before.url)
    await traffic.sign_in()
    await migrations.migrate(before.owner_url)
    settings = load({"HUB_DATA_DIR": str(before.data_dir), "HUB_LOG_LEVEL": "error"}, env_file=None)
    parts = prepare_parts(settings, before.app_url)
    litestar = create_app(parts)
    async with litestar.lifespan():
        transport = httpx.ASGITransport(framed(litestar, settings), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://hub.test/api/v1") as now:
            credentials = {"email": ADMIN_EMAIL, "password": PASSWORD}
            pair = (await now.post("/auth/login", json=credentials)).json()
            now.headers["Authorization"] = f"Bearer {pair['access_token']}"
            for made_by, shown_by in ((traffic.client, now), (now, traffic.client)):
                name = f"a{uuid4().hex}"
                role = (await made_by.post("/roles", json={"name": name, "permissions": ["roles:read"]})).json()
                user = (await made_by.post("/users", json={"email": f"{name}@example.org"})).json()
                given = await made_by.put(f"/users/{user['id']}/roles/{role['id']}")
                assert given.status_code == 200, given.text
                members = (await shown_by.get(f"/roles/{role['id']}/members")).json()["items"]
                assert [member["email"] for member in members] == [f"{name}@example.org"]
                found = (await shown_by.get("/users", params={"q": name})).json()["items"]
                assert [each["id"] for each in found] == [user["id"]]
                renamed = await shown_by.patch(f"/roles/{role['id']}", json={"name": f"now {name}"})
                assert renamed.status_code == 200, renamed.text
                shown = (await made_by.get(f"/users/{user['id']}")).json()
                assert f"now {name}" in [each["name"] for each in shown["roles"]]
                assert (await shown_by.delete(f"/roles/{role['id']}")).status_code == 204
