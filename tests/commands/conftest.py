"""Data folders, and hubs that are ended when their test has."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.hubs import Serve, Served, fresh_folder, run


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with fresh_folder() as folder:
        yield folder


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts hubs, and ends what is left of them."""
    started: list[Served] = []

    def start(data_dir: Path, **variables: str) -> Served:
        started.append(Served(data_dir, **variables))
        return started[-1]

    yield start
    for hub in started:
        if hub.process.poll() is None:
            hub.stop()


@pytest.fixture(scope="module")
def used_folder() -> Iterator[Path]:
    """A data folder with a migrated database that nobody works on."""
    with fresh_folder() as folder:
        ended = run(folder, "migrate")
        assert ended.returncode == 0, ended.stderr
        yield folder
