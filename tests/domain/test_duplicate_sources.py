"""The same server and database registered twice: allowed, and said to whoever may see both."""

from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from app.connectors import registry
from app.domain.sources.duplicates import MAX_COUNTED, MAX_NAMED, fill_in, fingerprint
from app.domain.sources.schemas import MAX_BULK
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import NOWHERE, SOURCES, post_source
from tests.domain.valid_configs import some_source

pytestmark = pytest.mark.anyio


def place() -> dict[str, Any]:
    return NOWHERE | {"host": f"{uuid4().hex}.invalid"}


def named(answer: httpx.Response) -> list[str]:
    assert answer.status_code in (200, 201), answer.text
    warnings = answer.json().get("warnings", [])
    assert all(warning["code"] == "duplicate_source" and warning["message"] for warning in warnings)
    return [warning["data_source_id"] for warning in warnings]


async def test_the_second_source_of_a_place_names_the_first(hub: Hub) -> None:
    config = place()
    first = await post_source(hub.admin, config=config)
    assert "warnings" not in first.json()
    again = config | {"host": config["host"].upper() + ".", "username": "other", "tls_mode": "require"}
    assert named(await post_source(hub.admin, config=again)) == [first.json()["id"]]


async def test_another_database_or_type_is_another_place(hub: Hub) -> None:
    config = place()
    await post_source(hub.admin, config=config)
    for other in (config | {"database": "other"}, config | {"port": 5433}):
        assert named(await post_source(hub.admin, config=other)) == []


async def test_a_change_of_place_is_warned_of_and_no_other_change(hub: Hub) -> None:
    config = place()
    first = (await post_source(hub.admin, config=config)).json()["id"]
    path = f"{SOURCES}/{(await post_source(hub.admin, config=place())).json()['id']}"
    assert named(await hub.admin.patch(path, json={"config": {"host": config["host"]}})) == [first]
    assert named(await hub.admin.patch(path, json={"description": "x"})) == []
    assert named(await hub.admin.patch(path, json={"config": {"host": place()["host"]}})) == []


async def test_a_deleted_source_is_no_duplicate(hub: Hub) -> None:
    config = place()
    first = (await post_source(hub.admin, config=config)).json()["id"]
    await hub.admin.delete(f"{SOURCES}/{first}")
    assert named(await post_source(hub.admin, config=config)) == []


async def test_who_may_not_see_sources_is_told_of_none(hub: Hub) -> None:
    config, writer = place(), await hub.user_with("data-sources:write")
    await post_source(hub.admin, config=config)
    assert named(await post_source(writer, config=config)) == []


async def test_another_tenants_source_is_not_named(hub: Hub, records: Records) -> None:
    config, tenant = place(), uuid4()
    await records.run(
        "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at)"
        " VALUES ($1, $2, 'T', true, now(), now())",
        tenant,
        tenant.hex,
    )
    first = (await post_source(hub.admin, config=config)).json()["id"]
    await records.run("UPDATE data_sources SET tenant_id = $1 WHERE id = $2::uuid", tenant, first)
    assert named(await post_source(hub.admin, config=config)) == []


async def test_a_bulk_names_what_is_there_and_its_own(hub: Hub) -> None:
    config, alone = place(), place()
    first = (await post_source(hub.admin, config=config)).json()["id"]
    items = [{"name": uuid4().hex, "type": "postgresql", "config": each} for each in (config, alone, config)]
    dry = (await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": items, "dry_run": True})).json()["items"]
    assert [[warning["data_source_ids"] for warning in one["warnings"]] for one in dry] == [[[first]], [], [[first]]]
    assert [warning["count"] for one in dry for warning in one["warnings"]] == [2, 2]
    made = (await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": items})).json()["items"]
    ids = [one["data_source"]["id"] for one in made]
    found = [[warning["data_source_ids"] for warning in one["warnings"]] for one in made]
    assert found == [[[first, ids[2]]], [], [[first, ids[0]]]]
    assert "data_sources[2] of this request is" in made[0]["warnings"][0]["message"]


@pytest.mark.found("U13")
async def test_only_some_of_many_duplicates_are_named(hub: Hub) -> None:
    config = place()
    items = [{"name": uuid4().hex, "type": "postgresql", "config": config} for _ in range(MAX_NAMED + 5)]
    await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": items})
    (warning,) = (await post_source(hub.admin, config=config)).json()["warnings"]
    assert (len(warning["data_source_ids"]), warning["count"]) == (MAX_NAMED, MAX_NAMED + 5)
    assert warning["data_source_id"] == warning["data_source_ids"][0]


@pytest.mark.found("U13")
async def test_the_warnings_of_five_hundred_twins_are_short(hub: Hub) -> None:
    """Each names a few and counts the rest, before and within the request."""
    config = place()
    for _ in range(2):
        items = [{"name": uuid4().hex, "type": "postgresql", "config": config} for _ in range(MAX_BULK)]
        answer = await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": items})
        warnings = [warning for item in answer.json()["items"] for warning in item["warnings"]]
        assert len(warnings) == MAX_BULK
        assert len(msgspec.json.encode(warnings)) < 500 * MAX_BULK
    assert {warning["count"] for warning in warnings} == {MAX_COUNTED + MAX_BULK - 1}
    assert f"{MAX_COUNTED} or more other data sources are" in warnings[0]["message"]


async def test_a_duplicate_is_found_by_an_index(hub: Hub, records: Records) -> None:
    await records.run("SET enable_seqscan = off")
    plan = await records.run(
        "EXPLAIN SELECT id FROM data_sources WHERE tenant_id = $1 AND fingerprint = $2 ORDER BY id LIMIT 10",
        uuid4(),
        b"x" * 32,
    )
    await records.run("RESET enable_seqscan")
    assert "data_sources_fingerprint_idx" in str(plan)


async def test_sources_of_before_get_their_fingerprint(hub: Hub, records: Records) -> None:
    config = place()
    first = (await post_source(hub.admin, config=config)).json()
    broken = (await post_source(hub.admin, config=place())).json()
    await records.run(
        "UPDATE data_sources SET fingerprint = NULL WHERE id = ANY($1::uuid[])", [first["id"], broken["id"]]
    )
    await records.run("UPDATE data_sources SET config = '{}' WHERE id = $1::uuid", broken["id"])
    assert await fill_in(hub.parts) == 2
    assert await fill_in(hub.parts) == 0
    assert (await hub.admin.get(f"{SOURCES}/{first['id']}")).json() == first
    assert named(await post_source(hub.admin, config=config)) == [first["id"]]


# --- what a place is ---


def place_of(type_name: str, **config: Any) -> bytes:
    connector = registry.get(type_name)
    return fingerprint(connector, connector.identity(msgspec.convert(config, connector.config_type)))


SPELLINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("rest", {"base_url": "https://api.invalid/v1"}, {"base_url": "https://API.invalid:443/v1/"}),
    ("rest", {"base_url": "http://127.0.0.1/v1"}, {"base_url": "http://0x7f.1:80/v1", "verify_tls": False}),
    ("s3", {"bucket": "shop", "region": "eu-west-1"}, {"bucket": "shop", "region": "eu-west-1", "prefix": "a"}),
    ("postgresql", NOWHERE, NOWHERE | {"port": 5432, "username": "x", "tls_mode": "require"}),
]


@pytest.mark.parametrize(("type_name", "one", "other"), SPELLINGS)
def test_spellings_of_one_place_are_one(type_name: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    assert place_of(type_name, **one) == place_of(type_name, **other)


@pytest.mark.parametrize("type_name", list(registry.find()))
def test_every_type_tells_which_place_it_means(type_name: str) -> None:
    """An empty place would be no duplicate of anything; one without host, path or name would be one of everything."""
    connector, config = registry.get(type_name), some_source(type_name).config
    identity = connector.identity(msgspec.convert(config, connector.config_type))
    assert identity, f"{type_name} needs an `identity`"
    assert not {"username", "password", "tls_mode", "verify_tls", "ca_certificate"} & identity.keys()
