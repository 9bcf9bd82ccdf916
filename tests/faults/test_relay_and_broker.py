"""The relay against a real ActiveMQ: a ledger of what was written, acknowledged and has arrived, while something dies."""

import asyncio
import logging
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote
from uuid import UUID

import asyncpg
import msgspec
import pytest
import stompman

from app.core.embedded import EmbeddedPostgres
from app.core.publishing import DestinationAway
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.events import relay
from app.domain.events.broker import Broker
from app.domain.events.relay import Relay
from app.domain.events.sequencing import keep_in_order
from tests.beside import beside
from tests.conftest import Hub, running_hub
from tests.connectors.servers.activemq import MOST_BYTES, PASSWORD, USER, ActiveMq, activemq

pytestmark = [pytest.mark.anyio, pytest.mark.services, pytest.mark.fault("FT4")]

TYPE = "org.datafusionhub.thing.changed"
WRITE = """INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data)
           VALUES (gen_random_uuid(), $1, $2, '/api/v1', $3, now(), $4) RETURNING id"""
SUBJECTS = 7
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broker() -> Iterator[ActiveMq]:
    with activemq() as server:
        yield server


def url_of(broker: ActiveMq, *, password: str = PASSWORD, tls: bool = False) -> str:
    scheme, port = ("stomps", broker.tls_port) if tls else ("stomp", broker.port)
    return f"{scheme}://{quote(USER, safe='')}:{quote(password, safe='')}@localhost:{port}"


@pytest.fixture(scope="module")
async def hub(
    cluster: EmbeddedPostgres, migrated: str, broker: ActiveMq, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hub]:
    folder: Path = tmp_path_factory.mktemp("hub")
    async with (
        running_hub(cluster, migrated, folder, HUB_BROKER_URL=url_of(broker)) as running,
        beside(keep_in_order(running.parts)),
    ):
        yield running


@pytest.fixture
async def owner(hub: Hub) -> "AsyncIterator[asyncpg.Connection[Any]]":
    connection = await asyncpg.connect(hub.owner_url)
    await connection.execute("UPDATE outbox_events SET published_at = now() WHERE published_at IS NULL")
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "LONGEST_BACK_OFF_S", 0.5)
    monkeypatch.setattr(relay, "LEAD_EVERY_S", 0.2)
    monkeypatch.setattr(relay, "FIRST_RETRY_S", 0.1)


def relaying(hub: Hub, *, broker: Broker | None = None) -> AbstractAsyncContextManager[object]:
    return beside(Relay(hub.parts, broker or Broker(hub.settings)).run())


class Subscriber:
    """A durable one: what the broker has confirmed comes to it, whatever happens to the broker."""

    def __init__(self, broker: ActiveMq, name: str) -> None:
        self._broker = broker
        self._name = name
        self.arrived: list[dict[str, Any]] = []
        self.headers: list[dict[str, Any]] = []
        self.is_there = asyncio.Event()
        self.sign_ins = 0

    async def listen(self) -> None:
        while True:
            with suppress(OSError, EOFError):
                await self._listen_once()
            await asyncio.sleep(0.1)

    async def _listen_once(self) -> None:
        reader, writer = await asyncio.open_connection("localhost", self._broker.port)
        try:
            parser = stompman.FrameParser()
            headers: Any = {"accept-version": "1.2", "host": "localhost", "login": USER, "passcode": PASSWORD}
            writer.write(stompman.dump_frame(stompman.ConnectFrame(headers=headers | {"client-id": self._name})))
            where = {"id": "1", "destination": "/topic/hub.default.org.>", "ack": "client", "receipt": "there"}
            subscribe: Any = where | {"activemq.subscriptionName": self._name, "activemq.prefetchSize": "500"}
            writer.write(stompman.dump_frame(stompman.SubscribeFrame(headers=subscribe)))
            signed_in = asyncio.timeout(10)
            async with signed_in:
                while chunk := await reader.read(65_536):
                    for frame in list(parser.parse_frames_from_chunk(chunk)):
                        self._take_in(frame, writer)
                        if isinstance(frame, stompman.ReceiptFrame):
                            signed_in.reschedule(None)
        finally:
            writer.transport.abort()

    def _take_in(self, frame: object, writer: asyncio.StreamWriter) -> None:
        if isinstance(frame, stompman.ReceiptFrame):
            self.is_there.set()
            self.sign_ins += 1
        elif isinstance(frame, stompman.ErrorFrame):
            raise EOFError(frame.headers.get("message"))
        elif isinstance(frame, stompman.MessageFrame):
            self.arrived.append(msgspec.json.decode(frame.body))
            self.headers.append(dict(frame.headers))
            ack: Any = {"id": frame.headers["ack"], "subscription": "1"}
            writer.write(stompman.dump_frame(stompman.AckFrame(headers=ack)))


@asynccontextmanager
async def subscribed(broker: ActiveMq, name: str) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber(broker, name)
    async with beside(subscriber.listen()):
        async with asyncio.timeout(60):
            await subscriber.is_there.wait()
        yield subscriber


class Ledger:
    """What was written of this test, and by which id it was acknowledged."""

    def __init__(self, owner: "asyncpg.Connection[Any]", name: str) -> None:
        self._owner = owner
        self._name = name
        self.acknowledged: dict[str, list[str]] = {}

    async def write(self, count: int, pause_s: float = 0.0) -> None:
        for number in range(count):
            subject = f"{self._name}/{number % SUBJECTS}"
            data = msgspec.json.encode({"n": number}).decode()
            row: UUID = await self._owner.fetchval(WRITE, DEFAULT_TENANT_ID, TYPE, subject, data)
            self.acknowledged.setdefault(subject, []).append(str(row))
            await asyncio.sleep(pause_s)

    @property
    def written(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    def lost(self, arrived: list[dict[str, Any]]) -> int:
        there = {event["id"] for event in arrived}
        return sum(row not in there for rows in self.acknowledged.values() for row in rows)

    def holds_against(self, arrived: list[dict[str, Any]]) -> None:
        """Nothing is lost, and the first arrivals of each subject come in the order in which they were committed."""
        assert self.lost(arrived) == 0, f"written {self.written}, arrived {len(arrived)}"
        for subject, rows in self.acknowledged.items():
            firsts = list(dict.fromkeys(event["id"] for event in arrived if event["subject"] == subject))
            assert firsts == rows, subject
        print(f"written {self.written}, acknowledged {self.written}, arrived {len(arrived)}, lost 0")

    async def arrives(self, subscriber: Subscriber, timeout_s: float = 120) -> None:
        ends = monotonic() + timeout_s
        while lost := self.lost(subscriber.arrived):
            noted = await self._owner.fetchval("SELECT count(*) FROM outbox_events WHERE published_at IS NULL")
            told = f"written {self.written}, arrived {len(subscriber.arrived)}, lost {lost}, unpublished {noted}"
            assert monotonic() < ends, f"{told}, signed in {subscriber.sign_ins} times"
            await asyncio.sleep(0.05)


async def none_waits(owner: "asyncpg.Connection[Any]", timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while await owner.fetchval(
            "SELECT EXISTS (SELECT FROM outbox_events WHERE published_at IS NULL AND set_aside_at IS NULL)"
        ):
            await asyncio.sleep(0.05)


# --- as it should be ---


async def test_an_event_arrives_as_a_cloud_event(hub: Hub, broker: ActiveMq, owner: "asyncpg.Connection[Any]") -> None:
    async with subscribed(broker, "plain") as subscriber, relaying(hub):
        role = await hub.new_role()
        async with asyncio.timeout(60):
            while not subscriber.arrived:
                await asyncio.sleep(0.02)
    event, headers = subscriber.arrived[0], subscriber.headers[0]
    assert list(event) == ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"]
    assert (event["specversion"], event["source"], event["subject"]) == ("1.0", "/api/v1", f"roles/{role['id']}")
    assert (event["data"]["name"], event["datacontenttype"]) == (role["name"], "application/json")
    assert headers["destination"] == "/topic/hub.default.org.datafusionhub.role.created"
    assert headers["content-type"] == "application/cloudevents+json"
    assert headers["persistent"] == "true"
    assert headers["correlation-id"] == event["id"]


async def test_an_event_of_a_megabyte_arrives(hub: Hub, broker: ActiveMq, owner: "asyncpg.Connection[Any]") -> None:
    text = "x" * 1_000_000
    async with subscribed(broker, "large") as subscriber, relaying(hub):
        row = await owner.fetchval(WRITE, DEFAULT_TENANT_ID, TYPE, "large", msgspec.json.encode({"x": text}).decode())
        async with asyncio.timeout(60):
            while not subscriber.arrived:
                await asyncio.sleep(0.05)
    assert [(event["id"], event["data"]["x"] == text) for event in subscriber.arrived] == [(str(row), True)]


async def test_tls_is_verified(hub: Hub, broker: ActiveMq, owner: "asyncpg.Connection[Any]") -> None:
    settings = msgspec.structs.replace(hub.settings, broker_url=url_of(broker, tls=True))
    stranger = Broker(settings)
    with pytest.raises(DestinationAway, match=r"certificate of localhost.* is not valid.*HUB_BROKER_CA_FILE"):
        await stranger.connect()
    other_name = msgspec.structs.replace(
        settings,
        broker_url=url_of(broker, tls=True).replace("localhost", "127.0.0.1"),
        broker_ca_file=broker.ca_file,
    )
    with pytest.raises(DestinationAway, match=r"certificate of 127\.0\.0\.1.* is not valid"):
        await Broker(other_name).connect()
    known = Broker(msgspec.structs.replace(settings, broker_ca_file=broker.ca_file))
    async with relaying(hub, broker=known):
        await owner.fetchval(WRITE, DEFAULT_TENANT_ID, TYPE, "sealed", "{}")
        await none_waits(owner)


async def test_a_wrong_password_is_told_once_with_what_to_do(
    hub: Hub, broker: ActiveMq, owner: "asyncpg.Connection[Any]", caplog: pytest.LogCaptureFixture
) -> None:
    settings = msgspec.structs.replace(hub.settings, broker_url=url_of(broker, password="wrong"))
    caplog.set_level(logging.INFO, "hub.relay")
    async with relaying(hub, broker=Broker(settings)):
        await owner.fetchval(WRITE, DEFAULT_TENANT_ID, TYPE, "shut", "{}")
        await asyncio.sleep(3)
    told = [record.getMessage() for record in caplog.records if record.name == "hub.relay"]
    assert len(told) == 1
    assert "check the user and the password in HUB_BROKER_URL" in told[0]
    assert "wrong" not in told[0]
    assert await owner.fetchval("SELECT published_at FROM outbox_events WHERE subject = 'shut'") is None


# --- ledgers ---


@contextmanager
def worker(hub: Hub, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`hub worker`, as it runs in production, killed with -9 at the end of the block."""
    settings = {
        "HUB_ENV": "development",
        "HUB_DATA_DIR": str(hub.settings.data_dir),
        "HUB_DATABASE_URL": hub.url,
        "HUB_BROKER_URL": str(hub.settings.broker_url),
        "PATH": os.environ["PATH"],
    }
    command = [sys.executable, "-m", "app", "worker"]
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(command, env=settings, stdout=log, stderr=log, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_nothing_is_lost_while_workers_are_killed(
    hub: Hub, broker: ActiveMq, owner: "asyncpg.Connection[Any]", tmp_path: Path
) -> None:
    """Two processes; each is killed with -9 in turn, and another started in its place."""
    ledger = Ledger(owner, "killed workers")
    async with subscribed(broker, "killed-workers") as subscriber:
        with ExitStack() as one, ExitStack() as other:
            workers = [one, other]
            for each in workers:
                each.enter_context(worker(hub, tmp_path))
            for turn in range(4):
                at_least = len(subscriber.arrived) + 50
                await ledger.write(200, pause_s=0.002)
                async with asyncio.timeout(120):
                    while len(subscriber.arrived) < at_least:
                        await asyncio.sleep(0.02)
                await asyncio.to_thread(workers[turn % 2].close)
                workers[turn % 2].enter_context(worker(hub, tmp_path))
            await ledger.arrives(subscriber)
            await none_waits(owner)
    assert ledger.written == 800
    ledger.holds_against(subscriber.arrived)


async def test_nothing_is_lost_while_the_broker_is_killed_under_load(
    hub: Hub, broker: ActiveMq, owner: "asyncpg.Connection[Any]"
) -> None:
    """Twice with -9, each time in the midst of it, and started again on what it has stored."""
    ledger = Ledger(owner, "killed broker")
    async with subscribed(broker, "killed-broker") as subscriber, relaying(hub):
        writing = asyncio.create_task(ledger.write(1500, pause_s=0.003))
        for _ in range(2):
            await asyncio.sleep(1.5)
            await asyncio.to_thread(broker.kill)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(broker.start)
        await writing
        await ledger.arrives(subscriber)
        await none_waits(owner)
    assert ledger.written == 1500
    ledger.holds_against(subscriber.arrived)
    assert await owner.fetchval("SELECT count(*) FROM outbox_events WHERE set_aside_at IS NOT NULL") == 0


async def test_nothing_is_lost_while_relays_are_killed_at_any_moment(
    hub: Hub, broker: ActiveMq, owner: "asyncpg.Connection[Any]"
) -> None:
    """Connection and lock go with them, wherever they are: before a send, between it and the note, after the note."""
    ledger = Ledger(owner, "killed relay")
    dice = random.Random(7)
    async with subscribed(broker, "killed-relay") as subscriber:
        writing = asyncio.create_task(ledger.write(1000, pause_s=0.002))
        while not writing.done():
            async with relaying(hub):
                await asyncio.sleep(dice.uniform(0.05, 0.4))
        async with relaying(hub):
            await ledger.arrives(subscriber)
            await none_waits(owner)
    ledger.holds_against(subscriber.arrived)


async def test_a_refused_event_and_a_too_large_one_go_aside_and_block_only_their_subjects(
    hub: Hub, broker: ActiveMq, owner: "asyncpg.Connection[Any]"
) -> None:
    ledger = Ledger(owner, "beside poison")
    large = msgspec.json.encode({"x": "x" * (MOST_BYTES + 1)}).decode()
    poison = {
        await owner.fetchval(WRITE, DEFAULT_TENANT_ID, "forbidden.topic", "bad/1", "{}"),
        await owner.fetchval(WRITE, DEFAULT_TENANT_ID, TYPE, "bad/2", large),
        await owner.fetchval(WRITE, DEFAULT_TENANT_ID, "two,topics", "bad/3", "{}"),
    }
    after = [str(await owner.fetchval(WRITE, DEFAULT_TENANT_ID, TYPE, f"bad/{n}", "{}")) for n in (1, 2, 3)]
    async with subscribed(broker, "poison") as subscriber, relaying(hub):
        async with asyncio.timeout(120):
            while len(await owner.fetch("SELECT id FROM outbox_events WHERE set_aside_at IS NOT NULL")) < 3:
                await ledger.write(5)
                await asyncio.sleep(0.2)
        await ledger.arrives(subscriber)
        await none_waits(owner)
        async with asyncio.timeout(60):
            while not set(after) <= {event["id"] for event in subscriber.arrived}:
                await asyncio.sleep(0.05)
    ledger.holds_against(subscriber.arrived)
    aside = await owner.fetch("SELECT id FROM outbox_events WHERE set_aside_at IS NOT NULL")
    assert {row["id"] for row in aside} == poison


async def test_the_api_does_not_notice_a_broker_that_is_away(
    hub: Hub, broker: ActiveMq, owner: "asyncpg.Connection[Any]"
) -> None:
    """A change is answered while nobody publishes; all of it arrives afterwards."""
    async with subscribed(broker, "later") as subscriber, relaying(hub):
        await asyncio.to_thread(broker.kill)
        made = [await hub.new_role() for _ in range(5)]
        assert await owner.fetchval("SELECT count(*) FROM outbox_events WHERE published_at IS NULL") >= 5
        await asyncio.to_thread(broker.start)
        wanted = {f"roles/{role['id']}" for role in made}
        async with asyncio.timeout(60):
            while not wanted <= {event["subject"] for event in subscriber.arrived}:
                await asyncio.sleep(0.05)
