"""Secrets of data sources: sealed to their place, counted, cleared, no masks, and lost with their key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.asgi import create_app
from app.core.embedded import EmbeddedPostgres
from app.core.frame import Frame, FrameConfig
from app.core.sealing import KeyRing, SealingError
from app.domain.sources.secrets.masks import MASKS, no_masks
from tests.conftest import Hub, parts_of_hub
from tests.cpu_growth import CpuGrowth
from tests.domain.conftest import Records
from tests.domain.sources import (
    NOWHERE,
    SOURCES,
    Shop,
    discovered,
    faults,
    open_shop,
    post_source,
    registered,
    registered_shop,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def shop(cluster: EmbeddedPostgres) -> Shop:
    return await open_shop(cluster)


# --- sealed ---


async def sealed_row(records: Records, source_id: str, name: str = "password") -> asyncpg.Record:
    (row,) = await records.run(
        "SELECT * FROM data_source_secrets WHERE data_source_id = $1::uuid AND name = $2", source_id, name
    )
    return row


async def test_a_secret_is_sealed_to_its_tenant_row_and_field(hub: Hub, records: Records) -> None:
    made = await registered(hub, secrets={"password": "sealed-canary", "client_key_passphrase": "sealed-key"})
    row, ring = await sealed_row(records, made["id"]), hub.parts.key_ring
    place = {"tenant_id": row["tenant_id"], "row_id": UUID(made["id"]), "field": "data_sources.secrets.password"}
    assert ring.open(row["sealed"], **place) == b"sealed-canary"
    assert b"canary" not in row["sealed"]
    assert row["key_id"] == ring.current_id
    for elsewhere in (
        {"tenant_id": uuid4()},
        {"row_id": uuid4()},
        {"field": "data_sources.secrets.client_key_passphrase"},
    ):
        with pytest.raises(SealingError):
            ring.open(row["sealed"], **(place | elsewhere))


async def test_equal_secrets_are_sealed_differently(hub: Hub, records: Records) -> None:
    rows = [await sealed_row(records, (await registered(hub, secrets={"password": "same"}))["id"]) for _ in range(2)]
    assert rows[0]["sealed"] != rows[1]["sealed"]


async def test_a_sealed_value_moved_to_another_source_does_not_open(hub: Hub, records: Records, shop: Shop) -> None:
    """Whoever can write rows, but has no key, cannot make the hub send a secret elsewhere."""
    theirs = (await registered_shop(hub, shop)).rpartition("/")[2]
    mine = await registered(hub, secrets={"password": "mine"})
    stolen = (await sealed_row(records, theirs))["sealed"]
    await records.run("UPDATE data_source_secrets SET sealed = $1 WHERE data_source_id = $2::uuid", stolen, mine["id"])
    answer = await hub.admin.post(f"{SOURCES}/{mine['id']}/test")
    assert (answer.status_code, answer.json()["code"]) == (409, "secret_unreadable")


# --- versions, clearing, masks ---


async def test_each_time_a_secret_is_given_counts(hub: Hub) -> None:
    made = await registered(hub, secrets={"password": "one"})
    path = f"{SOURCES}/{made['id']}"
    again = (await hub.admin.patch(path, json={"secrets": {"password": "one"}})).json()
    assert (again["version"], again["secrets"]["password"]["version"]) == (2, 2)
    assert again["secrets"]["password"]["updated_at"] > made["secrets"]["password"]["updated_at"]
    kept = (await hub.admin.patch(path, json={"description": "x"})).json()
    assert kept["secrets"] == again["secrets"]
    more = (await hub.admin.patch(path, json={"secrets": {"client_key_passphrase": "k"}})).json()
    assert more["secrets"]["password"] == again["secrets"]["password"]
    assert more["secrets"]["client_key_passphrase"]["version"] == 1


async def test_null_clears_a_secret(hub: Hub, records: Records) -> None:
    made = await registered(hub, secrets={"password": "one", "client_key_passphrase": "two"})
    path = f"{SOURCES}/{made['id']}"
    cleared = (await hub.admin.patch(path, json={"secrets": {"password": None}})).json()
    assert (cleared["version"], list(cleared["secrets"])) == (2, ["client_key_passphrase"])
    emptied = (await hub.admin.patch(path, json={"secrets": None})).json()
    assert emptied["secrets"] == {}
    count = "SELECT count(*) FROM data_source_secrets WHERE data_source_id = $1::uuid"
    assert await records.one(count, made["id"]) == 0


async def test_a_secret_that_the_config_needs_cannot_be_cleared(hub: Hub) -> None:
    config = {"base_url": "http://nowhere.invalid", "auth": "bearer"}
    made = await registered(hub, type="rest", config=config, secrets={"token": "t0ken"})
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"secrets": {"token": None}})
    assert (answer.status_code, faults(answer)) == (400, {"secrets.token": "invalid"})


MASKED = [
    "***",
    "--------",
    "****-****-****",
    "* * *",
    "•·•",
    "████",
    "REDACTED",
    "redacted",
    "Masked",
    "hidden",
    "(unchanged)",
    "__masked__",
    "********",
    "•" * 8,
    "●●●●",
    "xxxxxx",
    "XXX",
    "......",
    "<hidden>",
    "[REDACTED]",
    "(secret)",
    "**redacted**",
    "\uff0a" * 4,
    "\u2013" * 3,
    "********\n",
    " redacted ",
    "    ",
]
REAL = [
    "xxx-my-real-xxx",
    "x-x-x",
    "a",
    "*",
    "**",
    "xx",
    "***a***",
    "•secret•",
    "secret",
    "password",
    "unredacted",
    "redacted1",
    "hidden-",
    "...a",
    "x.x.x",
    "-----BEGIN KEY-----",
]


@pytest.mark.parametrize("mask", MASKED)
async def test_a_mask_is_refused_as_a_secret(hub: Hub, mask: str) -> None:
    answer = await post_source(hub.admin, secrets={"password": mask})
    assert (answer.status_code, faults(answer)) == (400, {"secrets.password": "masked_secret"})
    unsaved = await hub.admin.post(
        f"{SOURCES}/test", json={"type": "postgresql", "config": NOWHERE, "secrets": {"password": mask}}
    )
    assert (unsaved.status_code, faults(unsaved)) == (400, {"secrets.password": "masked_secret"})


async def test_a_mask_does_not_replace_a_stored_secret(hub: Hub) -> None:
    made = await registered(hub, secrets={"password": "one"})
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"secrets": {"password": "********"}})
    assert (answer.status_code, faults(answer)) == (400, {"secrets.password": "masked_secret"})
    assert (await hub.admin.get(f"{SOURCES}/{made['id']}")).json()["secrets"] == made["secrets"]


@pytest.mark.parametrize("secret", REAL)
def test_a_secret_that_only_looks_a_little_like_a_mask_is_none(secret: str) -> None:
    assert not MASKS.fullmatch(secret)


# --- a lost key ---


@asynccontextmanager
async def without_its_keys(hub: Hub) -> AsyncIterator[Hub]:
    """A worker of the same hub, started with another key ring."""
    parts = parts_of_hub(hub.settings, hub.url)
    parts.key_ring = KeyRing.parse(KeyRing.generate("k2"))
    litestar = create_app(parts)
    async with litestar.lifespan():
        frame = Frame(litestar, FrameConfig(timeout_s=30), observe=lambda exchange: None)
        other = replace(hub, parts=parts, app=frame)
        other.admin = other.client(hub.admin.headers["authorization"].removeprefix("Bearer "))
        yield other


async def test_a_lost_key_is_a_clear_answer(hub: Hub, shop: Shop) -> None:
    path = await registered_shop(hub, shop)
    async with without_its_keys(hub) as other:
        for call in (
            other.admin.post(f"{path}/test"),
            other.admin.post(f"{path}/preview", json={"object": "public.orders"}),
        ):
            answer = await call
            assert (answer.status_code, answer.json()["code"]) == (409, "secret_unreadable"), answer.text
            assert faults(answer) == {"secrets.password": "secret_unreadable"}
        job = await discovered(other, path)
        assert (job["status"], job["error"]["code"]) == ("failed", "secret_unreadable")


async def test_what_hangs_on_no_secret_works_without_the_key(hub: Hub) -> None:
    path = f"{SOURCES}/{(await registered(hub, secrets={'password': 'pw'}))['id']}"
    async with without_its_keys(hub) as other:
        assert (await other.admin.get(path)).json()["secrets"]["password"]["set"] is True
        assert (await other.admin.patch(path, json={"description": "x"})).status_code == 200
        assert (await other.admin.patch(path, json={"config": {"connect_timeout_s": 2}})).status_code == 200
        assert (await other.admin.patch(path, json={"secrets": {"password": "again"}})).status_code == 200
        assert (await other.admin.post(f"{path}/test")).status_code == 200
        assert (await other.admin.delete(path)).status_code == 204


@pytest.mark.found("A2")
@pytest.mark.parametrize("long", ["*" * 5000, "x" * 5000, "•" * 300 + "\n", "**** " * 200])
async def test_a_long_mask_is_a_mask(hub: Hub, long: str) -> None:
    answer = await post_source(hub.admin, secrets={"password": long})
    assert (answer.status_code, faults(answer)) == (400, {"secrets.password": "masked_secret"})


@pytest.mark.found("A2")
@pytest.mark.parametrize(
    ("before", "repeated", "after"), [("", "*", "a"), ("a", "*", ""), ("a", "\u0300\u0316", ""), ("", "\ufdfa", "")]
)
def test_a_long_secret_that_holds_signs_is_none(before: str, repeated: str, after: str) -> None:
    """Normalised as a whole, marks take a time that grows with the square."""
    growth = CpuGrowth(8_000, 16_000, floor_s=0.02, at_most_s=0.1)
    for size in growth.sizes():
        long = before + repeated * size + after
        with growth.look(size):
            assert not list(no_masks({"password": long}, "secrets"))
    growth.assert_bounded()
