"""ST6: a listener that is proven alive has heard everything, and one that lost its connection comes back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from app.core.embedded import EmbeddedPostgres
from app.core.notifications import Listener
from tests.postgres import create_database, drop_database

pytestmark = pytest.mark.anyio


class Heard:
    def __init__(self, url: str) -> None:
        self.messages: list[str] = []
        self.gaps = 0
        self.listener = Listener(url, "test", on_message=self._note, on_gap=self._note_gap)

    def _note(self, payload: str) -> None:
        self.messages.append(payload)

    def _note_gap(self) -> None:
        self.gaps += 1

    async def until(self, check: Any) -> None:
        async with asyncio.timeout(10):
            while not check():
                await asyncio.sleep(0.01)


@pytest.fixture
async def url(cluster: EmbeddedPostgres) -> AsyncIterator[str]:
    name = await create_database(cluster)
    yield cluster.url("hub_app", name)
    await drop_database(cluster, name)


@pytest.fixture
async def heard(url: str) -> AsyncIterator[Heard]:
    heard = Heard(url)
    heard.listener.start()
    await heard.until(lambda: heard.listener.is_proven_alive)
    yield heard
    await heard.listener.stop()


async def notify(url: str, *payloads: str) -> None:
    connection = await asyncpg.connect(url)
    for payload in payloads:
        await connection.execute("SELECT pg_notify('test', $1)", payload)
    await connection.close()


async def test_what_was_sent_is_heard_in_order(url: str, heard: Heard) -> None:
    await notify(url, "a", "b", "ü")
    await heard.until(lambda: len(heard.messages) == 3)
    assert heard.messages == ["a", "b", "ü"]


async def test_a_connection_that_is_ended_is_a_gap_and_then_comes_back(url: str, heard: Heard) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'hub listener' AND datname = current_database()"
    )
    await connection.close()
    await heard.until(lambda: heard.gaps == 2 and heard.listener.is_proven_alive)
    await notify(url, "again")
    await heard.until(lambda: heard.messages == ["again"])


@pytest.mark.parametrize(
    "error", [asyncpg.InternalClientError("state 12"), ConnectionResetError(), ValueError("odd"), AttributeError()]
)
async def test_a_listener_comes_back_whatever_ended_it(
    url: str, heard: Heard, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    other = Heard(url)
    real, failures = other.listener._listen_once, iter([error])

    async def fails_once() -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        await real()

    monkeypatch.setattr(other.listener, "_listen_once", fails_once)
    other.listener.start()
    await other.until(lambda: other.listener.is_proven_alive)
    await other.listener.stop()


async def test_a_server_that_is_not_there_proves_nothing() -> None:
    heard = Heard("postgresql://nobody@127.0.0.1:1/x")
    heard.listener.start()
    await asyncio.sleep(0.1)
    assert not heard.listener.is_proven_alive
    assert heard.gaps == 0
    await heard.listener.stop()


async def test_an_outage_is_one_line_in_the_log_however_often_it_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    tried = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        heard = Heard(f"postgresql://hub:secret@127.0.0.1:{port}/hub?sslmode=disable")
        heard.listener.start()
        await heard.until(lambda: tried >= 3)
        await heard.listener.stop()
    assert [record.getMessage().split(":")[0] for record in caplog.records if record.name == "hub.notifications"] == [
        "listener lost its connection"
    ]
