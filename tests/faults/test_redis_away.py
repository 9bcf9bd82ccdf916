"""FT5: Redis killed, halted or replaced by something else. No request fails for it, limits go on in each process, a
metric and readiness say so, and afterwards they are shared again."""

import asyncio
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis

from app.asgi import create_app, framed
from app.core.embedded import EmbeddedPostgres
from app.core.errors import TooManyRequests
from app.core.limits.limiter import LETTERS_TO_ONE, Limits
from app.core.limits.rates import Rate
from app.core.limits.shared_windows import SharedWindows
from app.core.metrics import exposition
from tests.conftest import PASSWORD, Hub, parts_of_hub, running_hub
from tests.redis_server import RedisServer, redis_server

pytestmark = [pytest.mark.anyio, pytest.mark.services, pytest.mark.found("FT5"), pytest.mark.fault("FT5")]

ME = "/api/v1/auth/me"
QUOTA = 40
BACK_WITHIN_S = 10.0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
async def hubs(
    server: RedisServer, cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Hub, Hub]]:
    """Two processes' worth of a hub."""
    variables = {"HUB_REDIS_URL": server.url, "HUB_RATE_LIMIT": f"{QUOTA}/hour"}
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("hub"), **variables) as one:
        parts = parts_of_hub(one.settings, one.url)
        litestar = create_app(parts)
        async with litestar.lifespan():
            yield one, replace(one, parts=parts, app=framed(litestar, one.settings))


@pytest.fixture
async def both_up(server: RedisServer, hubs: tuple[Hub, Hub]) -> tuple[Hub, Hub]:
    if server._process is None:
        server.start()
    await shared_again(hubs)
    return hubs


async def shared_again(hubs: tuple[Hub, Hub]) -> None:
    ends = time.monotonic() + BACK_WITHIN_S
    while not all(hub.parts.limits.are_shared for hub in hubs):
        assert time.monotonic() < ends, "limits are not shared again"
        await asyncio.sleep(0.05)


made = Counter[str]()


async def a_token(hub: Hub) -> str:
    """Of a new user, who has used nothing. The admin's own quota is no matter here."""
    made["users"] += 1
    email = f"u{made['users']}@example.org"
    body = {"email": email, "password": PASSWORD, "first_name": "U", "last_name": "U"}
    client = hub.client()
    assert (await client.post("/api/v1/auth/register", json=body)).status_code == 201
    answer = await client.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})
    token: str = answer.json()["access_token"]
    return token


async def ask(hub: Hub, token: str, times: int) -> list[httpx.Response]:
    client = hub.client(token)
    return list(await asyncio.gather(*(client.get(ME) for _ in range(times))))


async def ask_both(hubs: tuple[Hub, Hub], token: str, times: int) -> tuple[list[httpx.Response], list[httpx.Response]]:
    one, other = await asyncio.gather(*(ask(hub, token, times) for hub in hubs))
    return one, other


def admitted(answers: list[httpx.Response]) -> int:
    assert [answer.text for answer in answers if answer.status_code not in {200, 429}] == []
    assert all(answer.json()["code"] == "rate_limited" for answer in answers if answer.status_code == 429)
    return sum(answer.status_code == 200 for answer in answers)


def metric(text: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


# What may become of Redis -------------------------------------------------------------------------------------------------


@contextmanager
def killed(server: RedisServer) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def halted(server: RedisServer) -> Iterator[None]:
    server.signal(signal.SIGSTOP)
    yield
    server.signal(signal.SIGCONT)


def in_place_of(script: Callable[[socket.socket], None]) -> Callable[[RedisServer], AbstractContextManager[None]]:
    @contextmanager
    def replaced(server: RedisServer) -> Iterator[None]:
        with server.replaced_by(script):
            yield
        server.start()

    return replaced


def garbage(connection: socket.socket) -> None:
    while connection.recv(65_536):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n<html>" + bytes(range(256)))


def half_answers(connection: socket.socket) -> None:
    while connection.recv(65_536):
        connection.sendall(b"*3\r\n:1\r\n:3")


def late(connection: socket.socket) -> None:
    while connection.recv(65_536):
        time.sleep(3)
        connection.sendall(b"*3\r\n:1\r\n:39\r\n:1000000\r\n")


def silent(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def hangs_up(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.close()


def refuses_all(connection: socket.socket) -> None:
    while connection.recv(65_536):
        connection.sendall(b"-NOAUTH Authentication required.\r\n")


def answers_too_much(connection: socket.socket) -> None:
    while connection.recv(65_536):
        connection.sendall(b"*2\r\n:1\r\n$5\r\nhello\r\n" * 50)


WAYS: dict[str, Callable[[RedisServer], AbstractContextManager[None]]] = {
    "killed": killed,
    "halted": halted,
    **{
        script.__name__: in_place_of(script)
        for script in (garbage, half_answers, late, silent, hangs_up, refuses_all, answers_too_much)
    },
}


@pytest.mark.parametrize("way", WAYS)
async def test_without_redis_each_process_goes_on_by_itself(
    server: RedisServer, both_up: tuple[Hub, Hub], way: str
) -> None:
    token = await a_token(both_up[0])
    one, other = await ask_both(both_up, token, 5)
    assert admitted(one) + admitted(other) == 10
    failures = metric(exposition().decode(), "hub_redis_failures_total")
    with WAYS[way](server):
        one_later, other_later = await ask_both(both_up, token, 60)
        assert not any(hub.parts.limits.are_shared for hub in both_up)
        text = exposition().decode()
        assert metric(text, "hub_redis_failures_total") > failures
        assert metric(text, "hub_redis_circuit_open") >= 1
        # What passed here while limits were shared was noted: nobody begins anew.
        assert admitted(one + one_later) == QUOTA
        assert admitted(other + other_later) == QUOTA
        ready = await both_up[0].client().get("/health/ready")
        assert (ready.status_code, ready.json()["status"], ready.json()["degraded"]) == (200, "degraded", ["redis"])
    await shared_again(both_up)
    one, other = await ask_both(both_up, await a_token(both_up[1]), 60)
    assert admitted(one) + admitted(other) == QUOTA
    assert metric(exposition().decode(), "hub_redis_circuit_open") == 0
    assert (await both_up[0].client().get("/health/ready")).json()["degraded"] == []


@pytest.mark.parametrize("way", ["killed", "halted"])
async def test_nothing_fails_when_redis_goes_under_load(
    server: RedisServer, both_up: tuple[Hub, Hub], way: str
) -> None:
    token = await a_token(both_up[0])
    # Who asks is in memory then: three hundred loads at once would be about the database.
    first, of_other = await ask_both(both_up, token, 1)
    under_way = asyncio.create_task(ask_both(both_up, token, 300))
    await asyncio.sleep(0.05)
    with WAYS[way](server):
        one, other = await under_way
    assert admitted(first + one) <= QUOTA
    assert admitted(of_other + other) <= QUOTA
    assert admitted(first + one + of_other + other) >= QUOTA
    await shared_again(both_up)


async def test_a_request_waits_for_redis_once_and_those_after_it_do_not(
    server: RedisServer, both_up: tuple[Hub, Hub]
) -> None:
    token = await a_token(both_up[0])
    await ask(both_up[0], token, 1)
    asked: list[Any] = []
    link = both_up[0].parts.redis
    assert link is not None
    call = link.call

    async def noted(*given: Any) -> Any:
        asked.append(given)
        return await call(*given)

    with halted(server), pytest.MonkeyPatch.context() as patch:
        patch.setattr(link, "call", noted)
        client = both_up[0].client(token)
        for _ in range(5):
            assert (await client.get(ME)).status_code == 200
        assert len(asked) == 1
    await shared_again(both_up)


async def test_a_read_is_one_script_in_redis(server: RedisServer, both_up: tuple[Hub, Hub]) -> None:
    token = await a_token(both_up[0])
    await ask(both_up[0], token, 1)  # who is loaded now
    with redis.Redis(port=server.port) as client:
        before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        await ask(both_up[0], token, 20)
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 20


def with_limits(patch: pytest.MonkeyPatch, hubs: tuple[Hub, Hub], rate: str, login_rate: str) -> None:
    """Other ones than the settings', over the same Redis."""
    for hub in hubs:
        assert hub.parts.redis is not None
        shared = SharedWindows(hub.parts.redis)
        limits = Limits(
            Rate.parse(rate), Rate.parse(login_rate), key=hub.parts.key_ring.derive("limits"), shared=shared
        )
        patch.setattr(hub.parts, "limits", limits)


async def test_sign_ins_are_counted_over_all_processes(
    both_up: tuple[Hub, Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_limits(monkeypatch, both_up, "1000/hour", "5/hour")
    body = {"email": "nobody@example.org", "password": PASSWORD}
    clients = [hub.client() for hub in both_up]
    answers = [await clients[number % 2].post("/api/v1/auth/login", json=body) for number in range(8)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3


async def test_letters_to_one_mailbox_are_counted_over_all_processes(
    server: RedisServer, both_up: tuple[Hub, Hub]
) -> None:
    mailbox = ("tenant", "invitation", "victim@example.org")
    for number in range(LETTERS_TO_ONE.quota):
        await both_up[number % 2].parts.limits.charge_recipient(None, *mailbox)
    for hub in both_up:
        with pytest.raises(TooManyRequests):
            await hub.parts.limits.charge_recipient(None, *mailbox)
    with redis.Redis(port=server.port, decode_responses=True) as client:
        (key,) = client.keys("hub:limit:recipient:*")
    assert "victim" not in key


async def test_redis_holds_no_address_that_somebody_typed(
    server: RedisServer, both_up: tuple[Hub, Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At times it is a password."""
    with_limits(monkeypatch, both_up, "1000/day", "50/day")
    body = {"email": "my-secret-password", "password": PASSWORD}
    await both_up[0].client().post("/api/v1/auth/login", json=body)
    with redis.Redis(port=server.port, decode_responses=True) as client:
        keys = client.keys("hub:limit:login-account:86400:*")
    assert len(keys) == 1
    assert "secret" not in keys[0]


async def test_connector_runs_of_a_tenant_are_capped_over_all_processes(
    both_up: tuple[Hub, Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_limits(monkeypatch, both_up, "100000/hour", "50/hour")
    token = both_up[0].admin.headers["authorization"].split()[1]
    clients = [hub.client(token) for hub in both_up]
    slow = {"type": "simulated", "config": {"delays_ms": {"resolve": 1500}}, "secrets": {}}
    answers = await asyncio.gather(
        *(client.post("/api/v1/data-sources/test", json=slow) for client in clients for _ in range(4))
    )
    assert Counter(answer.status_code for answer in answers) == {200: 4, 429: 4}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["code"] == "too_many_connector_runs"
    quick = {"type": "simulated", "config": {}, "secrets": {}}
    assert (await clients[1].post("/api/v1/data-sources/test", json=quick)).status_code == 200
