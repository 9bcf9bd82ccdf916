"""`hub backup` and `hub restore`: what was there is there again, and nothing that should not be."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.core import embedded, migrations
from tests.commands.hubs import Serve, Served, fresh_folder, run
from tests.conftest import PASSWORD
from tests.postgres import create_database

pytestmark = [pytest.mark.slow, pytest.mark.found("U11")]

KEYS = ("secret-keys", "signing-keys.pem")
SHOP_PASSWORD = "canary-3f9a-of-the-shop"
SOURCE = {
    "type": "simulated", "name": "Shop", "config": {}, "secrets": {"password": SHOP_PASSWORD},
}  # fmt: skip


@pytest.fixture
def other_dir() -> Iterator[Path]:
    with fresh_folder() as folder:
        yield folder


@pytest.fixture
def lived_in(data_dir: Path, serve: Serve) -> Served:
    """A hub with a user, a role and a source with a secret."""
    hub = serve(data_dir)
    client = hub.client()
    user = client.post("/users", json={"email": "ada@example.org", "password": PASSWORD})
    role = client.post("/roles", json={"name": "analysts", "permissions": ["data-sources:read"]})
    source = client.post("/data-sources", json=SOURCE)
    assert [answer.status_code for answer in (user, role, source)] == [201, 201, 201], source.text
    return hub


def backed_up(data_dir: Path, file: Path, **variables: str) -> None:
    ended = run(data_dir, "backup", str(file), **variables)
    assert ended.returncode == 0, ended.stderr
    assert "The keys are not in it" in ended.stdout


def actions(client: httpx.Client) -> list[str]:
    page = client.get("/audit-events", params={"limit": 200}).json()
    return [item["action"] for item in page["items"]]


def sign_in(hub: Served, email: str, password: str) -> httpx.Client:
    login = httpx.post(f"{hub.url}/api/v1/auth/login", json={"email": email, "password": password})
    assert login.status_code == 200, login.text
    headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
    return httpx.Client(base_url=f"{hub.url}/api/v1", headers=headers, timeout=30)


@pytest.mark.fault("FT11")
def test_a_restored_hub_knows_its_people_its_audit_and_its_secrets(
    lived_in: Served, serve: Serve, other_dir: Path, tmp_path: Path
) -> None:
    assert lived_in.admin
    before = actions(lived_in.client())
    backed_up(lived_in.data_dir, tmp_path / "hub's own.backup")  # beside the running hub
    lived_in.stop()

    ended = run(other_dir, "restore", str(tmp_path / "hub's own.backup"))
    assert ended.returncode == 0, ended.stderr
    assert "does not exist" in ended.stderr  # the keys are still missing, and that is said
    for name in KEYS:
        shutil.copy2(lived_in.data_dir / name, other_dir / name)

    again = serve(other_dir)
    assert again.admin is None  # nobody is made a second time
    client = sign_in(again, *lived_in.admin)
    sign_in(again, "ada@example.org", PASSWORD)
    assert set(before) <= set(actions(client))
    (restored,) = client.get("/audit-events", params={"action": "database.restore"}).json()["items"]
    assert (restored["actor_name"], restored["outcome"], restored["resource_type"]) == ("system", "success", "database")
    assert restored["after"] == {"file": "hub's own.backup", "schema": migrations.head(), "replaced": False}
    assert before[0] != "database.restore"
    assert [role["name"] for role in client.get("/roles?name=analysts").json()["items"]] == ["analysts"]
    (source,) = client.get("/data-sources?q=Shop").json()["items"]
    assert client.post(f"/data-sources/{source['id']}/test").json()["status"] == "passed"
    again.stop()
    assert run(other_dir, "keys", "rotate").returncode == 0  # which opens each secret


def test_no_secret_can_be_read_in_a_backup(lived_in: Served, tmp_path: Path) -> None:
    file = tmp_path / "hub.backup"
    backed_up(lived_in.data_dir, file)
    text = unpacked(file)
    assert b"ada@example.org" in text
    keys = [(lived_in.data_dir / name).read_bytes().strip() for name in KEYS]
    for secret in [SHOP_PASSWORD.encode(), PASSWORD.encode(), *keys]:
        assert secret not in text
    assert file.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [file]


def unpacked(file: Path) -> bytes:
    programs = embedded.find_installation() / "bin"
    return subprocess.run([programs / "pg_restore", "--file=-", file], capture_output=True, check=True).stdout


def test_a_database_that_holds_something_is_replaced_only_when_told(
    lived_in: Served, used_folder: Path, tmp_path: Path
) -> None:
    backed_up(lived_in.data_dir, tmp_path / "hub.backup")
    refused = run(used_folder, "restore", str(tmp_path / "hub.backup"))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "is not empty" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    for _ in range(2):  # the second time over what the first has put there
        replaced = run(used_folder, "restore", "--replace", str(tmp_path / "hub.backup"))
        assert replaced.returncode == 0, replaced.stderr
        assert ask(used_folder, "SELECT count(*) FROM users WHERE email = 'ada@example.org'") == 1


def ask(data_dir: Path, sql: str) -> Any:
    with embedded.running(data_dir) as server:
        return asyncio.run(_fetch(server.superuser_url, sql))


async def _fetch(url: str, sql: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def test_a_backup_that_does_not_fit_changes_nothing(used_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "hub.backup"
    backed_up(used_folder, file)
    (tmp_path / "half.backup").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (tmp_path / "text.backup").write_text("SELECT 1;")
    before = ask(used_folder, "SELECT count(*) FROM roles")
    for name, sentence in [("half", "failed|refused"), ("text", "is no backup"), ("missing", "is no file")]:
        ended = run(used_folder, "restore", "--replace", str(tmp_path / f"{name}.backup"))
        assert ended.returncode == 1
        assert any(words in ended.stderr for words in sentence.split("|")), ended.stderr
        assert "Traceback" not in ended.stderr
    assert ask(used_folder, "SELECT count(*) FROM roles") == before


def test_a_backup_of_a_newer_hub_is_refused(used_folder: Path, other_dir: Path, tmp_path: Path) -> None:
    newer = f"{int(migrations.head()) + 1:04}"
    ask(used_folder, f"UPDATE alembic_version SET version_num = '{newer}' RETURNING 1")
    try:
        backed_up(used_folder, tmp_path / "hub.backup")
    finally:
        ask(used_folder, f"UPDATE alembic_version SET version_num = '{migrations.head()}' RETURNING 1")
    ended = run(other_dir, "restore", str(tmp_path / "hub.backup"))
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert f"schema {newer}" in ended.stderr


def test_nothing_is_restored_under_a_hub_that_runs(lived_in: Served, tmp_path: Path) -> None:
    backed_up(lived_in.data_dir, tmp_path / "hub.backup")
    ended = run(lived_in.data_dir, "restore", "--replace", str(tmp_path / "hub.backup"))
    assert ended.returncode == 1
    assert "in use by process" in ended.stderr
    assert lived_in.client().get("/auth/me").status_code == 200


def test_a_file_that_exists_is_not_written_over(used_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "hub.backup"
    file.write_text("precious")
    ended = run(used_folder, "backup", str(file))
    assert (ended.returncode, file.read_text()) == (1, "precious")
    assert "exists: name another" in ended.stderr


def test_of_an_empty_database_there_is_no_backup(data_dir: Path, tmp_path: Path) -> None:
    ended = run(data_dir, "backup", str(tmp_path / "hub.backup"))
    assert ended.returncode == 1
    assert "is empty" in ended.stderr
    assert not (tmp_path / "hub.backup").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    ended = run(tmp_path / "data", "backup", str(tmp_path / "nowhere" / "hub.backup"))
    assert ended.returncode == 1
    assert f"{tmp_path / 'nowhere'} is no folder" in ended.stderr


# --- A server that is not embedded ---


@pytest.fixture
def external(cluster: embedded.EmbeddedPostgres) -> dict[str, str]:
    """Settings of a hub on a database of the test run's cluster, as if it were somebody's server."""
    name = asyncio.run(create_database(cluster))
    asyncio.run(migrations.migrate(cluster.url("hub_owner", name)))
    urls = {"HUB_DATABASE_URL": cluster.url("hub_app", name), "HUB_OWNER_DATABASE_URL": cluster.url("hub_owner", name)}
    return {**urls, "HUB_ENV": "development"}


def test_an_external_database_is_backed_up_and_restored(
    external: dict[str, str], data_dir: Path, tmp_path: Path
) -> None:
    backed_up(data_dir, tmp_path / "hub.backup", **external)
    ended = run(data_dir, "restore", "--replace", str(tmp_path / "hub.backup"), **external)
    assert ended.returncode == 0, ended.stderr


def test_a_table_whose_rows_the_owner_does_not_see_is_not_left_out_in_silence(
    external: dict[str, str], data_dir: Path, tmp_path: Path
) -> None:
    async def forget_policy() -> None:
        owner = await asyncpg.connect(external["HUB_OWNER_DATABASE_URL"])
        await owner.execute("DROP POLICY of_owner ON roles")
        await owner.close()

    asyncio.run(forget_policy())
    ended = run(data_dir, "backup", str(tmp_path / "hub.backup"), **external)
    assert ended.returncode == 1
    assert "Rows of roles would be missing" in ended.stderr
    assert list(tmp_path.glob("hub.backup*")) == []


def test_somebody_who_is_connected_is_not_cut_off(external: dict[str, str], data_dir: Path, tmp_path: Path) -> None:
    backed_up(data_dir, tmp_path / "hub.backup", **external)

    async def restore_beside_a_session() -> tuple[int, str]:
        connection = await asyncpg.connect(external["HUB_DATABASE_URL"])
        try:
            ended = await asyncio.to_thread(
                run, data_dir, "restore", "--replace", str(tmp_path / "hub.backup"), **external
            )
        finally:
            await connection.close()
        return ended.returncode, ended.stderr

    code, said = asyncio.run(restore_beside_a_session())
    assert code == 1
    assert "1 other sessions are connected" in said


@pytest.mark.parametrize("version", ["15.8 (Debian 15.8-0+deb12u1)", "9.6.24", "17rc1"])
def test_programs_that_are_too_old_are_passed_over(
    version: str, external: dict[str, str], data_dir: Path, tmp_path: Path
) -> None:
    old = stand_ins(tmp_path / "old", version)
    backed_up(data_dir, tmp_path / "hub.backup", PATH=f"{old}:{os.environ['PATH']}", **external)


def stand_ins(folder: Path, version: str) -> Path:
    """Programs that say they are of a version, and do nothing."""
    folder.mkdir()
    for program in ("pg_dump", "pg_restore", "psql"):
        (folder / program).write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n")
        (folder / program).chmod(0o755)
    return folder
