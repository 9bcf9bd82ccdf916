"""A hub on a schema that is not its own: an older one is a 503 everywhere, a newer one is served until a break is declared
(U2, operations: upgrades)."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.core import migrations
from app.core.embedded import EmbeddedPostgres
from tests.conftest import Hub, running_hub
from tests.declared import document

pytestmark = [pytest.mark.anyio, pytest.mark.found("U2")]

LEARNT_WITHIN_S = 10
AN_ID = "01900000-0000-7000-8000-000000000001"


@pytest.fixture
async def hub(cluster: EmbeddedPostgres, migrated: str, tmp_path: Path) -> AsyncIterator[Hub]:
    """One for each test: what happens to its schema is nobody else's."""
    async with running_hub(cluster, migrated, tmp_path) as running:
        yield running


@pytest.fixture
def owner_url(cluster: EmbeddedPostgres, hub: Hub) -> str:
    return cluster.url("hub_owner", hub.url.rpartition("/")[2])


async def as_owner(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def operations() -> list[tuple[str, str]]:
    """Every operation of the document, with an id where its path wants one."""
    paths = document()["paths"]
    found = [
        (method.upper(), path.replace("{type_name}", "postgresql").replace("{number}", "1"))
        for path, methods in paths.items()
        for method in methods
        if method in ("get", "post", "put", "patch", "delete")
    ]
    return [
        (method, "/".join(AN_ID if part.startswith("{") else part for part in path.split("/")))
        for method, path in found
    ]


async def until(hub: Hub, path: str, status: int) -> httpx.Response:
    """The first answer of that status."""
    for _ in range(LEARNT_WITHIN_S * 20):
        answer = await hub.admin.get(path)
        if answer.status_code == status:
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError(f"{path}: {answer.status_code} {answer.text}")


def is_of_the_api(path: str) -> bool:
    """Which pages for browsers, token endpoints and SCIM are not: they tell of errors as their readers expect."""
    return not path.startswith(
        ("/sign-in", "/scim/", "/api/v1/auth/token", "/api/v1/auth/revoke", "/api/v1/auth/saml")
    ) and ("backchannel" not in path)


async def test_on_an_older_schema_every_route_is_unavailable_and_none_fails(hub: Hub, owner_url: str) -> None:
    await migrations.migrate(owner_url, "down")
    while hub.parts.schema.problem is None:
        await asyncio.sleep(0.05)
    asked = operations()
    assert len(asked) > 40
    for method, path in asked:
        answer = await hub.admin.request(method, path, json={} if method in ("POST", "PUT", "PATCH") else None)
        if path == "/health/live":
            assert answer.status_code == 200
        elif path == "/health/ready":
            assert (answer.status_code, answer.json()["detail"]) == (
                503,
                "The database has not been migrated to this version.",
            )
        else:
            assert answer.status_code == 503, (method, path, answer.text)
            if is_of_the_api(path):
                assert answer.json()["code"] == "schema_outdated", (method, path, answer.text)
            assert answer.headers["retry-after"]
    assert (await hub.client().get("/openapi.json")).status_code == 200
    await migrations.migrate(owner_url)
    await until(hub, "/api/v1/data-source-types", 200)
    await until(hub, "/health/ready", 200)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE data_sources RENAME COLUMN tags TO labels",
        "ALTER TABLE data_sources RENAME COLUMN secret_states TO states",
        "ALTER TABLE data_sources DROP COLUMN description CASCADE",
    ],
)
async def test_before_a_hub_has_learnt_of_it_a_missing_column_is_no_failure(
    hub: Hub, owner_url: str, statement: str
) -> None:
    await hub.parts.schema.stop()
    assert (await hub.admin.get("/api/v1/data-sources")).status_code == 200
    await as_owner(owner_url, statement)
    body = {"name": "a", "type": "rest", "config": {"base_url": "https://a.example"}, "secrets": {}}
    for answer in (
        await hub.admin.get("/api/v1/data-sources"),
        await hub.admin.get(f"/api/v1/data-sources/{AN_ID}"),
        await hub.admin.patch(f"/api/v1/data-sources/{AN_ID}", json={"name": "b"}),
        await hub.admin.post("/api/v1/data-sources", json=body),
    ):
        assert answer.status_code < 500 or (answer.status_code, answer.json()["code"]) == (503, "schema_outdated")
    listed = await hub.admin.get("/api/v1/data-sources")
    assert (listed.status_code, listed.json()["code"]) == (503, "schema_outdated")


async def test_on_a_newer_schema_a_hub_goes_on(hub: Hub, owner_url: str) -> None:
    await as_owner(owner_url, "UPDATE alembic_version SET version_num = '9998'")
    await asyncio.sleep(1.5)
    assert (await hub.admin.get("/health/ready")).status_code == 200
    assert (await hub.admin.get("/api/v1/roles")).status_code == 200
    assert hub.parts.schema.problem is None


async def test_a_break_of_before_is_none_of_this_releases_concern(hub: Hub, owner_url: str) -> None:
    """A release that made a break, or came after it, lives with it."""
    declared = (
        f"INSERT INTO schema_breaks (revision, reason) VALUES ('{migrations.head()}', 'made by this very release')"
        " ON CONFLICT DO NOTHING"
    )
    await as_owner(owner_url, declared, "UPDATE alembic_version SET version_num = '9998'")
    await asyncio.sleep(1.5)
    assert (await hub.admin.get("/api/v1/roles")).status_code == 200


async def test_on_a_declared_break_a_hub_says_so_and_stops(
    hub: Hub, owner_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    stopped: list[bool] = []
    hub.parts.schema.when_broken = lambda: stopped.append(True)
    declared = "INSERT INTO schema_breaks (revision, reason) VALUES ('9000', 'every row belongs to a tenant now.')"
    with caplog.at_level(logging.CRITICAL):
        await as_owner(owner_url, declared, "UPDATE alembic_version SET version_num = '9998'")
        answer = await until(hub, "/api/v1/roles", 503)
        await asyncio.sleep(1.5)
    assert answer.json()["code"] == "schema_too_new"
    ready: Any = (await hub.admin.get("/health/ready")).json()
    assert "9998" in ready["detail"]
    assert "every row belongs to a tenant now." in ready["detail"]
    said = [record.getMessage() for record in caplog.records if record.name == "hub.schema"]
    assert said == [ready["detail"]]
    assert stopped == [True]
