"""RL3: two hubs of two server processes each, one PostgreSQL and one Redis, and clients that ask all of them at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.core.embedded import EmbeddedPostgres
from app.core.sealing import KeyRing
from tests.commands.hubs import Served
from tests.conftest import ADMIN_EMAIL, PASSWORD
from tests.postgres import create_database, drop_database
from tests.redis_server import RedisServer, redis_server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.services,
    pytest.mark.found("RL3"),
    pytest.mark.fault("RL3"),
]

ME = "/api/v1/auth/me"
QUOTA = 500
CLIENTS = 32


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
async def hubs(
    server: RedisServer, cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[Served]]:
    tmp_path = tmp_path_factory.mktemp("hubs")
    name = await create_database(cluster, migrated)
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "signing.pem").write_bytes(key)
    (tmp_path / "signing.pem").chmod(0o600)
    variables = {
        "HUB_DATABASE_URL": cluster.url("hub_app", name),
        "HUB_OWNER_DATABASE_URL": cluster.url("hub_owner", name),
        "HUB_ENV": "development",
        "HUB_SECRET_KEYS": KeyRing.generate(),
        "HUB_SIGNING_KEYS_FILE": str(tmp_path / "signing.pem"),
        "HUB_PUBLIC_URL": "http://hub.test",
        "HUB_ADMIN_EMAIL": ADMIN_EMAIL,
        "HUB_ADMIN_PASSWORD": PASSWORD,
        "HUB_WORKERS": "2",
        "HUB_LOG_LEVEL": "warning",
        "HUB_POOL_SIZE": "3",
        "HUB_REDIS_URL": server.url,
        "HUB_RATE_LIMIT": f"{QUOTA}/hour",
        "HUB_LOGIN_RATE_LIMIT": "20/hour",
    }
    started: list[Served] = []
    try:
        for number in range(2):
            (tmp_path / f"hub{number}").mkdir()
            started.append(Served(tmp_path / f"hub{number}" / "data", **variables))
        yield started
    finally:
        for hub in started:
            hub.stop()
        await drop_database(cluster, name)


@pytest.fixture(autouse=True)
def nobody_has_asked(server: RedisServer) -> None:
    with redis.Redis(port=server.port) as client:
        client.flushall()


async def flood(hubs: list[Served], token: str, requests: int) -> Counter[int]:
    """Each client has a connection of its own, so that every process of a hub has some of them."""

    async def ask(number: int) -> Counter[int]:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=hubs[number % 2].url, headers=headers, timeout=30) as client:
            return Counter([(await client.get(ME)).status_code for _ in range(requests // CLIENTS)])

    return sum(await asyncio.gather(*map(ask, range(CLIENTS))), Counter[int]())


async def test_four_processes_admit_exactly_the_quota_under_a_parallel_flood(hubs: list[Served]) -> None:
    async with httpx.AsyncClient(base_url=hubs[0].url, timeout=30) as client:
        login = await client.post("/api/v1/auth/login", json={"email": ADMIN_EMAIL, "password": PASSWORD})
    found = await flood(hubs, login.json()["access_token"], 2 * QUOTA + 200)
    assert not [hub.said for hub in hubs if "Redis is away" in hub.said]
    assert found == {200: QUOTA, 429: found.total() - QUOTA}
    assert found[429] > QUOTA // 2


async def test_four_processes_admit_exactly_so_many_sign_ins(hubs: list[Served]) -> None:
    async def sign_in(number: int) -> str:
        async with httpx.AsyncClient(base_url=hubs[number % 2].url, timeout=60) as client:
            body = {"email": f"u{number}@example.org", "password": PASSWORD}
            code: str = (await client.post("/api/v1/auth/login", json=body)).json()["code"]
            return code

    found = Counter(await asyncio.gather(*map(sign_in, range(60))))
    assert found["rate_limited"] == 40
    assert found["invalid_credentials"] + found["login_busy"] == 20  # a busy machine has no time for some of them
