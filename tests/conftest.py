"""One PostgreSQL cluster for the whole run, one fresh migrated database for each module, and clients of a running hub."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import hypothesis
import pytest
from argon2 import PasswordHasher as Argon2

from app.asgi import create_app, framed
from app.core import migrations
from app.core.embedded import EmbeddedPostgres
from app.core.passwords import PasswordHasher
from app.domain.parts import Parts
from app.domain.users.admins import NewAdmin, create_admin
from app.runtime import prepare_parts
from app.settings import Settings, load
from tests.declared import hold_against_the_document
from tests.factories import RoleFactory, UserFactory, body_of
from tests.postgres import create_database, drop_database, start_test_cluster
from tests.serving import NO_LIMIT

hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
"""How long an example takes says how busy the machine is, and nothing of the code."""
hypothesis.settings.load_profile("tests")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell starts what it leaves in the background: all that the tests start would inherit it, and ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.connectors.fixtures", "tests.faults.table"]

PLAIN = "not slow and not services and not types"
PROCESSES = 3
"""One more than a small machine has cores, since each waits for servers a good deal. Still more gain nothing: each
collects all tests, and starts a PostgreSQL."""

PASSWORD = "lanterns drift over quiet water"
ADMIN_EMAIL = "admin@example.org"
CHEAP = Argon2(time_cost=1, memory_cost=2048, parallelism=1)
"""A thousand hashes at their true cost are half of the time of all tests: those that are about it have it."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def cluster() -> Iterator[EmbeddedPostgres]:
    with start_test_cluster() as server:
        yield server


@pytest.fixture(scope="session")
async def migrated(cluster: EmbeddedPostgres) -> str:
    """The name of a migrated database that others are copied from."""
    name = await create_database(cluster)
    await migrations.migrate(cluster.url("hub_owner", name))
    return name


@dataclass
class Hub:
    """A hub in this process on a database of its own, and what tests do with it all the time."""

    parts: Parts
    app: Any
    settings: Settings
    url: str
    """As the application's role, which sees what is of the tenant that its connection is in."""
    owner_url: str
    """As the owner, who sees all tenants."""
    admin: httpx.AsyncClient

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        hooks = {"response": [hold_against_the_document]}
        return httpx.AsyncClient(transport=transport, base_url="http://hub.test", headers=headers, event_hooks=hooks)

    async def sign_in(self, email: str, password: str = PASSWORD, **given: str) -> httpx.AsyncClient:
        body = {"email": email, "password": password, **given}
        answer = await self.client().post("/api/v1/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        return self.client(answer.json()["access_token"])

    async def new_user(self, **given: Any) -> dict[str, Any]:
        """A user as the API shows them, made of whatever is valid but for what is given."""
        made = await self.admin.post("/api/v1/users", json=body_of(UserFactory.build(), **given))
        assert made.status_code == 201, made.text
        return dict(made.json())

    async def new_role(self, **given: Any) -> dict[str, Any]:
        """A role as the API shows it, made of whatever is valid but for what is given."""
        made = await self.admin.post("/api/v1/roles", json=body_of(RoleFactory.build(), **given))
        assert made.status_code == 201, made.text
        return dict(made.json())

    async def new_tenant(self, slug: str | None = None) -> "Hub":
        """The hub as the first admin of a new tenant has it; only operators may make one."""
        slug = slug or f"t{uuid4().hex}"
        admin = {"email": f"admin@{slug}.example.org", "password": PASSWORD}
        made = await self.admin.post("/api/v1/tenants", json={"slug": slug, "name": slug, "admin": admin})
        assert made.status_code == 201, made.text
        return replace(self, admin=await self.sign_in(admin["email"], tenant=slug))

    async def user_with(self, *permissions: str) -> httpx.AsyncClient:
        """The client of a new user who holds exactly these permissions."""
        user = await self.new_user(password=PASSWORD)
        if permissions:
            role = await self.new_role(permissions=list(permissions))
            given = await self.admin.put(f"/api/v1/users/{user['id']}/roles/{role['id']}")
            assert given.status_code == 200, given.text
        return await self.sign_in(user["email"])


@asynccontextmanager
async def running_hub(cluster: EmbeddedPostgres, template: str, data_dir: Path, **variables: str) -> AsyncIterator[Hub]:
    """A hub on a fresh copy of the template, with its first admin signed in. `variables` are HUB_* settings."""
    name = await create_database(cluster, template)
    settings = load({"HUB_DATA_DIR": str(data_dir), "HUB_LOG_LEVEL": "error", **NO_LIMIT, **variables}, env_file=None)
    parts = parts_of_hub(settings, cluster.url("hub_app", name))
    litestar = create_app(parts)
    async with litestar.lifespan():
        await create_admin(parts, NewAdmin(ADMIN_EMAIL, PASSWORD))
        urls = (cluster.url("hub_app", name), cluster.url("hub_owner", name))
        hub = Hub(parts, framed(litestar, settings), settings, *urls, httpx.AsyncClient())
        hub.admin = await hub.sign_in(ADMIN_EMAIL)
        yield hub
    await drop_database(cluster, name)


def parts_of_hub(settings: Settings, url: str) -> Parts:
    """As the hub's own, with passwords that are cheap to hash."""
    parts = prepare_parts(settings, url)
    parts.passwords.close()
    parts.passwords = PasswordHasher(argon2=CHEAP)
    return parts


@pytest.fixture(scope="module")
async def hub(cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
async def two_tenants(hub: Hub) -> tuple[Hub, Hub]:
    """The default tenant and another one of the same hub, each by its admin."""
    return hub, await hub.new_tenant()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The plain run of everything goes on in three processes, a file at a time, each with a cluster of its own."""
    is_plain = config.args_source is pytest.Config.ArgsSource.TESTPATHS and config.option.markexpr == PLAIN
    is_chosen = config.option.keyword or config.option.usepdb or "PYTEST_XDIST_WORKER" in os.environ
    if is_plain and not is_chosen and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        config.option.numprocesses, config.option.dist = PROCESSES, "loadfile"
