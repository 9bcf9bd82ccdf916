"""`hub audit`, and what a backup leaves of the seals: as somebody has it who only has the command."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.core import embedded, migrations
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.events.sequencing import give_positions
from app.domain.parts import Parts
from app.domain.seals.sealing import seal_rows
from app.runtime import load_sealing_keys, prepare_parts
from app.settings import load
from tests.commands.hubs import Serve, fresh_folder, run
from tests.postgres import create_database

pytestmark = pytest.mark.slow

ROW = """INSERT INTO audit_events (id, tenant_id, occurred_at, action, resource_type, outcome)
         VALUES (gen_random_uuid(), $1, now(), 'x.do', 'x', 'success') RETURNING id"""
EVENT = """INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data)
           VALUES (gen_random_uuid(), $1, 'x', '/', 's', now(), '{}')"""


@pytest.fixture
def other_dir() -> Iterator[Path]:
    with fresh_folder() as folder:
        yield folder


@asynccontextmanager
async def sealing(data_dir: Path, url: str) -> AsyncIterator[Parts]:
    settings = load({"HUB_DATA_DIR": str(data_dir)}, env_file=None)
    parts = prepare_parts(settings, url)
    parts.sealing_keys = load_sealing_keys(settings)
    yield parts
    await parts.close()


async def seal_all(parts: Parts, connection: "asyncpg.Connection[Any]") -> None:
    while await connection.fetchval(
        "SELECT EXISTS (SELECT FROM audit_events WHERE id NOT IN (SELECT event_id FROM audit_leaves))"
    ):
        if not await seal_rows(parts):
            await asyncio.sleep(0.02)


def test_a_hub_that_runs_seals_what_it_records_and_anybody_can_verify_it(
    data_dir: Path, serve: Serve, tmp_path: Path
) -> None:
    """Edited, it is a failure with the row's name; and an export says the same without a database."""
    anchor = tmp_path / "anchor"
    anchor.mkdir()
    hub = serve(data_dir, HUB_AUDIT_ANCHOR=str(anchor))
    client = hub.client()
    made = client.post("/roles", json={"name": "analysts", "permissions": ["data-sources:read"]})
    (row,) = client.get("/audit-events", params={"action": "role.create"}).json()["items"]
    proof = asyncio.run(eventually(lambda: client.get(f"/audit-events/{row['id']}/proof")))
    assert (made.status_code, proof.status_code) == (201, 200), proof.text
    seal = client.get(f"/audit-seals/{proof.json()['seal_number']}").json()
    name = f"{DEFAULT_TENANT_ID}/000000000/{seal['number']:012}-{seal['hash'][:16]}.json"
    copied = asyncio.run(eventually_there(anchor / name))
    assert copied["root"] == seal["root"]
    hub.stop()

    assert run(data_dir, "audit", "export", str(tmp_path / "log")).returncode == 0
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
    again = run(data_dir, "audit", "export", str(tmp_path / "log"))
    assert (again.returncode, "exists" in again.stderr) == (1, True)
    honest = run(data_dir, "audit", "verify", "--anchor", str(anchor))
    assert honest.returncode == 0, honest.stderr
    assert "Nothing is wrong with" in honest.stdout
    assert "What this does not exclude:" in honest.stdout

    with embedded.running(data_dir) as server:
        asyncio.run(edit(server.superuser_url, UUID(row["id"])))
    tampered = run(data_dir, "audit", "verify")
    assert tampered.returncode == 1
    assert f"row {row['id']} at position" in tampered.stderr
    assert "was edited (role.create" in tampered.stderr
    assert run(tmp_path / "nowhere", "audit", "verify", "--file", str(tmp_path / "log")).returncode == 0
    assert not (tmp_path / "nowhere").exists()

    keys = [json.loads(line)["public_key"] for line in (tmp_path / "log").open() if '"kind":"key"' in line]
    (tmp_path / "public.pem").write_text("".join(keys))
    pinned = run(data_dir, "audit", "verify", "--file", str(tmp_path / "log"), "--key", str(tmp_path / "public.pem"))
    assert pinned.returncode == 0, pinned.stderr
    strange = run(data_dir, "audit", "verify", "--file", str(tmp_path / "log"), "--key", str(data_dir / "secret-keys"))
    assert (strange.returncode, "holds no PEM public key" in strange.stderr) == (1, True)
    missing = run(data_dir, "audit", "verify", "--anchor", str(tmp_path / "no-anchor"))
    assert (missing.returncode, "is no folder" in missing.stderr) == (1, True)


async def eventually(ask: Any) -> Any:
    async with asyncio.timeout(30):
        while (answer := ask()).status_code == 409:
            await asyncio.sleep(0.1)
    return answer


async def eventually_there(file: Path) -> Any:
    async with asyncio.timeout(30):
        while not file.exists():
            await asyncio.sleep(0.1)
    return json.loads(file.read_text())


async def edit(url: str, row_id: UUID) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE audit_events SET address = '203.0.113.9' WHERE id = $1", row_id)
    await connection.close()


def test_a_backup_from_another_cluster_skips_nothing_and_seals_nothing_twice(
    cluster: embedded.EmbeddedPostgres, data_dir: Path, other_dir: Path, tmp_path: Path
) -> None:
    """Whose transactions had higher numbers than those of the new one have for a long time (FT11)."""
    external = asyncio.run(old_cluster(cluster, data_dir))
    backed_up = run(data_dir, "backup", str(tmp_path / "hub.backup"), **external)
    assert backed_up.returncode == 0, backed_up.stderr
    restored = run(other_dir, "restore", str(tmp_path / "hub.backup"))
    assert restored.returncode == 0, restored.stderr
    for name in ("secret-keys", "signing-keys.pem", "sealing-keys.pem"):
        shutil.copy2(data_dir / name, other_dir / name)
    with embedded.running(other_dir) as server:
        asyncio.run(go_on(other_dir, server))
    verified = run(other_dir, "audit", "verify")
    assert verified.returncode == 0, verified.stderr
    assert "not sealed yet" not in verified.stdout
    # Once more, with rows that two clusters have sealed.
    assert run(other_dir, "backup", str(tmp_path / "again.backup")).returncode == 0
    assert run(other_dir, "restore", "--replace", str(tmp_path / "again.backup")).returncode == 0
    again = run(other_dir, "audit", "verify")
    assert again.returncode == 0, again.stderr
    assert "1 rows are not sealed yet" in again.stdout  # that of the restoration


async def old_cluster(cluster: embedded.EmbeddedPostgres, data_dir: Path) -> dict[str, str]:
    """A database with sealed rows, rows that are not sealed, and events of both kinds."""
    name = await create_database(cluster)
    await migrations.migrate(cluster.url("hub_owner", name))
    owner = await asyncpg.connect(cluster.url("hub_owner", name))
    for _ in range(1500):
        await owner.fetchval("SELECT pg_current_xact_id()")
    async with sealing(data_dir, cluster.url("hub_app", name)) as parts:
        for _ in range(3):
            for _ in range(4):
                await owner.execute(ROW, DEFAULT_TENANT_ID)
            await seal_all(parts, owner)
        while await give_positions(parts):
            pass
    for _ in range(5):
        await owner.execute(ROW, DEFAULT_TENANT_ID)
        await owner.execute(EVENT, DEFAULT_TENANT_ID)
    await owner.close()
    urls = {"HUB_DATABASE_URL": cluster.url("hub_app", name), "HUB_OWNER_DATABASE_URL": cluster.url("hub_owner", name)}
    return {**urls, "HUB_ENV": "development"}


async def go_on(data_dir: Path, server: Any) -> None:
    """Until transactions have the numbers again that those of sealed rows had."""
    owner = await asyncpg.connect(server.owner_url)
    last = int(await owner.fetchval("SELECT max(transaction_id::text::bigint) FROM audit_events"))
    now = int(await owner.fetchval("SELECT pg_current_xact_id()::text"))
    assert now < last, "the old cluster was the younger one: nothing is tested"
    async with sealing(data_dir, server.app_url) as parts:
        before = await owner.fetchval("SELECT count(*) FROM audit_leaves")
        await seal_all(parts, owner)
        assert await owner.fetchval("SELECT count(*) FROM audit_leaves") == before + 5 + 1
        while await give_positions(parts):
            pass
        assert await owner.fetchval("SELECT count(*) FROM outbox_events WHERE position IS NULL") == 0
        while now <= last + 1:
            now = int(await owner.fetchval("SELECT pg_current_xact_id()::text"))
            if now % 100 == 0 or last - 60 < now:
                await owner.execute(ROW, DEFAULT_TENANT_ID)
                await seal_all(parts, owner)
        await owner.execute(ROW, DEFAULT_TENANT_ID)
        await seal_all(parts, owner)
    rows, leaves = await owner.fetchrow(
        "SELECT (SELECT count(*) FROM audit_events), (SELECT count(*) FROM audit_leaves)"
    )
    assert rows == leaves
    await owner.close()
