"""`hub check`: it tells right from wrong, and makes nothing."""

import json
from pathlib import Path

import pytest

from app.connectors.processes.confinement import version
from app.settings import Settings, variable
from tests.commands.hubs import Serve, run


def _wrong(said: str) -> list[str]:
    return [line.split(":")[0].split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("wrong")]


def test_a_new_folder_is_fine_and_stays_absent(data_dir: Path) -> None:
    ended = run(data_dir, "check")
    assert ended.returncode == 0, ended.stdout
    assert "would be created at the first start" in ended.stdout
    assert not data_dir.exists()


def test_every_setting_is_listed_and_no_secret_shown(data_dir: Path) -> None:
    ended = run(
        data_dir, "check", HUB_REDIS_URL="redis://:hunter22@127.0.0.1:6379/0", HUB_OIDC_X_CLIENT_SECRET="hunter23"
    )
    for field in Settings.__struct_fields__:
        assert variable(field) in ended.stdout or field == "identity_providers"
    assert "hunter2" not in ended.stdout
    assert "note   HUB_REDIS_URL" in ended.stdout


def test_wrong_settings_are_shown_with_exit_code_1(data_dir: Path) -> None:
    ended = run(data_dir, "check", HUB_NONSENSE="1")
    assert ended.returncode == 1
    assert "HUB_NONSENSE" in ended.stdout


@pytest.mark.slow
def test_a_migrated_database_is_right_and_an_empty_one_wrong(data_dir: Path) -> None:
    run(data_dir, "migrate")
    assert run(data_dir, "check").returncode == 0
    run(data_dir, "migrate", "down", "--yes")
    ended = run(data_dir, "check")
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["migrations"])


@pytest.mark.slow
def test_it_looks_at_a_running_hub_and_leaves_it_running(used_folder: Path, serve: Serve) -> None:
    hub = serve(used_folder)
    ended = run(used_folder, "check")
    assert ended.returncode == 0, ended.stdout
    assert hub.process.poll() is None


def test_a_database_that_is_away_is_wrong(data_dir: Path) -> None:
    url = "postgresql://hub:hunter22@127.0.0.1:1/hub"
    ended = run(data_dir, "check", HUB_DATABASE_URL=url, HUB_ENV="development")
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["database"])
    assert "hunter22" not in ended.stdout


@pytest.mark.slow
def test_a_role_that_owns_the_tables_is_wrong_in_production(used_folder: Path, serve: Serve) -> None:
    serve(used_folder)
    record = json.loads((used_folder / "postgres.json").read_text())
    url = f"postgresql://hub_owner:{record['passwords']['hub_owner']}@127.0.0.1:{record['port']}/hub"
    given = {
        "HUB_SECRET_KEYS": (used_folder / "secret-keys").read_text().strip(),
        "HUB_SIGNING_KEYS_FILE": str(used_folder / "signing-keys.pem"),
    }
    ended = run(used_folder, "check", HUB_DATABASE_URL=url, **given)
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["database role"])


@pytest.mark.slow
@pytest.mark.found("L10")
def test_more_connections_than_the_server_allows_are_wrong(used_folder: Path, serve: Serve) -> None:
    serve(used_folder)
    assert "4 servers and 1 worker open 18 each, 90 together" in run(used_folder, "check", HUB_WORKERS="4").stdout
    for too_many in ({"HUB_WORKERS": "6"}, {"HUB_POOL_SIZE": "30"}):
        ended = run(used_folder, "check", **too_many)
        assert (ended.returncode, _wrong(ended.stdout)) == (1, ["connections"])


def test_keys_that_others_can_read_are_wrong(data_dir: Path) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o711)
    keys = data_dir / "secret-keys"
    keys.write_text("k1:" + "A" * 43 + "=")
    keys.chmod(0o644)
    ended = run(data_dir, "check")
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["data folder"])


def test_a_folder_for_secrets_that_is_not_there_is_wrong(data_dir: Path, tmp_path: Path) -> None:
    ended = run(data_dir, "check", HUB_SECRET_FILES_ROOT=str(tmp_path / "nowhere"))
    assert (ended.returncode, _wrong(ended.stdout)) == (1, ["secret files"])


def test_it_says_who_seals_and_where_seals_are_copied(data_dir: Path, tmp_path: Path) -> None:
    said = run(data_dir, "check").stdout
    assert "note   sealing keys: would be created at the first start" in said
    assert "note   audit anchor: HUB_AUDIT_ANCHOR is not set" in said
    assert (
        f"right  audit anchor: seals are copied to {tmp_path}"
        in run(data_dir, "check", HUB_AUDIT_ANCHOR=str(tmp_path)).stdout
    )
    away = run(data_dir, "check", HUB_AUDIT_ANCHOR=str(tmp_path / "nowhere"))
    assert (away.returncode, _wrong(away.stdout)) == (1, ["audit anchor"])


def test_it_says_whether_the_kernel_closes_off_connectors(data_dir: Path) -> None:
    said = "right  connectors: closed off" if version() else "note   connectors: this kernel has no Landlock"
    assert said in run(data_dir, "check").stdout
