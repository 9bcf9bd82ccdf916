"""What is wrong with the settings stops every command with one line each."""

from pathlib import Path

import pytest

from tests.commands.hubs import run


@pytest.mark.parametrize("command", [["serve"], ["worker"], ["migrate"], ["keys", "list"], ["demo"]])
def test_every_fault_is_one_line_and_the_exit_code_2(data_dir: Path, command: list[str]) -> None:
    ended = run(data_dir, *command, HUB_POOL_SZIE="5", HUB_REQUEST_TIMEOUT_S="soon", HUB_ENV="staging")
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["HUB_ENV", "HUB_POOL_SZIE", "HUB_REQUEST_TIMEOUT_S"]
    assert "HUB_POOL_SIZE" in ended.stderr
    assert not data_dir.exists()


def test_production_does_not_start_without_keys(data_dir: Path) -> None:
    ended = run(data_dir, "serve", HUB_ENV="production")
    assert ended.returncode == 2
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == ["HUB_SECRET_KEYS", "HUB_SIGNING_KEYS_FILE"]
    assert not data_dir.exists()


def test_a_database_that_is_away_is_one_line(data_dir: Path) -> None:
    ended = run(data_dir, "migrate", HUB_DATABASE_URL="postgresql://hub:secret@127.0.0.1:1/hub", HUB_ENV="development")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "127.0.0.1:1" in ended.stderr
    assert "secret" not in ended.stderr
