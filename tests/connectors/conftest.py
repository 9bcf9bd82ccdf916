"""Which of these tests a plain `pytest` leaves to `just test-connectors` and CI: those of most single types."""

import pytest

from tests.connectors.types import IN_EVERY_RUN, KINDS

TYPES = {name.partition("__")[0] for name in KINDS} - IN_EVERY_RUN | {"object_store", "parquet_rows", "signed_store"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem.removeprefix("test_") in TYPES:
            item.add_marker("types")
