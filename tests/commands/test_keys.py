"""`hub keys`: a rotation may be killed at any moment and gone on with."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.core.sealing import KeyRing
from app.domain.resealing import BATCH
from tests.commands.hubs import Serve, environment, run
from tests.conftest import PASSWORD
from tests.ports import free_port

pytestmark = pytest.mark.anyio

SECRETS = 5 * BATCH


def test_generate_needs_no_setting_and_prints_a_ring_that_parses(data_dir: Path) -> None:
    ended = run(data_dir, "keys", "generate", HUB_ENV="production")
    entries = [line for line in ended.stdout.splitlines() if line.startswith("HUB_SECRET_KEYS=")]
    assert ended.returncode == 0
    assert len(KeyRing.parse(entries[0].partition("=")[2]).ids) == 1
    assert not data_dir.exists()


@pytest.mark.slow
def test_generated_keys_are_not_rotated_under_a_running_hub(used_folder: Path, serve: Serve) -> None:
    serve(used_folder)
    before = (used_folder / "secret-keys").read_text()
    ended = run(used_folder, "keys", "rotate")
    assert ended.returncode == 1
    assert "is in use by process" in ended.stderr
    assert (used_folder / "secret-keys").read_text() == before


@pytest.mark.slow
async def test_a_killed_rotation_is_gone_on_with_under_the_key_that_it_made(data_dir: Path, serve: Serve) -> None:
    hub = serve(data_dir)
    _register(hub)
    await multiply(data_dir, SECRETS, KeyRing.parse((data_dir / "secret-keys").read_text()))
    hub.stop()

    process = subprocess.Popen(
        [sys.executable, "-m", "app", "keys", "rotate"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(data_dir),
    )
    assert process.stderr is not None
    assert process.stderr.readline().endswith("done\n")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stderr.close()
    ring = KeyRing.parse((data_dir / "secret-keys").read_text())
    assert len(ring.ids) == 2

    ended = run(data_dir, "keys", "rotate")
    assert ended.returncode == 0, ended.stderr
    assert KeyRing.parse((data_dir / "secret-keys").read_text()).ids == ring.ids
    listed = run(data_dir, "keys", "list")
    assert f"{ring.current_id}" in listed.stdout
    assert f"{SECRETS} secrets" in listed.stdout
    assert "every one opens" in run(data_dir, "check").stdout


@pytest.mark.slow
def test_a_lost_key_is_told_by_list_and_check(data_dir: Path, serve: Serve) -> None:
    hub = serve(data_dir)
    _register(hub)
    hub.stop()
    path = data_dir / "secret-keys"
    path.write_text(KeyRing.generate("other"))
    listed = run(data_dir, "keys", "list")
    assert listed.returncode == 1
    assert "MISSING" in listed.stdout
    assert run(data_dir, "check").returncode == 1
    path.write_text(KeyRing.generate("k1"))
    replaced = run(data_dir, "check")
    assert replaced.returncode == 1
    assert "replaced under its id" in replaced.stdout
    for action in ("list", "rotate"):
        refused = run(data_dir, "keys", action)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "bring it back there" in refused.stderr
    path.unlink()
    assert "bring it back" in run(data_dir, "keys", "list").stderr
    assert not path.exists()


@pytest.mark.slow
async def test_a_ring_that_is_gone_is_not_made_anew_over_stored_secrets(data_dir: Path, serve: Serve) -> None:
    hub = serve(data_dir)
    _register(hub)
    hub.stop()
    path = data_dir / "secret-keys"
    ring = path.read_text()
    path.unlink()
    refused = run(data_dir, "serve", "--port", str(free_port()))
    assert refused.returncode == 1, refused.stderr
    (sentence,) = refused.stderr.splitlines()
    assert sentence.startswith(
        f"Secrets are stored that were sealed with the key k1, and {path}, where it is looked for, does not exist:"
    )
    assert not path.exists()
    checked = run(data_dir, "check")
    assert (checked.returncode, sentence in checked.stdout) == (1, True)

    named = ("--email", "grace@example.org", "--password-stdin")
    for command in (("create-admin", *named), ("reset-password", *named), ("worker",)):
        ended = run(data_dir, *command, text=f"{PASSWORD}\n")
        assert (ended.returncode, ended.stderr.splitlines()) == (1, [sentence]), command
        assert not path.exists()

    path.write_text(KeyRing.generate("k1"))
    (replaced,) = run(data_dir, "serve", "--port", str(free_port())).stderr.splitlines()
    assert replaced.startswith(
        f"Secrets are stored that were sealed with a key k1 which is not the one that {path} has under that id:"
    )
    assert run(data_dir, "create-admin", *named, text=f"{PASSWORD}\n").stderr.splitlines() == [replaced]
    path.unlink()
    serve(data_dir, HUB_SECRET_KEYS=KeyRing.generate("k2")).stop()
    path.write_text(ring)
    serve(data_dir).stop()


def _register(hub: object) -> None:
    config = {"host": "127.0.0.1", "database": "d", "username": "u"}
    source = {"name": "s", "type": "postgresql", "config": config, "secrets": {"password": "quite a secret"}}
    with hub.client() as client:  # type: ignore[attr-defined]
        assert client.post("/data-sources", json=source).status_code == 201


async def multiply(data_dir: Path, wanted: int, ring: KeyRing) -> None:
    """Many secrets of the one source, each sealed to its own name."""
    record = json.loads((data_dir / "postgres.json").read_text())
    url = f"postgresql://hub_owner:{record['passwords']['hub_owner']}@127.0.0.1:{record['port']}/hub"
    connection = await asyncpg.connect(url)
    try:
        source, tenant = await connection.fetchrow("SELECT id, tenant_id FROM data_sources")
        rows = []
        for number in range(wanted - 1):
            field = f"data_sources.secrets.extra{number}"
            sealed = ring.seal(b"one of many", tenant_id=tenant, row_id=source, field=field)
            rows.append((source, f"extra{number}", tenant, sealed, ring.current_id))
        await connection.executemany("INSERT INTO data_source_secrets VALUES ($1, $2, $3, $4, $5, 1, now())", rows)
    finally:
        await connection.close()


@pytest.mark.slow
@pytest.mark.found("U3")
async def test_an_old_key_goes_when_no_session_rests_on_it_any_more(data_dir: Path, serve: Serve) -> None:
    hub = serve(data_dir)
    assert hub.admin
    given = dict(zip(("email", "password"), hub.admin, strict=True))
    token = httpx.post(f"{hub.url}/api/v1/auth/login", json=given).json()["refresh_token"]
    hub.stop()
    (old,) = KeyRing.parse((data_dir / "secret-keys").read_text()).ids
    rotated = run(data_dir, "keys", "rotate")
    assert (rotated.returncode, "keys list` says when each may go." in rotated.stdout) == (0, True)
    assert f"{old}" in (listed := run(data_dir, "keys", "list").stdout)
    assert "; may go on 20" in listed

    ring = (data_dir / "secret-keys").read_text()
    (data_dir / "secret-keys").write_text(ring.partition(",")[0])
    check = run(data_dir, "check")
    assert (check.returncode, f"rest on {old}, which is not in the ring" in check.stdout) == (1, True)
    assert run(data_dir, "keys", "list").returncode == 1

    (data_dir / "secret-keys").write_text(ring)
    hub = serve(data_dir)
    refreshed = httpx.post(f"{hub.url}/api/v1/auth/refresh", json={"refresh_token": token})
    assert refreshed.status_code == 200
    hub.stop()
    (freed,) = [line for line in run(data_dir, "keys", "list").stdout.splitlines() if old in line]
    assert freed.endswith("; may go")
    (data_dir / "secret-keys").write_text(ring.partition(",")[0])
    assert run(data_dir, "check").returncode == 0
