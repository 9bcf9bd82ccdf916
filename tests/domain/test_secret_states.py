"""States of secrets stand on the source's row: written with the secrets, and put right where somebody else wrote those."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from app.core import migrations
from app.core.embedded import EmbeddedPostgres
from app.core.tenancy import DEFAULT_TENANT_ID, TENANT_SETTING
from tests.conftest import Hub, running_hub
from tests.domain.conftest import Records
from tests.domain.sources import CERTIFIED, NOWHERE, SOURCES, post_source, registered
from tests.postgres import create_database, drop_database

pytestmark = pytest.mark.anyio

REFERENCE = {"ref": "env:SHOP_PASSWORD"}
BEFORE = "0007"
"""The last schema without them."""

OF_AN_EARLIER_RELEASE = """
INSERT INTO data_sources (id, tenant_id, name, name_key, type, category, config, tags, is_paused, status, created_at,
                          updated_at, version)
VALUES ($1, $2, $3, $3, 'postgresql', 'database', '{}', '{}', false, 'untested', now(), now(), 1)
"""
SECRET_OF_AN_EARLIER_RELEASE = """
INSERT INTO data_source_secrets (data_source_id, tenant_id, name, sealed, key_id, version, updated_at)
VALUES ($1, $2, $3, '\\x00', 'key', 1, now())
ON CONFLICT (data_source_id, name) DO UPDATE SET version = data_source_secrets.version + 1
"""


SECRETS_OF_MANY = """
INSERT INTO data_source_secrets (data_source_id, tenant_id, name, sealed, key_id, version, updated_at)
SELECT id, $2, 'password', '\\x00', 'key', 1, now() FROM unnest($1::uuid[]) AS id
"""


@pytest.fixture(scope="module")
async def hub(cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    async with running_hub(
        cluster, migrated, tmp_path_factory.mktemp("hub"), HUB_SECRET_ENV_PREFIXES="SHOP_"
    ) as running:
        yield running


async def kept_and_true(records: Records, source_id: str) -> tuple[Any, Any]:
    """What stands on the row, and what follows from the secrets themselves."""
    (row,) = await records.run(
        "SELECT secret_states, states_of_secrets(id) AS states FROM data_sources WHERE id = $1::uuid", source_id
    )
    return msgspec.json.decode(row["secret_states"]), msgspec.json.decode(row["states"])


async def shown(hub: Hub, source_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await hub.admin.get(f"{SOURCES}/{source_id}")).json()["secrets"]
    return found


CHANGES: list[dict[str, Any]] = [
    {"description": "nothing of secrets"},
    {"secrets": {"password": "again"}},
    {"secrets": {"password": REFERENCE}},
    {"secrets": {"password": None, "client_key_passphrase": "new"}},
    {"secrets": {"password": "back", "client_key_passphrase": None}},
    {"secrets": None, "config": {"client_certificate": None}},
]


async def test_the_hub_writes_what_follows_from_the_secrets(hub: Hub, records: Records) -> None:
    made = await registered(hub, config=CERTIFIED, secrets={"password": "one", "client_key": "two"})
    assert made["secrets"] == await shown(hub, made["id"])
    for change in CHANGES:
        changed = (await hub.admin.patch(f"{SOURCES}/{made['id']}", json=change)).json()
        kept, true = await kept_and_true(records, made["id"])
        assert kept == true == changed["secrets"] == await shown(hub, made["id"]), change
    assert changed["secrets"] == {}


async def test_the_triggers_find_nothing_to_put_right_behind_the_hub(hub: Hub, records: Records) -> None:
    """What the database would write again would be a second row version, and a second entry in each index."""
    one = (await registered(hub, secrets={"password": "x"}))["id"]
    items = [
        {"name": uuid4().hex, "type": "postgresql", "config": NOWHERE, "secrets": {"password": "x"}} for _ in range(3)
    ]
    many = (await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": items})).json()["items"]
    for source_id in (one, *(item["data_source"]["id"] for item in many)):
        (row,) = await records.run(
            "SELECT xmin::text AS made, cmin::text AS command FROM data_sources WHERE id = $1::uuid", source_id
        )
        (secret,) = await records.run(
            "SELECT xmin::text AS made, cmin::text AS command FROM data_source_secrets WHERE data_source_id = $1::uuid",
            source_id,
        )
        assert row["made"] == secret["made"]
        assert int(row["command"]) < int(secret["command"]), "the source was written after its secrets"
        kept, true = await kept_and_true(records, source_id)
        assert kept == true


async def test_what_another_release_writes_is_put_right_by_the_database(hub: Hub, records: Records) -> None:
    source_id = uuid4()
    await records.run(OF_AN_EARLIER_RELEASE, source_id, DEFAULT_TENANT_ID, source_id.hex)
    assert await shown(hub, str(source_id)) == {}
    await records.run(SECRET_OF_AN_EARLIER_RELEASE, source_id, DEFAULT_TENANT_ID, "password")
    assert (await shown(hub, str(source_id)))["password"]["version"] == 1
    await records.run(SECRET_OF_AN_EARLIER_RELEASE, source_id, DEFAULT_TENANT_ID, "password")
    assert (await shown(hub, str(source_id)))["password"]["version"] == 2
    await records.run("DELETE FROM data_source_secrets WHERE data_source_id = $1", source_id)
    assert await shown(hub, str(source_id)) == {}
    assert (await hub.admin.get(f"{SOURCES}/{source_id}")).json()["version"] == 1


async def test_states_of_many_are_kept_without_a_walk_through_all_sources(hub: Hub) -> None:
    """A plan is kept: what is quick among a hundred sources would be slow when there are many."""
    items = [{"name": uuid4().hex, "type": "postgresql", "config": NOWHERE} for _ in range(100)]
    made = (await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": items})).json()["items"]
    ids = [UUID(item["data_source"]["id"]) for item in made]
    connection = await asyncpg.connect(hub.url, server_settings={TENANT_SETTING: str(DEFAULT_TENANT_ID)})
    try:
        for statement in (SECRETS_OF_MANY, "DELETE FROM data_source_secrets WHERE data_source_id = ANY($1)"):
            async with connection.transaction():
                await connection.execute(statement, ids, *([DEFAULT_TENANT_ID] if "$2" in statement else []))
                walked = await connection.fetch(
                    "SELECT relname FROM pg_stat_xact_user_tables WHERE seq_scan > 0 AND relname = 'data_sources'"
                )
            assert walked == []
    finally:
        await connection.close()


async def test_a_source_goes_with_its_secrets(hub: Hub) -> None:
    path = (await post_source(hub.admin, secrets={"password": "x"})).headers["location"]
    assert (await hub.admin.delete(path)).status_code == 204


@pytest.mark.slow
async def test_sources_of_before_get_theirs_with_the_migration(cluster: EmbeddedPostgres) -> None:
    name = await create_database(cluster)
    url = cluster.url("hub_owner", name)
    await migrations.migrate(url)
    await migrations.migrate(url, "down", BEFORE)
    connection = await asyncpg.connect(url)
    try:
        with_one, without = uuid4(), uuid4()
        for source_id in (with_one, without):
            await connection.execute(OF_AN_EARLIER_RELEASE, source_id, DEFAULT_TENANT_ID, source_id.hex)
        await connection.execute(SECRET_OF_AN_EARLIER_RELEASE, with_one, DEFAULT_TENANT_ID, "password")
        await migrations.migrate(url)
        rows = await connection.fetch(
            "SELECT id, secret_states = states_of_secrets(id), secret_states FROM data_sources"
        )
        states: dict[UUID, Any] = {row[0]: msgspec.json.decode(row[2]) for row in rows}
        assert all(row[1] for row in rows)
        assert set(states[with_one]) == {"password"}
        assert states[without] == {}
        assert datetime.fromisoformat(states[with_one]["password"]["updated_at"]).tzinfo == UTC
    finally:
        await connection.close()
        await drop_database(cluster, name)
