"""`hub demo`, end to end, on the real flights."""

from pathlib import Path

import pytest

from app.commands.places import WRITTEN
from tests.commands.hubs import Serve, run


@pytest.mark.slow
def test_the_demo_ends_with_real_flights_and_may_be_run_again(data_dir: Path) -> None:
    for _ in range(2):
        ended = run(data_dir, "demo")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "N14228" in ended.stdout
        assert "403 permission_missing" in ended.stdout
        assert "authentication_failed" in ended.stdout
    assert "is loaded already" in ended.stdout


@pytest.mark.slow
@pytest.mark.found("U9")
@pytest.mark.parametrize("public_url", ["", "https://hub.example.org/hub"])
def test_the_demo_finds_the_hub_that_runs_whatever_its_port_and_public_name(
    data_dir: Path, serve: Serve, public_url: str
) -> None:
    hub = serve(data_dir, HUB_PUBLIC_URL=public_url)
    ended = run(data_dir, "demo")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"the hub runs at {hub.url}" in ended.stdout
    assert f"{public_url or hub.url}/docs" in ended.stdout
    hub.stop()
    assert not (data_dir / WRITTEN).exists()


def test_the_demo_needs_the_embedded_database(data_dir: Path) -> None:
    url = "postgresql://hub:secret@127.0.0.1:1/hub"
    ended = run(data_dir, "demo", HUB_DATABASE_URL=url, HUB_ENV="development")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
