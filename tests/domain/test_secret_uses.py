"""SS4, AU1: whatever opens a secret, or reads what the operator keeps, is on record before it does, and one place alone can."""

import ast
import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.core.embedded import EmbeddedPostgres
from app.core.sealing import KeyRing
from app.domain.records import Records as Written
from app.domain.resealing import reseal
from app.domain.source_work import schedule
from app.domain.source_work.due import claim_due
from app.domain.sources.models import DataSource
from app.domain.sources.secrets import references, uses
from app.domain.sources.secrets.uses import SecretUse, use_of_stored
from app.domain.work import unit_of_work_of
from tests.beside import beside
from tests.conftest import ADMIN_EMAIL, Hub, running_hub
from tests.core.imports import ROOT, name_of, nodes_of
from tests.domain.conftest import Records, unwritable
from tests.domain.sources import (
    NOWHERE,
    SOURCES,
    Shop,
    discovered,
    open_shop,
    post_source,
    registered,
    registered_shop,
)

pytestmark = pytest.mark.anyio

VARIABLE = "SHOP_PASSWORD"
REF = {"ref": f"env:{VARIABLE}"}
USES = "SELECT * FROM audit_events WHERE action = 'secret.use' AND resource_id = $1::uuid ORDER BY sequence"


@pytest.fixture(scope="module")
async def hub(cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    async with running_hub(cluster, migrated, folder, HUB_SECRET_ENV_PREFIXES="SHOP_") as running:
        yield running


@pytest.fixture(scope="module")
async def shop(cluster: EmbeddedPostgres) -> Shop:
    return await open_shop(cluster)


async def used(records: Records, path: str) -> list[Any]:
    return await records.run(USES, path.rpartition("/")[2])


# --- each way to a secret has its row ---


async def test_a_test_and_a_preview_are_uses_by_who_asked(hub: Hub, shop: Shop, records: Records) -> None:
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    path = await registered_shop(hub, shop)
    await hub.admin.patch(path, json={"secrets": {"password": shop.password}})
    answers = {
        "test: password v2": await hub.admin.post(f"{path}/test"),
        "preview: password v2": await hub.admin.post(f"{path}/preview", json={"object": "public.orders"}),
    }
    for detail, answer in answers.items():
        assert answer.status_code == 200
        (use,) = [row for row in await records.audit(answer) if row["action"] == "secret.use"]
        assert (use["detail"], use["outcome"], use["resource_type"]) == (detail, "success", "data_source")
        assert (str(use["resource_id"]), use["address"]) == (path.rpartition("/")[2], "127.0.0.1")
        assert (str(use["actor_id"]), use["actor_name"]) == (me, ADMIN_EMAIL)
        assert (use["before"], use["after"]) == (None, None)
    assert [row["detail"] for row in await used(records, path)] == list(answers)


async def test_a_discovery_is_a_use_by_the_worker_on_behalf_of_who_wanted_it(
    hub: Hub, shop: Shop, records: Records
) -> None:
    path = await registered_shop(hub, shop)
    assert (await discovered(hub, path))["status"] == "succeeded"
    (use,) = await used(records, path)
    assert (use["detail"], use["actor_name"], use["request_id"]) == ("discovery: password v1", ADMIN_EMAIL, None)
    assert str(use["actor_id"]) == (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]


async def test_a_service_account_is_named_as_well(hub: Hub, records: Records) -> None:
    account = (await hub.admin.post("/api/v1/service-accounts", json={"name": uuid4().hex})).json()
    made = await registered(hub, secrets={"password": "pw"})
    job = (await hub.admin.post(f"{SOURCES}/{made['id']}/discover")).json()
    await records.run("UPDATE jobs SET created_by = $1::uuid WHERE id = $2::uuid", account["id"], job["id"])
    assert (await discovered(hub, f"{SOURCES}/{made['id']}"))["status"] == "failed"
    use, *_ = await used(records, made["id"])  # each attempt of a job is a use
    assert (str(use["actor_id"]), use["actor_name"]) == (account["id"], account["name"])


async def test_a_scheduled_test_is_a_use_by_the_system(
    hub: Hub, shop: Shop, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "POLL_S", 0.02)
    path = await registered_shop(hub, shop, test_interval_s=3600)
    await make_due(records, path)
    async with scheduler(hub):
        await until_tested(hub, path)
    (use,) = await used(records, path)
    assert (use["detail"], use["outcome"]) == ("scheduled test: password v1", "success")
    assert (use["actor_id"], use["actor_name"], use["address"], use["request_id"]) == (None, "system", None, None)


@pytest.mark.parametrize("what", ["saved", "unsaved"])
async def test_what_a_reference_leads_to_is_a_secret_like_any_other(
    hub: Hub, shop: Shop, records: Records, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv(VARIABLE, shop.password)
    body = {"type": "postgresql", "config": shop.config, "secrets": {"password": REF}}
    if what == "saved":
        path = f"{SOURCES}/{(await post_source(hub.admin, **body)).json()['id']}"
        answer, detail = await hub.admin.post(f"{path}/test"), "test: password v1"
    else:
        answer, detail = await hub.admin.post(f"{SOURCES}/test", json=body), "test: password"
    assert answer.json()["status"] == "passed"
    use, test = await records.audit(answer)
    assert (use["action"], use["detail"], use["outcome"]) == ("secret.use", detail, "success")
    assert (use["resource_id"] is None) is (what == "unsaved")
    assert test["action"].startswith("data_source.test")
    assert shop.password not in str(use)


async def test_a_tested_change_uses_what_it_leaves_alone(hub: Hub, records: Records) -> None:
    path = f"{SOURCES}/{(await registered(hub, secrets={'password': 'pw'}))['id']}"
    for change, expected in (
        ({"config": {"connect_timeout_s": 2}}, ["test: password v1"]),
        ({"secrets": {"password": "given with it"}}, []),
        ({"secrets": {"password": None}}, []),
    ):
        answer = await hub.admin.post(f"{path}/test", json=change)
        assert answer.status_code == 200
        rows = await records.audit(answer)
        assert [row["detail"] for row in rows if row["action"] == "secret.use"] == expected


async def test_where_there_is_no_secret_there_is_no_use(hub: Hub, records: Records) -> None:
    path = f"{SOURCES}/{(await registered(hub))['id']}"
    unsaved = {"type": "postgresql", "config": NOWHERE, "secrets": {"password": "of the caller's own"}}
    for answer in (await hub.admin.post(f"{path}/test"), await hub.admin.post(f"{SOURCES}/test", json=unsaved)):
        assert [row["action"].partition(".")[0] for row in await records.audit(answer)] == ["data_source"]


async def test_a_change_opens_nothing(hub: Hub, records: Records) -> None:
    """What is stored was judged when it was given: to change the rest it need not be looked at."""
    path = f"{SOURCES}/{(await registered(hub, secrets={'password': 'pw'}))['id']}"
    for change in ({"description": "x"}, {"config": {"connect_timeout_s": 2}}, {"secrets": {"password": "new"}}):
        answer = await hub.admin.patch(path, json=change)
        assert answer.status_code == 200
        assert [row["action"] for row in await records.audit(answer)] == ["data_source.update"]


async def test_sealing_anew_is_no_use(hub: Hub, records: Records) -> None:
    """`hub keys rotate`: nobody is handed a value; the rotation has a row of its own."""
    path = f"{SOURCES}/{(await registered(hub, secrets={'password': 'pw'}))['id']}"
    before = hub.parts.key_ring
    hub.parts.key_ring = KeyRing.parse(f"{KeyRing.generate('k9')},{hub.settings.secret_keys or ''}".rstrip(","))
    try:
        await reseal(hub.parts)
    finally:
        hub.parts.key_ring = before
    assert await used(records, path) == []


async def test_what_no_key_opens_is_a_use_that_failed(hub: Hub, records: Records) -> None:
    path = f"{SOURCES}/{(await registered(hub, secrets={'password': 'pw'}))['id']}"
    await records.run(
        "UPDATE data_source_secrets SET key_id = 'gone' WHERE data_source_id = $1::uuid", path.rpartition("/")[2]
    )
    answer = await hub.admin.post(f"{path}/preview", json={"object": "public.orders"})
    assert answer.status_code in (409, 404)
    (use,) = await used(records, path)
    assert use["outcome"] == "failure"


# --- before it is opened, or not at all ---


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every opening and every reading of a reference from here on."""
    found: list[str] = []
    opening, reading = KeyRing.open, references._read

    def noting(self: KeyRing, sealed: bytes, **place: Any) -> bytes:
        found.append(place["field"])
        return opening(self, sealed, **place)

    async def noting_read(*given: Any) -> str:
        found.append(given[1])
        return await reading(*given)

    monkeypatch.setattr(KeyRing, "open", noting)
    monkeypatch.setattr(references, "_read", noting_read)
    return found


async def test_what_cannot_be_recorded_is_not_opened(
    hub: Hub,
    shop: Shop,
    records: Records,
    cluster: EmbeddedPostgres,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedule, "POLL_S", 0.02)
    monkeypatch.setenv(VARIABLE, shop.password)
    path = await registered_shop(hub, shop, test_interval_s=3600)
    referring = {"type": "postgresql", "config": shop.config, "secrets": {"password": REF}}
    await make_due(records, path)
    async with unwritable(hub, cluster):
        for answer in (
            await hub.admin.post(f"{path}/test"),
            await hub.admin.post(f"{path}/preview", json={"object": "public.orders"}),
            await hub.admin.post(f"{SOURCES}/test", json=referring),
        ):
            assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await claim_due(hub.parts, "doubtful", 10, running={}, host_cap=10)
    assert opened == []
    assert await used(records, path) == []
    due = await records.one(
        "SELECT next_test_at < now() FROM data_sources WHERE id = $1::uuid", path.rpartition("/")[2]
    )
    assert due, "what was not put on record is not claimed either"


async def test_a_row_is_there_when_the_secret_is_opened(
    hub: Hub, shop: Shop, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from another connection, which sees what is committed."""
    monkeypatch.setenv(VARIABLE, shop.password)
    stored, referring = (
        await registered_shop(hub, shop),
        await registered(hub, config=shop.config, secrets={"password": REF}),
    )
    paths = [stored, f"{SOURCES}/{referring['id']}"]
    seen: list[int] = []
    reading = SecretUse.read

    async def looking(self: SecretUse, *given: Any) -> dict[str, str]:
        assert self.source_id is not None
        seen.append(len(await used(records, str(self.source_id))))
        return await reading(self, *given)

    monkeypatch.setattr(SecretUse, "read", looking)
    for path in paths:
        await hub.admin.post(f"{path}/test")
        await hub.admin.post(f"{path}/preview", json={"object": "public.orders"})
        await discovered(hub, path)
    assert seen == [1, 2, 3] * 2


async def test_nothing_is_opened_before_its_row_is_committed(hub: Hub, opened: list[str]) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    async with unit_of_work_of(hub.parts) as work:
        source = await work.session.get_one(DataSource, UUID(made["id"]))
        use = await use_of_stored(work, source, "test")
        with pytest.raises(RuntimeError, match="on record"):
            await use.read(hub.parts, "postgresql")
    assert opened == []
    assert await use.read(hub.parts, "postgresql") == {"password": "pw"}
    assert opened == ["data_sources.secrets.password"]


async def test_work_that_is_undone_opens_nothing(hub: Hub) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    with pytest.raises(ZeroDivisionError):
        async with unit_of_work_of(hub.parts) as work:
            use = await use_of_stored(work, await work.session.get_one(DataSource, UUID(made["id"])), "preview")
            raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="on record"):
        await use.read(hub.parts, "postgresql")


async def test_many_claims_of_a_tenant_are_put_on_record_by_one_statement(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred tests a second would be a hundred statements otherwise."""
    made = [await registered(hub, secrets={"password": "pw"}, test_interval_s=3600) for _ in range(12)]
    ids = [UUID(each["id"]) for each in made]
    await records.run("UPDATE data_sources SET next_test_at = NULL")
    await records.run("UPDATE data_sources SET next_test_at = now() - interval '1 second' WHERE id = ANY($1)", ids)
    written: list[int] = []
    writing = Written.write

    async def counting(self: Written, connection: Any) -> None:
        written.append(len(self.audits))
        await writing(self, connection)

    monkeypatch.setattr(Written, "write", counting)
    claimed = await claim_due(hub.parts, "doubtful", 12, running={}, host_cap=12)
    assert {test.source_id for test in claimed} == set(ids)
    assert written == [12]
    assert (
        await records.one(
            "SELECT count(*) FROM audit_events WHERE action = 'secret.use' AND resource_id = ANY($1)", ids
        )
        == 12
    )
    assert [await test.reach.secrets.read(hub.parts, "postgresql") for test in claimed] == [{"password": "pw"}] * 12


async def make_due(records: Records, path: str) -> None:
    source_id = path.rpartition("/")[2]
    await records.run(
        "UPDATE data_sources SET next_test_at = now() - interval '1 second' WHERE id = $1::uuid", source_id
    )


def scheduler(hub: Hub) -> AbstractAsyncContextManager[object]:
    return beside(schedule.test_on_schedule(hub.parts))


async def until_tested(hub: Hub, path: str) -> None:
    for _ in range(2_000):
        if (await hub.admin.get(path)).json()["status"] != "untested":
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it was not tested")


# --- one place ---


OPENERS = {
    "app.domain.sources.secrets.uses": "for connector work, on record",
    "app.domain.resealing": "`hub keys rotate` seals what it opens and hands it to nobody",
    "app.domain.sources.secrets.sealed": "a start and `hub check` hold a key against what it sealed, and forget it",
    "app.domain.idempotency.services": "the hub's own answers, no secret of a source's",
    "app.domain.webhooks.secrets": "the hub's own signing secrets, no secret of a source's",
    "app.core.sealed_values": "what the hub has given a browser to keep, no secret of a source's",
    "app.domain.factors.checking": "the secret of an authenticator app, held against a code",
    "app.domain.identity_providers.registry": "what the hub shows to an identity provider that it is a client of",
    "app.domain.saml.own_side": "the key that signs what goes to an identity provider",
}
"""Who opens anything that is sealed, and why that may be."""


@pytest.fixture(scope="module", autouse=True)
def the_last_test_forgets_the_sources() -> Iterator[None]:
    """They take a hundred megabytes."""
    yield
    nodes_of.cache_clear()


def sources() -> Iterator[tuple[str, tuple[ast.AST, ...]]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield name_of(path), nodes_of(path)


def opens_what_is_sealed(nodes: tuple[ast.AST, ...]) -> bool:
    """A call of `open` on a key ring, by whatever name: rings hang on the parts, or are called `ring`."""
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    opened = [call.value for call in calls if isinstance(call, ast.Attribute) and call.attr == "open"]
    return any("ring" in ast.unparse(value) for value in opened)


def test_nobody_else_opens_what_is_sealed() -> None:
    assert {name for name, nodes in sources() if opens_what_is_sealed(nodes)} == set(OPENERS)


def test_nobody_else_reads_the_sealed_column() -> None:
    readers = {
        name
        for name, nodes in sources()
        if any(
            isinstance(node, ast.Attribute) and node.attr == "sealed" and ast.unparse(node) == "DataSourceSecret.sealed"
            for node in nodes
        )
    }
    assert readers == {"app.domain.sources.secrets.uses"}


def test_nobody_else_reads_what_is_referred_to() -> None:
    """Neither by the module nor by the function's own name."""
    readers = {
        name
        for name, nodes in sources()
        for node in nodes
        if (isinstance(node, ast.Attribute) and node.attr == "resolved")
        or (isinstance(node, ast.ImportFrom) and "resolved" in {each.name for each in node.names})
    }
    assert readers == {"app.domain.sources.secrets.uses"}


def test_nobody_else_calls_a_use_recorded() -> None:
    """Who says that a row is committed has committed it: the unit of work, and who claims due sources."""
    callers = {
        name
        for name, nodes in sources()
        for node in nodes
        if isinstance(node, ast.Attribute) and node.attr == "note_record"
    }
    assert callers == {"app.domain.sources.secrets.uses", "app.domain.source_work.due"}


def test_every_purpose_is_asked_for_somewhere() -> None:
    said = {
        node.value
        for _, nodes in sources()
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(uses.Purpose.__args__) <= said  # type: ignore[attr-defined]
