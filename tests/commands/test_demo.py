"""`hub demo`, end to end, on the real flights."""

from pathlib import Path

import pytest

from tests.commands.hubs import run


@pytest.mark.slow
def test_the_demo_ends_with_real_flights_and_may_be_run_again(data_dir: Path) -> None:
    for _ in range(2):
        ended = run(data_dir, "demo")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "N14228" in ended.stdout
        assert "403 permission_missing" in ended.stdout
        assert "authentication_failed" in ended.stdout
    assert "is loaded already" in ended.stdout


def test_the_demo_needs_the_embedded_database(data_dir: Path) -> None:
    url = "postgresql://hub:secret@127.0.0.1:1/hub"
    ended = run(data_dir, "demo", HUB_DATABASE_URL=url, HUB_ENV="development")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
