"""The relay to a Redis stream: a ledger, while Redis is killed with -9, and a broker that is away beside it."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import redis

from app.core.embedded import EmbeddedPostgres
from app.core.publishing import DestinationAway
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.events import relay
from app.domain.events.destinations import WaitingEvent
from app.domain.events.relay import relay_events
from app.domain.events.sequencing import keep_in_order
from app.domain.events.stream import RedisStream
from tests.beside import beside
from tests.conftest import Hub, running_hub
from tests.connectors.servers.starting import private_folder, program, unprivileged, wait_for_port
from tests.domain.test_relay import waiting
from tests.ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.services]

STREAM = "hub:events"
PASSWORD = "stream-password"
WRITE = """INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data)
           VALUES (gen_random_uuid(), $1, 'org.datafusionhub.thing.changed', '/api/v1', $2, now(), $3) RETURNING id"""


class Redis:
    """Every command is on the disk before it is answered."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--requirepass", PASSWORD]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self._folder, **unprivileged()
        )
        wait_for_port(self.port, self._process)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port, password=PASSWORD, decode_responses=True)

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def entries(self) -> list[dict[str, Any]]:
        with self.client() as client:
            found: Any = client.xrange(STREAM)
        return [{**msgspec.json.decode(entry["event"]), "tenant": entry["tenant"]} for _, entry in found]


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with private_folder() as folder:
        server = Redis(folder)
        server.start()
        yield server
        server.kill()


@pytest.fixture(scope="module")
async def hub(
    cluster: EmbeddedPostgres, migrated: str, server: Redis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hub]:
    """Its broker is away, all the time."""
    given = {"HUB_REDIS_URL": server.url, "HUB_EVENTS_REDIS_STREAM": STREAM, "HUB_BROKER_URL": "stomp://127.0.0.1:1"}
    folder: Path = tmp_path_factory.mktemp("hub")
    async with running_hub(cluster, migrated, folder, **given) as running, beside(keep_in_order(running.parts)):
        yield running


@pytest.fixture
async def owner(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> "AsyncIterator[asyncpg.Connection[Any]]":
    monkeypatch.setattr(relay, "LONGEST_BACK_OFF_S", 0.3)
    connection = await asyncpg.connect(hub.owner_url)
    yield connection
    await connection.close()


def relaying(hub: Hub) -> AbstractAsyncContextManager[object]:
    """To both destinations, as a worker does."""
    return beside(relay_events(hub.parts))


async def until_streamed(owner: "asyncpg.Connection[Any]") -> None:
    async with asyncio.timeout(60):
        while await owner.fetchval("SELECT EXISTS (SELECT FROM outbox_events WHERE streamed_at IS NULL)"):
            await asyncio.sleep(0.05)


async def test_nothing_is_lost_while_redis_is_killed_and_the_broker_is_away(
    hub: Hub, server: Redis, owner: "asyncpg.Connection[Any]"
) -> None:
    written: dict[str, list[str]] = {}
    async with relaying(hub):
        for number in range(600):
            subject = f"things/{number % 5}"
            row = await owner.fetchval(WRITE, DEFAULT_TENANT_ID, subject, f'{{"n": {number}}}')
            written.setdefault(subject, []).append(str(row))
            if number in (200, 400):
                await asyncio.to_thread(server.kill)
            if number in (250, 450):
                await asyncio.to_thread(server.start)
            await asyncio.sleep(0.002)
        await until_streamed(owner)
    entries = server.entries()
    for subject, rows in written.items():
        assert list(dict.fromkeys(entry["id"] for entry in entries if entry["subject"] == subject)) == rows
    lost = sum(row not in {entry["id"] for entry in entries} for rows in written.values() for row in rows)
    print(f"written 600, acknowledged 600, arrived {len(entries)}, lost {lost}")
    assert {entry["tenant"] for entry in entries} == {"default"}
    assert await owner.fetchval("SELECT count(*) FROM outbox_events WHERE published_at IS NOT NULL") == 0
    away = await owner.fetch("SELECT destination FROM relays WHERE away_since IS NOT NULL")
    assert [row["destination"] for row in away] == ["broker"]


async def test_the_stream_is_cut_off(hub: Hub, server: Redis, owner: "asyncpg.Connection[Any]") -> None:
    short = RedisStream(msgspec.structs.replace(hub.settings, events_redis_length=1000))
    await short.connect()
    tenant_id, event_id = await owner.fetchrow("SELECT * FROM public.events_waiting_for_broker($1, 1, 1)", relay.NOBODY)
    event = WaitingEvent(*await owner.fetchrow(relay.WAITING, tenant_id, [event_id], "broker"))
    for _ in range(30):
        answers = await short.publish([event] * 100)
        assert {answer.outcome for answer in answers} == {"taken"}
    await short.close()
    with server.client() as client:
        assert 1000 <= client.xlen(STREAM) < 1500


async def test_a_stream_that_is_none_and_a_wrong_password_say_so(hub: Hub, server: Redis) -> None:
    with server.client() as client:
        client.set("text", "x")
    wrong = RedisStream(msgspec.structs.replace(hub.settings, events_redis_stream="text"))
    await wrong.connect()
    (answer,) = await wrong.publish([waiting("x", 1)])
    await wrong.close()
    assert (answer.outcome, answer.reason.split()[0]) == ("refused", "WRONGTYPE")
    stranger = RedisStream(msgspec.structs.replace(hub.settings, redis_url=server.url.replace(PASSWORD, "other")))
    with pytest.raises(DestinationAway, match="check user and password in HUB_REDIS_URL") as caught:
        await stranger.connect()
    assert "other" not in str(caught.value)
