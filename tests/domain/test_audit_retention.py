"""Rows of the audit log that are too old: whole seals of them go, and what remains still verifies."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.core.embedded import EmbeddedPostgres
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.seals.reading import items_in_database
from app.domain.seals.retention import drop_old_rows
from app.domain.seals.sealing import seal_rows
from app.domain.seals.verifying import Verdict, Verifier
from app.domain.upkeep.services import KINDS
from app.runtime import load_sealing_keys
from tests.conftest import Hub, running_hub
from tests.domain.conftest import Records
from tests.domain.seals import UNSEALED, seal_all

pytestmark = pytest.mark.anyio

AS_SEALED = "UPDATE audit_seals SET written_at = sealed_at"
"""As if they had been written when they say."""
ROW = """INSERT INTO audit_events (id, tenant_id, occurred_at, action, resource_type, outcome)
         VALUES ($1, $2, now(), 'x.do', 'x', 'success')"""
NOW = datetime.now(UTC)
DAYS = 60


@pytest.fixture
async def hub(cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("hub"), HUB_AUDIT_DAYS=str(DAYS)) as running:
        running.parts.sealing_keys = load_sealing_keys(running.settings)
        yield running


@pytest.fixture
async def records(hub: Hub) -> AsyncIterator[Records]:
    connection = await asyncpg.connect(hub.owner_url)
    yield Records(connection)
    await connection.close()


async def sealed_at(hub: Hub, records: Records, days_ago: int, rows: int, tenant_id: UUID = DEFAULT_TENANT_ID) -> UUID:
    """New rows, under a seal of so many days ago; one of them."""
    await seal_all(hub)
    row_id = uuid4()
    for number in range(rows):
        await records.run(ROW, row_id if number == 0 else uuid4(), tenant_id)
    while await records.one(UNSEALED):
        await seal_rows(hub.parts, now=NOW - timedelta(days=days_ago))
    await records.run(AS_SEALED)
    return row_id


async def verdict(hub: Hub) -> Verdict:
    connection = await asyncpg.connect(hub.url)
    verifier = Verifier()
    async for item in items_in_database(connection):
        verifier.take(item)
    await connection.close()
    return verifier.finish()


@pytest.fixture
async def aged(hub: Hub, records: Records) -> dict[str, Any]:
    """A log that began 100 days ago."""
    while await records.one(UNSEALED):
        await seal_rows(hub.parts, now=NOW - timedelta(days=100))
    await records.run(AS_SEALED)
    return {
        "old": await sealed_at(hub, records, 90, 3),
        "older": await sealed_at(hub, records, 70, 4),
        "young": await sealed_at(hub, records, 50, 2),
    }


async def test_rows_that_are_too_old_go_and_what_remains_verifies(
    hub: Hub, records: Records, aged: dict[str, Any]
) -> None:
    seals = await records.one("SELECT count(*) FROM audit_seals")
    rows = await records.one("SELECT count(*) FROM audit_events")
    last = await records.one("SELECT seal_number FROM audit_leaves WHERE event_id = $1", aged["older"])
    dropped = await drop_old_rows(hub.parts, NOW, 1000)
    assert dropped >= 3 + 4
    assert await records.one("SELECT count(*) FROM audit_events") == rows - dropped + 1
    assert await records.one("SELECT count(*) FROM audit_seals") == seals
    assert await records.one("SELECT min(seal_number) FROM audit_leaves") == last + 1
    (told,) = (await hub.admin.get("/api/v1/audit-events?action=audit.drop")).json()["items"]
    assert (told["actor_name"], told["resource_type"]) == ("system", "audit_seal")
    assert (told["after"]["last_seal"], told["after"]["rows"]) == (last, dropped)
    for row_id, status in ((aged["old"], 404), (aged["young"], 200)):
        assert (await hub.admin.get(f"/api/v1/audit-events/{row_id}/proof")).status_code == status
    for _ in range(2):
        found = await verdict(hub)
        assert (found.wrong, found.dropped) == ([], last)
        await seal_all(hub)
    assert await drop_old_rows(hub.parts, NOW, 1000) == 0


async def test_they_go_seal_by_seal_and_the_last_row_about_it_is_what_counts(
    hub: Hub, records: Records, aged: dict[str, Any]
) -> None:
    """In steps that are smaller than a seal; later the rest, the rows about it among them."""
    assert await drop_old_rows(hub.parts, NOW, 1) >= 1
    assert (await verdict(hub)).dropped == 1
    while await drop_old_rows(hub.parts, NOW, 1):
        pass
    await seal_all(hub)
    before = (await verdict(hub)).dropped
    later = NOW + timedelta(days=DAYS + 1)
    with pytest.raises(Exception, match="are kept for 30 days at least"):
        await drop_old_rows(hub.parts, later, 1000)
    assert ((await verdict(hub)).wrong, (await verdict(hub)).dropped) == ([], before)


async def test_every_tenant_is_meant_and_a_deleted_one_too(hub: Hub, records: Records) -> None:
    await hub.new_tenant("acme")
    tenant_id = await records.one("SELECT id FROM tenants WHERE slug = 'acme'")
    while await records.one(UNSEALED):
        await seal_rows(hub.parts, now=NOW - timedelta(days=100))
    await records.run(AS_SEALED)
    assert (await hub.admin.delete(f"/api/v1/tenants/{tenant_id}")).status_code == 204
    young = await sealed_at(hub, records, 1, 2, tenant_id)
    assert await drop_old_rows(hub.parts, NOW, 1000) > 0
    left = await records.run("SELECT event_id FROM audit_leaves WHERE tenant_id = $1 AND seal_number = 1", tenant_id)
    assert left == []
    assert await records.one("SELECT count(*) FROM audit_events WHERE id = $1", young) == 1
    found = await verdict(hub)
    assert (found.wrong, found.dropped, found.chains) == ([], 2, 2)


async def test_nothing_goes_unless_it_is_asked_for(
    hub: Hub, records: Records, aged: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import msgspec

    monkeypatch.setattr(hub.parts, "settings", msgspec.structs.replace(hub.parts.settings, audit_days=0))
    assert await drop_old_rows(hub.parts, NOW, 1000) == 0
    assert "audit_events" in {kind.name for kind in KINDS}


async def test_a_drop_that_the_hub_did_not_sign_is_told(
    hub: Hub, cluster: EmbeddedPostgres, records: Records, aged: dict[str, Any]
) -> None:
    """As somebody would do who has the application's role, and not the key."""
    app = await asyncpg.connect(hub.url)
    last = await records.one("SELECT seal_number FROM audit_leaves WHERE event_id = $1", aged["old"])
    await app.execute("SELECT drop_audit_rows($1, $2, $3, 'x', 'ab')", DEFAULT_TENANT_ID, last, uuid4())
    await app.close()
    await seal_all(hub)
    (sentence,) = (await verdict(hub)).wrong
    assert f"the rows of seals 1 to {last} are gone, and no signed row" in sentence
    row = await records.one("SELECT after FROM audit_events WHERE action = 'audit.drop'")
    assert json.loads(row)["last_seal"] == last
