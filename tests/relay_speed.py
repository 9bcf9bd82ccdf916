"""How quickly the relay publishes to ActiveMQ, beside bare sends of stompman to the same broker.

`python -m tests.relay_speed [EVENTS]`. Prints events per second and the CPU of this process, and their ratios: the
machine counts, so only numbers of one run belong together.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any
from urllib.parse import quote

import asyncpg
import stompman

from app.core import migrations
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.events.broker import Broker
from app.domain.events.relay import Relay
from app.runtime import prepare_parts
from app.settings import load
from tests.connectors.servers.activemq import PASSWORD, USER, ActiveMq, activemq
from tests.postgres import create_database, start_test_cluster

SUBJECTS = 1000
IN_FLIGHT = 100
BODY = b'{"n": 1, "text": "%s"}' % (b"x" * 300)
WRITE = """INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data, position)
           SELECT gen_random_uuid(), $1, 'org.datafusionhub.thing.changed', '/api/v1', 'things/' || n % $2, now(),
                  $4::jsonb, n
           FROM generate_series(1, $3::int) AS n"""


async def _measured(name: str, count: int, work: Callable[[], Awaitable[Any]]) -> float:
    began, cpu = perf_counter(), process_time()
    await work()
    took, used = perf_counter() - began, process_time() - cpu
    print(
        f"{name:34} {count:7} events {took:7.2f} s {count / took:8.0f}/s  {used:6.2f} s CPU {used / count * 1e6:5.0f} µs each"
    )
    return count / took


async def _relay(url: str, owner_url: str, broker_url: str, count: int, subjects: int) -> Callable[[], Awaitable[Any]]:
    owner = await asyncpg.connect(owner_url)
    await owner.execute("DELETE FROM outbox_events")
    await owner.execute(WRITE, DEFAULT_TENANT_ID, subjects, count, BODY.decode())
    await owner.execute("ANALYZE outbox_events")

    async def work() -> None:
        with TemporaryDirectory() as folder:
            parts = prepare_parts(load({"HUB_DATA_DIR": folder, "HUB_BROKER_URL": broker_url}, env_file=None), url)
            relay = asyncio.create_task(Relay(parts, Broker(parts.settings)).run())
            while await owner.fetchval("SELECT sent FROM relays WHERE destination = 'broker'") < count:
                await asyncio.sleep(0.1)
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)
            await owner.execute("UPDATE relays SET sent = 0")
            await owner.close()
            await parts.close()

    return work


async def _stompman(broker: ActiveMq, count: int, in_flight: int, timeout_s: float | None) -> None:
    server = stompman.ConnectionParameters(host="127.0.0.1", port=broker.port, login=USER, passcode=quote(PASSWORD))
    headers = {"persistent": "true", "content-type": "application/cloudevents+json"}
    async with stompman.Client([server]) as client:

        async def send_some(number: int) -> None:
            for _ in range(number):
                await client.send(BODY, "/topic/hub.default.org.x", headers=headers, receipt_timeout=timeout_s)

        await asyncio.gather(*(send_some(count // in_flight) for _ in range(in_flight)))


async def _measure(broker: ActiveMq, url: str, owner_url: str, count: int) -> None:
    broker_url = f"stomp://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{broker.port}"
    await migrations.migrate(owner_url)
    await _stompman(broker, 5000, IN_FLIGHT, 30.0)  # the broker's code is compiled
    for _ in range(2):
        bare = await _measured("stompman, no receipts", count, lambda: _stompman(broker, count, 1, None))
        sent = await _measured(
            f"stompman, {IN_FLIGHT} in flight", count, lambda: _stompman(broker, count, IN_FLIGHT, 30.0)
        )
        mixed = await _measured(
            "relay, 1,000 subjects", count, await _relay(url, owner_url, broker_url, count, SUBJECTS)
        )
        fewer = count // 4
        one = await _measured("relay, 1 subject", fewer, await _relay(url, owner_url, broker_url, fewer, 1))
        print(
            f"relay / stompman with receipts {mixed / sent:.2f}, / without {mixed / bare:.2f}; one subject {one / sent:.2f}"
        )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with activemq() as broker, start_test_cluster() as cluster:
        name = asyncio.run(create_database(cluster))
        asyncio.run(_measure(broker, cluster.url("hub_app", name), cluster.url("hub_owner", name), count))


if __name__ == "__main__":
    assert Path("pyproject.toml").exists(), "run it at the root of the checkout"
    main()
