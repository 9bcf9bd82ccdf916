"""FT1, FT2, RL6: the database goes away, comes back, is full, or falls silent; the hub answers in time and needs no restart."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.asgi import create_app, framed
from app.core import embedded, migrations
from app.core.deadlines import Deadlines
from app.core.embedded import EmbeddedPostgres
from app.core.tenancy import DEFAULT_TENANT_ID
from app.settings import load
from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub, parts_of_hub, running_hub
from tests.postgres import create_database, discard, reachable_folder
from tests.serving import NO_LIMIT

pytestmark = pytest.mark.anyio

BACK_WITHIN_S = 15
"""Patience of the tests, not a promise of the hub: other work shares the machine."""
DEADLINE_S = 1.0


@dataclass
class Cluster:
    """A server of this module's own, which may be stopped, killed and started again on its port."""

    folder: Path
    server: EmbeddedPostgres

    def start(self) -> None:
        port = self.server.port
        self.server = embedded.start(self.folder)
        assert self.server.port == port

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        os.kill(self.server.pid, signal.SIGKILL)
        with suppress(Exception):
            self.server.stop()


@pytest.fixture(autouse=True)
async def tolerated() -> AsyncIterator[None]:
    """A connection given up while it is being made leaves a future of asyncpg's that nobody asks; the loop mentions it."""
    loop = asyncio.get_running_loop()
    strict = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if str(context.get("exception")) == "unexpected connection_lost() call":
            return
        if strict is None:
            loop.default_exception_handler(context)
        else:
            strict(loop, context)

    loop.set_exception_handler(handle)
    yield
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(strict)


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    folder = reachable_folder()
    cluster = Cluster(folder, embedded.start(folder, exclusive=True))
    yield cluster
    cluster.server.stop()
    discard(folder)


@pytest.fixture(scope="module")
async def template(own_cluster: Cluster) -> str:
    name = await create_database(own_cluster.server)
    await migrations.migrate(own_cluster.server.url("hub_owner", name))
    return name


@pytest.fixture
async def hub(own_cluster: Cluster, template: str, tmp_path: Path) -> AsyncIterator[Hub]:
    async with running_hub(
        own_cluster.server, template, tmp_path, HUB_POOL_SIZE="2", HUB_REQUEST_TIMEOUT_S="5"
    ) as running:
        yield running


async def every_kind_of_request(hub: Hub) -> list[httpx.Response]:
    """A read by id, a list, one's own, a write, a deletion, a login, a refresh, a registration."""
    api, client = hub.admin, hub.client()
    credentials = {"email": ADMIN_EMAIL, "password": PASSWORD}
    requests: list[Awaitable[httpx.Response]] = [
        api.get(f"/api/v1/roles/{uuid4()}"),
        api.get("/api/v1/users?count=exact"),
        api.get("/api/v1/auth/sessions"),
        api.post("/api/v1/roles", json={"name": uuid4().hex}),
        api.delete(f"/api/v1/roles/{uuid4()}"),
        client.post("/api/v1/auth/login", json=credentials),
        client.post("/api/v1/auth/register", json={"email": f"{uuid4().hex}@example.org", "password": PASSWORD}),
        client.get("/health/ready"),
    ]
    return list(await asyncio.gather(*requests))


def assert_unavailable(answers: list[httpx.Response]) -> None:
    for answer in answers:
        assert answer.status_code == 503, (answer.request.url, answer.text)
        assert int(answer.headers["retry-after"]) >= 1
        if answer.request.url.path.startswith("/api"):
            assert set(answer.json()) == {"detail", "code", "request_id"}
            assert "127.0.0.1" not in answer.text


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(BACK_WITHIN_S):
        while not await check():
            await asyncio.sleep(0.05)


async def is_back(hub: Hub) -> bool:
    made = await hub.admin.post("/api/v1/roles", json={"name": uuid4().hex})
    read = await hub.admin.get("/api/v1/auth/me")
    assert {made.status_code, read.status_code} <= {200, 201, 503}, made.text
    return (made.status_code, read.status_code) == (201, 200)


@pytest.mark.slow
async def test_a_stopped_database_is_a_503_and_a_started_one_is_used_again(hub: Hub, own_cluster: Cluster) -> None:
    assert await is_back(hub)
    await asyncio.to_thread(own_cluster.server.stop)
    try:
        assert_unavailable(await every_kind_of_request(hub))
        assert_unavailable(await every_kind_of_request(hub))
        assert (await hub.client().get("/health/live")).status_code == 200
        await asyncio.sleep(0.9)
        assert_unavailable([await hub.admin.get("/api/v1/auth/me")])
    finally:
        own_cluster.start()
    await until(lambda: is_back(hub))
    assert (await hub.client().get("/health/ready")).status_code == 200
    answers = [answer.status_code for answer in await every_kind_of_request(hub)]
    assert answers == [404, 200, 200, 201, 404, 200, 201, 200]


@pytest.mark.slow
async def test_what_was_acknowledged_before_a_crash_is_there_afterwards(hub: Hub, own_cluster: Cluster) -> None:
    acknowledged: list[str] = []
    is_over = asyncio.Event()

    async def keep_writing() -> None:
        while not is_over.is_set():
            name = uuid4().hex
            answer = await hub.admin.post("/api/v1/roles", json={"name": name})
            assert answer.status_code in (201, 503), answer.text
            if answer.status_code == 201:
                acknowledged.append(name)
            else:
                await asyncio.sleep(0.02)

    async def enough() -> bool:
        return len(acknowledged) > 30

    writers = [asyncio.create_task(keep_writing()) for _ in range(3)]
    await until(enough)
    await asyncio.to_thread(own_cluster.kill)
    before = len(acknowledged)
    own_cluster.start()

    async def goes_on() -> bool:
        return len(acknowledged) > before + 10

    await until(goes_on)
    is_over.set()
    await asyncio.gather(*writers)
    stored = set()
    cursor: str | None = ""
    while cursor is not None:
        page = (await hub.admin.get("/api/v1/roles?limit=200" + (f"&cursor={cursor}" if cursor else ""))).json()
        stored |= {role["name"] for role in page["items"]}
        cursor = page["next_cursor"]
    assert set(acknowledged) <= stored
    async with hub.parts.reads.connection(None, DEFAULT_TENANT_ID) as connection:
        for table in ("audit_events", "outbox_events"):
            kind = "action = 'role.create'" if table == "audit_events" else "type LIKE '%role.created'"
            recorded = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE {kind}")
            roles = await connection.fetchval("SELECT count(*) FROM roles WHERE NOT is_system")
            assert recorded == roles, f"all or none: {table}"


@pytest.mark.slow
async def test_a_hub_starts_without_its_database_and_finds_it_later(hub: Hub, own_cluster: Cluster) -> None:
    await asyncio.to_thread(own_cluster.server.stop)
    try:
        parts = parts_of_hub(hub.settings, hub.url)
        litestar = create_app(parts)
        late = replace(hub, parts=parts, app=framed(litestar, hub.settings))
        late.admin = late.client(hub.admin.headers["authorization"].removeprefix("Bearer "))
        async with litestar.lifespan():
            assert_unavailable(await every_kind_of_request(late))
            own_cluster.start()
            await until(lambda: is_back(late))
    finally:
        with suppress(AssertionError):
            own_cluster.start()


@pytest.mark.fault("RL6")
async def test_pools_that_are_in_use_are_a_503_and_then_free_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for places in (hub.parts.change_places, hub.parts.reads.places):
        monkeypatch.setattr(places, "_waits", Deadlines(0.1))
    assert await is_back(hub)
    async with AsyncExitStack() as held:
        for _ in range(hub.settings.pool_size):
            await held.enter_async_context(hub.parts.engine.connect())
            await held.enter_async_context(hub.parts.reads.connection(None, DEFAULT_TENANT_ID))
        *answers, ready = await every_kind_of_request(hub)
        assert_unavailable(answers)
        assert ready.status_code == 200, "it asks beside the pools"
        assert "database_busy" in {answer.json().get("code") for answer in answers}
    assert await is_back(hub)


@pytest.mark.slow
async def test_many_more_requests_than_connections_are_all_answered(hub: Hub) -> None:
    answers = await asyncio.gather(*(hub.admin.get("/api/v1/roles") for _ in range(200)))
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.fault("FT3")
async def test_a_client_that_leaves_frees_its_connection(hub: Hub) -> None:
    """FT3: cut off in the middle of a read or a write, again and again: no place in a pool is lost."""
    for _ in range(10):
        tasks = [
            asyncio.create_task(hub.admin.post("/api/v1/roles", json={"name": uuid4().hex})),
            asyncio.create_task(hub.admin.get("/api/v1/users?count=exact")),
        ]
        await asyncio.sleep(0.002)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    answers = await asyncio.gather(*(is_back(hub) for _ in range(6)))
    assert all(answers)


# --- a database that falls silent ---


class Proxy:
    """Stands between the hub and PostgreSQL; `silent`, it takes everything and passes nothing on, nor says that it ends."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._last_words: bytes | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def fall_silent(self) -> None:
        self._speaks.clear()

    def fall_silent_at(self, words: bytes) -> None:
        """As soon as the hub says these."""
        self._last_words = words

    def speak(self) -> None:
        self._last_words = None
        self._speaks.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._speaks.wait()
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass_on(source, sink))
            self._tasks.add(task)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if self._last_words and self._last_words in data:
                    self.fall_silent()
                await self._speaks.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


@asynccontextmanager
async def behind_a_proxy(hub: Hub, proxy: Proxy, port: int, deadline_s: float = DEADLINE_S) -> AsyncIterator[Hub]:
    """Another worker of the hub, which sees the database through the proxy and has a deadline of its own."""
    settings = load(
        {
            "HUB_DATA_DIR": str(hub.settings.data_dir),
            "HUB_LOG_LEVEL": "error",
            "HUB_REQUEST_TIMEOUT_S": str(deadline_s),
            "HUB_POOL_SIZE": "2",
            **NO_LIMIT,
        },
        env_file=None,
    )
    parts = parts_of_hub(settings, hub.url.replace(f":{port}/", f":{proxy.port}/"))
    litestar = create_app(parts)
    async with litestar.lifespan():
        far = replace(hub, parts=parts, app=framed(litestar, settings), settings=settings)
        far.admin = far.client(hub.admin.headers["authorization"].removeprefix("Bearer "))
        yield far


@pytest.mark.slow
@pytest.mark.parametrize("connections", ["used before", "never opened"])
async def test_a_database_that_falls_silent_holds_no_request_beyond_its_deadline(
    hub: Hub, own_cluster: Cluster, connections: str
) -> None:
    port = own_cluster.server.port
    async with Proxy(port).running() as proxy, behind_a_proxy(hub, proxy, port) as far:
        if connections == "used before":
            assert await is_back(far)
        proxy.fall_silent()
        for _ in range(2):
            async with asyncio.timeout(DEADLINE_S * 10):
                answers = await every_kind_of_request(far)
            assert_unavailable(answers)
        proxy.speak()
        await until(lambda: is_back(far))


@pytest.mark.slow
@pytest.mark.parametrize("words", [b"UPDATE users", b"INSERT INTO sessions", b"COMMIT"])
async def test_a_database_that_falls_silent_in_a_transaction_holds_no_request_beyond_its_deadline(
    hub: Hub, own_cluster: Cluster, words: bytes
) -> None:
    """Nobody waits for the two seconds that a connection is given to say goodbye."""
    port, deadline_s = own_cluster.server.port, 3.0
    async with Proxy(port).running() as proxy, behind_a_proxy(hub, proxy, port, deadline_s) as far:
        assert await is_back(far)
        proxy.fall_silent_at(words)
        async with asyncio.timeout(deadline_s + 1.5):
            answer = await far.client().post("/api/v1/auth/login", json={"email": ADMIN_EMAIL, "password": PASSWORD})
        assert_unavailable([answer])
        proxy.speak()
        await until(lambda: is_back(far))
