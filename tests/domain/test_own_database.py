"""The hub's own database is refused as a source, however it is called, and others of the same server are not."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from app.core import embedded
from app.core.embedded import EmbeddedPostgres
from tests.conftest import Hub
from tests.domain.sources import SOURCES, discovered, open_shop, registered, registered_shop

pytestmark = [pytest.mark.anyio, pytest.mark.found("U1")]


@pytest.fixture
async def own(cluster: EmbeddedPostgres, hub: Hub) -> AsyncIterator[dict[str, Any]]:
    """What a source that leads to the hub's database takes, as a role that may read there."""
    place, role = urlsplit(hub.url), f"reader_{uuid4().hex}"
    connection = await asyncpg.connect(cluster.url(embedded.SUPERUSER, place.path[1:]))
    await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT pg_read_all_data TO {role}")
    config = {"host": "127.0.0.1", "port": place.port, "database": place.path[1:], "username": role}
    yield {"config": config, "secrets": {"password": "pw"}}
    await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0x7f000001"])
async def test_its_test_fails_under_every_name(hub: Hub, own: dict[str, Any], host: str) -> None:
    body = own | {"type": "postgresql", "config": own["config"] | {"host": host}}
    result = (await hub.admin.post(f"{SOURCES}/test", json=body)).json()
    (step,) = [step for step in result["steps"] if step["status"] == "failed"]
    assert (result["status"], step["name"], step["code"], step["fault"]) == (
        *("failed", "list", "own_database", "configuration"),
    )


async def test_nothing_is_read_from_it(hub: Hub, own: dict[str, Any]) -> None:
    path = f"{SOURCES}/{(await registered(hub, **own))['id']}"
    preview = await hub.admin.post(f"{path}/preview", json={"object": "public.users"})
    assert (preview.status_code, preview.json()["code"]) == (409, "source_own_database")
    job = await discovered(hub, path)
    assert (job["status"], job["error"]["code"]) == ("failed", "own_database")
    assert (await hub.admin.get(f"{path}/objects")).json()["items"] == []


@pytest.mark.parametrize("told", ["hub_app", ""])
async def test_a_server_that_keeps_its_identifier_to_itself_hides_nothing(
    hub: Hub, cluster: EmbeddedPostgres, own: dict[str, Any], told: str
) -> None:
    connection = await asyncpg.connect(cluster.url(embedded.SUPERUSER, own["config"]["database"]))
    try:
        await connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        if told:
            await connection.execute(f"GRANT EXECUTE ON FUNCTION pg_control_system() TO {told}")
        await test_its_test_fails_under_every_name(hub, own, "localhost")
    finally:
        await connection.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
        await connection.close()


async def test_another_database_of_the_same_server_is_a_source(hub: Hub, cluster: EmbeddedPostgres) -> None:
    path = await registered_shop(hub, await open_shop(cluster))
    assert (await hub.admin.post(f"{path}/test")).json()["status"] == "passed"


@pytest.mark.parametrize(
    "setting",
    [
        "statement_timeout = 1",
        "search_path = 'made_up', 'pg_catalog'",
        "default_transaction_isolation = 'serializable'",
    ],
)
async def test_nothing_that_is_set_for_the_role_hides_it(
    hub: Hub, cluster: EmbeddedPostgres, own: dict[str, Any], setting: str
) -> None:
    connection = await asyncpg.connect(cluster.url(embedded.SUPERUSER, own["config"]["database"]))
    role = own["config"]["username"]
    try:
        await connection.execute("CREATE SCHEMA made_up; GRANT USAGE ON SCHEMA made_up TO PUBLIC")
        await connection.execute(
            "CREATE FUNCTION made_up.current_database() RETURNS name LANGUAGE sql AS $$SELECT 'postgres'::name$$"
        )
        await connection.execute(f"ALTER ROLE {role} SET {setting}")
        path = f"{SOURCES}/{(await registered(hub, **own))['id']}"
        preview = await hub.admin.post(f"{path}/preview", json={"object": "public.users"})
        assert preview.status_code in {409, 504}
        assert "rows" not in preview.json()
        assert preview.status_code == 409 or setting.startswith("statement_timeout")
    finally:
        await connection.execute("DROP SCHEMA made_up CASCADE")
        await connection.close()
