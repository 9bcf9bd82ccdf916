"""Webhooks of a hub as it is served: by its own worker, which somebody kills, and with keys that are rotated or lost."""

import asyncio
import json
import os
import signal
from pathlib import Path

import asyncpg
import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from app.core.sealing import KeyRing
from tests.commands.hubs import Serve, Served, run
from tests.receivers import keeps_silent, receiving, takes

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def made(hub: Served, url: str) -> dict[str, str]:
    def make() -> dict[str, str]:
        with hub.client() as client:
            answer = client.post("/webhooks", json={"url": url, "event_types": ["role.created"]})
            assert answer.status_code == 201, answer.text
            return dict(answer.json())

    return await asyncio.to_thread(make)


async def add_role(hub: Served, name: str) -> None:
    def add() -> None:
        with hub.client() as client:
            assert client.post("/roles", json={"name": name}).status_code == 201

    await asyncio.to_thread(add)


async def run_out(data_dir: Path) -> None:
    """Every lease: as a minute would."""
    record = json.loads((data_dir / "postgres.json").read_text())
    url = f"postgresql://hub_owner:{record['passwords']['hub_owner']}@127.0.0.1:{record['port']}/hub"
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE webhooks SET lease_until = now() - interval '1 second'")
    await connection.close()


async def test_a_worker_is_killed_while_it_sends_and_the_next_one_sends_again(data_dir: Path, serve: Serve) -> None:
    hub = await asyncio.to_thread(serve, data_dir)
    async with receiving(keeps_silent) as receiver, asyncio.timeout(90):
        webhook = await made(hub, receiver.url)
        await add_role(hub, "one")
        while not receiver.received:
            await asyncio.sleep(0.05)
        worker = await asyncio.to_thread(hub.wait_for, "worker")
        receiver.answering = takes
        os.kill(worker, signal.SIGKILL)
        await run_out(data_dir)
        while len(receiver.received) < 2:
            await asyncio.sleep(0.05)
        await add_role(hub, "two")
        while len(receiver.received) < 3:
            await asyncio.sleep(0.05)
    first, again, other = receiver.received
    assert first.headers["webhook-id"] == again.headers["webhook-id"] != other.headers["webhook-id"]
    for received in receiver.received:
        Verifier(webhook["secret"]).verify(received.body, received.headers)
    await asyncio.to_thread(hub.stop)


async def test_secrets_of_webhooks_are_among_those_that_keys_hold(data_dir: Path, serve: Serve) -> None:
    hub = await asyncio.to_thread(serve, data_dir)
    webhook = await made(hub, "https://no-such-name.invalid/")
    assert webhook["secret"]
    await asyncio.to_thread(hub.stop)
    assert "1 secret," in run(data_dir, "keys", "list").stdout
    rotated = run(data_dir, "keys", "rotate")
    assert (rotated.returncode, rotated.stdout.partition(" with key")[0]) == (0, "1 secret sealed anew")
    ring = (data_dir / "secret-keys").read_text()
    (data_dir / "secret-keys").write_text(ring.partition(",")[0])
    assert "1, and every one opens" in run(data_dir, "check").stdout
    new = KeyRing.parse(ring).current_id
    (data_dir / "secret-keys").write_text(KeyRing.generate(new))
    replaced = run(data_dir, "keys", "list")
    assert replaced.returncode == 1
    assert f"sealed with a key {new} which is not the one" in replaced.stderr
    (data_dir / "secret-keys").unlink()
    assert f"sealed with the key {new}, and" in run(data_dir, "keys", "list").stderr
